"""Load the control planes of the meshes, which need the client of Kubernetes, when a run on a cluster uses them."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Final, cast

from bench.meshes import MESHES
from bench.meshes.cluster_protocol import ControlPlane


class _ControlPlanes(Mapping[str, ControlPlane]):
    """The control planes of all meshes, by the names of the meshes; each module is loaded at its first use."""

    def __getitem__(self, mesh: str) -> ControlPlane:
        return cast("ControlPlane", import_module(MESHES[mesh].control_plane))

    def __iter__(self) -> Iterator[str]:
        return iter(MESHES)

    def __len__(self) -> int:
        return len(MESHES)


CONTROL_PLANES: Final = _ControlPlanes()


def find_gateway_maker(kind: str) -> ControlPlane | None:
    """Return the control plane that makes a gateway's pods from manifests of this kind; None where none does."""
    return next((plane for plane in CONTROL_PLANES.values() if kind in plane.GATEWAY_KINDS), None)
