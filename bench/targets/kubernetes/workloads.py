"""What people call the workload of a pod. Pure."""

from collections.abc import Iterable, Mapping
from typing import Final

from bench.targets.kubernetes.client import Object
from bench.targets.kubernetes.ownership import labels_of

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
