"""Define Istio for the registry of meshes."""

from typing import Final

from bench.meshes.equalise import WORKERS
from bench.meshes.istio import policy_model
from bench.meshes.istio.data_plane import DATA_PLANE
from bench.meshes.istio.naming import DOMAIN
from bench.meshes.protocols import EqualSettings, Mesh

ISTIO: Final = Mesh(
    name="istio",
    title="Istio",
    domain=DOMAIN,
    policies=policy_model,
    data_plane=DATA_PLANE,
    control_plane="bench.meshes.istio.control_plane",
    equal=EqualSettings(
        installed=frozenset({"tls", "retries"}), workers={"proxy.istio.io/config": f"concurrency: {WORKERS}"}
    ),
    namespace_labels=frozenset({"istio-injection"}),
)
