"""Bookinfo and its probe pods on a real cluster: our own image, the unchanged manifests, and no mesh."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from bench.application.model import Application
from bench.k8s.client import Cluster, Object, Ref
from bench.k8s.objects import find_restarts
from bench.meshes.resolved import ResolvedConfiguration
from bench.system.cancellation import CancelToken, wait_until
from bench.targets.cluster.application_manifests import application_objects, running_images
from bench.targets.cluster.load.pod import default_image, uid_for
from bench.targets.cluster.probes.injection import WEBHOOKS, read_namespace_state
from bench.targets.cluster.probes.pods import CONTAINER, find_callers, is_probe_ready, outside_objects, probe_objects
from bench.targets.cluster.probes.prober import ClusterProber
from bench.verification.checks import baseline_checks, page_check, prove
from bench.verification.prober import State
from bench.verification.questions import OUTSIDE, Question
from tests.cluster.job import delete_named
from tests.cluster.lab_images import BOOKINFO, build_bookinfo
from tests.moving import move_bookinfo
from tests.sidecars import configuration_with


@dataclass(frozen=True)
class Deployed:
    """What a test reads."""

    cluster: Cluster
    configuration: ResolvedConfiguration
    prober: ClusterProber

    @property
    def application(self) -> Application:
        return self.configuration.deployed

    def pods(self) -> tuple[Object, ...]:
        return self.cluster.list("v1", "Pod", namespace=self.application.namespace)

    def until(self, check: object, *, timeout_s: float = 60) -> None:
        assert callable(check)
        assert wait_until(check, timeout_s=timeout_s, watch=CancelToken(), poll_s=0.5), self.pods()


@pytest.fixture(scope="module")
def deployed(cluster: Cluster) -> Iterator[Deployed]:
    """Bookinfo with reviews v3 in its own namespace, ready, and its probe pods."""
    build_bookinfo()
    name = f"t-probing-{secrets.token_hex(3)}"
    configuration = configuration_with("none", namespace=name)
    application = configuration.deployed
    uid = uid_for(cluster.kinds())
    spaces = [name, f"{name}-outside"]
    try:
        for space in spaces:
            cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space}})
        for thing in (
            *application_objects(application, move_bookinfo(application), images={"bookinfo": BOOKINFO}),
            *probe_objects(application, find_callers(application, ()), image=default_image(), uid=uid),
            *outside_objects(spaces[1], image=default_image(), uid=uid),
        ):
            cluster.apply(thing)
        found = Deployed(cluster, configuration, ClusterProber(cluster, application, outside=spaces[1]))
        found.until(lambda: _up(found))
        yield found
    finally:
        for space in spaces:
            delete_named(cluster, Ref("v1", "Namespace", space))


def _up(deployed: Deployed) -> bool:
    outside = deployed.cluster.list("v1", "Pod", namespace=deployed.prober.outside)
    probes = [pod for pod in (*deployed.pods(), *outside) if pod["metadata"]["name"].startswith("probe-")]
    return len(probes) == 4 and all(map(is_probe_ready, probes)) and _is_complete(deployed)


def _is_complete(deployed: Deployed) -> bool:
    check = page_check(deployed.configuration)
    return all(one.ok for one in prove(deployed.prober, [check]))


def test_one_image_serves_all_four_services(deployed: Deployed) -> None:
    """With our own image in place of the official ones, the same manifests give a complete page, and each hop
    responds."""
    deployed.until(lambda: all(one.ok for one in prove(deployed.prober, baseline_checks(deployed.application))))
    proofs = prove(deployed.prober, baseline_checks(deployed.application))
    assert [proof.name for proof in proofs] == ["no proxy"] * 4
    assert [proof for proof in proofs if not proof.ok] == []


def test_namespace_without_mesh_is_proven(deployed: Deployed) -> None:
    """The proof finds no label, no webhook, no sidecar and no restart."""
    namespace = deployed.cluster.get(Ref("v1", "Namespace", deployed.application.namespace))
    assert namespace is not None
    own = {CONTAINER, *(workload.name for workload in deployed.application.workloads)}
    state = read_namespace_state(namespace, deployed.pods(), deployed.cluster.list(*WEBHOOKS), own=own)
    assert state == State(namespace=deployed.application.namespace)


def test_images_are_read_back_with_their_digests(deployed: Deployed) -> None:
    """The record has the image of each container, with its digest."""
    images = running_images(deployed.cluster, deployed.application.spaces)
    names = {workload.name for workload in deployed.application.workloads}
    assert names <= images.keys()
    assert len({images[name] for name in names}) == 1
    assert "sha256:" in images["details"]


def test_probe_pods_get_no_requests(deployed: Deployed) -> None:
    """A probe pod has the labels that a Service selects, and still gets none of its requests."""
    slices = deployed.cluster.list("discovery.k8s.io/v1", "EndpointSlice", namespace=deployed.application.namespace)
    endpoints = [endpoint for one in slices for endpoint in one.get("endpoints") or ()]
    ready = {one["targetRef"]["name"] for one in endpoints if one["conditions"]["ready"]}
    unready = {one["targetRef"]["name"] for one in endpoints if not one["conditions"]["ready"]}
    assert {name.split("-")[0] for name in ready} == {"productpage", "details", "reviews", "ratings"}
    assert unready == {"probe-productpage", "probe-reviews"}


def test_answers_come_in_the_order_of_the_questions(deployed: Deployed) -> None:
    """Callers are queried one after another, and each question has its own answer; a failed handshake is
    reported as such."""
    questions = [
        Question("locust", "details", path="/details/1"),
        Question(OUTSIDE, "ratings", path="/ratings/2"),
        Question("locust", "ratings", "PUT", "/meshbench"),
        Question(OUTSIDE, "details", tls=True),
        Question("reviews", "ratings", path="/ratings/3"),
    ]
    answers = deployed.prober.ask(questions)
    assert [answer.status for answer in answers] == [200, 200, 404, 0, 200]
    assert [b'"id":1' in answers[0].body, b'"id":2' in answers[1].body, b'"id":3' in answers[4].body] == [True] * 3
    assert answers[3].refused.startswith("SSLError")


def test_container_restart_is_reported(deployed: Deployed) -> None:
    """A restart under the load is reported with the container's name and exit code."""
    assert find_restarts(deployed.pods()) == ()
    pod = next(pod for pod in deployed.pods() if pod["metadata"]["name"].startswith("ratings-"))
    name = pod["metadata"]["name"]
    deployed.cluster.exec(
        name,
        ["python3", "-c", "import os; os.kill(1, 15)"],
        namespace=deployed.application.namespace,
        container="ratings",
    )
    deployed.until(lambda: find_restarts(deployed.pods()))
    (restart,) = find_restarts(deployed.pods())
    assert restart == f"ratings in {name} (Completed, exit code 0) ended"
