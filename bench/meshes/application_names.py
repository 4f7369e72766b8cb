"""Move an application's own objects into the namespaces of a run, with the names of its Services. Pure.

A program finds other services by names such as `api.shop` in its environment, its arguments, or a ConfigMap. A name of
an own Service in one of the application's namespaces gets the run's namespace. Any other mention of a namespace is left
as it is, and reported.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from bench.application.model import Application
from bench.application.objects import TEMPLATES
from bench.errors import Problem
from bench.files.yaml_source import Document, Loc, format_path
from bench.meshes.rewriting import (
    ANY_OBJECT,
    HOST,
    NAMESPACE,
    Moved,
    Namespaces,
    Object,
    Places,
    Rewrite,
    move_object,
    replace_text,
)

_SELECTED: Final = "namespaceSelector matchLabels kubernetes.io/metadata.name"
_PLACES: Final[Mapping[str, Places]] = {
    "RoleBinding": {"subjects * namespace": NAMESPACE},
    "NetworkPolicy": {
        f"spec ingress * from * {_SELECTED}": NAMESPACE,
        f"spec egress * to * {_SELECTED}": NAMESPACE,
    },
    "Service": {"spec externalName": HOST},
}
_READ_BY_PROGRAMS: Final = ("args", "command", "env", "lifecycle", "livenessProbe", "readinessProbe", "startupProbe")
_BALANCED: Final = frozenset(
    {
        "allocateLoadBalancerNodePorts",
        "externalTrafficPolicy",
        "healthCheckNodePort",
        "loadBalancerClass",
        "loadBalancerIP",
        "loadBalancerSourceRanges",
    }
)
_SERVICE: Final = "service"  # the kind of name in a list of rewrites


def move_application(application: Application, documents: Iterable[Document], names: Namespaces) -> tuple[Moved, ...]:
    """Return the objects of the application that are deployed, in the run's namespaces: its versions, and where those
    are several the Service of each."""
    own = OwnNames.read(application)
    return tuple(own.move(one, names) for one in documents if application.deploys(one.value))


def find_mentions(application: Application, documents: Iterable[Document], names: Namespaces) -> tuple[Problem, ...]:
    """Return where programs of the application are given the name of a namespace that a run does not rewrite."""
    own = OwnNames.read(application)
    return tuple(
        problem for one in documents if application.deploys(one.value) for problem in own.find_mentions(one, names)
    )


@dataclass(frozen=True, slots=True)
class OwnNames:
    """The names by which programs of an application call its Services: `SERVICE.NAMESPACE`, and with `.svc` and the
    cluster's domain; `pattern` finds them, if there are any, and `mention` the names of its namespaces."""

    services: frozenset[tuple[str, str]]
    pattern: re.Pattern[str] | None
    mention: re.Pattern[str]

    @staticmethod
    def read(application: Application) -> "OwnNames":
        """Return the names of the Services in an application as it is written."""
        home = application.namespace
        services = frozenset((one.name, one.workload.namespace or home) for one in application.services)
        names, spaces = ({re.escape(one[index]) for one in services} for index in (0, 1))
        pattern = None
        if services:
            end = r"(?P<svc>\.svc(?![\w-]))|(?![\w-]|\.\w)"
            pattern = re.compile(rf"(?<![\w-])(?P<name>{'|'.join(names)})\.(?P<space>{'|'.join(spaces)})(?:{end})")
        # A namespace that is called as something else, too, is meant only as a part of a name.
        taken = {"default", *(one.name for one in application.services), *(one.app for one in application.workloads)}
        mentions = [rf"{'[.]' if one in taken else ''}{re.escape(one)}" for one in application.spaces]
        return OwnNames(services, pattern, re.compile(rf"(?<![\w-])(?:{'|'.join(mentions)})(?![\w-])"))

    def move(self, document: Document, names: Namespaces) -> Moved:
        """Return an object in the run's namespaces, with the run's names of Services."""
        places = {**ANY_OBJECT, **_PLACES.get(document.value["kind"], {})}
        moved = _limit_service(move_object(document, names, places))
        for loc, text in _find_texts(moved.value):
            found = [one for one in self._find_names(text) if names.of(one["space"]) != one["space"]]
            changed = text
            for one in reversed(found):
                changed = f"{changed[: one.start('space')]}{names.of(one['space'])}{changed[one.end('space') :]}"
            if found:
                made = (_make_rewrite(document, loc, one, names) for one in found)
                value = replace_text(moved.value, loc, changed)
                moved = replace(moved, value=value, rewrites=(*moved.rewrites, *dict.fromkeys(made)))
        return moved

    def find_mentions(self, document: Document, names: Namespaces) -> Iterator[Problem]:
        """Yield the texts of an object that name a namespace of the application in another way."""
        for loc, text in _find_texts(document.value):
            rest = text
            for found in reversed(self._find_names(text)):
                rest = f"{rest[: found.start()]}{rest[found.end() :]}"
            if (mention := self.mention.search(rest)) and names.of(mention[0].lstrip(".")) != mention[0].lstrip("."):
                space = mention[0].lstrip(".")
                message = f"mentions the namespace {space}, which has another name in a run and is not rewritten here"
                yield document.problem(loc, message)

    def _find_names(self, text: str) -> list[re.Match[str]]:
        """Return the names of own Services in a text; behind a dot, as of one pod, only those that end in `.svc`."""
        found = self.pattern.finditer(text) if self.pattern else ()
        return [
            one
            for one in found
            if (one["name"], one["space"]) in self.services
            and (one["svc"] or text[one.start() - 1 : one.start()] != ".")
        ]


def _make_rewrite(document: Document, loc: Loc, found: re.Match[str], names: Namespaces) -> Rewrite:
    written, own = found[0], f"{found['name']}.{names.of(found['space'])}{found['svc'] or ''}"
    return Rewrite(document.file, document.line_of(loc), format_path(loc), _SERVICE, written, own)


def _find_texts(thing: Object) -> Iterator[tuple[Loc, str]]:
    """Yield the texts of an object that its programs read: of containers, and of ConfigMaps."""
    if thing["kind"] == "ConfigMap":
        yield from ((("data", key), text) for key, text in (thing.get("data") or {}).items() if isinstance(text, str))
    spec_loc = TEMPLATES.get(thing["kind"])
    if spec_loc is None:
        return
    spec: Any = thing
    for key in (*spec_loc, "spec"):
        spec = spec[key]
    for kind in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(kind) or ()):
            for key in _READ_BY_PROGRAMS:
                yield from _walk(container.get(key), (*spec_loc, "spec", kind, index, key))


def _walk(value: Any, loc: Loc) -> Iterator[tuple[Loc, str]]:
    if isinstance(value, str):
        yield loc, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        if key not in ("name", "valueFrom"):  # of a variable
            yield from _walk(part, (*loc, key))


def _limit_service(moved: Moved) -> Moved:
    """Return a Service that nothing outside of the cluster reaches: a load balancer would have an address in public."""
    thing = moved.value
    if thing["kind"] != "Service" or (thing.get("spec") or {}).get("type") != "LoadBalancer":
        return moved
    ports = [
        {key: value for key, value in one.items() if key != "nodePort"} for one in thing["spec"].get("ports") or ()
    ]
    kept = {key: value for key, value in thing["spec"].items() if key not in _BALANCED}
    loc: Loc = ("spec", "type")
    file, line = moved.document.file, moved.document.line_of(loc)
    rewrite = Rewrite(file, line, format_path(loc), "type of Service", "LoadBalancer", "ClusterIP")
    value = {**thing, "spec": {**kept, "type": "ClusterIP", "ports": ports}}
    return replace(moved, value=value, rewrites=(*moved.rewrites, rewrite))
