"""The cluster as a number depends on it: its nodes and versions, never a name. Pure."""

import hashlib
import platform
from collections.abc import Iterable, Sequence

from bench import __version__
from bench.records import Environment, TargetRecord
from bench.targets.kubernetes.client import Object
from bench.units import parse_quantity

_INSTANCE_TYPE = "node.kubernetes.io/instance-type"
# What the baseline was measured beside, by the scenario's `isolation`.
_BESIDE = {
    "shared": "control planes were installed once and stayed: the baseline was measured with an idle control plane "
    "beside it",
    "full": "each trial installed its own control plane and removed it: no other one was on the cluster meanwhile",
}
_EXISTING = "the mesh was there before and stays: the baseline was measured with an idle control plane beside it"
_GUEST = "policies for a whole mesh were applied to the run's own part of it alone, where they mean the same"


def cluster_environment(version: str, nodes: Sequence[Object], uid: str, *, load_image: str) -> Environment:
    """The surroundings of a run on a cluster. `load_image` is Locust's; `uid` is that of the namespace kube-system,
    which a cluster keeps."""
    infos = [node["status"]["nodeInfo"] for node in nodes]
    return Environment(
        meshbench=__version__,
        python=platform.python_version(),
        locust=load_image,
        envoy="of the mesh's images",
        os=_each(info["osImage"] for info in infos),
        kernel=_each(info["kernelVersion"] for info in infos),
        machine=_each(info["architecture"] for info in infos),
        cpu_model=_each(node["metadata"].get("labels", {}).get(_INSTANCE_TYPE, "unknown") for node in nodes),
        cpus=round(sum(parse_quantity(node["status"]["capacity"]["cpu"]) for node in nodes)),
        memory_bytes=round(sum(parse_quantity(node["status"]["capacity"]["memory"]) for node in nodes)),
        address_host=hashlib.sha256(f"meshbench {uid}".encode()).hexdigest()[:12],
        cluster=f"Kubernetes {version}, {len(nodes)} node{'s' if len(nodes) > 1 else ''}",
    )


def target_record(
    version: str, nodes: int, *, placement: str, isolation: str, existing: bool, remarks: Sequence[str] = ()
) -> TargetRecord:
    """What stands in the heading of every report, `remarks` included. `isolation` is the scenario's, empty where it has
    no mesh."""
    caveats = (placement, *((_EXISTING, _GUEST) if existing else (_BESIDE.get(isolation, ""),)), *remarks)
    return TargetRecord(
        kind="kubernetes",
        title=f"on a Kubernetes cluster ({version}, {nodes} node{'s' if nodes > 1 else ''})",
        caveats=tuple(caveat for caveat in caveats if caveat),
    )


def _each(values: Iterable[str]) -> str:
    """The different values, in order: nodes that differ show it."""
    return ", ".join(sorted(set(values)))
