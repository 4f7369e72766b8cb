"""Which kinds of objects an API server has, and under which paths."""

import json
from dataclasses import dataclass
from typing import Any

from bench.errors import ClusterError
from bench.targets.kubernetes.client_connection import Connection, Request

_NOT_FOUND = 404


@dataclass(frozen=True)
class KindInfo:
    """A kind that the API server knows. `verbs`: what it can do with it, whether or not we may."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool
    verbs: frozenset[str]

    @property
    def group(self) -> str:
        return self.api_version.partition("/")[0] if "/" in self.api_version else ""

    def path(self, namespace: str = "", name: str = "") -> str:
        """Of the collection, or of one object in it."""
        parts = [root(self.api_version)]
        if self.namespaced and namespace:
            parts.append(f"namespaces/{namespace}")
        return "/".join([*parts, self.plural, *([name] if name else [])])


def root(api_version: str) -> str:
    """The path below which a group's version is served."""
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


class Discovery:
    """What one API server serves. Kinds found once are remembered; kinds not found are asked for again."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: dict[tuple[str, str], KindInfo] = {}

    def find(self, api_version: str, kind: str) -> KindInfo | None:
        """None if the server does not know the kind."""
        if (api_version, kind) not in self._known:
            try:
                self._known |= {(one.api_version, one.kind): one for one in self._kinds_of(api_version)}
            except ClusterError as error:
                if error.status != _NOT_FOUND:
                    raise
        return self._known.get((api_version, kind))

    def all(self) -> tuple[tuple[KindInfo, ...], tuple[str, ...]]:
        """Every kind once (in its group's preferred version, if it is there), and the APIs that did not answer."""
        kinds: dict[tuple[str, str], KindInfo] = {}
        broken = []
        for api_version in self._api_versions():
            try:
                found = self._kinds_of(api_version, patience_s=0)
            except ClusterError as error:
                if error.status in (0, 401, 403):
                    raise
                broken.append(f"{api_version}: {error}")
                continue
            for one in found:
                kinds.setdefault((one.group, one.kind), one)
        return tuple(kinds.values()), tuple(broken)

    def _api_versions(self) -> list[str]:
        groups = self._read("/apis")["groups"]
        preferred = [group["preferredVersion"]["groupVersion"] for group in groups]
        others = [version["groupVersion"] for group in groups for version in group["versions"]]
        return list(dict.fromkeys(["v1", *preferred, *others]))

    def _kinds_of(self, api_version: str, patience_s: float | None = None) -> tuple[KindInfo, ...]:
        resources = self._read(root(api_version), patience_s).get("resources", ())
        return tuple(kind_info(api_version, one) for one in resources if "/" not in one["name"])

    def _read(self, path: str, patience_s: float | None = None) -> Any:
        request = Request(f"asking which kinds there are in {path}", "GET", path, patience_s=patience_s)
        return json.loads(self._connection.send(request).body)


def kind_info(api_version: str, resource: dict[str, Any]) -> KindInfo:
    """One entry of an APIResourceList."""
    return KindInfo(
        api_version=api_version,
        kind=resource["kind"],
        plural=resource["name"],
        namespaced=resource["namespaced"],
        verbs=frozenset(resource["verbs"]),
    )
