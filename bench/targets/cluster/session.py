"""Open a cluster for a run: reached by one context, examined, agreed to, locked; with its environment record."""

import hashlib
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import __version__
from bench.check_result import CheckResult
from bench.errors import reject_malformed
from bench.k8s.client import Cluster, Object, Ref
from bench.k8s.kubeconfig import credentials_folder, describe_cluster, open_cluster
from bench.meshes.resolved import ResolvedScenario
from bench.results.records import ClusterRecord, Environment, RunRecord, TargetRecord
from bench.system.cancellation import CancelToken
from bench.system.private_files import Content, PrivateFolder
from bench.system.processes import Launcher
from bench.system.timing import DEFAULT, Timing
from bench.targets.cluster.application_manifests import image_of
from bench.targets.cluster.load.placement import LoadPlacement
from bench.targets.cluster.load.pod import default_image
from bench.targets.cluster.lock import cluster_lock
from bench.targets.cluster.options import RECORDED, VALUES, ClusterOptions, meshes_of
from bench.targets.cluster.preflight.examination import examine_cluster, guard
from bench.targets.cluster.preflight.mesh import existing_versions, tool_versions
from bench.targets.cluster.prometheus import without_password
from bench.targets.cluster.target import ClusterTarget, open_target
from bench.units import parse_quantity

_INSTANCE_TYPE = "node.kubernetes.io/instance-type"
# Which control planes were there during the baseline, by the scenario's `isolation`.
_ISOLATION_NOTES = {
    "shared": "control planes were installed once and stayed: the baseline was measured with an idle control plane "
    "on the cluster",
    "full": "each trial installed its own control plane and deleted it: no other one was on the cluster meanwhile",
}
_EXISTING = "the mesh was there before and stays: the baseline was measured with an idle control plane on the cluster"
_EXISTING_SCOPE = "policies for a whole mesh were applied to the run's own part of it alone, where they mean the same"
_PAIRED = "the configurations of a block were on the cluster at once, with one control plane for all of them"
_EXISTING_PAIRED = f"the mesh was there before and stays; {_PAIRED}"
_PAIRED_SCOPE = (
    "policies for a whole mesh were applied to each configuration's own part of it, where they mean the same"
)
_PAIRED_SERVICES = (
    "every sidecar knew the Services of all namespaces, those of the other configurations too: each had more clusters "
    "than alone"
)


def cluster_environment(version: str, nodes: Sequence[Object], uid: str, *, load_image: str) -> Environment:
    """Return the environment record of a run on a cluster. `load_image` is Locust's; `uid` is that of the namespace
    kube-system, which a cluster keeps. Raises BadAnswerError for nodes without CPUs, or with more than there are."""
    infos = [node["status"]["nodeInfo"] for node in nodes]
    with reject_malformed(f"the API server, about its {len(nodes)} nodes"):
        return Environment(
            meshbench=__version__,
            python=platform.python_version(),
            locust=load_image,
            envoy="of the mesh's images",
            os=_join_distinct(info["osImage"] for info in infos),
            kernel=_join_distinct(info["kernelVersion"] for info in infos),
            machine=_join_distinct(info["architecture"] for info in infos),
            cpu_model=_join_distinct(
                node["metadata"].get("labels", {}).get(_INSTANCE_TYPE, "unknown") for node in nodes
            ),
            cpus=round(sum(parse_quantity(str(node["status"]["capacity"]["cpu"])) for node in nodes)),
            memory_bytes=round(sum(parse_quantity(str(node["status"]["capacity"]["memory"])) for node in nodes)),
            address_host=hashlib.sha256(f"meshbench {uid}".encode()).hexdigest()[:12],
            cluster=f"Kubernetes {version}, {len(nodes)} node{'s' if len(nodes) > 1 else ''}",
        )


def target_record(
    version: str,
    nodes: int,
    *,
    placement: str,
    isolation: str,
    existing: bool,
    paired: bool = False,
    scale_requests: float = 1.0,
    remarks: Sequence[str] = (),
) -> TargetRecord:
    """Return the record for the heading of every report, `remarks` included. `isolation` is the scenario's, empty where
    it has no mesh; `paired` is whether configurations were deployed side by side, in a mesh."""
    limits = (
        placement,
        *(_describe_mesh(isolation, existing=existing, paired=paired)),
        _describe_scale(scale_requests),
        *remarks,
    )
    return TargetRecord(
        kind="kubernetes",
        title=f"on a Kubernetes cluster ({version}, {nodes} node{'s' if nodes > 1 else ''})",
        caveats=tuple(limit for limit in limits if limit),
    )


def _describe_mesh(isolation: str, *, existing: bool, paired: bool) -> tuple[str, ...]:
    if paired:
        return _EXISTING_PAIRED if existing else _PAIRED, _PAIRED_SCOPE, _PAIRED_SERVICES
    return (_EXISTING, _EXISTING_SCOPE) if existing else (_ISOLATION_NOTES.get(isolation, ""),)


def _describe_placement(line: str) -> str:
    return f"placement of pods: {line}"


def _describe_scale(share: float) -> str:
    if share == 1.0:
        return ""
    return f"pods requested {share * 100:g}% of the CPU and memory that their manifests request (--scale-requests)"


def _join_distinct(values: Iterable[str]) -> str:
    """Join the different values, in order."""
    return ", ".join(sorted(set(values)))


@dataclass(frozen=True, slots=True)
class ClusterBackend:
    """See `bench.targets.Backend`. `load_place` is where the load of every trial runs; `resolved` is the scenario with
    the design for which the cluster has room."""

    client: Cluster
    options: ClusterOptions
    record: TargetRecord
    cluster: ClusterRecord
    environment_record: Environment
    findings: tuple[CheckResult, ...]
    load_place: LoadPlacement
    resolved: ResolvedScenario

    def settle(self, resolved: ResolvedScenario) -> ResolvedScenario:  # noqa: ARG002 - it was examined with it
        return self.resolved

    def environment(self) -> Environment:
        return self.environment_record

    def keep_inputs(self, run: Path) -> None:
        PrivateFolder.of_run(run, run.name).keep(
            Content(f"{VALUES}/{name}", file.read_bytes())
            for mesh, files in self.options.mesh_values.items()
            for file, name in zip(files, self.cluster.mesh_values[mesh], strict=True)
        )

    def lock(self, run: Path, run_id: str, watch: CancelToken) -> AbstractContextManager[None]:  # noqa: ARG002  # on a cluster
        return cluster_lock(self.client, run_id, watch=watch)

    def open(
        self, run: RunRecord, resolved: ResolvedScenario, *, launcher: Launcher, watch: CancelToken
    ) -> AbstractContextManager[ClusterTarget]:
        return open_target(
            self.client,
            self.options,
            run=run,
            resolved=resolved,
            journal=launcher.journal,
            watch=watch,
            load_place=self.load_place,
        )


@contextmanager
def open_backend(
    resolved: ResolvedScenario,
    options: ClusterOptions,
    *,
    tell: Callable[[str], None],
    confirm: Callable[[str], bool] | None = None,
    guarded: bool = True,
    timing: Timing = DEFAULT,
) -> Iterator[ClusterBackend]:
    """Open the cluster of `options.context`, after `tell` got its description and, where it is `guarded`, the user
    agreed. Raises RefusedError."""
    with (
        credentials_folder() as private,
        open_cluster(options.context, private_folder=private, timing=timing) as client,
    ):
        tell(describe_cluster(client))
        if guarded:
            guard(client, yes=options.agreed, yes_this_cluster=options.yes_this_cluster, confirm=confirm)
        yield _examine_backend(client, resolved, options)


def _examine_backend(client: Cluster, resolved: ResolvedScenario, options: ClusterOptions) -> ClusterBackend:
    examined = examine_cluster(client, resolved, options)  # first: it reports missing permissions
    nodes = client.list("v1", "Node")
    system = client.get(Ref("v1", "Namespace", "kube-system"))
    meshes = meshes_of(resolved.scenario)
    return ClusterBackend(
        client=client,
        options=options,
        record=target_record(
            client.version,
            len(nodes),
            placement=examined.load_place.sentence,
            isolation=resolved.scenario.isolation if meshes else "",
            existing=bool(meshes) and options.existing_mesh,
            paired=bool(meshes) and examined.resolved.scenario.is_paired,
            scale_requests=options.scale_requests,
            remarks=(
                *map(_describe_placement, options.placement.describe()),
                *(one.detail for one in examined.telemetry),
            ),
        ),
        cluster=_cluster_record(client, len(nodes), meshes, options, examined.load_place.node),
        environment_record=cluster_environment(
            client.version,
            nodes,
            system["metadata"]["uid"] if system else "",
            load_image=image_of("load", default_image(), images=options.images),
        ),
        findings=examined.findings,
        load_place=examined.load_place,
        resolved=examined.resolved,
    )


def _cluster_record(
    client: Cluster, nodes: int, meshes: tuple[str, ...], options: ClusterOptions, load_node: str
) -> ClusterRecord:
    return ClusterRecord(
        version=client.version,
        nodes=nodes,
        images=dict(options.images),
        **{name: getattr(options, name) for name in RECORDED},
        existing_mesh=options.existing_mesh,
        scale_requests=options.scale_requests,
        mesh_values={
            mesh: tuple(f"{mesh}-{number}-{file.name}" for number, file in enumerate(files, start=1))
            for mesh, files in options.mesh_values.items()
        },
        mesh_versions=existing_versions(client, meshes) if options.existing_mesh else tool_versions(meshes),
        prometheus=without_password(options.prometheus),
        load_node=load_node,
    )
