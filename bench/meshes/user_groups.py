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

    They log in as `user`; an empty name means all other users.
    """

    user: str
    versions: Mapping[str, str] = field(hash=False)

    @property
    def request(self) -> str:
        """Return the name of their requests in the load, used if there is more than one user group."""
        return f"page as {self.user or 'others'}"

    @property
    def title(self) -> str:
        """Their versions, for people: `NAME v2`."""
        return ", ".join(f"{name} {version}" for name, version in sorted(self.versions.items()))


def user_groups_of(policies: Policies | None, application: Application) -> tuple[UserGroup, ...]:
    """Return all user groups, users without a login first. `policies` are None without a mesh.

    Raises InputError if it is not determined which version a group gets.
    """
    routes = {app: _read_routes(policies, application, app) for app in application.versioned}
    users = dict.fromkeys(user for known in routes.values() for user in list_users(known, application))
    return tuple(
        UserGroup(
            user,
            {**application.versions, **{app: _find_version(routes[app], application, app, user) for app in routes}},
        )
        for user in users or [""]
    )


def _read_routes(policies: Policies | None, application: Application, app: str) -> Sequence[Route]:
    """Return the routes to a service with several versions, from the first workload that calls it."""
    if policies is None:
        problem = f"{_format_versions(application, app)}, and without a mesh there are no routes"
        raise InputError(f"{problem}; hint: deploy one version, or name a mesh")
    service = application.service(app)
    callers = application.callers(service.workload.name) or (application.service(application.entry).workload,)
    return policies.routes(application, caller=callers[0], service=service)


def _find_version(routes: Sequence[Route], application: Application, app: str, user: str) -> str:
    route = find_route(routes, application, path=application.path_of(app), user=user)
    who = f"of {user}" if user else "of users without a login"
    if route is None:
        raise InputError(f"no route matches the requests {who}; hint: add one without conditions")
    if len(route.workloads) > 1:
        versions = _format_versions(application, app)
        raise InputError(f"{versions}, and no route selects the one for the requests {who}")
    return route.workloads[0].version


def _format_versions(application: Application, app: str) -> str:
    versions = (workload.version for workload in application.workloads if workload.app == app)
    return f"{app} {', '.join(versions)} are deployed"
