"""Read names, versions, conditions and statuses from Kubernetes objects. Pure."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from bench.k8s.client import Object
from bench.k8s.ownership import labels_of


def release_of(version: str) -> tuple[int, int]:
    """The two numbers that decide what a server or kubelet can do: (1, 34) for `v1.34.2-eks-abc`."""
    major, minor = re.findall(r"\d+", version)[:2]
    return int(major), int(minor)


PRESSURES: Final = ("MemoryPressure", "DiskPressure", "PIDPressure")  # under each of them pods are evicted
_KEEPS_OUT: Final = ("NoSchedule", "NoExecute")


def schedulable(nodes: Sequence[Object]) -> tuple[Object, ...]:
    """The nodes that take ordinary pods: ready, not cordoned, without a taint that keeps pods away."""
    return tuple(node for node in nodes if _takes_pods(node))


def node_name(node: Object) -> str:
    return str(node["metadata"]["name"])


def conditions(node: Object) -> Mapping[str, Mapping[str, Any]]:
    """What a node says of its state, by type."""
    return {str(one["type"]): one for one in node["status"].get("conditions") or ()}


def has_condition(node: Object, kind: str) -> bool:
    """Whether a condition is true; one that is not told is not."""
    return conditions(node).get(kind, {}).get("status") == "True"


def _takes_pods(node: Object) -> bool:
    spec: dict[str, Any] = node.get("spec") or {}
    shut = any(taint.get("effect") in _KEEPS_OUT for taint in spec.get("taints") or ())
    return has_condition(node, "Ready") and not shut and not spec.get("unschedulable")


_HASH: Final = "pod-template-hash"


def app_of(pod: Object) -> str:
    """Its label `app`, or what made it, without the hash of its version."""
    metadata, labels = pod["metadata"], labels_of(pod)
    owner = next((one["name"] for one in metadata.get("ownerReferences") or ()), metadata["name"])
    return str(labels.get("app") or owner.removesuffix(f"-{labels.get(_HASH, '')}"))


def names_of(pods: Iterable[Object]) -> Mapping[str, str]:
    """By the name of each pod, its app, with the version (`reviews-v2`) where pods of several versions are there."""
    known = [(pod["metadata"]["name"], app_of(pod), labels_of(pod).get("version", "")) for pod in pods]
    versions = {app: {version for _, other, version in known if other == app} for _, app, _ in known}
    return {name: f"{app}-{version}" if len(versions[app]) > 1 else app for name, app, version in known}


def restarts(pods: Sequence[Object]) -> tuple[str, ...]:
    """The containers that have ended since the pods were made, sidecars included, and why, in words."""
    return tuple(_ending(pod, status) for pod in pods for status in statuses(pod) if _has_ended(status))


def _has_ended(status: Mapping[str, Any]) -> bool:
    """An init container that ended well has not: that is what it is for."""
    ended = status.get("state", {}).get("terminated")
    return bool(status.get("restartCount")) or (ended is not None and ended.get("exitCode") != 0)


def _ending(pod: Object, status: Mapping[str, Any]) -> str:
    last = status.get("state", {}).get("terminated") or status.get("lastState", {}).get("terminated") or {}
    why = f"{last.get('reason') or 'ended'}, exit code {last.get('exitCode', 'unknown')}"
    return f"{status['name']} in {name_of(pod)} ({why}) ended"


def statuses(pod: Object) -> Iterator[Mapping[str, Any]]:
    """What is known of each container of a pod, sidecars included."""
    for key in ("containerStatuses", "initContainerStatuses"):
        yield from pod.get("status", {}).get(key) or ()


def name_of(thing: Object) -> str:
    return str(thing["metadata"]["name"])
