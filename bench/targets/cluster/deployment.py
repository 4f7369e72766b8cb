"""One configuration on a cluster: pods that are new and ready, its proofs and its load."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from bench.application.model import GATEWAY
from bench.application.objects import TEMPLATES
from bench.errors import ClusterError, DeployError
from bench.k8s.client import Cluster, Object, Ref
from bench.k8s.logs import save_logs
from bench.k8s.objects import find_restarts, node_name
from bench.k8s.ownership import COMPONENT, Owner
from bench.k8s.wait import Pods, wait_for, wait_for_rollout, wait_until_deleted
from bench.load.generator import LoadOutcome, RunningLoad
from bench.meshes.control_planes import CONTROL_PLANES
from bench.results.records import DataPath, Evidence
from bench.system.cancellation import CancelToken, wait_until
from bench.system.private_files import PrivateFolder
from bench.targets.cluster.application_manifests import pods_with_sidecar, running_images
from bench.targets.cluster.interference import (
    NodeConditions,
    PodSnapshot,
    control_plane_pods,
    find_ended,
    find_node_problems,
    find_removed,
    snapshot_conditions,
    snapshot_neighbours,
    snapshot_pods,
)
from bench.targets.cluster.kubelet import Summaries, kubelet_usage, nodes_of
from bench.targets.cluster.load.generator import Meter, locust_page, start_load
from bench.targets.cluster.load.pod import fill_secret, uid_for
from bench.targets.cluster.neighbours import NeighbourWatch
from bench.targets.cluster.node_noise import NodeNoise
from bench.targets.cluster.probes.injection import find_uninjected
from bench.targets.cluster.probes.pods import is_probe_ready
from bench.targets.cluster.probes.prober import ClusterProber
from bench.targets.cluster.prometheus import PrometheusUsage, make_query
from bench.targets.cluster.trial_manifests import TrialManifests
from bench.units import parse_quantity
from bench.verification.prover import Prover

T = TypeVar("T")

_SERIES: Final = 3  # times in a row that every answer has to be right


@dataclass(kw_only=True)
class ClusterDeployment:
    """See `bench.targets.Deployment`. `absent` are the meshes that must not be there meanwhile; `summaries` are those
    of kubelets, which all deployments of a block read; `page_port` is the local port of Locust's page, None without."""

    cluster: Cluster
    owner: Owner
    watch: CancelToken
    manifests: TrialManifests
    absent: tuple[str, ...]
    summaries: Summaries | None = None
    page_port: int | None = None
    prober: ClusterProber = field(init=False)
    prover: Prover = field(init=False)
    _planes_before: PodSnapshot = field(default_factory=dict)
    _pods_before: PodSnapshot = field(default_factory=dict)
    _nodes_before: NodeConditions = field(default_factory=dict)

    def __post_init__(self) -> None:
        manifests = self.manifests
        self.prober = ClusterProber(
            self.cluster,
            manifests.application,
            manifests.outside,
            manifests.plane,
            self.absent,
            self.watch,
            manifests.sidecar_image,
            manifests.containers,
        )
        self.prover = Prover(self.prober, manifests.configuration)

    def start(self) -> None:
        """Create the pods and wait until a user would get a complete page, and every policy is in force."""
        self._planes_before = self._retry(lambda: snapshot_pods(control_plane_pods(self.cluster)))
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
        owner, application = self.owner, self.manifests.application
        objects = self.manifests.pods(uid_for(self.cluster.kinds()))
        for component, things in objects.items():
            owner.create_all((fill_secret(thing, self.manifests.order) for thing in things), component)
        self._wait_for_workloads(objects["application"])
        if application.gateway:  # its Deployment may be the mesh's
            self._wait_for_pods(application.namespace, f"application,app={GATEWAY}", _is_up)
        probes = [one["metadata"]["namespace"] for one in objects["probe"] if one["kind"] == "Pod"]
        for namespace in dict.fromkeys(probes):
            self._wait_for_pods(namespace, "probe", is_probe_ready)
        self._wait_for_pods(application.namespace, "load", _is_up)

    def _wait_for_workloads(self, things: Sequence[Object]) -> None:
        """Wait until the pods of all workloads are ready, and Jobs have completed."""
        groups: dict[tuple[str, str], list[str]] = {}
        for thing in things:
            if thing["kind"] in TEMPLATES:
                key = thing["kind"], thing["metadata"]["namespace"]
                groups.setdefault(key, []).append(thing["metadata"]["name"])
        for (kind, namespace), names in groups.items():
            if kind != "Pod":
                wait_for_rollout(self.cluster, namespace, names, kind=kind, timeout_s=self._ready_s, watch=self.watch)
                continue
            for name in names:
                ref = Ref("v1", "Pod", name, namespace)
                wait_for(self.cluster, ref, _are_up, timeout_s=self._ready_s, watch=self.watch)

    @property
    def _ready_s(self) -> float:
        """How long the application's pods may take: as its definition says, if that is longer than usual."""
        return max(self.manifests.application.definition.ready.timeout_s or 0.0, self.cluster.timing.ready_s)

    def _bare_pods(self) -> tuple[str, ...]:
        """Return the pods that should have a sidecar and have none: it cannot be added later."""
        plane = self.manifests.plane
        return find_uninjected(pods_with_sidecar(self.prober.pods_in_mesh()), plane.SIDECAR) if plane else ()

    def _replace_pods(self) -> None:
        """Delete the trial's pods, so that others replace them; `_make_pods` makes those without an owner again."""
        pods = [pod for space in self.manifests.spaces for pod in self.owner.delete_pods(space)]
        wait_until_deleted(self.cluster, pods, timeout_s=self.cluster.timing.ready_s, watch=self.watch)

    def prove(self, load: LoadOutcome | None = None) -> tuple[Evidence, ...]:
        """See `bench.targets.Deployment`."""
        if load is not None and self.restarts():
            return ()  # pods that ended under the load prove nothing more; `restarts` reports them
        return self.prover.prove(load.countable, is_mixed=load.is_mixed) if load else self.prover.prove()

    @contextmanager
    def loading(self, draft: Path) -> Iterator[RunningLoad]:
        """See `bench.targets.Deployment`."""
        manifests = self.manifests
        self.prover.start_counting()
        pods, nodes = self._retry(lambda: (self.prober.loaded_pods(), self._nodes()))
        self._pods_before, self._nodes_before = snapshot_pods(pods), snapshot_conditions(nodes, nodes_of(pods))
        meter = self._meter(nodes, nodes_of(pods))
        self.owner.note_stage("counting")
        load = start_load(
            self.cluster,
            manifests.order,
            draft,
            namespace=manifests.namespace,
            meter=meter,
            watch=self.watch,
            private=self._find_private(draft),
        )
        with self._page():
            yield load
        self.owner.note_stage("loaded")
        with suppress(ClusterError):  # logs explain a trial; without them it is a trial all the same
            self.save_logs(draft)

    def data_path(self, draft: Path) -> DataPath | None:
        """See `bench.targets.Deployment`."""
        return self.prover.data_path(draft / "proxies")

    def restarts(self) -> tuple[str, ...]:
        """Return containers of the application that ended since it was deployed, pods that were removed under the load,
        problems of their nodes, and what ended of control planes meanwhile."""
        return self._retry(self._ended)

    def _ended(self) -> tuple[str, ...]:
        return (
            *find_restarts(self.prober.find_pods("application")),
            *find_removed(self._pods_before, self.prober.loaded_pods()),
            *find_node_problems(self._nodes_before, self._nodes()),
            *find_ended(self._planes_before, control_plane_pods(self.cluster)),
        )

    def images(self) -> dict[str, str]:
        """See `bench.targets.Deployment`."""
        return self._retry(lambda: running_images(self.cluster, self.manifests.application.spaces))

    def save_logs(self, draft: Path) -> None:
        """Save the last lines of each container's log, control planes included, in the private folder of the trial."""
        pods = (*self.prober.loaded_pods(), *control_plane_pods(self.cluster))
        save_logs(self.cluster, pods, self._find_private(draft))

    def _find_private(self, draft: Path) -> PrivateFolder:
        return PrivateFolder.of_trial(draft, self.owner.run_id)

    def _meter(self, nodes: Sequence[Object], used: Sequence[str]) -> Meter:
        """Return the meter for the pods as they are now, with control planes, whether or not this trial uses them.
        `used` are the names of the nodes of the load."""
        planes = CONTROL_PLANES.values()
        made = self.cluster.list("v1", "Namespace", labels=self.owner.mine())
        spaces = frozenset((*(one["metadata"]["name"] for one in made), *(plane.NAMESPACE for plane in planes)))
        cpus = {node_name(one): parse_quantity(str(one["status"]["capacity"]["cpu"])) for one in nodes}
        kubelets = kubelet_usage(
            self.cluster,
            self.manifests.application.spaces,
            control_planes=[plane.NAMESPACE for plane in planes],
            sidecars=[plane.SIDECAR for plane in planes],
            noise=NodeNoise(cpus, spaces),
            summaries=self.summaries,
        )
        source = self.manifests.options.prometheus
        meter = PrometheusUsage(kubelets, make_query(source, self.cluster)) if source else kubelets
        before = snapshot_neighbours(self.cluster.list("v1", "Pod"), nodes=used, own=spaces)
        return NeighbourWatch(self.cluster, meter, used, spaces, before)

    def _page(self) -> AbstractContextManager[object]:
        """Serve Locust's web page, where the user asked for it."""
        if self.page_port is None:
            return nullcontext()
        return locust_page(self.cluster, namespace=self.manifests.namespace, port=self.page_port)

    def _wait_for_pods(self, namespace: str, component: str, ready: Callable[[Object], bool]) -> None:
        wait_for(
            self.cluster,
            Pods(namespace, f"{COMPONENT}={component}"),
            lambda pods: bool(pods) and all(map(ready, pods)),
            timeout_s=self.cluster.timing.ready_s,
            watch=self.watch,
        )

    def _settle(self) -> None:
        """Wait until all answers were right some times in a row; the proof reports what is wrong at the timeout. Raises
        DeployError where the application itself, without a mesh, gives no valid answer."""
        right = 0

        def is_settled() -> bool:
            nonlocal right
            facts = () if self.prober.find_unsynced() else self.prover.prove_ready(_SERIES)
            right = right + 1 if facts and all(fact.ok for fact in facts) else 0
            return right >= _SERIES

        timing = self.cluster.timing
        limit_s = max(self.manifests.application.definition.ready.timeout_s or 0.0, timing.settle_s)
        settled = wait_until(is_settled, timeout_s=limit_s, watch=self.watch, poll_s=timing.poll_s)
        if not settled and not self.prover.is_meshed and not (page := self.prover.page()).ok:
            front, ready = self.manifests.application.front, self.manifests.application.definition.ready
            raise DeployError(
                f"GET {ready.path} of {front.name}:{front.port} got no valid answer within {limit_s:g} s: expected"
                f" {ready.status}, got {page.seen}; hint: check `entry` and `ready` of the application"
            )

    def _nodes(self) -> tuple[Object, ...]:
        return self.cluster.list("v1", "Node")

    def _retry(self, act: Callable[[], T]) -> T:
        return self.prober.retry(act)


def _are_up(pods: Sequence[Object]) -> bool:
    return bool(pods) and all(map(_is_up, pods))


def _is_up(pod: Object) -> bool:
    """Return whether every container of the pod is ready."""
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    return bool(statuses) and all(status["ready"] for status in statuses)
