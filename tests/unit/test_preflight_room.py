"""What the pods of a run ask for, whether nodes have that, and their images."""

import json

import pytest

from bench.files.folders import shipped
from bench.files.yaml_source import read_documents
from bench.k8s.client import Object, Ref
from bench.scenario.loader import inputs_of, load_scenario
from bench.scenario.overrides import Overrides
from bench.targets.cluster.application_manifests import image_of
from bench.targets.cluster.preflight import images as pulls
from bench.targets.cluster.preflight.capacity import (
    Asked,
    Free,
    Planned,
    Room,
    asked_by,
    examine_room,
    free_rooms,
    injected,
    planned_pods,
    pod_room,
    pods_of,
)
from bench.targets.cluster.preflight.images import canonical, examine_images
from tests.fake_cluster import FakeCluster
from tests.shown_cluster import container, fake, node, options, pod

GI = 2**30


def test_a_pod_asks_for_its_containers_and_native_sidecars_or_for_its_greatest_beginning() -> None:
    """As the scheduler counts: what lasts is added up, what runs before it counts only where it is more."""
    lasting = pod(
        container("100m", "64Mi"), init=(container("50m", "1Gi", restartPolicy="Always"), container("1", "1Mi"))
    )
    assert pod_room(lasting["spec"]) == Room(1.0, GI + 64 * 2**20)
    limited = {"name": "c", "image": "i", "resources": {"limits": {"cpu": "2"}}}
    assert pod_room({"containers": [limited]}) == Room(2.0, 0.0)


def test_what_has_ended_leaves_its_room() -> None:
    """Pods that succeeded or failed ask for nothing any more."""
    pods = [pod(container("1")), pod(container("1"), phase="Succeeded"), pod(container("1"), at="two")]
    assert free_rooms([node(cpu="4")], pods) == (Free("one", Room(3.0, 8 * GI), 109),)


@pytest.mark.parametrize(
    ("free", "state"),
    [
        ((Free("one", Room(1.0, GI), 10),), "ok"),
        ((Free("one", Room(0.9, GI), 10),), "error"),
        ((Free("one", Room(0.5, GI), 10), Free("two", Room(0.5, GI), 10)), "ok"),
        ((Free("one", Room(0.4, GI), 10), Free("two", Room(0.4, GI), 10), Free("three", Room(0.4, GI), 10)), "error"),
        ((Free("one", Room(4.0, GI), 1),), "error"),
        ((Free("one", Room(4.0, GI / 4), 10),), "error"),
        ((), "error"),
    ],
)
def test_a_run_has_room_when_each_of_its_pods_fits_on_a_node(free: tuple[Free, ...], state: str) -> None:
    """The sum over the nodes is not enough, nor are processors without memory or a place for a pod."""
    asked = (Asked("details", Room(0.5, GI / 4)), Asked("reviews", Room(0.5, GI / 4)))
    finding = examine_room(asked, free)
    assert finding.status == state
    assert state == "ok" or "reviews (0.5 CPU" in finding.detail


LOAD = Asked("locust", Room(0.2, GI / 4), "load")
DETAILS = Asked("details", Room(0.5, GI / 4), "application")
ISTIOD = Asked("istiod", Room(0.5, GI / 4))
ROOMY, FULL = Free("a", Room(4.0, 8 * GI), 10), Free("b", Room(0.1, GI), 10)


@pytest.mark.parametrize(
    ("free", "load_node", "expected"),
    [
        ((ROOMY, FULL), "", ""),
        ((ROOMY, FULL), "b", "none for locust (0.2 CPU and 256 MiB, on b only)"),
        ((ROOMY, FULL), "a", "none for details (0.5 CPU and 256 MiB, not on a)"),
        ((FULL, Free("b", Room(0.2, GI), 10), ROOMY), "b", ""),
    ],
)
def test_a_run_has_room_where_its_pods_may_go(free: tuple[Free, ...], load_node: str, expected: str) -> None:
    """The load on its node alone, the application on all others, the rest on any; the message names the node."""
    finding = examine_room((LOAD, DETAILS, ISTIOD), free, load_node=load_node)
    assert finding.status == ("error" if expected else "ok")
    assert expected in finding.detail
    assert (f"; the load has {load_node} for itself" in finding.detail) is bool(load_node)


def test_the_pre_flight_sees_what_the_load_may_not_share() -> None:
    """By the affinities that the pods will really have: those of Kuma's gateway, which takes none, go anywhere."""
    name = "gateway"
    scenario = load_scenario(name, Overrides())
    pods = planned_pods(scenario, options(), inputs_of(scenario, name))
    parts = {one.name: one.part for things in pods for one in asked_by(things)}
    assert {one for one, part in parts.items() if part == "load"} == {"locust"}
    assert {"details-v1", "productpage-v1"} <= {one for one, part in parts.items() if part == "application"}
    assert {part for one, part in parts.items() if one.startswith("probe")} == {"any"}


def test_each_replica_comes_with_its_sidecar() -> None:
    """A Deployment of two asks for twice its pod and twice the sidecar."""
    template = {"spec": {"containers": [container("100m", "1Gi")]}}
    deployment = {"kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 2, "template": template}}
    assert asked_by([deployment], sidecar=Room(0.1, GI)) == (Asked("d", Room(0.2, 2 * GI)),) * 2


def test_a_gateway_of_kumas_control_plane_has_its_pod_and_no_sidecar() -> None:
    """What the shipped manifest asks for is its proxy's."""
    files = (shipped("manifests") / "kuma" / "gateway").glob("*.yaml")
    things = [one.value for file in files for one in read_documents(file)]
    assert asked_by(pods_of(things), sidecar=Room(1, GI)) == (Asked("gateway", Room(0.05, GI / 16)),)


def test_sidecars_are_as_large_as_the_control_plane_says() -> None:
    """Not what a mesh's manual says: values files change it."""
    proxy = {"image": "proxyv2", "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}}}
    values = json.dumps({"global": {"hub": "mirror.example", "tag": "1.31", "proxy": proxy}})
    config = {"kind": "ConfigMap", "metadata": {"name": "istio-sidecar-injector"}, "data": {"values": values}}
    istio = injected("istio", [config])
    assert (istio.room, istio.images) == (Room(0.01, 64 * 2**20), ("mirror.example/proxyv2:1.31",))

    prefix = "KUMA_INJECTOR_SIDECAR_CONTAINER_RESOURCES_REQUESTS"
    told = {
        f"{prefix}_CPU": "50m",
        f"{prefix}_MEMORY": "64Mi",
        "KUMA_RUNTIME_KUBERNETES_INJECTOR_SIDECAR_CONTAINER_IMAGE": "docker.io/kumahq/kuma-dp:2.14.3",
        "KUMA_INJECTOR_INIT_CONTAINER_IMAGE": "docker.io/kumahq/kuma-init:2.14.3",
    }
    env = [{"name": name, "value": value} for name, value in told.items()]
    template = {"spec": {"containers": [container(env=env)]}}
    deployment = {"kind": "Deployment", "metadata": {"name": "kuma-control-plane"}, "spec": {"template": template}}
    kuma = injected("kuma", [deployment])
    assert kuma.room == Room(0.05, 64 * 2**20)
    assert (istio | kuma).room == Room(0.05, 64 * 2**20)
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
def test_images_are_compared_by_their_full_names(image: str, full: str) -> None:
    """Nodes list full names, people write short ones."""
    assert canonical(image) == full


@pytest.mark.parametrize("listed", [1, 50])
def test_an_image_that_no_node_lists_is_no_warning(listed: int) -> None:
    """A kubelet lists its largest images only, and new ones late, so that absence proves nothing."""
    images = [["docker.io/locustio/locust:2.47.0"], *([f"x.example/other:{number}"] for number in range(1, listed))]
    nodes = [node(images=images), node("two", images=images)]
    present, absent = examine_images(fake(), ["locustio/locust:2.47.0", "x.example/y:1"], nodes, pull=False)
    assert (present.status, present.detail) == ("ok", "1 of 2 on every node")
    assert absent.status == "ok"
    assert "x.example/y:1 is not listed by one, two, which may have it all the same" in absent.detail
    assert "--yes" in absent.detail


class PullingCluster(FakeCluster):
    """A cluster whose kubelet brings every container of a pod into one state."""

    state: Object

    def get(self, ref: Ref) -> Object | None:
        found = super().get(ref)
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
def test_the_pull_check_decides(state: Object, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a container waits for after its image is on the node is no fault of the image, whatever the lists say."""
    monkeypatch.setattr(pulls, "PULL_TIMEOUT_S", 0.1)
    cluster = PullingCluster()
    cluster.state = state
    (checked,) = examine_images(cluster.cluster, ["x.example/y:1"], [node(images=[])], pull=True)
    assert (checked.status, checked.name) == (expected, "image")
    assert [ref.kind for ref, _ in cluster.log] == ["Namespace"], "nothing of the check stays"


def test_a_runs_images_follow_the_users() -> None:
    """What is looked for is what will run: replaced images as they are, the others from the mirror."""
    assert (
        image_of("details", "registry.istio.io/release/d:1", images={}, registry="m.example") == "m.example/release/d:1"
    )
    assert image_of("details", "x.io/d:1", images={"bookinfo": "y.io/b:2"}, registry="m.example") == "y.io/b:2"
    assert image_of("load", "locustio/locust:1", images={"bookinfo": "y.io/b:2"}, registry="") == "locustio/locust:1"


def test_application_load_and_probes_are_counted() -> None:
    """Room is for all that is there at once, with one version of reviews."""
    smoke = load_scenario("smoke", Overrides())
    chosen = options(images={"bookinfo": "b.example/b:1"})
    planned = Planned(planned_pods(smoke, chosen, inputs_of(smoke, "smoke")))
    names = [asked.name for asked in planned.asked]
    assert planned.images == ("b.example/b:1", "docker.io/locustio/locust:2.47.0")
    assert {"details-v1", "ratings-v1", "productpage-v1", "locust"} <= set(names)
    assert len([name for name in names if name.startswith("reviews-v")]) == 1


def test_the_configuration_that_asks_for_most_is_what_there_must_be_room_for() -> None:
    """A policy for details is asked about by a pod in its name, which the baseline does not have."""
    name = "istio-policies"
    scenario = load_scenario(name, Overrides())
    pods = planned_pods(scenario, options(), inputs_of(scenario, name))
    asked = [one.name for one in Planned(pods).asked]
    assert len(pods) == len(scenario.configurations)
    assert len(asked) == max(len(one) for one in pods) > min(len(one) for one in pods)
    assert "probe-details" in asked
