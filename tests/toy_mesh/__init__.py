"""A mesh that only tests have: its proxies are small HTTP proxies in Python, without policies and certificates.

It is added by the registry alone: `MESHES["toy"] = TOY`.
"""

from bench.meshes.protocols import EqualSettings, Mesh
from tests.toy_mesh import policy_model
from tests.toy_mesh.data_plane import ToyDataPlane

TOY = Mesh(
    name="toy",
    title="Toy",
    domain="toy.example",
    policies=policy_model,
    data_plane=ToyDataPlane(),
    control_plane="tests.toy_mesh.control_plane",
    equal=EqualSettings(),
)
