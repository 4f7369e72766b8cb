"""Find the user groups of a load: who gets which version of a service, by the routes of a mesh."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.application.model import Application
from bench.errors import InputError
from bench.meshes.protocols import Policies
from bench.meshes.routing import Route, default_path, find_route, list_users

REVIEWS: Final = "reviews"


@dataclass(frozen=True, slots=True)
class UserGroup:
    """Users whose pages show one version of `reviews`.

    They log in as `user`; an empty name means all other users.
    """

    user: str
    reviews: str

    @property
    def request(self) -> str:
        """Return the name of their requests in the load, used if there is more than one user group."""
        return f"page as {self.user or 'others'}"


def user_groups_of(policies: Policies | None, application: Application) -> tuple[UserGroup, ...]:
    """Return all user groups, users without a login first. `policies` are None without a mesh.

    Raises InputError if it is not determined which version a group gets.
    """
    versions = [workload.version for workload in application.workloads if workload.app == REVIEWS]
    if len(versions) == 1:
        return (UserGroup("", versions[0]),)
    if policies is None:
        problem = f"{_format_versions(versions)}, and without a mesh there are no routes"
        raise InputError(f"{problem}; hint: deploy one version, or name a mesh")
    caller, service = application.workload("productpage"), application.service(REVIEWS)
    routes = policies.routes(application, caller=caller, service=service)
    return tuple(UserGroup(user, _find_version(routes, user, versions)) for user in list_users(routes))


def _find_version(routes: Sequence[Route], user: str, versions: Sequence[str]) -> str:
    route = find_route(routes, path=default_path(REVIEWS), user=user)
    who = f"of {user}" if user else "of users without a login"
    if route is None:
        raise InputError(f"no route matches the requests {who}; hint: add one without conditions")
    if len(route.workloads) > 1:
        raise InputError(f"{_format_versions(versions)}, and no route selects the one for the requests {who}")
    return route.workloads[0].version


def _format_versions(versions: Sequence[str]) -> str:
    return f"reviews {', '.join(versions)} are deployed"
