"""The requests of the pods of a run, the free capacity of nodes, and their images."""

import json

import pytest

from bench.files.folders import find_shipped
from bench.files.yaml_source import read_documents
from bench.k8s.client import Object, Ref
from bench.meshes.resolved import resolve_scenario
from bench.scenario.loader import load_scenario
from bench.scenario.overrides import Overrides
from bench.system.timing import Timing
from bench.targets.cluster.application_manifests import image_of
from bench.targets.cluster.preflight.capacity import (
    FreeNode,
    PodPlan,
    PodRequest,
    Resources,
    Sidecar,
    build_manifests,
    examine_capacity,
    find_free,
    list_pod_requests,
    list_trial_pods,
    pod_resources,
    pods_of,
    read_sidecar,
)
from bench.targets.cluster.preflight.images import canonical, examine_images
from tests.fake_cluster import FakeCluster
from tests.shown_cluster import container, fake, node, options, pod

GI = 2**30


def test_pod_requests_equal_the_schedulers() -> None:
    """Containers and native sidecars are added up; an init container counts only where it requests more."""
    lasting = pod(
        container("100m", "64Mi"), init=(container("50m", "1Gi", restartPolicy="Always"), container("1", "1Mi"))
    )
    assert pod_resources(lasting["spec"]) == Resources(1.0, GI + 64 * 2**20)
    limited = {"name": "c", "image": "i", "resources": {"limits": {"cpu": "2"}}}
    assert pod_resources({"containers": [limited]}) == Resources(2.0, 0.0)


def test_ended_pods_request_nothing() -> None:
    """Pods that succeeded or failed free their capacity."""
    pods = [pod(container("1")), pod(container("1"), phase="Succeeded"), pod(container("1"), at="two")]
    assert find_free([node(cpu="4")], pods) == (FreeNode("one", Resources(3.0, 8 * GI), 109),)


@pytest.mark.parametrize(
    ("free", "state"),
    [
        ((FreeNode("one", Resources(1.0, GI), 10),), "ok"),
        ((FreeNode("one", Resources(0.9, GI), 10),), "error"),
        ((FreeNode("one", Resources(0.5, GI), 10), FreeNode("two", Resources(0.5, GI), 10)), "ok"),
        (
            (
                FreeNode("one", Resources(0.4, GI), 10),
                FreeNode("two", Resources(0.4, GI), 10),
                FreeNode("three", Resources(0.4, GI), 10),
            ),
            "error",
        ),
        ((FreeNode("one", Resources(4.0, GI), 1),), "error"),
        ((FreeNode("one", Resources(4.0, GI / 4), 10),), "error"),
        ((), "error"),
    ],
)
def test_run_needs_a_node_for_each_pod(free: tuple[FreeNode, ...], state: str) -> None:
    """The sum over the nodes is not enough, nor are CPUs without memory or a free pod slot."""
    asked = (PodRequest("details", Resources(0.5, GI / 4)), PodRequest("reviews", Resources(0.5, GI / 4)))
    finding = examine_capacity(asked, free)
    assert finding.status == state
    assert state == "ok" or "reviews (0.5 CPU" in finding.detail


LOAD = PodRequest("locust", Resources(0.2, GI / 4), "load")
DETAILS = PodRequest("details", Resources(0.5, GI / 4), "application")
ISTIOD = PodRequest("istiod", Resources(0.5, GI / 4))
ROOMY, FULL = FreeNode("a", Resources(4.0, 8 * GI), 10), FreeNode("b", Resources(0.1, GI), 10)


@pytest.mark.parametrize(
    ("free", "load_node", "expected"),
    [
        ((ROOMY, FULL), "", ""),
        ((ROOMY, FULL), "b", "unschedulable: locust (0.2 CPU and 256 MiB, on b only)"),
        ((ROOMY, FULL), "a", "unschedulable: details (0.5 CPU and 256 MiB, not on a)"),
        ((FULL, FreeNode("b", Resources(0.2, GI), 10), ROOMY), "b", ""),
    ],
)
def test_run_needs_capacity_on_the_permitted_nodes(free: tuple[FreeNode, ...], load_node: str, expected: str) -> None:
    """The load on its node alone, the application on all others, the rest on any; the message names the node."""
    finding = examine_capacity((LOAD, DETAILS, ISTIOD), free, load_node=load_node)
    assert finding.status == ("error" if expected else "ok")
    assert expected in finding.detail
    assert (f"; the load has {load_node} for itself" in finding.detail) is bool(load_node)


def test_preflight_keeps_load_and_application_apart() -> None:
    """Probes, and pods of Kuma's gateway, which accepts no affinity, may run on any node."""
    name = "gateway"
    pods = list_trial_pods(build_manifests(resolve_scenario(name, Overrides()), options()).values())
    parts = {one.name: one.share for trial in pods for one in PodPlan((trial,)).requests}
    assert {one for one, part in parts.items() if part == "load"} == {"locust"}
    assert {"details-v1", "productpage-v1"} <= {one for one, part in parts.items() if part == "application"}
    assert {part for one, part in parts.items() if one.startswith("probe")} == {"any"}


def test_counts_sidecar_of_each_replica() -> None:
    """A Deployment of two requests twice its pod and twice the sidecar."""
    template = {"spec": {"containers": [container("100m", "1Gi")]}}
    deployment = {"kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 2, "template": template}}
    assert list_pod_requests([deployment], sidecar=Resources(0.1, GI)) == (PodRequest("d", Resources(0.2, 2 * GI)),) * 2


def test_kuma_gateway_has_one_pod_without_a_sidecar() -> None:
    """The shipped manifest has the requests of its proxy."""
    files = (find_shipped("manifests") / "kuma" / "gateway").glob("*.yaml")
    things = [one.value for file in files for one in read_documents(file)]
    assert list_pod_requests(pods_of(things), sidecar=Resources(1, GI)) == (
        PodRequest("gateway", Resources(0.05, GI / 16)),
    )


def test_sidecar_requests_come_from_the_control_plane() -> None:
    """Values files change the defaults of a mesh."""
    proxy = {"image": "proxyv2", "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}}}
    values = json.dumps({"global": {"hub": "mirror.example", "tag": "1.31", "proxy": proxy}})
    config = {"kind": "ConfigMap", "metadata": {"name": "istio-sidecar-injector"}, "data": {"values": values}}
    istio = read_sidecar("istio", [config])
    assert (istio.resources, istio.images) == (Resources(0.01, 64 * 2**20), ("mirror.example/proxyv2:1.31",))

    prefix = "KUMA_INJECTOR_SIDECAR_CONTAINER_RESOURCES_REQUESTS"
    limits = {
        f"{prefix}_CPU": "50m",
        f"{prefix}_MEMORY": "64Mi",
        "KUMA_RUNTIME_KUBERNETES_INJECTOR_SIDECAR_CONTAINER_IMAGE": "docker.io/kumahq/kuma-dp:2.14.3",
        "KUMA_INJECTOR_INIT_CONTAINER_IMAGE": "docker.io/kumahq/kuma-init:2.14.3",
    }
    env = [{"name": name, "value": value} for name, value in limits.items()]
    template = {"spec": {"containers": [container(env=env)]}}
    deployment = {"kind": "Deployment", "metadata": {"name": "kuma-control-plane"}, "spec": {"template": template}}
    kuma = read_sidecar("kuma", [deployment])
    assert kuma.resources == Resources(0.05, 64 * 2**20)
    assert (istio | kuma).resources == Resources(0.05, 64 * 2**20)
    assert set(kuma.images) == {"docker.io/kumahq/kuma-dp:2.14.3", "docker.io/kumahq/kuma-init:2.14.3"}


@pytest.mark.parametrize(
    ("image", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("locustio/locust:2.47.0", "docker.io/locustio/locust:2.47.0"),
        ("localhost:5000/bookinfo", "localhost:5000/bookinfo:latest"),
        ("registry.istio.io/release/pilot:1.31", "registry.istio.io/release/pilot:1.31"),
        ("locustio/locust:2.47.0@sha256:ab", "docker.io/locustio/locust@sha256:ab"),
    ],
)
def test_compares_images_by_full_name(image: str, full: str) -> None:
    """Nodes list full names, people write short ones."""
    assert canonical(image) == full


@pytest.mark.parametrize("listed", [1, 50])
def test_unlisted_image_is_no_warning(listed: int) -> None:
    """A kubelet lists its largest images only, and new ones late, so that absence proves nothing."""
    images = [["docker.io/locustio/locust:2.47.0"], *([f"x.example/other:{number}"] for number in range(1, listed))]
    nodes = [node(images=images), node("two", images=images)]
    present, absent = examine_images(fake(), ["locustio/locust:2.47.0", "x.example/y:1"], nodes, pull=False)
    assert (present.status, present.detail) == ("ok", "1 of 2 on every node")
    assert absent.status == "ok"
    assert "x.example/y:1 is not listed by one, two, which may have it all the same" in absent.detail
    assert "--yes" in absent.detail


class PullingCluster(FakeCluster):
    """A cluster whose kubelet sets every container of a pod to one state."""

    state: Object

    def get(self, ref: Ref) -> Object | None:
        found = super().get(ref)
        if ref.kind == "ServiceAccount":
            return {}
        if found and ref.kind == "Pod":
            names = [one["name"] for one in found["spec"]["containers"]]
            found["status"] = {"containerStatuses": [{"name": name, "state": self.state} for name in names]}
        return found


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"terminated": {"reason": "StartError", "exitCode": 128}}, "ok"),
        ({"waiting": {"reason": "CreateContainerError"}}, "ok"),
        ({"waiting": {"reason": "CreateContainerConfigError"}}, "ok"),
        ({"waiting": {"reason": "RunContainerError"}}, "ok"),
        ({"waiting": {"reason": "ContainerCreating"}}, "warning"),
        ({"waiting": {"reason": "ErrImagePull", "message": "not found"}}, "error"),
        ({"waiting": {"reason": "ImagePullBackOff"}}, "error"),
    ],
    ids=lambda one: one if isinstance(one, str) else next(iter(one.values()))["reason"],
)
def test_image_pull_check_decides(state: Object, expected: str) -> None:
    """A container that waits after its image was pulled is not an image error, whatever the lists say."""
    cluster = PullingCluster(timing=Timing(poll_s=0.0, pull_s=0.1))
    cluster.state = state
    (checked,) = examine_images(cluster.cluster, ["x.example/y:1"], [node(images=[])], pull=True)
    assert (checked.status, checked.name) == (expected, "image")
    assert [ref.kind for ref, _ in cluster.log] == ["Namespace"], "nothing of the check stays"


def test_checks_replaced_images() -> None:
    """The images that will run are checked: replaced ones unchanged, the others from the mirror."""
    assert (
        image_of("details", "registry.istio.io/release/d:1", images={}, registry="m.example") == "m.example/release/d:1"
    )
    images = {"bookinfo": "y.io/b:2"}
    assert image_of("details", "x.io/d:1", images=images, registry="m.example", application="bookinfo") == "y.io/b:2"
    assert image_of("load", "locustio/locust:1", images={"bookinfo": "y.io/b:2"}, registry="") == "locustio/locust:1"


def test_counts_application_load_and_probes() -> None:
    """All pods that exist at the same time are counted, with one version of reviews."""
    chosen = options(images={"bookinfo": "b.example/b:1"})
    manifests = build_manifests(resolve_scenario("smoke", Overrides()), chosen)
    planned = PodPlan(list_trial_pods(manifests.values()))
    names = [asked.name for asked in planned.requests]
    assert planned.images == ("b.example/b:1", "docker.io/locustio/locust:2.47.0")
    assert {"details-v1", "ratings-v1", "productpage-v1", "locust"} <= set(names)
    assert len([name for name in names if name.startswith("reviews-v")]) == 1


def test_counts_the_largest_configuration() -> None:
    """The probes of a policy for details need a pod that the baseline does not have."""
    name = "istio-policies"
    scenario = load_scenario(name, Overrides())
    pods = list_trial_pods(build_manifests(resolve_scenario(name, Overrides()), options()).values())
    asked = [one.name for one in PodPlan(pods).requests]
    assert len(pods) == len(scenario.configurations)
    counts = [sum(map(len, one.values())) for one in pods]
    assert len(asked) == max(counts) > min(counts)
    assert "probe-details" in asked


def test_counts_the_pods_of_every_kind_of_workload() -> None:
    """Replicas of Deployments and StatefulSets, the pods of a Job that run at a time, and one of a bare Pod; one of a
    DaemonSet is on every node, with its sidecar."""

    def make_workload(kind: str, **spec: int | None) -> Object:
        inside = {"spec": {"containers": [container("100m", "64Mi")]}}
        return {"kind": kind, "metadata": {"name": kind}, "spec": {"template": inside, **spec}}

    things = (
        make_workload("Deployment", replicas=None),
        make_workload("StatefulSet", replicas=3),
        make_workload("Job", parallelism=2),
        {**pod(container("100m", "64Mi")), "kind": "Pod", "metadata": {"name": "Pod"}},
        make_workload("DaemonSet"),
    )
    planned = PodPlan(({"application": things},), sidecar=Sidecar(Resources(0.1, 0)))
    names = [one.name for one in planned.requests]
    assert names == ["Deployment", *["StatefulSet"] * 3, *["Job"] * 2, "Pod"]
    assert [(one.name, one.resources.cpu) for one in planned.everywhere] == [("DaemonSet", 0.2)]
