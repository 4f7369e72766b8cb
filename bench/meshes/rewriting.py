"""Rewrite manifests for the namespaces and the mesh of a run: only where a mesh's table says that a name stands. Pure.

A place is a path in an object with the kind of name that it holds. Whatever else has the same letters stays as it is:
an application in the namespace `default` may be in a mesh that is called `default`, too.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from bench.files.yaml_source import Document, Loc, format_path

Object = dict[str, Any]

OUTSIDE: Final = "-outside"  # the end of the name of the namespace outside the mesh

_SPIFFE_NAMESPACE: Final = re.compile(r"(?<=/ns/)[^/*]+(?=/|$)")
# `api.shop`, and with `.svc` any name below the namespace; a port may follow.
_HOST: Final = re.compile(r"([^.:]+\.)([^.:]+)((?::.*)?)|((?:[^.:]+\.)+)([^.:]+)(\.svc(?:[.:].*)?)")


@dataclass(frozen=True, slots=True)
class Namespaces:
    """The namespaces of a run by those that manifests name, first that of manifests that name none. Any other namespace
    stays as it is written.

    `run_mesh` names the part of a mesh that belongs to the run, or to one configuration of several that are deployed
    side by side: no object of it may affect the whole mesh. It is empty if the mesh belongs to the run as a whole, with
    one configuration at a time.
    """

    runs: Mapping[str, str] = field(hash=False)
    run_mesh: str = ""

    def of(self, written: str) -> str:
        """Return the run's namespace for one that manifests name."""
        return self.runs.get(written, written)

    @property
    def home(self) -> str:
        """The run's namespace of manifests that name none."""
        return next(iter(self.runs.values()))

    @property
    def outside(self) -> str:
        """The namespace of the run's pod outside the mesh."""
        return f"{self.home}{OUTSIDE}"


def keep_namespaces(*written: str) -> Namespaces:
    """Return the map in which every namespace is the one that is written."""
    return Namespaces({one: one for one in written})


@dataclass(frozen=True, slots=True)
class Place:
    """A kind of name in manifests, as people call it, and what a run makes of a text that has such a name."""

    name: str
    change: Callable[[str, Namespaces], str]


# A table of places by path: keys and indexes, separated by spaces; `*` is every item of a list or a mapping.
Places = Mapping[str, Place]


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One text of a manifest that differs in a run; `written` is empty where the manifest has none."""

    file: str
    line: int
    path: str
    kind: str
    written: str
    runs: str


@dataclass(frozen=True, slots=True)
class Moved:
    """An object of a manifest as a run applies it, and what differs from the manifest."""

    document: Document
    value: Object
    rewrites: tuple[Rewrite, ...] = ()

    def put(self, loc: Loc, place: Place, text: str) -> "Moved":
        """Return the object with this text at `loc`, where the manifest may have none."""
        written = _read(self.value, loc)
        if written == text:
            return self
        rewrite = Rewrite(
            self.document.file, self.document.line_of(loc), format_path(loc), place.name, written or "", text
        )
        return replace(self, value=replace_text(self.value, loc, text), rewrites=(*self.rewrites, rewrite))

    def put_all(self, loc: Loc, place: Place, texts: Sequence[str]) -> "Moved":
        """Return the object with a list of these texts at `loc`, where the manifest may have none."""
        written = _read(self.value, loc) or ()
        file, line, path = self.document.file, self.document.line_of(loc), format_path(loc)
        rewrite = Rewrite(file, line, path, place.name, ", ".join(written), ", ".join(texts))
        return replace(self, value=replace_text(self.value, loc, [*texts]), rewrites=(*self.rewrites, rewrite))


def rewrite_object(document: Document, places: Places, names: Namespaces) -> Moved:
    """Return the object with the run's names in its places."""
    moved = Moved(document, document.value)
    for path, place in places.items():
        for loc, text in find_texts(document.value, path):
            moved = moved.put(loc, place, place.change(text, names))
    return moved


def find_texts(value: Any, path: str) -> Iterator[tuple[Loc, str]]:
    """Yield the texts of an object at a path as in `Places`, with their positions."""
    yield from _find_texts(value, path.split())


def _find_texts(value: Any, path: list[str], loc: Loc = ()) -> Iterator[tuple[Loc, str]]:
    if not path:
        if isinstance(value, str):
            yield loc, value
        return
    step, *rest = path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        if step in ("*", str(key)):
            yield from _find_texts(part, rest, (*loc, key))


def _read(value: Any, loc: Loc) -> Any:
    for step in loc:
        value = value.get(step) if isinstance(value, dict) else value[step]
        if value is None:
            return None
    return value


def replace_text(value: Any, loc: Loc, text: Any) -> Any:
    """Return a copy of a part of an object with this text, or list of texts, at `loc`."""
    if not loc:
        return text
    step, *rest = loc
    if isinstance(value, list):
        return [replace_text(part, tuple(rest), text) if index == step else part for index, part in enumerate(value)]
    return {**(value or {}), step: replace_text((value or {}).get(step), tuple(rest), text)}


def _change_identity(text: str, names: Namespaces) -> str:
    return _SPIFFE_NAMESPACE.sub(lambda found: names.of(found[0]), text)


def _change_host(text: str, names: Namespaces) -> str:
    found = _HOST.fullmatch(text)
    if found is None:
        return text
    before, namespace, after = (one for one in found.groups() if one is not None)
    return f"{before}{names.of(namespace)}{after}"


def _change_reference(text: str, names: Namespaces) -> str:
    namespace, slash, name = text.partition("/")
    return f"{names.of(namespace)}/{name}" if slash else text


NAMESPACE: Final = Place("namespace", lambda text, names: names.of(text))
IDENTITY: Final = Place("identity", _change_identity)  # TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT
HOST: Final = Place("host", _change_host)  # SERVICE.NAMESPACE.svc.cluster.local
REFERENCE: Final = Place("reference", _change_reference)  # NAMESPACE/NAME
NAME: Final = Place("name", lambda text, _: text)


def _change_url(text: str, names: Namespaces) -> str:
    scheme, found, rest = text.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{found}{_change_host(host, names)}{slash}{path}"


URL: Final = Place("URL", _change_url)  # http://SERVICE.NAMESPACE.svc.cluster.local:8080/keys

_ROUTES: Final = ("GRPCRoute", "HTTPRoute", "TCPRoute", "TLSRoute", "UDPRoute")
_ROUTE: Final[Places] = {
    "spec hostnames *": HOST,
    "spec parentRefs * namespace": NAMESPACE,
    "spec rules * backendRefs * namespace": NAMESPACE,
    "spec rules * backendRefs * filters * requestMirror backendRef namespace": NAMESPACE,
    "spec rules * filters * requestMirror backendRef namespace": NAMESPACE,
}
_NAMED: Final = "namespaceSelector matchLabels kubernetes.io/metadata.name"

# The places of kinds that every mesh may have: the Gateway API's, and those of the core that policies need.
COMMON_PLACES: Final[Mapping[str, Places]] = {
    **dict.fromkeys(_ROUTES, _ROUTE),
    "Gateway": {
        "spec listeners * hostname": HOST,
        "spec listeners * tls certificateRefs * namespace": NAMESPACE,
        "spec listeners * allowedRoutes namespaces selector matchLabels kubernetes.io/metadata.name": NAMESPACE,
    },
    "ReferenceGrant": {"spec from * namespace": NAMESPACE},
    "BackendTLSPolicy": {"spec validation hostname": HOST},
    "NetworkPolicy": {f"spec ingress * from * {_NAMED}": NAMESPACE, f"spec egress * to * {_NAMED}": NAMESPACE},
    "RoleBinding": {"subjects * namespace": NAMESPACE},
    "Service": {"spec externalName": HOST},
}

_PARENTS: Final[Places] = {"spec parentRefs * namespace": NAMESPACE}
# The places in which an object names what it changes elsewhere.
COMMON_ATTACHED: Final[Mapping[str, Places]] = dict.fromkeys(_ROUTES, _PARENTS)

# The places of an object that no mesh reads.
ANY_OBJECT: Final[Places] = {"metadata namespace": NAMESPACE}


def move_object(document: Document, names: Namespaces, places: Places = ANY_OBJECT) -> Moved:
    """Return an object of a namespace with the run's names in its places, and its namespace where it names none."""
    moved = rewrite_object(document, places, names)
    if moved.value["metadata"].get("namespace"):
        return moved
    return moved.put(("metadata", "namespace"), NAMESPACE, names.home)
