"""The meshes that can be installed on a cluster."""

from collections.abc import Mapping
from typing import Final

from bench.targets.kubernetes import istio, kuma
from bench.targets.kubernetes.control_plane import ControlPlane

CONTROL_PLANES: Final[Mapping[str, ControlPlane]] = {"istio": istio, "kuma": kuma}
