"""Where a caller's sidecar sends requests to a service, for every mesh alike: ways in an order, the first that takes a
request counts. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from bench.application.model import ENDPOINTS, Service, Workload

USER: Final = "end-user"  # the header in which productpage tells the other services who has logged in


@dataclass(frozen=True, slots=True)
class Condition:
    """What a path or a header has to be, or to begin with."""

    kind: Literal["exact", "prefix"]
    text: str

    def holds(self, value: str | None) -> bool:
        """Whether a value is meant; None where there is none."""
        if value is None:
            return False
        return value == self.text if self.kind == "exact" else value.startswith(self.text)


@dataclass(frozen=True, slots=True)
class Way:
    """Requests that fulfil all conditions go to `cluster`, where one of `workloads` of `service` answers.

    `origin` says which route of the manifests it is from, as far as that is in Envoy's configuration; empty for the
    way that is there without any.
    """

    cluster: str
    service: Service
    workloads: tuple[Workload, ...]
    path: Condition | None = None
    headers: tuple[tuple[str, Condition], ...] = ()
    origin: str = ""

    def takes(self, path: str, headers: Mapping[str, str]) -> bool:
        """Whether a request goes this way, if none before has taken it; names of headers are in lower case."""
        if self.path is not None and not self.path.holds(path):
            return False
        return all(condition.holds(headers.get(name)) for name, condition in self.headers)


def way_of(ways: Sequence[Way], *, path: str, user: str = "") -> Way | None:
    """The way of a request that the application sends for `user`, empty for somebody who has not logged in."""
    headers = {USER: user} if user else {}
    return next((way for way in ways if way.takes(path, headers)), None)


def users_in(ways: Sequence[Way]) -> tuple[str, ...]:
    """Who has to log in so that each way is gone: nobody (an empty name) first."""
    named = (condition.text for way in ways for name, condition in way.headers if name == USER)
    return tuple(dict.fromkeys(("", *named)))


def usual_path(app: str) -> str:
    """What the application asks a part of it."""
    return next(iter(ENDPOINTS[app]))[1]


def is_shown(way: Way, ways: Sequence[Way], app: str) -> bool:
    """Whether some request of the application to `app` goes this way."""
    return any(way_of(ways, path=path, user=user) is way for _, path in ENDPOINTS[app] for user in users_in(ways))


def clusters_to(ways: Sequence[Way], workload: Workload) -> tuple[str, ...]:
    """The clusters in which requests that reach a workload are counted, each once."""
    return tuple(dict.fromkeys(way.cluster for way in ways if workload in way.workloads))
