"""List the control planes that a run can install on a cluster."""

from collections.abc import Mapping
from typing import Final

from bench.meshes.istio import control_plane as istio
from bench.meshes.kuma import control_plane as kuma
from bench.meshes.protocols import ControlPlane

CONTROL_PLANES: Final[Mapping[str, ControlPlane]] = {"istio": istio, "kuma": kuma}
