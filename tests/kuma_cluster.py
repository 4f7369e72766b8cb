"""Kuma's control plane on a cluster that is not there."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bench.k8s.client import Object, Ref


class KumaCluster:
    """A fake of a cluster with a control plane's pods, whose API is served on a port of loopback."""

    def __init__(self, pods: Sequence[Object], *, port: int = 0) -> None:
        self.pods = pods
        self.port = port

    def list(self, *_: str, **__: str) -> Sequence[Object]:
        return self.pods

    def get(self, ref: Ref) -> Object:
        return {"metadata": {"labels": {"kuma.io/mesh": "own"} if ref.name == "guest" else {}}}

    @contextmanager
    def forward(self, pod: str, port: int, *, namespace: str) -> Iterator[int]:
        assert (pod, port, namespace) == ("cp-2", 5681, "kuma-system")
        yield self.port


def control_plane_pod(name: str, *, ready: bool = True, **metadata: Any) -> Object:
    """Make a pod of the control plane."""
    return {"metadata": {"name": name, **metadata}, "status": {"containerStatuses": [{"ready": ready}]}}
