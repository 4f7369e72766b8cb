"""Read names, versions, conditions and statuses from Kubernetes objects. Pure."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from bench.files.objects import POD_TEMPLATES
from bench.k8s.client import Object
from bench.k8s.ownership import WORKLOAD, labels_of

PRESSURES: Final = ("MemoryPressure", "DiskPressure", "PIDPressure")  # under each of them pods are evicted
POD_PATHS: Final[Mapping[str, tuple[str, ...]]] = {kind: (*path, "spec") for kind, path in POD_TEMPLATES.items()}
"""Where an object has the spec of the pods that it is or becomes, by kind."""
_HASH: Final = "pod-template-hash"


def release_of(version: str) -> tuple[int, int]:
    """Return the two numbers that decide what a server or kubelet can do: (1, 34) for `v1.34.2-eks-abc`."""
    major, minor = re.findall(r"\d+", version)[:2]
    return int(major), int(minor)


def node_name(node: Object) -> str:
    return str(node["metadata"]["name"])


def conditions_by_type(node: Object) -> Mapping[str, Mapping[str, Any]]:
    """Return a node's conditions, by type."""
    return {str(one["type"]): one for one in node["status"].get("conditions") or ()}


def has_condition(node: Object, kind: str) -> bool:
    """Return whether a condition is true; one that is not reported is not."""
    return conditions_by_type(node).get(kind, {}).get("status") == "True"


def app_of(pod: Object) -> str:
    """Return a pod's label `app`, or the name of its owner without the hash of its version."""
    metadata, labels = pod["metadata"], labels_of(pod)
    owner = next((one["name"] for one in metadata.get("ownerReferences") or ()), metadata["name"])
    return str(labels.get("app") or owner.removesuffix(f"-{labels.get(_HASH, '')}"))


def names_of(pods: Iterable[Object]) -> Mapping[str, str]:
    """Return the workload of each pod by pod name: by its label where it is the application's, else its app, with the
    version (`NAME-v2`) where pods of several versions are there."""
    pods = tuple(pods)
    labelled = {name_of(pod): name for pod in pods if (name := labels_of(pod).get(WORKLOAD))}
    known = [(name_of(pod), app_of(pod), labels_of(pod).get("version", "")) for pod in pods]
    versions = {app: {version for _, other, version in known if other == app} for _, app, _ in known}
    named = {name: f"{app}-{version}" if len(versions[app]) > 1 else app for name, app, version in known}
    return {**named, **labelled}


def find_restarts(pods: Sequence[Object]) -> tuple[str, ...]:
    """Format the containers that have ended since the pods were made, sidecars included, and why."""
    return tuple(
        _format_ending(pod, status) for pod in pods for status in container_statuses(pod) if _has_ended(status)
    )


def _has_ended(status: Mapping[str, Any]) -> bool:
    """Return whether a container ended; an init container with exit code 0 has not, since that is its purpose."""
    ended = status.get("state", {}).get("terminated")
    return bool(status.get("restartCount")) or (ended is not None and ended.get("exitCode") != 0)


def _format_ending(pod: Object, status: Mapping[str, Any]) -> str:
    last = status.get("state", {}).get("terminated") or status.get("lastState", {}).get("terminated") or {}
    why = f"{last.get('reason') or 'ended'}, exit code {last.get('exitCode', 'unknown')}"
    return f"{status['name']} in {name_of(pod)} ({why}) ended"


def container_statuses(pod: Object) -> Iterator[Mapping[str, Any]]:
    """Yield the status of each container of a pod, sidecars included."""
    for key in ("containerStatuses", "initContainerStatuses"):
        yield from pod.get("status", {}).get(key) or ()


def name_of(thing: Object) -> str:
    return str(thing["metadata"]["name"])


def is_selected(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Return whether a label selector selects an object with these labels; an empty one selects every object."""
    given = selector or {}
    exact = (given.get("matchLabels") or {}).items() <= labels.items()
    return exact and all(_is_met(expression, labels) for expression in given.get("matchExpressions") or ())


def _is_met(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value, values = labels.get(expression["key"]), expression.get("values") or ()
    match expression["operator"]:
        case "In":
            return value is not None and value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case _:
            return value is None
