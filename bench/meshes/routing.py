"""Model the routes from a caller's sidecar to a service, the same for all meshes. Pure.

Routes are ordered, and the first that matches a request is used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.application.model import Application, Service, Workload


@dataclass(frozen=True, slots=True)
class Condition:
    """A value, or the prefix of a value, that a path or header must have."""

    kind: Literal["exact", "prefix"]
    text: str

    def matches(self, value: str | None) -> bool:
        """Return whether a value fulfils the condition; None, for a missing value, never does."""
        if value is None:
            return False
        return value == self.text if self.kind == "exact" else value.startswith(self.text)


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a share `weight` of a route's requests is sent: to `cluster`, in which one of `workloads` of `service`
    responds."""

    cluster: str
    service: Service
    workloads: tuple[Workload, ...]
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Route:
    """A route for requests that fulfil all conditions to `destinations`, each of which gets its share of them.

    `origin` names the route of the manifests as Envoy's configuration does; it is empty for the default route. Of
    requests that it `answers`, some get no response of a destination but the proxy's own.
    """

    destinations: tuple[Destination, ...]
    path: Condition | None = None
    headers: tuple[tuple[str, Condition], ...] = ()
    origin: str = ""
    answers: bool = False

    @property
    def is_split(self) -> bool:
        """Whether chance decides which destination responds."""
        return len(self.destinations) > 1

    def matches(self, path: str, headers: Mapping[str, str]) -> bool:
        """Return whether a request fulfils all conditions; names of headers are in lower case."""
        if self.path is not None and not self.path.matches(path):
            return False
        return all(condition.matches(headers.get(name)) for name, condition in self.headers)


def find_route(routes: Sequence[Route], application: Application, *, path: str, user: str = "") -> Route | None:
    """Return the route of a request that the application sends for `user`; an empty name means without a login."""
    headers = {application.user_header: user} if user else {}
    return next((route for route in routes if route.matches(path, headers)), None)


def list_users(routes: Sequence[Route], application: Application) -> tuple[str, ...]:
    """Return the users whose requests use all routes, the empty name (without a login) first."""
    header = application.user_header
    names = (condition.text for route in routes for name, condition in route.headers if name == header)
    return tuple(dict.fromkeys(("", *names)))


def is_provable(route: Route, routes: Sequence[Route], application: Application, app: str) -> bool:
    """Return whether a request of the application to `app` uses the route."""
    users = list_users(routes, application)
    return any(
        find_route(routes, application, path=one.path, user=user) is route
        for one in application.requests_of(app)
        for user in users
    )


def clusters_to(routes: Sequence[Route], workload: Workload) -> tuple[str, ...]:
    """Return the clusters in which requests that reach a workload are counted, each once."""
    every = (one for route in routes for one in route.destinations)
    return tuple(dict.fromkeys(one.cluster for one in every if workload in one.workloads))
