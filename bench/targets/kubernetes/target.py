"""The cluster target: control planes once per run, and for each trial namespaces with everything new in them."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.errors import ClusterError, DeployError, MeshbenchError
from bench.fields import manifest_files
from bench.inputs import Inputs
from bench.journal import Journal
from bench.load.generator import LoadOrder
from bench.plan import Trial
from bench.records import RunRecord
from bench.scenario import Configuration
from bench.targets.configured import application_folder, application_of
from bench.targets.kubernetes.cleanup import WAIT_S, clean_cluster
from bench.targets.kubernetes.client import Cluster, Object, Ref, ref_of
from bench.targets.kubernetes.control_plane import ControlPlane, InstallOptions
from bench.targets.kubernetes.control_planes import CONTROL_PLANES
from bench.targets.kubernetes.deployment import ClusterDeployment, Site
from bench.targets.kubernetes.evidence import Meshed, read_meshed
from bench.targets.kubernetes.lease import ensure_held
from bench.targets.kubernetes.load_place import LoadPlace, place_load
from bench.targets.kubernetes.options import ClusterOptions, meshes_of
from bench.targets.kubernetes.ownership import Owner
from bench.targets.kubernetes.waits import gone
from bench.waiting import Watch, wait_until
from bench.yamlfile import read_documents

INSTALL_TIMEOUT_S: Final = 300.0
_ACCEPT_TIMEOUT_S: Final = 60.0
_GONE_TIMEOUT_S: Final = 120.0
_HASTE_S: Final = 6.0
_POLL_S: Final = 0.5


def namespaces_of(run_id: str) -> tuple[str, str]:
    """Where a run's application is, and where the pod outside the mesh is: `bookinfo-7f3a`, `bookinfo-7f3a-outside`."""
    name = f"bookinfo-{run_id.rpartition('-')[2]}"
    return name, f"{name}-outside"


@dataclass(frozen=True, slots=True)
class ClusterTarget:
    """A run's place on a cluster; see `bench.targets.Target`."""

    cluster: Cluster
    options: ClusterOptions
    run: RunRecord
    inputs: Inputs
    owner: Owner
    watch: Watch
    load_place: LoadPlace

    @contextmanager
    def deploy(self, trial: Trial, draft: Path) -> Iterator[ClusterDeployment]:
        """See `bench.targets.Target`."""
        ensure_held(self.cluster, self.run.run_id)
        settings = self.run.scenario.configuration(trial.configuration)
        plane = CONTROL_PLANES.get(settings.mesh)
        with self.installed([settings.mesh]) if plane and self._alone else nullcontext():
            policies = plane.mesh_objects(self._manifests(settings), self._namespace) if plane else ()
            deployment = ClusterDeployment(self._site(trial), plane, self._meshed(settings))
            try:
                self._apply_namespaces(plane)
                if plane:
                    self._accepted(plane, policies, "policy")
                deployment.start()
                yield deployment
            except MeshbenchError:  # the run's end removes everything, or leaves it for a look (--keep)
                with suppress(ClusterError):  # logs explain a failure, and must not take its place
                    deployment.save_logs(draft)
                raise
            self._remove(plane, policies)

    @contextmanager
    def installed(self, meshes: Sequence[str]) -> Iterator[None]:
        """Installs control planes; those of `isolation: full` go when the block is left, others with the run."""
        for mesh in meshes:
            self._install(mesh, CONTROL_PLANES[mesh])
        yield
        if self._alone:
            clean_cluster(self.cluster, self.run.run_id, watch=self.watch)

    @property
    def _alone(self) -> bool:
        return self.run.scenario.isolation == "full" and not self.options.existing_mesh

    @property
    def _namespace(self) -> str:
        return namespaces_of(self.run.run_id)[0]

    def _install(self, mesh: str, plane: ControlPlane) -> None:
        if self.options.existing_mesh:
            plane.wait_ready(self.cluster, timeout_s=INSTALL_TIMEOUT_S, watch=self.watch)
            return
        self.owner.apply_all(plane.render(install_options(self.options, mesh, self.cluster)), mesh)
        plane.wait_ready(self.cluster, timeout_s=INSTALL_TIMEOUT_S, watch=self.watch)
        self._accepted(plane, plane.base_objects(), mesh)

    def _apply_namespaces(self, plane: ControlPlane | None) -> None:
        inside, outside = namespaces_of(self.run.run_id)
        labels = plane.namespace_labels(self.options.revision) if plane else {}
        self.owner.apply(_namespace(inside, labels), "namespace")
        self.owner.apply(_namespace(outside, {}), "namespace")

    def _accepted(self, plane: ControlPlane, things: Sequence[Object], component: str) -> None:
        """Applies objects of a mesh, and waits until its control plane has taken them."""
        self.owner.apply_all(things, component)
        taken = wait_until(
            lambda: not plane.accepted(self.cluster, things),
            timeout_s=_ACCEPT_TIMEOUT_S,
            watch=self.watch,
            poll_s=_POLL_S,
        )
        if not taken and (problem := plane.accepted(self.cluster, things)):
            raise DeployError(f"{plane.NAME} did not take the policies within {_ACCEPT_TIMEOUT_S:.0f} s: {problem}")

    def _remove(self, plane: ControlPlane | None, policies: Sequence[Object]) -> None:
        """Everything of the trial goes before the next one begins."""
        spaces = namespaces_of(self.run.run_id)
        for space in spaces:
            self.owner.remove(Ref("v1", "Namespace", space))
        for space in spaces:
            gone(self.cluster, space, timeout_s=_GONE_TIMEOUT_S, watch=self.watch)
        if plane:
            self._take_back(plane, [thing for thing in policies if thing["metadata"].get("namespace") not in spaces])

    def _take_back(self, plane: ControlPlane, elsewhere: Sequence[Object]) -> None:
        """Policies outside the trial's namespace go; what the mesh needs anyway is as it was before."""
        base = {ref_of(thing): thing for thing in plane.base_objects()}
        refs = [ref_of(thing) for thing in elsewhere]
        for ref in refs:
            if ref not in base:
                self.owner.remove(ref)
        self.owner.apply_all([base[ref] for ref in refs if ref in base], plane.NAME)
        if not self.options.existing_mesh:
            for ref in plane.made_for(elsewhere):
                self.cluster.delete(ref)
        gone(self.cluster, [ref for ref in refs if ref not in base], timeout_s=_GONE_TIMEOUT_S, watch=self.watch)

    def _manifests(self, settings: Configuration) -> list[Object]:
        folders = [self.inputs.manifests[place] for place in settings.manifests]
        files = [file for folder in folders for file in manifest_files(folder)]
        return [document.value for file in files for document in read_documents(file) if document.value is not None]

    def _meshed(self, settings: Configuration) -> Meshed | None:
        if settings.mesh == "none":
            return None
        application = application_of(self.run.scenario, namespace=self._namespace)
        folders = [self.inputs.manifests[place] for place in settings.manifests]
        return read_meshed(settings.mesh, folders, application)

    def _site(self, trial: Trial) -> Site:
        inside, outside = namespaces_of(self.run.run_id)
        return Site(
            cluster=self.cluster,
            owner=self.owner,
            watch=self.watch,
            options=self.options,
            load_place=self.load_place,
            application=application_of(self.run.scenario, namespace=inside),
            folder=application_folder(self.run.scenario),
            outside=outside,
            order=self._order(trial),
        )

    def _order(self, trial: Trial) -> LoadOrder:
        load = self.run.scenario.load_of(trial.configuration)
        return LoadOrder(
            address="productpage:9080",
            virtual_host="productpage:9080",
            locustfile=self.inputs.locustfile,
            reviews=self.run.scenario.application.reviews,
            users=load.users,
            think_time_s=load.think_time_s,
            rate_per_s=load.rate_per_s,
            warmup_s=load.warmup_s,
            duration_s=load.duration_s,
            seed=self.run.plan.seed + trial.number,
            workers=load.workers,
        )


def install_options(options: ClusterOptions, mesh: str, cluster: Cluster) -> InstallOptions:
    """How a mesh of the run is installed."""
    return InstallOptions(
        values=options.mesh_values.get(mesh, ()),
        hub=options.hub,
        tag=options.tag,
        revision=options.revision if mesh == "istio" else "",
        kubeconfig=cluster.kubeconfig,
    )


def _namespace(name: str, labels: object) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


@contextmanager
def open_target(
    cluster: Cluster, options: ClusterOptions, *, run: RunRecord, inputs: Inputs, journal: Journal, watch: Watch
) -> Iterator[ClusterTarget]:
    """The cluster target for a run. However the block is left, everything of the run goes, unless it is to be kept."""
    owner = Owner(cluster, run.run_id, journal, watch)
    nodes = cluster.list("v1", "Node")
    target = ClusterTarget(cluster, options, run, inputs, owner, watch, place_load(nodes))
    try:
        if run.scenario.isolation == "shared" or options.existing_mesh:
            with target.installed(meshes_of(run.scenario)):
                yield target
        else:
            yield target
    except BaseException as error:
        _clean_after(error, target)
        raise
    else:
        if not options.keep:
            clean_cluster(cluster, run.run_id, watch=watch)


def _clean_after(error: BaseException, target: ClusterTarget) -> None:
    """The failure is what is told; that something stayed is added to it."""
    if target.options.keep:
        return
    try:
        clean_cluster(target.cluster, target.run.run_id, watch=target.watch, wait_s=_wait_s(target.watch))
    except MeshbenchError as left:
        error.add_note(f"not everything could be removed: {left}")
        if isinstance(error, MeshbenchError):
            error.clean = False


def _wait_s(watch: Watch) -> float:
    """A CI system leaves ten seconds after its signal; a keyboard leaves time."""
    from_keyboard = watch.signals[:1] == [signal.SIGINT]
    return WAIT_S if from_keyboard or not watch.signals else _HASTE_S
