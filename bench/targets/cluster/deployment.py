"""One configuration on a cluster: pods that are new and ready, its proofs and its load."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from bench.application.model import GATEWAY, Application, Hop
from bench.errors import ClusterError
from bench.k8s.client import Cluster, Object, Ref
from bench.k8s.logs import save_logs
from bench.k8s.objects import find_restarts, names_of
from bench.k8s.ownership import COMPONENT, Owner
from bench.k8s.retry import retry_after_outage
from bench.k8s.wait import Pods, wait_for, wait_for_rollout, wait_until_deleted
from bench.load.generator import LoadOutcome, Progress
from bench.meshes.cluster_protocol import ControlPlane
from bench.meshes.control_planes import CONTROL_PLANES
from bench.results.records import DataPath, Evidence
from bench.system.cancellation import CancelToken, wait_until
from bench.system.timing import Timing
from bench.targets.cluster.application_manifests import pods_in_mesh, pods_with_sidecar, running_images
from bench.targets.cluster.interference import (
    NodeConditions,
    PodSnapshot,
    control_plane_pods,
    find_ended,
    find_node_problems,
    find_removed,
    snapshot_conditions,
    snapshot_pods,
)
from bench.targets.cluster.kubelet import kubelet_usage, nodes_of
from bench.targets.cluster.load.generator import Meter, locust_page, start_load
from bench.targets.cluster.load.pod import KEEPER, NAME, uid_for
from bench.targets.cluster.options import ClusterOptions
from bench.targets.cluster.probes.injection import WEBHOOKS, baseline_evidence, find_uninjected, mesh_evidence
from bench.targets.cluster.probes.prober import CONTAINER, ClusterProber, is_probe_ready
from bench.targets.cluster.probes.sidecars import Sidecars, front_requests, read_sidecars_path
from bench.targets.cluster.prometheus import PrometheusUsage, make_query
from bench.targets.cluster.trial_manifests import TrialManifests
from bench.verification.checks import (
    Meshed,
    baseline_checks,
    hop_counts,
    hops_of,
    identity_evidences,
    load_evidence,
    mesh_checks,
    page_check,
    policy_checks,
    prove,
    subtract_counts,
)
from bench.verification.evidence import HopCount, alone_evidence, synced_evidence
from bench.verification.questions import SERIES, count_expected_requests, pages_evidence

T = TypeVar("T")

_SERIES: Final = 3  # times in a row that every answer has to be right


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where a trial's deployment is, and what it is made from. `absent` are the meshes that must not be there
    meanwhile."""

    cluster: Cluster
    owner: Owner
    watch: CancelToken
    manifests: TrialManifests
    absent: tuple[str, ...]

    @property
    def application(self) -> Application:
        return self.manifests.application

    @property
    def namespace(self) -> str:
        return self.manifests.namespace

    @property
    def outside(self) -> str:
        return self.manifests.outside

    @property
    def options(self) -> ClusterOptions:
        return self.manifests.options

    @property
    def timing(self) -> Timing:
        return self.cluster.timing


@dataclass
class ClusterDeployment:
    """See `bench.targets.Deployment`."""

    site: Site
    _counts_before: dict[Hop, HopCount] = field(default_factory=dict)
    _planes_before: PodSnapshot = field(default_factory=dict)
    _pods_before: PodSnapshot = field(default_factory=dict)
    _nodes_before: NodeConditions = field(default_factory=dict)

    @property
    def plane(self) -> ControlPlane | None:
        return self.site.manifests.plane

    @property
    def meshed(self) -> Meshed | None:
        return self.site.manifests.meshed

    def start(self) -> None:
        """Create the pods and wait until a user would get a complete page, and every policy is in force."""
        self._planes_before = self._retry(lambda: snapshot_pods(control_plane_pods(self.site.cluster)))
        self._retry(self._make_complete_pods)

    def _make_complete_pods(self) -> None:
        self._make_pods()
        if self._bare_pods():  # the webhook was not ready yet
            self._replace_pods()
            self._make_pods()
            if self._bare_pods():
                return  # the proof reports it at once
        self._settle()

    def _make_pods(self) -> None:
        owner, application = self.site.owner, self.site.application
        objects = self.site.manifests.pods(uid_for(self.site.cluster.kinds()))
        for component, things in objects.items():
            owner.apply_all(things, component)
        names = [thing["metadata"]["name"] for thing in objects["application"] if thing["kind"] == "Deployment"]
        wait_for_rollout(
            self.site.cluster, application.namespace, names, timeout_s=self.site.timing.ready_s, watch=self.site.watch
        )
        if application.gateway:  # its Deployment may be the mesh's
            self._wait_for_pods(application.namespace, f"application,app={GATEWAY}", _is_up)
        for namespace in (application.namespace, self.site.outside):
            self._wait_for_pods(namespace, "probe", is_probe_ready)
        self._wait_for_pods(application.namespace, "load", _is_up)

    def _bare_pods(self) -> tuple[str, ...]:
        """Return the pods that should have a sidecar and have none: it cannot be added later."""
        return find_uninjected(pods_with_sidecar(self._pods_in_the_mesh()), self.plane.SIDECAR) if self.plane else ()

    def _replace_pods(self) -> None:
        """Delete the trial's pods, so that others replace them; `_make_pods` makes those without an owner again."""
        site = self.site
        pods = site.owner.delete_pods(site.namespace)
        wait_until_deleted(site.cluster, pods, timeout_s=site.timing.ready_s, watch=site.watch)

    def prove(self, load: LoadOutcome | None = None) -> tuple[Evidence, ...]:
        """See `bench.targets.Deployment`."""
        if load is not None and self.restarts():
            return ()  # pods that ended under the load prove nothing more; `restarts` reports them
        alone = self._retry(self._alone_evidence)
        plane, meshed = self.plane, self.meshed
        if plane is None or meshed is None:
            return (*alone, *self._retry(self._baseline_evidence))
        counted: tuple[Evidence, ...] = ()
        if load is not None and load.countable:  # first, before further questions are counted too
            counted = self._retry(lambda: tuple(self._load_evidence(meshed, load)))
        return (*alone, *counted, *self._retry(lambda: self._mesh_evidence(plane, meshed)))

    def load(
        self, draft: Path, *, show: Callable[[Progress], None], kept: Callable[[LoadOutcome], None]
    ) -> LoadOutcome:
        """Run the generator; see `bench.targets.Deployment`."""
        site = self.site
        self._counts_before = self._retry(self._counts)
        pods, nodes = self._retry(lambda: (self._loaded_pods(), self._nodes()))
        self._pods_before, self._nodes_before = snapshot_pods(pods), snapshot_conditions(nodes, nodes_of(pods))
        load = start_load(
            site.cluster, site.manifests.order, draft, namespace=site.namespace, meter=self._meter(), watch=site.watch
        )
        with self._page():
            outcome = load.run(watch=site.watch, show=show, kept=kept)
        with suppress(ClusterError):  # logs explain a trial; without them it is a trial all the same
            self.save_logs(draft)
        return outcome

    def data_path(self, draft: Path) -> DataPath | None:
        """See `bench.targets.Deployment`."""
        return self._retry(lambda: self._data_path(draft))

    def _data_path(self, draft: Path) -> DataPath | None:
        sidecars = self._sidecars
        return read_sidecars_path(self.meshed, sidecars, draft / "proxies") if sidecars and self.meshed else None

    def restarts(self) -> tuple[str, ...]:
        """Return containers of the application that ended since it was deployed, pods that were removed under the load,
        problems of their nodes, and what ended of control planes meanwhile."""
        return self._retry(self._ended)

    def _ended(self) -> tuple[str, ...]:
        return (
            *find_restarts(self._pods("application")),
            *find_removed(self._pods_before, self._loaded_pods()),
            *find_node_problems(self._nodes_before, self._nodes()),
            *find_ended(self._planes_before, control_plane_pods(self.site.cluster)),
        )

    def images(self) -> dict[str, str]:
        """See `bench.targets.Deployment`."""
        return self._retry(lambda: running_images(self.site.cluster, self.site.namespace))

    def save_logs(self, draft: Path) -> None:
        """Save the last lines of each container's log, control planes included."""
        pods = (*self._loaded_pods(), *control_plane_pods(self.site.cluster))
        save_logs(self.site.cluster, pods, draft / "services")

    def _meter(self) -> Meter:
        """Return the meter for the pods as they are now, with control planes, whether or not this trial uses them."""
        site, planes = self.site, CONTROL_PLANES.values()
        kubelets = kubelet_usage(
            site.cluster,
            site.namespace,
            control_planes=[plane.NAMESPACE for plane in planes],
            sidecars=[plane.SIDECAR for plane in planes],
        )
        source = site.options.prometheus
        return PrometheusUsage(kubelets, make_query(source, site.cluster)) if source else kubelets

    def _page(self) -> AbstractContextManager[object]:
        """Serve Locust's web page, where the user asked for it."""
        port = self.site.options.locust_ui
        if port is None:
            return nullcontext()
        return locust_page(self.site.cluster, namespace=self.site.namespace, port=port)

    def _wait_for_pods(self, namespace: str, component: str, ready: Callable[[Object], bool]) -> None:
        wait_for(
            self.site.cluster,
            Pods(namespace, f"{COMPONENT}={component}"),
            lambda pods: bool(pods) and all(map(ready, pods)),
            timeout_s=self.site.timing.ready_s,
            watch=self.site.watch,
        )

    def _settle(self) -> None:
        """Wait until all answers were right some times in a row; the proof reports what is wrong at the timeout."""
        page = page_check(self.site.application, self.site.manifests.readers)
        checks = [page, *(policy_checks(self.meshed) if self.meshed else ())]
        right = 0

        def is_settled() -> bool:
            nonlocal right
            synced = not self._unsynced()
            facts = (*prove(self._prober, checks), *self._series(_SERIES)) if synced else ()
            right = right + 1 if facts and all(fact.ok for fact in facts) else 0
            return right >= _SERIES

        timing = self.site.timing
        wait_until(is_settled, timeout_s=timing.settle_s, watch=self.site.watch, poll_s=timing.poll_s)

    def _series(self, count: int = SERIES) -> Iterator[Evidence]:
        """Where routes differ by user group, yield whether each gets what is meant for it, every time."""
        readers = self.site.manifests.readers
        for reader in readers if len(readers) > 1 else ():
            yield pages_evidence(reader, self._prober.pages(reader.user, count), count=count)

    @property
    def _prober(self) -> ClusterProber:
        return ClusterProber(self.site.cluster, self.site.application, self.site.outside)

    @property
    def _sidecars(self) -> Sidecars | None:
        if self.plane is None:
            return None
        inside = pods_in_mesh(self._loaded_pods(), self.site.application)
        pods = {workload: name for name, workload in names_of(inside).items()}
        return Sidecars(self.plane, self.site.cluster, self.site.namespace, pods)

    def _loaded_pods(self) -> tuple[Object, ...]:
        """Return the pods through which the load goes."""
        return (*self._pods("application"), *self._pods("load"))

    def _nodes(self) -> tuple[Object, ...]:
        return self.site.cluster.list("v1", "Node")

    def _pods_in_the_mesh(self) -> tuple[Object, ...]:
        """Return the pods that the control plane knows."""
        return pods_in_mesh((*self._loaded_pods(), *self._pods("probe")), self.site.application)

    def _pods(self, component: str) -> tuple[Object, ...]:
        return self.site.cluster.list("v1", "Pod", namespace=self.site.namespace, labels=f"{COMPONENT}={component}")

    def _unsynced(self) -> str:
        if self.plane is None:
            return ""
        names = [pod["metadata"]["name"] for pod in self._pods_in_the_mesh()]
        return self.plane.find_unsynced(self.site.cluster, self.site.namespace, names)

    def _retry(self, act: Callable[[], T]) -> T:
        return retry_after_outage(self.site.cluster, act, watch=self.site.watch)

    def _alone_evidence(self) -> tuple[Evidence, ...]:
        cluster = self.site.cluster
        return tuple(alone_evidence(mesh, CONTROL_PLANES[mesh].find_installed(cluster)) for mesh in self.site.absent)

    def _baseline_evidence(self) -> tuple[Evidence, ...]:
        cluster = self.site.cluster
        namespace = cluster.get(Ref("v1", "Namespace", self.site.namespace)) or {"metadata": {}}
        pods = self._loaded_pods()
        own = {*(workload.app for workload in self.site.application.workloads), NAME, KEEPER, CONTAINER}
        return (
            *baseline_evidence(namespace, pods, cluster.list(*WEBHOOKS), own=own),
            *prove(self._prober, tuple(baseline_checks(self.site.application))),
        )

    def _mesh_evidence(self, plane: ControlPlane, meshed: Meshed) -> tuple[Evidence, ...]:
        pods = pods_with_sidecar(self._pods_in_the_mesh())
        sidecars = self._sidecars
        if find_uninjected(pods, plane.SIDECAR):
            return mesh_evidence(pods, plane.SIDECAR)  # a sidecar that is missing cannot be asked
        own = sidecars.own_ids() if sidecars else {}
        return (
            *mesh_evidence(pods, plane.SIDECAR),
            synced_evidence(self._unsynced()),
            *identity_evidences(meshed, own),
            *prove(self._prober, tuple(mesh_checks(meshed, own))),
            *self._series(),
        )

    def _load_evidence(self, meshed: Meshed, load: LoadOutcome) -> Iterator[Evidence]:
        sidecars = self._sidecars
        assert sidecars is not None  # noqa: S101  # a mesh has sidecars
        good, readers = load.samples.ok, self.site.manifests.readers
        hops = hops_of(self.site.application)
        expected = count_expected_requests(hops, self.site.application, readers=readers, samples=load.samples)
        callees = dict.fromkeys(hop.callee for hop in hops if expected[hop])
        yield from load_evidence(
            meshed,
            subtract_counts(self._counts_before, self._counts()),
            sidecars.tls(callees),
            requests=expected,
            errors=len(good) - int(good.sum()),
        )

    def _counts(self) -> dict[Hop, HopCount]:
        sidecars, meshed = self._sidecars, self.meshed
        if sidecars is None or meshed is None:
            return {}
        return hop_counts(meshed, {**sidecars.requests(), **front_requests(meshed.application, sidecars)})


def _is_up(pod: Object) -> bool:
    """Return whether every container of the pod is ready."""
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    return bool(statuses) and all(status["ready"] for status in statuses)
