"""What both targets ask a gateway: that each of its routes leads to a service, and that nothing else does."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bench.meshes.application import Gateway
from bench.proofs import routed_evidence, unrouted_evidence
from bench.records import Evidence
from bench.targets.asking import Answer

FRONT: Final = "gateway-front"  # a delegated gateway's own proxy; its sidecar has the gateway's name

# The first that no route takes is asked for. Productpage answers 200 to the first of them.
_ELSEWHERE: Final = ("/health", "/meshbench")


@dataclass(frozen=True, slots=True)
class RouteQuestion:
    """A path to ask the gateway for; `routed` says whether a route takes it."""

    path: str
    routed: bool

    def judge(self, answer: Answer) -> Evidence:
        """What the answer proves."""
        evidence = routed_evidence if self.routed else unrouted_evidence
        return evidence(self.path, status=answer.status, headers=answer.headers)


def route_questions(gateway: Gateway) -> Iterator[RouteQuestion]:
    """The path of every route, and one of nobody's, if there is one."""
    for path in dict.fromkeys(route.path for route in gateway.routes):
        yield RouteQuestion(path, routed=True)
    free = [path for path in _ELSEWHERE if gateway.route(path) is None]
    if free:
        yield RouteQuestion(free[0], routed=False)
