"""The cluster target: control planes once per run, and for each trial namespaces with everything new in them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bench.errors import ClusterError, DeployError, Interrupted, MeshbenchError, note_leftovers
from bench.k8s.client import Cluster, Object, Ref, ref_of
from bench.k8s.ownership import Owner
from bench.k8s.retry import retry_after_outage
from bench.k8s.wait import wait_for_rollout, wait_until_deleted
from bench.meshes.cluster_protocol import ControlPlane
from bench.meshes.control_planes import CONTROL_PLANES
from bench.meshes.resolved import ResolvedScenario
from bench.meshes.rewriting import Namespaces
from bench.results.records import RunRecord
from bench.scenario.plan import Trial
from bench.system.cancellation import CancelToken, wait_until
from bench.system.journal import Journal
from bench.targets.cluster.application_manifests import makes_pods
from bench.targets.cluster.deployment import ClusterDeployment
from bench.targets.cluster.load.placement import LoadPlacement
from bench.targets.cluster.lock import LOCK_NAMESPACE, ensure_held
from bench.targets.cluster.options import ClusterOptions, meshes_of
from bench.targets.cluster.preflight.capacity import daemons_of, install_options
from bench.targets.cluster.teardown.cleanup import clean_cluster
from bench.targets.cluster.trial_manifests import (
    TrialManifests,
    build_trial_manifests,
)


@dataclass(frozen=True, slots=True)
class ClusterTarget:
    """A run's target on a cluster; see `bench.targets.Target`."""

    cluster: Cluster
    options: ClusterOptions
    run: RunRecord
    resolved: ResolvedScenario
    owner: Owner
    watch: CancelToken
    load_place: LoadPlacement

    @contextmanager
    def deploy(self, trials: Sequence[Trial], drafts: Sequence[Path]) -> Iterator[Sequence[ClusterDeployment]]:
        """See `bench.targets.Target`."""
        ensure_held(self.cluster, self.run.run_id)
        with ExitStack() as deployed:
            yield [deployed.enter_context(self._deploy(*one)) for one in zip(trials, drafts, strict=True)]

    @contextmanager
    def _deploy(self, trial: Trial, draft: Path) -> Iterator[ClusterDeployment]:
        """Deploy one configuration; leaving the block removes it."""
        deployment = self._make_deployment(trial)
        plane, policies = deployment.manifests.plane, deployment.manifests.policies
        with self.installed([plane.NAME]) if plane and self._alone else nullcontext():
            try:
                self._retry(lambda: self._prepare(deployment.manifests))
                deployment.start()
                yield deployment
            except Interrupted:
                raise  # nothing failed, and there may be little time
            except MeshbenchError:  # the run's end removes everything, or leaves it for inspection (--keep)
                with suppress(ClusterError):  # logs explain a failure, and must not take its place
                    deployment.save_logs(draft)
                raise
            self._retry(lambda: self._remove(plane, policies))

    @contextmanager
    def installed(self, meshes: Sequence[str]) -> Iterator[None]:
        """Install control planes; those of `isolation: full` are deleted when the block is left, others with the
        run."""
        for mesh in meshes:
            self._retry(partial(self._install, mesh, CONTROL_PLANES[mesh]))
        yield
        if self._alone:
            clean_cluster(self.cluster, self.run.run_id, watch=self.watch)

    @property
    def _alone(self) -> bool:
        return self.run.scenario.isolation == "full" and not self.options.existing_mesh

    @property
    def _names(self) -> Namespaces:
        run = self.run.run_id.rpartition("-")[2]
        return self.resolved.name_namespaces(run, existing_mesh=self.options.existing_mesh)

    def _install(self, mesh: str, plane: ControlPlane) -> None:
        if not self.options.existing_mesh:
            options = install_options(self.options, mesh, self.run.scenario.equalise)
            rendered = plane.render(replace(options, kubeconfig=self.cluster.kubeconfig))
            self.owner.apply_all(rendered, mesh)
            self._wait_for_daemons(rendered)
        plane.wait_ready(self.cluster, timeout_s=self.cluster.timing.install_s, watch=self.watch)
        self._apply_accepted(plane, plane.base_objects(self._names.run_mesh), mesh)
        self._try_policies(plane)

    def _try_policies(self, plane: ControlPlane) -> None:
        """Check whether the API server and the mesh's webhooks would accept every policy of the run, before anything is
        measured. Since the trials' namespaces do not exist yet, the lock's stands in for them."""
        names = self._names
        stand_in = replace(names, runs=dict.fromkeys(names.runs, LOCK_NAMESPACE.name))
        own = [one for one in self.resolved.configurations if one.settings.mesh == plane.NAME]
        for name, thing in [(one.name, moved.value) for one in own for moved in one.in_namespaces(stand_in).moved]:
            if makes_pods(thing):
                continue
            try:
                self.cluster.apply(thing, dry_run=True)
            except ClusterError as error:
                if error.is_retryable:
                    raise
                raise DeployError(f"{name}: the cluster does not accept a policy: {error}") from error

    def _retry(self, act: Callable[[], None]) -> None:
        retry_after_outage(self.cluster, act, watch=self.watch)

    def _prepare(self, manifests: TrialManifests) -> None:
        """Create namespaces, and policies before there are pods."""
        self.owner.apply_all(manifests.namespaces(), "namespace")
        if manifests.plane:
            self._apply_accepted(manifests.plane, manifests.policies, "policy")

    def _wait_for_daemons(self, rendered: Sequence[Object]) -> None:
        """Wait for what runs on every node: a pod that came before its mesh's CNI plugin would not be redirected."""
        for thing in daemons_of(rendered):
            name, space = thing["metadata"]["name"], thing["metadata"]["namespace"]
            wait_for_rollout(
                self.cluster, space, [name], kind="DaemonSet", timeout_s=self.cluster.timing.install_s, watch=self.watch
            )

    def _apply_accepted(self, plane: ControlPlane, things: Sequence[Object], component: str) -> None:
        """Apply objects of a mesh, and wait until its control plane has accepted them."""
        self.owner.apply_all(things, component)
        timing = self.cluster.timing
        accepted = wait_until(
            lambda: not plane.find_unaccepted(self.cluster, things),
            timeout_s=timing.accept_s,
            watch=self.watch,
            poll_s=timing.poll_s,
        )
        if not accepted and (problem := plane.find_unaccepted(self.cluster, things)):
            raise DeployError(f"{plane.NAME} did not accept the policies within {timing.accept_s:.0f} s: {problem}")

    def _remove(self, plane: ControlPlane | None, policies: Sequence[Object]) -> None:
        """Delete everything of the trial before the next one begins."""
        spaces = (*self._names.runs.values(), self._names.outside)
        for space in spaces:
            self.owner.remove(Ref("v1", "Namespace", space))
            # The cluster looks into it after 5 s, and where a pod is left, only 5 s later again.
            self.owner.delete_pods(space)
        for space in spaces:
            wait_until_deleted(self.cluster, space, timeout_s=self.cluster.timing.gone_s, watch=self.watch)
        if plane:
            self._restore_policies(
                plane, [thing for thing in policies if thing["metadata"].get("namespace") not in spaces]
            )

    def _restore_policies(self, plane: ControlPlane, elsewhere: Sequence[Object]) -> None:
        """Delete policies outside the trial's namespace; restore what the mesh needs anyway."""
        base = {ref_of(thing): thing for thing in plane.base_objects(self._names.run_mesh)}
        refs = [ref_of(thing) for thing in elsewhere]
        for ref in refs:
            if ref not in base:
                self.owner.remove(ref)
        self.owner.apply_all([base[ref] for ref in refs if ref in base], plane.NAME)
        for ref in plane.list_generated(elsewhere):
            self.cluster.delete(ref)
        wait_until_deleted(
            self.cluster,
            [ref for ref in refs if ref not in base],
            timeout_s=self.cluster.timing.gone_s,
            watch=self.watch,
        )

    def _make_deployment(self, trial: Trial) -> ClusterDeployment:
        manifests = build_trial_manifests(
            self.resolved,
            trial.configuration,
            options=self.options,
            names=self._names,
            load_place=self.load_place,
            seed=self.run.plan.seed + trial.number,
        )
        return ClusterDeployment(
            cluster=self.cluster, owner=self.owner, watch=self.watch, manifests=manifests, absent=self._absent(trial)
        )

    def _absent(self, trial: Trial) -> tuple[str, ...]:
        """With `isolation: full`, return the meshes of the other trials."""
        own = self.run.scenario.configuration(trial.configuration).mesh
        return tuple(mesh for mesh in meshes_of(self.run.scenario) if mesh != own) if self._alone else ()


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
    if target.options.keep:
        return
    try:
        clean_cluster(target.cluster, target.run.run_id, watch=target.watch)
    except MeshbenchError as left:
        note_leftovers(error, left)
