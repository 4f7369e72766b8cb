"""List the meshes that scenarios can name. `bench.meshes.protocols` defines what a mesh is."""

from collections.abc import Mapping
from typing import Final

from bench.meshes.istio import ISTIO
from bench.meshes.kuma import KUMA
from bench.meshes.protocols import Mesh

MESHES: Final[Mapping[str, Mesh]] = {mesh.name: mesh for mesh in (ISTIO, KUMA)}
