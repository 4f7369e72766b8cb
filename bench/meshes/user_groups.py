"""Find the user groups of a load: who gets which version of a service, by the routes of a mesh."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.application.model import Application
from bench.errors import InputError
from bench.meshes.protocols import Policies
from bench.meshes.routing import Route, find_route, list_users


@dataclass(frozen=True, slots=True)
class UserGroup:
    """Users who get the same `versions` of the services that have several.

    They log in as `user`; an empty name means all other users. For services in `either`, chance decides the version of
    each request.
    """

    user: str
    versions: Mapping[str, str] = field(hash=False)
    either: tuple[str, ...] = ()

    @property
    def request(self) -> str:
        """Return the name of their requests in the load, used if there is more than one user group."""
        return f"page as {self.user or 'others'}"

    @property
    def title(self) -> str:
        """Their versions, for people: `NAME v2`."""
        known = (f"{name} {version}" for name, version in sorted(self.versions.items()))
        return ", ".join([*known, *(f"any {name}" for name in self.either)])


def user_groups_of(
    policies: Policies | None, application: Application, *, complete: bool = True
) -> tuple[UserGroup, ...]:
    """Return all user groups, users without a login first. `policies` are None without a mesh, and not `complete` where
    manifests are untranslated: then users may get any version that no known route chooses.

    Raises InputError if complete policies do not determine which version a group gets.
    """
    try:
        return _find_groups(policies, application)
    except InputError:
        if complete:
            raise
        return (UserGroup("", application.versions, either=application.versioned),)


def _find_groups(policies: Policies | None, application: Application) -> tuple[UserGroup, ...]:
    routes = {app: _read_routes(policies, application, app) for app in application.versioned}
    users = dict.fromkeys(user for known in routes.values() for user in list_users(known, application))
    return tuple(_make_group(user, routes, application) for user in users or [""])


def _make_group(user: str, routes: Mapping[str, Sequence[Route]], application: Application) -> UserGroup:
    found = {app: _find_version(some, application, app, user) for app, some in routes.items()}
    known = {app: version for app, version in found.items() if version is not None}
    either = tuple(app for app, version in found.items() if version is None)
    return UserGroup(user, {**application.versions, **known}, either)


def _read_routes(policies: Policies | None, application: Application, app: str) -> Sequence[Route]:
    """Return the routes to a service with several versions, from the first workload that calls it."""
    if policies is None:
        problem = f"{_format_versions(application, app)}, and without a mesh there are no routes"
        raise InputError(f"{problem}; hint: deploy one version, or name a mesh")
    service = application.service(app)
    callers = application.callers(service.workload.name) or (application.service(application.entry).workload,)
    return policies.routes(application, caller=callers[0], service=service)


def _find_version(routes: Sequence[Route], application: Application, app: str, user: str) -> str | None:
    """Return the version that a user gets; None where the weights of a route leave it to chance."""
    route = find_route(routes, application, path=application.path_of(app), user=user)
    who = f"of {user}" if user else "of users without a login"
    if route is None:
        raise InputError(f"no route matches the requests {who}; hint: add one without conditions")
    if any(len(one.workloads) > 1 for one in route.destinations):
        raise InputError(f"{_format_versions(application, app)}, and no route selects the one for the requests {who}")
    versions = {one.version for to in route.destinations for one in to.workloads}
    return versions.pop() if len(versions) == 1 else None


def _format_versions(application: Application, app: str) -> str:
    versions = (workload.version for workload in application.workloads if workload.app == app)
    return f"{app} {', '.join(versions)} are deployed"
