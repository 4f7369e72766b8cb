"""Write a first scenario and `application.yaml` from the objects of an application: what they have, and what is to be
decided, as comments. Pure.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from bench.errors import InputError
from bench.files.validation import NAME_PATTERN
from bench.files.yaml_source import Document, value_at
from bench.files.yaml_values import read_strictly
from bench.units import format_counted, format_first

_WORKLOADS: Final = ("Deployment", "StatefulSet", "DaemonSet")
GATEWAY_API: Final = "gateway.networking.k8s.io"
_FRONTS: Final = re.compile(r"front|web|gateway|edge|ui|api|page")
_WEB_PORTS: Final = re.compile(r"http|web|grpc")
_COMMON_PORTS: Final = (80, 8080, 8000, 3000)
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./-]+")
_LISTED: Final = 8


@dataclass(frozen=True, slots=True)
class Found:
    """What the objects of an application have: `entries` are ports of Services, the most likely entry first; `foreign`
    are objects that are no part of an application, such as policies of a mesh."""

    counts: Mapping[str, int]
    workloads: tuple[str, ...]
    entries: tuple[str, ...]
    namespaces: tuple[str, ...]
    ready_path: str
    foreign: tuple[Document, ...]


def inspect_objects(objects: Sequence[Document], domains: Iterable[str]) -> Found:
    """Find what the objects of an application have. `domains` are those of meshes, whose objects are no part of it.

    Raises InputError for a document that is no object, and where no Service has a port.
    """
    wrong = [one.problem((), _NO_OBJECT) for one in objects if not _is_object(one.value)]
    if wrong:
        raise InputError(wrong)
    meshes = tuple(domains)
    foreign = [one for one in objects if _is_foreign(one.value, meshes)]
    own = [one.value for one in objects if not any(one is other for other in foreign)]
    services = [one for one in own if one["kind"] == "Service"]
    entries = _rank_entries(services, own)
    if not entries:
        raise InputError("no Service has a port where a load could enter; hint: add the application's Services")
    return Found(
        counts=Counter(one["kind"] for one in own),
        workloads=tuple(_describe_workload(one) for one in own if one["kind"] in _WORKLOADS),
        entries=entries,
        namespaces=_list_namespaces(own, entries[0]),
        ready_path=_find_ready_path(entries[0], services, own),
        foreign=tuple(foreign),
    )


_NO_OBJECT: Final = "is not a Kubernetes object; kind, apiVersion and metadata are required"


def _is_object(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("kind"), str)
        and isinstance(value.get("apiVersion"), str)
        and isinstance(value_at(value, ("metadata", "name")), str)
    )


def _is_foreign(value: Mapping[str, Any], domains: Sequence[str]) -> bool:
    group = value["apiVersion"].rpartition("/")[0]
    return any(group == one or group.endswith(f".{one}") for one in domains)


def _describe_workload(value: Mapping[str, Any]) -> str:
    replicas = value_at(value, ("spec", "replicas"))
    return f"{value['kind']} {value['metadata']['name']}" + (f" x{replicas}" if replicas not in (None, 1) else "")


def _rank_entries(services: Iterable[Mapping[str, Any]], own: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return SERVICE:PORT of every port, first where users most likely enter: a Service that is reached from outside,
    that no other workload mentions, whose name says so; then a port that is for HTTP."""
    exposed = {name for one in own if one["kind"] == "Ingress" for name in _list_texts(one.get("spec"), "name")}
    ranked = []
    for service in services:
        name = service["metadata"]["name"]
        selector = value_at(service, ("spec", "selector"))
        callers = [one for one in own if one["kind"] in (*_WORKLOADS, "ConfigMap") and not _selects(selector, one)]
        mentioned = any(_mentions(one, name) for one in callers)
        is_exposed = name in exposed or value_at(service, ("spec", "type")) in ("LoadBalancer", "NodePort")
        for place, port in enumerate(_list_ports(service)):
            rank = (not is_exposed, mentioned, not _FRONTS.search(name), *_rank_port(port), place)
            ranked.append((rank, name, f"{name}:{port['port']}"))
    return tuple(entry for _, _, entry in sorted(ranked))


def _rank_port(port: Mapping[str, Any]) -> tuple[bool, bool]:
    spoken = f"{port.get('name', '')} {port.get('appProtocol', '')}".lower()
    return not _WEB_PORTS.search(spoken), port["port"] not in _COMMON_PORTS


def _list_ports(service: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    ports = value_at(service, ("spec", "ports"))
    return [
        one
        for one in (ports if isinstance(ports, list) else [])
        if isinstance(one, dict) and isinstance(one.get("port"), int) and one.get("protocol", "TCP") == "TCP"
    ]


def _selects(selector: object, workload: Mapping[str, Any]) -> bool:
    labels = value_at(workload, ("spec", "template", "metadata", "labels"))
    return isinstance(selector, dict) and isinstance(labels, dict) and selector.items() <= labels.items()


def _mentions(value: object, name: str) -> bool:
    """Check whether a text of an object is an address of a Service of this name."""
    address = re.compile(rf"(?<![\w.-]){re.escape(name)}(?=[:./]|$)")
    return any(address.search(text) for text in _list_texts(value))


def _list_texts(value: object, key: str = "") -> Iterator[str]:
    """Yield every text of a value, or those under a key; names of the objects themselves are left out."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in children:
        if isinstance(child, str) and (name == key if key else name not in ("name", "app", "image", "component")):
            yield child
        elif name not in ("metadata", "selector"):
            yield from _list_texts(child, key)


def _list_namespaces(own: Iterable[Mapping[str, Any]], entry: str) -> tuple[str, ...]:
    """Return the namespaces that objects name, first that of the entry."""
    service = entry.rpartition(":")[0]
    named = [(one["kind"], one["metadata"]["name"], one["metadata"].get("namespace")) for one in own]
    first = [space for kind, name, space in named if kind == "Service" and name == service]
    spaces = [*first, *(space for *_, space in named)]
    return tuple(dict.fromkeys(space for space in spaces if isinstance(space, str)))


def _find_ready_path(entry: str, services: Iterable[Mapping[str, Any]], own: Iterable[Mapping[str, Any]]) -> str:
    """Return the path of a readiness probe of the entry's pods; `/` without one."""
    (selector,) = [
        value_at(one, ("spec", "selector")) for one in services if one["metadata"]["name"] == entry.rpartition(":")[0]
    ][:1]
    for workload in own:
        containers = value_at(workload, ("spec", "template", "spec", "containers"))
        if _selects(selector, workload) and isinstance(containers, list):
            for container in containers:
                path = value_at(container, ("readinessProbe", "httpGet", "path"))
                if isinstance(path, str) and re.fullmatch(r"/[^\s#]*", path):
                    return path
    return "/"


def make_name(folder: str) -> str:
    """Make a valid name of an application from the name of a folder."""
    name = re.sub(r"[^a-z0-9]+", "-", folder.lower()).strip("-")[:40].rstrip("-")
    return name if re.fullmatch(NAME_PATTERN, name) else "application"


def describe_found(found: Found) -> Iterator[str]:
    """Yield what was found, a line each."""
    counts = (format_counted(count, kind) for kind, count in sorted(found.counts.items()))
    yield f"found {', '.join(counts)}"
    yield f"workloads: {format_first(found.workloads, _LISTED) or 'none'}"
    others = f" (others: {format_first(found.entries[1:], _LISTED)})" if found.entries[1:] else ""
    yield f"entry: {found.entries[0]}{others}"
    yield f"namespaces: {', '.join(found.namespaces) or 'none is named'}"
    for kind, same in groupby(sorted(found.foreign, key=_kind_of), _kind_of):
        places = format_first([f"{one.file}:{one.line_of(('kind',))}" for one in same], _LISTED)
        yield f"not part of an application: {kind} in {places}; move it into a folder of policies"


def _kind_of(document: Document) -> str:
    return str(document.value["kind"])


def format_application(name: str, found: Found, *, manifests: str = "") -> str:
    """Write an `application.yaml`; `manifests` is their folder relative to the file, empty for the file's own."""
    others = "".join(f"# entry: {_quote(entry)}\n" for entry in found.entries[1:_LISTED])
    namespaces = ", ".join(map(_quote, found.namespaces))
    return "".join(
        [
            "# What meshbench knows of this application. All keys: docs/scenarios.md#application\n",
            f"# Workloads: {format_first(found.workloads, _LISTED) or 'none'}\n",
            f"name: {_quote(name)}\n",
            f"manifests: {_quote(manifests)}\n" if manifests else "",
            f"entry: {_quote(found.entries[0])}  # SERVICE:PORT that the load reaches first\n",
            others,
            f"namespaces: [{namespaces}]  # first that of objects that name none\n" if namespaces else "",
            "ready:  # a GET of the entry that shows that the application is ready\n",
            f"  path: {_quote(found.ready_path)}\n",
            "  status: 200\n",
            "  # contains: text of a valid answer\n",
            "  # timeout: 5min\n",
            "# calls: {a: [b]}  # each request of the load causes one call of a to b; leave it out where that varies\n",
        ]
    )


def format_scenario(name: str, application: str, locustfile: str, mesh: str, *, folder: str) -> str:
    """Write a scenario; `application` and `locustfile` are paths relative to it, `folder` is that of the manifests."""
    return f"""\
# What a mesh costs {name}. Written by 'meshbench init {folder}'; all keys: docs/scenarios.md
name: {_quote(name)}
title: {_quote(f"What {mesh} costs {name}")}
application: {_quote(application)}  # its entry, and what a valid answer is

load:
  users: 10  # each waits as the Locust file says
  locustfile: {_quote(locustfile)}  # an ordinary Locust file; its folder travels with it
  warmup: 30s
  duration: 120s
  # rate: 50/s  # open loop: arrivals that do not wait for responses

repeats: 3
reference: baseline
configurations:
  - {{name: baseline, mesh: none}}
  - {{name: {_quote(mesh)}, mesh: {_quote(mesh)}}}
  # - {{name: {mesh}-policies, mesh: {mesh}, manifests: [policies]}}  # a folder of policies beside this file
"""


def format_locustfile(name: str, path: str) -> str:
    """Write a Locust file that requests one path."""
    return f'''\
"""Load of {name}: replace it by your own Locust file, which runs unchanged."""

from locust import FastHttpUser, constant, task


class User(FastHttpUser):
    """Request one page, and wait."""

    wait_time = constant(0.1)

    @task
    def page(self) -> None:
        """Request the page."""
        self.client.get({json.dumps(path)})
'''


def _quote(text: str) -> str:
    """Quote a text where YAML would read something else."""
    return text if _PLAIN.fullmatch(text) and read_strictly(text).value == text else json.dumps(text)
