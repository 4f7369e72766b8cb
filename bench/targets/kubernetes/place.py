"""A cluster as the place of a run: reached by one context, looked at, agreed upon, locked."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.findings import CheckResult
from bench.inputs import Inputs
from bench.processes import Launcher
from bench.records import ClusterRecord, Environment, RunRecord, TargetRecord
from bench.scenario import Scenario
from bench.targets.kubernetes.client import Cluster, Ref
from bench.targets.kubernetes.guest import found_versions
from bench.targets.kubernetes.images import image_of
from bench.targets.kubernetes.kubeconfig import describe, open_cluster
from bench.targets.kubernetes.lease import cluster_lock
from bench.targets.kubernetes.load_objects import default_image
from bench.targets.kubernetes.load_place import LoadPlace
from bench.targets.kubernetes.options import VALUES, ClusterOptions, meshes_of
from bench.targets.kubernetes.preflight import examine_cluster, guard
from bench.targets.kubernetes.private import credentials_folder
from bench.targets.kubernetes.prometheus import without_password
from bench.targets.kubernetes.surroundings import cluster_environment, target_record
from bench.targets.kubernetes.target import ClusterTarget, open_target
from bench.targets.kubernetes.telemetry import WHAT as TELEMETRY
from bench.targets.kubernetes.tools import mesh_versions
from bench.targets.kubernetes.waits import DEFAULT, Timing
from bench.waiting import Watch


@dataclass(frozen=True, slots=True)
class ClusterPlace:
    """See `bench.targets.Place`. `load_place` is where the load of every trial runs."""

    client: Cluster
    options: ClusterOptions
    record: TargetRecord
    cluster: ClusterRecord
    surroundings: Environment
    findings: tuple[CheckResult, ...]
    load_place: LoadPlace

    def environment(self) -> Environment:
        return self.surroundings

    def keep_inputs(self, run: Path) -> None:
        for mesh, files in self.options.mesh_values.items():
            for file, name in zip(files, self.cluster.mesh_values[mesh], strict=True):
                (run / VALUES).mkdir(exist_ok=True)
                shutil.copyfile(file, run / VALUES / name)

    def lock(self, run: Path, run_id: str, watch: Watch) -> AbstractContextManager[None]:  # noqa: ARG002  # on a cluster
        return cluster_lock(self.client, run_id, watch=watch)

    def open(
        self, run: RunRecord, inputs: Inputs, *, launcher: Launcher, watch: Watch
    ) -> AbstractContextManager[ClusterTarget]:
        return open_target(
            self.client,
            self.options,
            run=run,
            inputs=inputs,
            journal=launcher.journal,
            watch=watch,
            load_place=self.load_place,
        )


@contextmanager
def open_place(
    scenario: Scenario,
    options: ClusterOptions,
    inputs: Inputs,
    *,
    tell: Callable[[str], None],
    confirm: Callable[[str], bool] | None = None,
    guarded: bool = True,
    timing: Timing = DEFAULT,
) -> Iterator[ClusterPlace]:
    """The cluster of `options.context`, after it was said which one it is and, where it is `guarded`, somebody agreed.
    Raises RefusedError."""
    with (
        credentials_folder() as private,
        open_cluster(options.context, private_folder=private, timing=timing) as client,
    ):
        tell(describe(client))
        if guarded:
            guard(client, yes=options.agreed, yes_this_cluster=options.yes_this_cluster, confirm=confirm)
        yield _looked_at(client, scenario, options, inputs)


def _looked_at(client: Cluster, scenario: Scenario, options: ClusterOptions, inputs: Inputs) -> ClusterPlace:
    examined = examine_cluster(client, scenario, options, inputs)  # first: it says who may look at nothing
    nodes = client.list("v1", "Node")
    system = client.get(Ref("v1", "Namespace", "kube-system"))
    meshes = meshes_of(scenario)
    return ClusterPlace(
        client=client,
        options=options,
        record=target_record(
            client.version,
            len(nodes),
            placement=examined.load_place.sentence,
            isolation=scenario.isolation if meshes else "",
            existing=bool(meshes) and options.existing_mesh,
            remarks=[finding.detail for finding in examined.findings if finding.name == TELEMETRY],
        ),
        cluster=_cluster_record(client, len(nodes), meshes, options, examined.load_place.node),
        surroundings=cluster_environment(
            client.version,
            nodes,
            system["metadata"]["uid"] if system else "",
            load_image=image_of("load", default_image(), images=options.images),
        ),
        findings=examined.findings,
        load_place=examined.load_place,
    )


def _cluster_record(
    client: Cluster, nodes: int, meshes: tuple[str, ...], options: ClusterOptions, load_node: str
) -> ClusterRecord:
    return ClusterRecord(
        version=client.version,
        nodes=nodes,
        images=dict(options.images),
        registry=options.registry,
        mesh_values={
            mesh: tuple(f"{mesh}-{number}-{file.name}" for number, file in enumerate(files, start=1))
            for mesh, files in options.mesh_values.items()
        },
        mesh_versions=found_versions(client, meshes) if options.existing_mesh else mesh_versions(meshes),
        hub=options.hub,
        tag=options.tag,
        revision=options.revision,
        existing_mesh=options.existing_mesh,
        prometheus=without_password(options.prometheus),
        load_node=load_node,
    )
