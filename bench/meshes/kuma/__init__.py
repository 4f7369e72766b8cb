"""Define Kuma for the registry of meshes."""

from typing import Final

from bench.meshes.equalise import WORKERS
from bench.meshes.kuma import policy_model
from bench.meshes.kuma.data_plane import DATA_PLANE
from bench.meshes.kuma.naming import DOMAIN
from bench.meshes.protocols import EqualSettings, Mesh

KUMA: Final = Mesh(
    name="kuma",
    title="Kuma",
    domain=DOMAIN,
    policies=policy_model,
    data_plane=DATA_PLANE,
    control_plane="bench.meshes.kuma.control_plane",
    equal=EqualSettings(
        applied=frozenset({"tls", "retries"}), workers={"kuma.io/sidecar-proxy-concurrency": str(WORKERS)}
    ),
)
