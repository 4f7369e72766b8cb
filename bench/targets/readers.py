"""Who asks for pages, and which version of reviews each has to see: what several versions and a mesh's routes make of
the load."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from bench.errors import InputError
from bench.meshes import Mesh, Policies
from bench.meshes.application import Application
from bench.meshes.routes import Way, users_in, usual_path, way_of
from bench.proofs import Hop
from bench.records import Evidence
from bench.samples import Samples
from bench.targets.asking import Answer

SERIES: Final = 100  # pages of each kind of reader that are looked at for a proof
LOGIN: Final = "login"  # the name of the requests by which users log in; they are no pages
_REVIEWS: Final = "reviews"
_BEHIND_THE_PAGE: Final = ("productpage", _REVIEWS)


@dataclass(frozen=True, slots=True)
class Reader:
    """Users who get pages with one version of `reviews`: those who log in as `user`; an empty name means all others."""

    user: str
    reviews: str

    @property
    def request(self) -> str:
        """What the load calls their requests, where there is more than one kind of reader."""
        return f"page as {self.user or 'others'}"


def readers_of(mesh: Mesh | None, policies: Policies, application: Application) -> tuple[Reader, ...]:
    """Every kind of reader, the one who has not logged in first; without a mesh there are no policies.

    Raises InputError where it is open which version a reader gets.
    """
    versions = [workload.version for workload in application.workloads if workload.app == _REVIEWS]
    if len(versions) == 1:
        return (Reader("", versions[0]),)
    if mesh is None:
        raise InputError(f"{_open(versions)}, and without a mesh nobody routes: deploy one version, or name a mesh")
    caller, service = application.workload("productpage"), application.service(_REVIEWS)
    ways = mesh.ways(policies, application, caller=caller, service=service)
    return tuple(Reader(user, _version(ways, user, versions)) for user in users_in(ways))


def pages_evidence(reader: Reader, answers: Sequence[Answer], *, count: int = SERIES) -> Evidence:
    """Every one of `count` pages shows the version that this reader has to see."""
    problems = [problem for answer in answers if (problem := answer.page_problem(reader.reviews))]
    right = len(answers) - len(problems)
    return Evidence(
        name="pages",
        subject=reader.request,
        ok=right == count and not problems,
        expected=f"{count} of {count} with reviews {reader.reviews}",
        seen=f"{right} of {count} with reviews {reader.reviews}" + (f"; {problems[0]}" if problems else ""),
    )


def requests_on(
    hops: Sequence[Hop], application: Application, *, readers: Sequence[Reader], samples: Samples
) -> dict[Hop, int]:
    """How many requests a load has to leave on each hop, by the names of its own requests."""
    numbers = np.bincount(samples.name, minlength=len(samples.names)).tolist()
    counted = Counter[str](dict(zip(samples.names, numbers, strict=True)))
    pages = Counter[str]()
    seen = {reader.request: reader.reviews for reader in readers}
    for name, count in counted.items():
        if name != LOGIN:
            pages[seen.get(name, readers[0].reviews)] += count
    return {hop: _expected(hop, application, pages, logins=counted[LOGIN]) for hop in hops}


def _expected(hop: Hop, application: Application, pages: Mapping[str, int], *, logins: int) -> int:
    caller, callee = application.workload(hop.caller), application.workload(hop.callee)
    if caller.app not in _BEHIND_THE_PAGE:
        return sum(pages.values()) + logins
    version = next((one.version for one in (caller, callee) if one.app == _REVIEWS), None)
    return sum(pages.values()) if version is None else pages.get(version, 0)


def _version(ways: Sequence[Way], user: str, versions: Sequence[str]) -> str:
    way = way_of(ways, path=usual_path(_REVIEWS), user=user)
    who = f"of {user}" if user else "of somebody who has not logged in"
    if way is None:
        raise InputError(f"no route takes the requests {who}: add one without conditions")
    if len(way.workloads) > 1:
        raise InputError(f"{_open(versions)}, and no route says which one gets the requests {who}")
    return way.workloads[0].version


def _open(versions: Sequence[str]) -> str:
    return f"reviews {', '.join(versions)} are deployed"
