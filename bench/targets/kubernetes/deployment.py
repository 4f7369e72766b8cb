"""One configuration on a cluster: pods that are new, ready, provable and loadable."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.errors import ClusterError
from bench.load.generator import LoadOrder, LoadOutcome, Progress
from bench.meshes.application import Application
from bench.proofs import Hop, HopCount, synced_evidence
from bench.records import Evidence
from bench.targets.kubernetes.application import bookinfo_objects, running_images
from bench.targets.kubernetes.client import Cluster, Object, Ref
from bench.targets.kubernetes.control_plane import ControlPlane
from bench.targets.kubernetes.control_planes import CONTROL_PLANES
from bench.targets.kubernetes.evidence import (
    Meshed,
    Sidecars,
    baseline_checks,
    counts_moved,
    hop_counts,
    hops_of,
    identity_evidences,
    load_evidence,
    mesh_checks,
    page_check,
    policy_checks,
    prove,
)
from bench.targets.kubernetes.images import image_of
from bench.targets.kubernetes.injection import WEBHOOKS, baseline_evidence, mesh_evidence, restarts
from bench.targets.kubernetes.load_objects import KEEPER, NAME, default_image, load_objects, uid_for
from bench.targets.kubernetes.load_place import LoadPlace
from bench.targets.kubernetes.load_pod import Meter, locust_page, start_load
from bench.targets.kubernetes.options import ClusterOptions
from bench.targets.kubernetes.ownership import COMPONENT, Owner
from bench.targets.kubernetes.probing import CONTAINER, Prober, askers, can_ask, outside_objects, probe_objects
from bench.targets.kubernetes.prometheus import PrometheusUsage, source_of
from bench.targets.kubernetes.usage import kubelet_usage
from bench.targets.kubernetes.waits import Pods, rollout, wait_for
from bench.waiting import Watch, wait_until

READY_TIMEOUT_S: Final = 180.0
SETTLE_TIMEOUT_S: Final = 90.0  # connections that were open when a policy came may keep the old one for 45 s
_SERIES: Final = 3  # so many times in a row every answer has to be right
_POLL_S: Final = 0.5
_LOG_LINES: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What a trial's deployment is made of, and where."""

    cluster: Cluster
    owner: Owner
    watch: Watch
    options: ClusterOptions
    load_place: LoadPlace
    application: Application
    folder: Path
    outside: str
    order: LoadOrder

    @property
    def namespace(self) -> str:
        return self.application.namespace


@dataclass
class ClusterDeployment:
    """See `bench.targets.Deployment`. `plane` and `meshed` are None without a mesh."""

    site: Site
    plane: ControlPlane | None
    meshed: Meshed | None
    _counted: dict[Hop, HopCount] = field(default_factory=dict)

    def start(self) -> None:
        """Makes the pods and waits until a user would get a whole page, and every policy shows."""
        owner, application = self.site.owner, self.site.application
        objects = self._objects()
        for component, things in objects.items():
            owner.apply_all(things, component)
        names = [thing["metadata"]["name"] for thing in objects["application"] if thing["kind"] == "Deployment"]
        rollout(self.site.cluster, application.namespace, names, timeout_s=READY_TIMEOUT_S, watch=self.site.watch)
        for namespace in (application.namespace, self.site.outside):
            self._wait_for_pods(namespace, "probe", can_ask)
        self._wait_for_pods(application.namespace, "load", _is_up)
        self._settle()

    def prove(self, load: LoadOutcome | None = None) -> tuple[Evidence, ...]:
        """See `bench.targets.Deployment`."""
        if load is not None and self.restarts():
            return ()  # what fell apart under the load proves nothing more; that it did is told by itself
        if self.plane is None or self.meshed is None:
            return self._baseline_evidence()
        whole = load if load is not None and not load.generator.problem else None
        counted = tuple(self._load_evidence(self.meshed, whole)) if whole is not None else ()
        return (*counted, *self._mesh_evidence(self.plane, self.meshed))

    def load(
        self, draft: Path, *, show: Callable[[Progress], None], kept: Callable[[LoadOutcome], None]
    ) -> LoadOutcome:
        """Runs the generator; see `bench.targets.Deployment`."""
        site = self.site
        self._counted = self._counts()
        load = start_load(
            site.cluster, site.order, draft, namespace=site.namespace, meter=self._meter(), watch=site.watch
        )
        with self._page():
            outcome = load.run(watch=site.watch, show=show, kept=kept)
        self.save_logs(draft)
        return outcome

    def restarts(self) -> tuple[str, ...]:
        """Containers of the application that ended since it was deployed."""
        return restarts(self._pods("application"))

    def images(self) -> dict[str, str]:
        return running_images(self.site.cluster, self.site.namespace)

    def save_logs(self, draft: Path) -> None:
        """The last lines of everybody's log, sidecars included."""
        folder = draft / "services"
        folder.mkdir(exist_ok=True)
        for pod in (*self._pods("application"), *self._pods("load")):
            for container in _containers(pod):
                (folder / f"{pod['metadata']['labels']['app']}-{container}.log").write_text(
                    self._log(pod["metadata"]["name"], container), "utf-8"
                )

    def _objects(self) -> dict[str, tuple[Object, ...]]:
        """Everything that is made, by component, in the order in which it is applied."""
        site, options = self.site, self.site.options
        image = image_of("load", default_image(), images=options.images, registry=options.registry)
        annotations = self.plane.pod_annotations() if self.plane else {}
        uid = uid_for(site.cluster.kinds())
        callers = askers(site.application, self.meshed.probes if self.meshed else ())
        return {
            "application": bookinfo_objects(
                site.application,
                site.folder,
                images=options.images,
                registry=options.registry,
                annotations=annotations,
                affinity=site.load_place.application,
            ),
            "probe": (
                *probe_objects(site.application, callers, image=image, uid=uid),
                *outside_objects(site.outside, image=image, uid=uid),
            ),
            "load": load_objects(
                site.order,
                namespace=site.namespace,
                image=image,
                affinity=site.load_place.load,
                uid=uid,
                annotations=annotations,
                ui=options.locust_ui is not None,
            ),
        }

    def _meter(self) -> Meter:
        """For the pods as they are now; control planes are among them, whether or not this trial uses them."""
        site, planes = self.site, CONTROL_PLANES.values()
        kubelets = kubelet_usage(
            site.cluster,
            site.namespace,
            control_planes=[plane.NAMESPACE for plane in planes],
            sidecars=[plane.SIDECAR for plane in planes],
        )
        source = site.options.prometheus
        return PrometheusUsage(kubelets, source_of(source, site.cluster)) if source else kubelets

    def _page(self) -> AbstractContextManager[object]:
        """Locust's web page, for who asked for it."""
        port = self.site.options.locust_ui
        if port is None:
            return nullcontext()
        return locust_page(self.site.cluster, namespace=self.site.namespace, port=port)

    def _wait_for_pods(self, namespace: str, component: str, ready: Callable[[Object], bool]) -> None:
        wait_for(
            self.site.cluster,
            Pods(namespace, f"{COMPONENT}={component}"),
            lambda pods: bool(pods) and all(map(ready, pods)),
            timeout_s=READY_TIMEOUT_S,
            watch=self.site.watch,
        )

    def _settle(self) -> None:
        """Until all answers were right some times in a row; what is wrong at the end of the time the proof tells."""
        checks = [page_check(self.site.application), *(policy_checks(self.meshed) if self.meshed else ())]
        right = 0

        def settled() -> bool:
            nonlocal right
            synced = not self._unsynced()
            right = right + 1 if synced and all(fact.ok for fact in prove(self._prober, checks)) else 0
            return right >= _SERIES

        wait_until(settled, timeout_s=SETTLE_TIMEOUT_S, watch=self.site.watch, poll_s=_POLL_S)

    @property
    def _prober(self) -> Prober:
        return Prober(self.site.cluster, self.site.application, self.site.outside)

    @property
    def _sidecars(self) -> Sidecars | None:
        if self.plane is None:
            return None
        pods = {pod["metadata"]["labels"]["app"]: pod["metadata"]["name"] for pod in self._loaded_pods()}
        return Sidecars(self.plane, self.site.cluster, self.site.namespace, pods)

    def _loaded_pods(self) -> tuple[Object, ...]:
        """The pods through which the load goes."""
        return (*self._pods("application"), *self._pods("load"))

    def _pods(self, component: str) -> tuple[Object, ...]:
        return self.site.cluster.list("v1", "Pod", namespace=self.site.namespace, labels=f"{COMPONENT}={component}")

    def _unsynced(self) -> str:
        if self.plane is None:
            return ""
        names = [pod["metadata"]["name"] for pod in (*self._loaded_pods(), *self._pods("probe"))]
        return self.plane.unsynced(self.site.cluster, self.site.namespace, names)

    def _baseline_evidence(self) -> tuple[Evidence, ...]:
        cluster = self.site.cluster
        namespace = cluster.get(Ref("v1", "Namespace", self.site.namespace)) or {"metadata": {}}
        pods = self._loaded_pods()
        own = {*(workload.name for workload in self.site.application.workloads), NAME, KEEPER, CONTAINER}
        return (
            *baseline_evidence(namespace, pods, cluster.list(*WEBHOOKS), own=own),
            *prove(self._prober, tuple(baseline_checks(self.site.application))),
        )

    def _mesh_evidence(self, plane: ControlPlane, meshed: Meshed) -> tuple[Evidence, ...]:
        pods = (*self._loaded_pods(), *self._pods("probe"))
        sidecars = self._sidecars
        own = sidecars.own_ids() if sidecars else {}
        return (
            *mesh_evidence(pods, plane.SIDECAR),
            synced_evidence(self._unsynced()),
            *identity_evidences(meshed, own),
            *prove(self._prober, tuple(mesh_checks(meshed, own))),
        )

    def _load_evidence(self, meshed: Meshed, load: LoadOutcome) -> Iterator[Evidence]:
        sidecars = self._sidecars
        assert sidecars is not None  # noqa: S101  # a mesh has sidecars
        good = load.samples.ok
        callees = dict.fromkeys(hop.callee for hop in hops_of(self.site.application))
        yield from load_evidence(
            meshed,
            counts_moved(self._counted, self._counts()),
            sidecars.tls(callees),
            requests=len(good),
            errors=len(good) - int(good.sum()),
        )

    def _counts(self) -> dict[Hop, HopCount]:
        sidecars = self._sidecars
        return hop_counts(self.meshed, sidecars.requests()) if sidecars and self.meshed else {}

    def _log(self, pod: str, container: str) -> str:
        try:
            return self.site.cluster.logs(pod, namespace=self.site.namespace, container=container, lines=_LOG_LINES)
        except ClusterError as error:
            return f"no log: {error}\n"


def _is_up(pod: Object) -> bool:
    """Every container of the pod is ready."""
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    return bool(statuses) and all(status["ready"] for status in statuses)


def _containers(pod: Object) -> tuple[str, ...]:
    """Those that go on running: native sidecars are init containers."""
    spec: Mapping[str, list[Object]] = pod["spec"]
    native = [one for one in spec.get("initContainers") or () if one.get("restartPolicy") == "Always"]
    return tuple(one["name"] for one in (*spec["containers"], *native))
