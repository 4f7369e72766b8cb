"""An application of one's own on a cluster: its objects, the waits for its workloads, its proxies and its end."""

import base64
import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast

import pytest
import yaml

from bench.application.definition import ApplicationDefinition
from bench.application.model import read_application
from bench.errors import ClusterError, DeployError, ErrorKind
from bench.k8s.client import Ref, ref_of
from bench.k8s.exec import ExecResult
from bench.k8s.ownership import WORKLOAD, Owner
from bench.meshes.cluster_protocol import ControlPlane
from bench.meshes.resolved import ResolvedScenario
from bench.system.cancellation import CancelToken
from bench.system.journal import Journal
from bench.targets.cluster.deployment import ClusterDeployment
from bench.targets.cluster.load.placement import UNDECIDED
from bench.targets.cluster.probes.pods import CONTAINER
from bench.targets.cluster.probes.prober import ClusterProber
from bench.targets.cluster.target import ClusterTarget
from bench.targets.cluster.trial_manifests import TrialManifests, build_trial_manifests
from bench.verification.counts import read_requests
from bench.verification.prober import pages_of
from tests.fake_cluster import FakeCluster
from tests.shown_cluster import options
from tests.unit.test_application_objects import Object, make, make_pods, make_service
from tests.unit.test_own_application import resolve_mine

SPACE: Final = "shop-7f3a"
TABLES: Final = {"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]}
THINGS: Final = (
    make_pods("seed", "Job"),
    make_pods("web", "Deployment", 8080, spec={"replicas": 2}),
    make_pods("db", "StatefulSet", 5432, spec=TABLES),
    make_pods("agent", "DaemonSet"),
    make_pods("tool", "Pod"),
    make_service("web", 80),
    make("Secret", "key"),
    make("PodDisruptionBudget", "web", "policy/v1"),
)


class Kubelet(FakeCluster):
    """A cluster in which pods are ready at once, and probe pods get answers with a status; `failing` are workloads that
    never become ready."""

    def __init__(self, status: int = 200, failing: Sequence[str] = (), refused: str = "") -> None:
        super().__init__()
        self.timing = replace(self.timing, settle_s=0.0, ready_s=0.0, gone_s=0.0)
        self.status, self.failing, self.refused = status, failing, refused
        self.applied: list[str] = []

    def apply(self, one: Object, *, dry_run: bool = False) -> Object:
        if one["metadata"]["name"] == self.refused:
            raise ClusterError("422: unknown field", kind=ErrorKind.REJECTED)
        return super().apply(one, dry_run=dry_run)

    def create(self, one: Object) -> Object:
        self.applied.append(f"{one['kind']} {one['metadata']['name']}")
        return super().create({**one, **self._status(one)})

    def _status(self, one: Object) -> Object:
        ready = one["metadata"]["name"] not in self.failing
        count = (one.get("spec") or {}).get("replicas", 1) if ready else 0
        counts = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas"), count)
        running = {"ready": ready, "state": {"running": {}}, "restartCount": 0}
        reason = {"reason": "BackoffLimitExceeded", "message": "3 pods failed"}
        statuses: dict[str, Object] = {
            "Deployment": counts,
            "StatefulSet": counts,
            "DaemonSet": {"desiredNumberScheduled": 1, "updatedNumberScheduled": count, "numberAvailable": count},
            "Job": {"conditions": [{"type": "Complete" if ready else "Failed", "status": "True", **reason}]},
            "Pod": {
                "containerStatuses": [{**running, "name": box["name"]} for box in one["spec"].get("containers", ())]
            }
            if one["kind"] == "Pod"
            else {},
        }
        return {"status": statuses[one["kind"]]} if one["kind"] in statuses else {}

    def exec(self, _pod: str, _argv: Sequence[str], *, stdin: bytes, container: str, **_: Any) -> ExecResult:
        assert container == CONTAINER
        body = base64.b64encode(b"ok").decode()
        answer = {"status": self.status, "headers": {}, "tls": None, "error": "", "message": "", "body": body}
        return ExecResult(0, json.dumps([answer for _ in json.loads(stdin)]).encode(), "")

    def logs(self, *_: Any, **__: Any) -> str:
        return "starting"


def resolve_shop(folder: Path, *things: Object) -> ResolvedScenario:
    files = {"shop/all.yaml": yaml.safe_dump_all(things)}
    return resolve_mine(folder, {"name": "shop", "entry": "web:80", "ready": {"path": "/get"}}, files)


def build(resolved: ResolvedScenario) -> TrialManifests:
    names = resolved.name_namespaces("7f3a", "baseline", existing_mesh=False)
    return build_trial_manifests(resolved, "baseline", options=options(), names=names, load_place=UNDECIDED)


@contextmanager
def deployed(folder: Path, cluster: Kubelet, *things: Object) -> Iterator[ClusterDeployment]:
    """A deployment of these objects without a mesh, in namespaces that exist."""
    manifests, watch = build(resolve_shop(folder, *things)), CancelToken()
    with closing(Journal(folder / "journal.jsonl")) as journal:
        owner = Owner(cluster.cluster, "run-7f3a", journal, watch)
        owner.apply_all(manifests.namespaces(), "namespace")
        cluster.applied.clear()
        yield ClusterDeployment(cluster=cluster.cluster, owner=owner, watch=watch, manifests=manifests, absent=())


def test_applies_and_awaits_every_workload(tmp_path: Path) -> None:
    """What pods need comes before them, and Jobs come last; pods are labelled with the name of their workload."""
    cluster = Kubelet()
    with deployed(tmp_path, cluster, *THINGS) as deployment:
        deployment.start()
        assert deployment.prover.page().ok
    assert cluster.applied[:8] == [
        "Secret key",
        "Service web",
        "PodDisruptionBudget web",
        "StatefulSet db",
        "DaemonSet agent",
        "Deployment web",
        "Pod tool",
        "Job seed",
    ]
    web = cluster.things[Ref("apps/v1", "Deployment", "web", SPACE)]
    assert web["spec"]["template"]["metadata"]["labels"][WORKLOAD] == "web"
    assert cluster.things[Ref("v1", "Pod", "tool", SPACE)]["metadata"]["labels"][WORKLOAD] == "tool"


@pytest.mark.parametrize(
    ("failing", "message"),
    [
        (
            "seed",
            r"Job shop-7f3a/seed: 0 of 1 pods completed, will not become ready: Job seed(.|\n)*BackoffLimitExceeded",
        ),
        ("db", "StatefulSet shop-7f3a/db: 0 of 1 pods available, after 0 s"),
        ("web", "Deployment shop-7f3a/web: 0 of 2 pods available, after 0 s"),
        ("agent", "DaemonSet shop-7f3a/agent: 0 of 1 pods available, after 0 s"),
        ("tool", "Pod shop-7f3a/tool: not as wanted, after 0 s"),
    ],
)
def test_names_the_workload_that_is_not_ready(tmp_path: Path, failing: str, message: str) -> None:
    """Each kind is waited for, and a failure has its reason."""
    with (
        deployed(tmp_path, Kubelet(failing=[failing]), *THINGS) as deployment,
        pytest.raises(DeployError, match=message),
    ):
        deployment.start()


def test_reports_a_page_that_is_never_ready(tmp_path: Path) -> None:
    """A wrong path or port of the entry is one message, with what was expected and what came."""
    message = (
        "GET /get of web:80 got no valid answer within 0 s: expected 200, got 404 ok; hint: check `entry` and `ready`"
    )
    with deployed(tmp_path, Kubelet(status=404), *THINGS) as deployment, pytest.raises(DeployError, match=message):
        deployment.start()


def make_target(folder: Path, cluster: Kubelet, *things: Object) -> ClusterTarget:
    """A target of which only what needs no run is used."""
    resolved, watch = resolve_shop(folder, *things), CancelToken()
    unused = cast("Any", None)
    return ClusterTarget(cluster.cluster, options(), unused, resolved, unused, watch, UNDECIDED)


def test_tries_every_object_before_the_run(tmp_path: Path) -> None:
    """What the API server does not accept is reported with file and line, before anything is created."""
    cluster = Kubelet(refused="db")
    with pytest.raises(DeployError, match=r"the application:\nStatefulSet db: shop/all.yaml:\d+: 422"):
        make_target(tmp_path, cluster, *THINGS).try_application()
    assert cluster.things == {}
    make_target(tmp_path, Kubelet(), *THINGS).try_application()


def test_awaits_the_deletion_of_volumes(tmp_path: Path) -> None:
    """A volume of the run that stays is named with the command that deletes it; those of others are not looked at."""
    cluster, target = (fake := Kubelet()), make_target(tmp_path, fake, *THINGS)
    volumes = [
        {**make("PersistentVolume", name), "spec": {"claimRef": {"namespace": space, "name": "data-db-0"}}}
        for name, space in (("pv-1", SPACE), ("pv-2", "other"))
    ]
    cluster.add(volumes)
    with pytest.raises(DeployError, match=r"still there after 0 s: pv-1; hint: kubectl --context fake delete pv pv-1$"):
        target._wait_for_volumes([SPACE])  # the last step of a removal
    del cluster.things[ref_of(volumes[0])]
    target._wait_for_volumes([SPACE])


class Sidecars:
    """A control plane of whose pods each sidecar has sent on as many requests as the pod's name ends in."""

    SIDECAR = "istio-proxy"

    @staticmethod
    def admin(_cluster: Any, pod: str, path: str, *, namespace: str) -> str:
        return f"{namespace} {pod} {path}"


def test_adds_up_the_proxies_of_a_workload(tmp_path: Path) -> None:
    """A workload with several pods has several proxies, whose requests count together; Jobs have none any more."""
    definition = ApplicationDefinition(name="shop", entry="web:80").place(tmp_path)
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(THINGS), "utf-8")
    application = replace(read_application(definition), namespace=SPACE)
    cluster = FakeCluster()
    names = {"web-a-1": "web", "web-b-2": "web", "db-0": "db", "seed-x": ""}
    for name, workload in names.items():
        owner = {"kind": "ReplicaSet" if workload else "Job", "name": name}
        labels = {"meshbench.dev/component": "application", **({WORKLOAD: workload} if workload else {})}
        metadata = {"name": name, "namespace": SPACE, "labels": labels, "ownerReferences": [owner]}
        cluster.add([{"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": []}}])
    prober = ClusterProber(cluster.cluster, application, "outside", cast("ControlPlane", Sidecars))
    proxies = prober.proxies()
    assert {name: page("/x") for name, page in proxies.items()} == {
        "db": f"{SPACE} db-0 /x",
        "web": f"{SPACE} web-a-1 /x",
        "web~2": f"{SPACE} web-b-2 /x",
    }
    assert len(pages_of("web", proxies)) == 2

    class Counting:
        requests = staticmethod(lambda page: {"inbound": int(page("").split()[1][-1])})

    assert read_requests(cast("Any", Counting), proxies) == {"db": {"inbound": 0}, "web": {"inbound": 3}}
