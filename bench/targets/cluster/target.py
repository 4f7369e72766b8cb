"""The cluster target: control planes once per run, and for each trial namespaces with everything new in them."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from bench.application.replacements import format_subject
from bench.errors import ClusterError, DeployError, Interrupted, MeshbenchError, note_leftovers
from bench.files.yaml_source import Document
from bench.k8s.client import Cluster, Object, Ref, ref_of
from bench.k8s.ownership import Owner
from bench.k8s.retry import retry_after_outage
from bench.k8s.wait import wait_for_rollout, wait_until_deleted
from bench.meshes.cluster_protocol import ControlPlane
from bench.meshes.control_planes import CONTROL_PLANES
from bench.meshes.resolved import ResolvedConfiguration, ResolvedScenario
from bench.meshes.rewriting import Moved, Namespaces
from bench.results.records import RunRecord
from bench.scenario.plan import Trial
from bench.system.cancellation import CancelToken, wait_until
from bench.system.journal import Journal
from bench.system.output import format_command
from bench.system.parallel import for_each
from bench.targets.cluster.application_manifests import makes_pods
from bench.targets.cluster.deployment import ClusterDeployment
from bench.targets.cluster.kubelet import Summaries
from bench.targets.cluster.load.placement import LoadPlacement
from bench.targets.cluster.lock import LOCK_NAMESPACE, ensure_held
from bench.targets.cluster.options import ClusterOptions, meshes_of
from bench.targets.cluster.preflight.application import list_claims
from bench.targets.cluster.preflight.capacity import daemons_of, render_mesh
from bench.targets.cluster.refusals import format_refused_field
from bench.targets.cluster.teardown.cleanup import clean_cluster
from bench.targets.cluster.trial_manifests import (
    TrialManifests,
    build_trial_manifests,
)

T = TypeVar("T")
R = TypeVar("R")

_POLICY: Final = "policy"  # the component of what a mesh reads, the Mesh of a configuration without policies included


@dataclass(frozen=True, slots=True)
class ClusterTarget:
    """A run's target on a cluster; see `bench.targets.Target`. `removals` are trials of earlier blocks whose deletion
    was requested."""

    cluster: Cluster
    options: ClusterOptions
    run: RunRecord
    resolved: ResolvedScenario
    owner: Owner
    watch: CancelToken
    load_place: LoadPlacement
    removals: list[TrialManifests] = field(default_factory=list)

    def for_each(self, act: Callable[[T], R], things: Sequence[T]) -> list[R]:
        """See `bench.targets.Target`."""
        return for_each(act, things)

    start_each = for_each

    @contextmanager
    def deploy(self, trials: Sequence[Trial], drafts: Sequence[Path]) -> Iterator[Sequence[ClusterDeployment]]:
        """See `bench.targets.Target`."""
        ensure_held(self.cluster, self.run.run_id)
        summaries = Summaries(self.cluster)
        deployments = [self._make_deployment(trial, index, summaries) for index, trial in enumerate(trials)]
        plane = deployments[0].manifests.plane
        with self.installed([plane.NAME]) if plane and self._alone else nullcontext():
            try:
                for_each(self._prepare, deployments)
                for_each(ClusterDeployment.start, deployments)
                self._finish_removals()
                self.owner.note_stage("deployed")
                yield deployments
                self.owner.note_stage("proven")
            except Interrupted:
                raise  # nothing failed, and there may be little time
            except MeshbenchError:  # the run's end removes everything, or leaves it for inspection (--keep)
                for deployment, draft in zip(deployments, drafts, strict=True):
                    with suppress(ClusterError):  # logs explain a failure, and must not take its place
                        deployment.save_logs(draft)
                raise
            for_each(self._remove, deployments)
            self.owner.note_stage("removed")

    @contextmanager
    def installed(self, meshes: Sequence[str]) -> Iterator[None]:
        """Install control planes; those of `isolation: full` are deleted when the block is left, others with the
        run."""
        for mesh in meshes:
            self._retry(partial(self._install, mesh, CONTROL_PLANES[mesh]))
        yield
        if self._alone:
            clean_cluster(self.cluster, self.run.run_id, watch=self.watch)

    def clean(self) -> None:
        """Delete everything of the run. Raises LeftoversError."""
        clean_cluster(self.cluster, self.run.run_id, watch=self.watch)
        if not (self.options.existing_mesh and self.run.scenario.is_paired):
            return  # it was deleted after each trial, or with the mesh
        for one in self.resolved.configurations:
            plane, names = CONTROL_PLANES.get(one.settings.mesh), self._names()[one.name]
            if plane:
                self._delete_generated(plane, [moved.value for moved in one.in_namespaces(names).moved])

    @property
    def _alone(self) -> bool:
        return self.run.scenario.isolation == "full" and not self.options.existing_mesh

    def _names(self, block: int = 0) -> Mapping[str, Namespaces]:
        """Return the namespaces of each configuration in a block; those of block 0 are in no block's way."""
        run = self.run.run_id.rpartition("-")[2]
        return self.resolved.name_configurations(run, existing_mesh=self.options.existing_mesh, block=block)

    def _install(self, mesh: str, plane: ControlPlane) -> None:
        if not self.options.existing_mesh:
            rendered = render_mesh(self.options, mesh, self.run.scenario.equalise, kubeconfig=self.cluster.kubeconfig)
            self.owner.create_all(rendered, mesh)
            self._wait_for_daemons(rendered)
        plane.wait_ready(self.cluster, timeout_s=self.cluster.timing.install_s, watch=self.watch)
        for part in dict.fromkeys(self._names()[one.name].run_mesh for one in self._measured(plane)):
            self._apply_accepted(plane, plane.base_objects(part))
        self._try_policies(plane)

    def try_application(self) -> None:
        """Check whether the API server would accept every object of the application, before anything is installed: an
        unknown field or an invalid value is an error."""
        refused: list[str] = []
        placed = (one.in_namespaces(_stand_in_lock(one.namespaces)) for one in self.resolved.configurations)
        # most objects are the same in all configurations
        different = {json.dumps(moved.value): moved for one in placed for moved in one.moved_application}
        for moved in different.values():
            document = replace(moved.document, file=self.resolved.shorten(Path(moved.document.file)))
            self._retry(partial(self._try_object, moved, document, format_subject(document), refused))
        _require_accepted("the application", refused)

    def _try_object(self, moved: Moved, document: Document, subject: str, refused: list[str]) -> None:
        """Try one object; add why it is not accepted to `refused`."""
        try:
            self.cluster.apply(moved.value, dry_run=True)
        except ClusterError as error:
            if error.is_retryable:
                raise
            refused.append(f"{subject}: {format_refused_field(document, str(error))}")

    def _measured(self, plane: ControlPlane) -> tuple[ResolvedConfiguration, ...]:
        """Return the configurations with this mesh."""
        return tuple(one for one in self.resolved.configurations if one.settings.mesh == plane.NAME)

    def _try_policies(self, plane: ControlPlane) -> None:
        """Check whether the API server and the mesh's webhooks would accept every policy of the run, before anything is
        measured."""
        names, refused = self._names(), list[str]()
        for one in self._measured(plane):
            for moved in one.in_namespaces(_stand_in_lock(names[one.name])).moved:
                if not makes_pods(moved.value):
                    self._try_object(moved, moved.document, one.name, refused)
        _require_accepted("a policy", refused)

    def _retry(self, act: Callable[[], None]) -> None:
        retry_after_outage(self.cluster, act, watch=self.watch)

    def _prepare(self, deployment: ClusterDeployment) -> None:
        """Create namespaces, and policies before there are pods."""
        self._retry(lambda: self._make_policies(deployment.manifests))

    def _make_policies(self, manifests: TrialManifests) -> None:
        self.owner.create_all(manifests.namespaces(), "namespace")
        if manifests.plane:
            self._apply_accepted(manifests.plane, manifests.policies)

    def _wait_for_daemons(self, rendered: Sequence[Object]) -> None:
        """Wait for what runs on every node: a pod that came before its mesh's CNI plugin would not be redirected."""
        for thing in daemons_of(rendered):
            name, space = thing["metadata"]["name"], thing["metadata"]["namespace"]
            wait_for_rollout(
                self.cluster, space, [name], kind="DaemonSet", timeout_s=self.cluster.timing.install_s, watch=self.watch
            )

    def _apply_accepted(self, plane: ControlPlane, things: Sequence[Object]) -> None:
        """Apply policies, and wait until the control plane has accepted them."""
        self.owner.apply_all(things, _POLICY)
        timing = self.cluster.timing
        accepted = wait_until(
            lambda: not plane.find_unaccepted(self.cluster, things),
            timeout_s=timing.accept_s,
            watch=self.watch,
            poll_s=timing.poll_s,
        )
        if not accepted and (problem := plane.find_unaccepted(self.cluster, things)):
            raise DeployError(f"{plane.NAME} did not accept the policies within {timing.accept_s:.0f} s: {problem}")

    def _remove(self, deployment: ClusterDeployment) -> None:
        """Delete everything of a trial. A sequential run waits for it before the next trial; side by side the next
        block has other namespaces, and `_finish_removals` waits before its load."""
        self._retry(lambda: self._delete_namespaces(deployment.manifests))
        if not self.run.scenario.is_paired:
            self._retry(lambda: self._finish_removal(deployment.manifests))
        else:
            self.removals.append(deployment.manifests)

    def _delete_namespaces(self, manifests: TrialManifests) -> None:
        for space in manifests.spaces:
            self.owner.remove(Ref("v1", "Namespace", space))
            if not self.run.scenario.is_paired:  # else the next block is deployed meanwhile, which takes longer
                # The cluster looks into it after 5 s, and where a pod is left, only 5 s later again.
                self.owner.delete_pods(space)

    def _finish_removal(self, manifests: TrialManifests) -> None:
        for space in manifests.spaces:
            wait_until_deleted(self.cluster, space, timeout_s=self.cluster.timing.gone_s, watch=self.watch)
        if any(map(list_claims, manifests.things)):
            self._wait_for_volumes(manifests.spaces)
        plane = manifests.plane
        if plane and not self.run.scenario.is_paired:
            self._restore_policies(manifests, plane)

    def _wait_for_volumes(self, spaces: Collection[str]) -> None:
        """Wait until the volumes of deleted namespaces are deleted, which their provisioner does."""

        def find_left() -> list[str]:
            volumes = self.cluster.list("v1", "PersistentVolume")
            claims = ((one["metadata"]["name"], (one.get("spec") or {}).get("claimRef") or {}) for one in volumes)
            return [name for name, claim in claims if claim.get("namespace") in spaces]

        timing = self.cluster.timing
        if not wait_until(lambda: not find_left(), timeout_s=timing.gone_s, watch=self.watch, poll_s=timing.poll_s):
            names = " ".join(find_left())
            why = f"still there after {timing.gone_s:g} s"
            command = format_command("kubectl", "--context", self.cluster.context, "delete", "pv", *find_left())
            raise DeployError(f"volumes of the run are {why}: {names}; hint: {command}")

    def _finish_removals(self) -> None:
        """Wait until nothing of earlier blocks is left, which would use CPU under the next load. Policies outside of
        namespaces stay: they are in a part of the mesh that belongs to the configuration in every block."""
        for manifests in self.removals:
            self._retry(partial(self._finish_removal, manifests))
        self.removals.clear()

    def _restore_policies(self, manifests: TrialManifests, plane: ControlPlane) -> None:
        """Delete policies outside the trial's namespace; restore what the mesh needs anyway."""
        elsewhere = [one for one in manifests.policies if one["metadata"].get("namespace") not in manifests.spaces]
        names = manifests.configuration.namespaces
        base = {ref_of(thing): thing for thing in plane.base_objects(names.run_mesh)}
        refs = [ref_of(thing) for thing in elsewhere]
        for ref in refs:
            if ref not in base:
                self.owner.remove(ref)
        self.owner.apply_all([base[ref] for ref in refs if ref in base], _POLICY)
        self._delete_generated(plane, elsewhere)
        wait_until_deleted(
            self.cluster,
            [ref for ref in refs if ref not in base],
            timeout_s=self.cluster.timing.gone_s,
            watch=self.watch,
        )

    def _delete_generated(self, plane: ControlPlane, objects: Sequence[Object]) -> None:
        for ref in plane.list_generated(objects):
            if (made := self.cluster.get(ref)) is not None:
                self.cluster.delete(made)

    def _make_deployment(self, trial: Trial, index: int, summaries: Summaries) -> ClusterDeployment:
        """Return the deployment of a trial, which is the one of that `index` in its unit."""
        page = self.options.locust_ui
        manifests = build_trial_manifests(
            self.resolved,
            trial.configuration,
            options=self.options,
            names=self._names(trial.block)[trial.configuration],
            load_place=self.load_place,
            seed=self.run.plan.seed + trial.number,
        )
        return ClusterDeployment(
            cluster=self.cluster,
            owner=self.owner,
            watch=self.watch,
            manifests=manifests,
            absent=self._absent(trial),
            summaries=summaries,
            page_port=None if page is None else page + index,
        )

    def _absent(self, trial: Trial) -> tuple[str, ...]:
        """With `isolation: full`, return the meshes of the other trials."""
        own = self.run.scenario.configuration(trial.configuration).mesh
        return tuple(mesh for mesh in meshes_of(self.run.scenario) if mesh != own) if self._alone else ()


def _stand_in_lock(names: Namespaces) -> Namespaces:
    """Return names in which the lock's namespace stands in for those of the trials, which do not exist yet."""
    return replace(names, runs=dict.fromkeys(names.runs, LOCK_NAMESPACE.name))


def _require_accepted(what: str, refused: Sequence[str]) -> None:
    """Raise DeployError with each refusal once."""
    if refused:
        raise DeployError("\n".join([f"the cluster does not accept {what}:", *dict.fromkeys(refused)]))


@contextmanager
def open_target(
    cluster: Cluster,
    options: ClusterOptions,
    *,
    run: RunRecord,
    resolved: ResolvedScenario,
    journal: Journal,
    watch: CancelToken,
    load_place: LoadPlacement,
) -> Iterator[ClusterTarget]:
    """Open the cluster target for a run. However the block is left, everything of the run is deleted, unless `--keep`
    is given."""
    owner = Owner(cluster, run.run_id, journal, watch)
    target = ClusterTarget(cluster, options, run, resolved, owner, watch, load_place)
    try:
        target.try_application()
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
            target.clean()


def _clean_after(error: BaseException, target: ClusterTarget) -> None:
    if target.options.keep:
        return
    try:
        target.clean()
    except MeshbenchError as left:
        note_leftovers(error, left)
