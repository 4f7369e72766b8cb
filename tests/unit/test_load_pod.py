"""The load pod without a cluster: its manifest, its node, its files, and its failures."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bench.application.bookinfo import pages
from bench.bookinfo import pages as old_pages
from bench.errors import BadAnswerError, ClusterError, ErrorKind
from bench.files.folders import find_shipped
from bench.k8s.client import Object
from bench.k8s.connection import KindInfo
from bench.k8s.retry import Outage
from bench.load import recorder_path
from bench.load.generator import LoadSpec
from bench.system.timing import PATIENCE_S
from bench.targets.cluster.load.clock import Reading, offset_of, parse_clocks
from bench.targets.cluster.load.placement import place_load
from bench.targets.cluster.load.pod import default_image, find_load_problem, find_missing, load_objects, uid_for
from bench.targets.cluster.load.transfer import bytes_allowed, parse_checksums, parse_parts
from tests.load_pods import container_status, load_pod, make_load_spec

GONE = ClusterError("reading: no answer", kind=ErrorKind.UNREACHABLE)


@pytest.fixture
def order() -> LoadSpec:
    return make_load_spec()


def pod_of(order: LoadSpec, **settings: Any) -> Object:
    return load_objects(order, namespace="here", **settings)[-1]


def locust_of(pod: Object) -> Object:
    return next(one for one in pod["spec"]["containers"] if one["name"] == "locust")


def words_after(pod: Object, option: str) -> str:
    args: list[str] = locust_of(pod)["args"]
    return args[args.index(option) + 1]


def test_pod_meets_restricted_security(order: LoadSpec) -> None:
    """It runs as an unprivileged user, without a token and without a CPU limit, also with the manifest alone."""
    for pod in (pod_of(order), yaml.safe_load((find_shipped("manifests") / "load" / "pod.yaml").read_text("utf-8"))):
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert spec["restartPolicy"] == "Never"
        for container in spec["containers"]:
            assert {**container["securityContext"], "runAsUser": 1} == {
                "runAsNonRoot": True, "runAsUser": 1, "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }  # fmt: skip
            assert "cpu" in container["resources"]["requests"]
            assert "cpu" not in container["resources"]["limits"]
        assert pod["metadata"]["labels"].items() >= {"app": "locust", "version": "v1"}.items()


def test_manifest_sets_no_user() -> None:
    """OpenShift gives each namespace its own range of users."""
    text = (find_shipped("manifests") / "load" / "pod.yaml").read_text("utf-8")
    assert "runAsUser" not in text


def test_user_is_a_number_except_on_openshift(order: LoadSpec) -> None:
    """Kubernetes does not accept a name as proof of not being root; OpenShift refuses a number outside of its range."""
    plain = KindInfo("v1", "Pod", "pods", True, frozenset())
    constraints = KindInfo(
        "security.openshift.io/v1", "SecurityContextConstraints", "securitycontextconstraints", False, frozenset()
    )
    for kinds, expected in (([plain], {1000}), ([plain, constraints], {None})):
        containers = pod_of(order, uid=uid_for(kinds))["spec"]["containers"]
        assert {one["securityContext"].get("runAsUser") for one in containers} == expected


def test_pod_has_the_local_files(order: LoadSpec) -> None:
    """Locustfile, recorder and the modules that they import are the files of this package, byte for byte."""
    account, code, pod = load_objects(order, namespace="here")
    assert [one["kind"] for one in (account, code, pod)] == ["ServiceAccount", "ConfigMap", "Pod"]
    assert {one["metadata"]["namespace"] for one in (account, code, pod)} == {"here"}
    (volume,) = (one["configMap"] for one in pod["spec"]["volumes"] if "configMap" in one)
    projected = {item["path"]: code["data"][item["key"]] for item in volume["items"]}
    assert volume["name"] == code["metadata"]["name"]
    assert projected == {
        "locustfile.py": order.locustfile.read_text("utf-8"),
        "recorder.py": recorder_path().read_text("utf-8"),
        "bench/__init__.py": "",
        "bench/application/bookinfo/__init__.py": "",
        "bench/application/bookinfo/pages.py": Path(pages.__file__).read_text("utf-8"),
        "bench/bookinfo/pages.py": Path(old_pages.__file__).read_text("utf-8"),
        "bench/load/__init__.py": "",
        "bench/load/pacing.py": recorder_path().with_name("pacing.py").read_text("utf-8"),
        "bench/load/timing.py": recorder_path().with_name("timing.py").read_text("utf-8"),
    }


def test_other_code_has_another_name(order: LoadSpec, tmp_path: Path) -> None:
    """A kubelet that caches an immutable ConfigMap cannot give a new pod the code of an earlier one."""
    (tmp_path / "other.py").write_text("other", "utf-8")
    names = {
        load_objects(made, namespace="here")[1]["metadata"]["name"]
        for made in (order, replace(order, users=3), replace(order, locustfile=tmp_path / "other.py"))
    }
    assert len(names) == 2


def test_locust_has_the_local_options(order: LoadSpec) -> None:
    """The options are those of the load specification, with the paths of the pod."""
    pod = pod_of(order)
    expected = order.argv(
        "python", locustfile="/meshbench/locustfile.py", recorder="/meshbench/recorder.py", folder="/load"
    )
    assert locust_of(pod)["args"] == expected
    mounts = {mount["mountPath"] for mount in locust_of(pod)["volumeMounts"]}
    assert mounts == {"/load", "/meshbench"}


def test_replaces_image_of_both_containers(order: LoadSpec) -> None:
    """Without an own image both have the released Locust of the local version."""
    images = {one["image"] for one in pod_of(order, image="mirror/locust:1")["spec"]["containers"]}
    assert images == {"mirror/locust:1"}
    assert {one["image"] for one in pod_of(order)["spec"]["containers"]} == {default_image()}
    assert default_image() == "docker.io/locustio/locust:2.47.0"


def test_workers_have_own_requests_and_a_private_master(order: LoadSpec) -> None:
    """Three workers request three times the CPU of one Locust, and their master listens only inside the pod."""
    one, three = pod_of(order), pod_of(replace(order, workers=3))
    assert words_after(three, "--processes") == "3"
    assert words_after(three, "--master-bind-host") == "127.0.0.1"
    assert "--processes" not in locust_of(one)["args"]
    assert locust_of(one)["resources"]["requests"] == {"cpu": "200m", "memory": "256Mi"}
    assert locust_of(three)["resources"] == {
        "requests": {"cpu": "600m", "memory": "768Mi"}, "limits": {"memory": "3Gi"},
    }  # fmt: skip


def test_page_listens_on_the_pods_loopback(order: LoadSpec) -> None:
    """Locust's page can send load to any address, so that only a forwarded port reaches it."""
    pod = pod_of(order, ui=True)
    args = locust_of(pod)["args"]
    assert "--headless" not in args
    assert "--autostart" in args
    assert words_after(pod, "--web-host") == "127.0.0.1"
    assert not any("ports" in one for one in pod["spec"]["containers"])


def node(name: str, *, cpu: str = "4", ready: str = "True", **spec: Any) -> Object:
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": spec,
        "status": {"conditions": [{"type": "Ready", "status": ready}], "allocatable": {"cpu": cpu}},
    }


def test_load_has_its_own_node() -> None:
    """Of two nodes one is the load's, where no pod of the application may run, and the load may run on no other."""
    place = place_load([node("a"), node("b")])
    assert place.sentence == "the load generator has a node for itself; the application runs on the other node"
    for affinity, operator in ((place.load, "In"), (place.application, "NotIn")):
        assert affinity is not None
        (term,) = affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        assert term["matchExpressions"] == [{"key": "kubernetes.io/hostname", "operator": operator, "values": ["b"]}]


def test_load_has_the_smallest_schedulable_node() -> None:
    """Cordoned, tainted and unready nodes are left out; the order of the list does not matter."""
    nodes = [
        node("large", cpu="8"),
        node("small", cpu="1900m"),
        node("cordoned", cpu="1", unschedulable=True),
        node("tainted", cpu="1", taints=[{"key": "x", "effect": "NoSchedule"}]),
        node("sick", cpu="1", ready="Unknown"),
        node("middle"),
    ]
    assert place_load(nodes).node == place_load(nodes[::-1]).node == "small"
    assert place_load(nodes).sentence.endswith("the application runs on the other 2 nodes")


@pytest.mark.parametrize(
    ("nodes", "which"),
    [
        ([node("a")], "the only node"),
        ([node("a"), node("b", unschedulable=True)], "the only one of 2 nodes that takes pods"),
    ],
)
def test_reports_shared_node(nodes: list[Object], which: str) -> None:
    """With one node no pod is bound to any, and the report has a warning."""
    place = place_load(nodes)
    assert (place.load, place.application) == (None, None)
    expected = f"the load generator shares {which} with the application: they compete for its CPUs"
    assert place.sentence == expected


def test_prefers_nodes_with_enough_free_capacity() -> None:
    """The smallest node may be full, or the only one for the application; the order stays the same."""
    nodes = [node("a"), node("b"), node("small", cpu="2")]
    assert place_load(nodes, fits=lambda place: place.node != "small").node == "b"
    assert place_load(nodes, fits=lambda place: place.node == "a").node == "a"
    assert place_load(nodes, fits=lambda _: False).node == "small"


def test_resume_keeps_the_loads_node() -> None:
    """Also if another node has more free capacity by now; an unschedulable node is an error."""
    nodes = [node("a"), node("b"), node("c", ready="False")]
    assert place_load(nodes, before="a", fits=lambda place: place.node == "b").node == "a"
    assert place_load(nodes, before="c").node == "b"


def test_node_has_name_and_hostname_label() -> None:
    """Some clouds set both, with different values."""
    named = node("b")
    named["metadata"]["labels"]["kubernetes.io/hostname"] = "z-host"
    place = place_load([node("a"), named])
    assert place.node == "b"
    assert "z-host" in str(place.load)


def test_outage_is_retried_with_growing_pauses() -> None:
    """After 2, 4, 8 and then each 16 seconds, for two minutes."""
    outage, now_s, asked = Outage(), 0.0, []
    while not outage.give_up_reason(now_s):
        if outage.is_due(now_s):
            asked.append(now_s)
            outage.record_failure(GONE, now_s)
        now_s += 1
    assert asked == [0, 2, 6, 14, 30, 46, 62, 78, 94, 110]
    assert now_s == PATIENCE_S
    assert outage.give_up_reason(now_s) == "the API server has not answered for 120 s: reading: no answer"


def test_reports_outage_that_ended() -> None:
    """It does not shorten the timeout of the next outage."""
    outage = Outage()
    assert outage.format_outages() == ""
    outage.record_failure(GONE, 10.0)
    outage.record_failure(GONE, 12.0)
    outage.record_answer(53.0)
    assert outage.format_outages() == (
        "the API server was away during the load for 43 s; the load went on, and its samples were fetched later"
    )
    assert outage.is_due(53.0)
    outage.record_failure(GONE, 100.0)
    assert not outage.give_up_reason(150.0)


def test_clock_offset_satisfies_all_answers() -> None:
    """Each answer bounds the offset from both sides; together they bound it more closely than the fastest alone."""
    readings = [
        Reading(before_ns=1000, after_ns=1100, wall_s=10.0, node_ns=520, node_wall_s=13.0),  # 480 to 580
        Reading(before_ns=2000, after_ns=2080, wall_s=10.0, node_ns=1450, node_wall_s=13.0),  # 550 to 630
    ]
    offset = offset_of(readings)
    assert (offset.offset_ns, offset.uncertainty_ns) == (565, 15)
    assert offset.skew_s == pytest.approx(3.0)
    assert (
        offset.format_warning()
        == "the load's node has its clock +3.0 s off this machine's; latencies do not depend on it"
    )


OOM = {"exitCode": 137, "reason": "OOMKilled"}


@pytest.mark.parametrize(
    ("pod", "trouble"),
    [
        (load_pod(container_status("locust"), container_status("keeper")), ""),
        (None, "the load pod was deleted"),
        (
            load_pod(container_status("locust", terminated=OOM), container_status("keeper")),
            "Locust ended during the load (exit code 137, OOMKilled)",
        ),
        (
            load_pod(
                container_status("locust", terminated={"exitCode": 1, "reason": "Error"}), container_status("keeper")
            ),
            "Locust ended during the load (exit code 1)",
        ),
        (
            load_pod(container_status("locust"), container_status("keeper", terminated=OOM)),
            "the container that keeps Locust's samples ended during the load (exit code 137, OOMKilled)",
        ),
        (
            load_pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory."),
            "the load pod failed: Evicted The node was low on resource: memory.",
        ),
        (
            load_pod(
                container_status("locust"),
                container_status("keeper"),
                early=[container_status("istio-proxy", restarts=1)],
            ),
            "container istio-proxy of the load pod was restarted",
        ),
    ],
)
def test_reports_problem_of_load_pod(pod: Object | None, trouble: str) -> None:
    """Whatever ends the pod is reported with its reason."""
    assert find_load_problem(pod) == trouble


def test_reports_replaced_pod() -> None:
    """The successor of a pod counts as restarted."""
    there = [{"metadata": {"name": "details-new"}}, {"metadata": {"name": "locust"}}]
    assert find_missing({"details-new", "locust"}, there) == ""
    assert find_missing({"details-old", "locust"}, there) == "deleted meanwhile: Pod details-old"


ASKED = {"started.json": 100, "samples.bin": 1000, "names.txt": 100}
HEADS = st.sampled_from([b"samples.bin 1000\n", b"samples.bin 3\n", b"names.txt 0\n", b"../x 3\n", b"names.txt 101\n"])


@given(output=st.one_of(st.binary(), st.lists(st.one_of(HEADS, st.binary(max_size=4))).map(b"".join)))
def test_any_answer_is_valid_parts_or_an_error(output: bytes) -> None:
    """No name that was not requested, none twice, and never more bytes than the answer and the limit have."""
    try:
        parts = tuple(parse_parts(output, limits=ASKED))
    except ClusterError:
        return
    names = [part.name for part in parts]
    assert len(names) == len({*names})
    assert all(0 < len(part.content) <= ASKED[part.name] for part in parts)
    assert sum(len(part.content) for part in parts) <= len(output)


@pytest.mark.parametrize(
    "output",
    [
        b"../../.ssh/authorized_keys 3\nssh",
        b"/etc/passwd 1\nX",
        b"generator.json 1\nX",
        b"samples.bin 1\nXsamples.bin 1\nX",
        b"samples.bin 1001\n" + b"X" * 1001,
        b"samples.bin \xd9\xa3\nXXX",
        "samples.bin \u00b2\nXX".encode(),
        b"samples.bin -1\nX",
        b"samples.bin +1\nX",
        b"samples.bin 1_0\nXXXXXXXXXX",
        b"samples.bin  1\nX",
        b"\xff\xfe 1\nX",
        b"1\nX",
        b"\n",
        b"X" * 300,
    ],
)
def test_unrequested_answer_is_one_error(output: bytes) -> None:
    """Paths, other files, repeated files, invalid or too large sizes, and headers that are no text are permanent
    errors."""
    with pytest.raises(BadAnswerError, match="reading the load pod's files") as caught:
        list(parse_parts(output, limits=ASKED))
    assert not caught.value.is_retryable
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("output", [b"samples.bin 3\nXX", b"samples.bin 3", b"sam"])
def test_truncated_answer_is_retryable(output: bytes) -> None:
    """It is an outage, wherever it was cut."""
    with pytest.raises(ClusterError, match="the answer is cut") as caught:
        list(parse_parts(output, limits=ASKED))
    assert caught.value.is_retryable


@pytest.mark.parametrize(
    "output",
    [
        b"no checksum\n",
        b"\n",
        b"\xff" * 70,
        f"{'a' * 64}  ../x\n".encode(),
        f"{'a' * 63}g  samples.bin\n".encode(),
        f"{'A' * 64}  samples.bin\n".encode(),
        f"{'a' * 64}  samples.bin\n{'b' * 64}  samples.bin\n".encode(),
    ],
)
def test_invalid_checksums_are_one_error(output: bytes) -> None:
    """Lines of another form, of other files, or repeated."""
    with pytest.raises(BadAnswerError, match="verifying the load pod's files"):
        parse_checksums(output, requested=ASKED)


@given(output=st.binary())
def test_any_checksums_are_of_requested_files_or_an_error(output: bytes) -> None:
    """No other exception is raised."""
    try:
        found = parse_checksums(output, requested=ASKED)
    except BadAnswerError:
        return
    assert found.keys() <= ASKED.keys()


@pytest.mark.parametrize(
    "output", [b"", b"1", b"1 nan", b"-1 1.0", b"1 1e999", b"1_0 1.0", b"9" * 5000 + b" 1", b"\xff 1"]
)
def test_invalid_clocks_are_one_error(output: bytes) -> None:
    """A pod's clock is two numbers."""
    assert parse_clocks(b"12 34.5\n") == (12, 34.5)
    with pytest.raises(BadAnswerError, match="reading the load pod's clock"):
        parse_clocks(output)


def test_small_files_have_own_limits() -> None:
    """Names and accounts are read as a whole, so that they may not grow like rows."""
    assert bytes_allowed("samples-1.bin", 1 << 30) == 8 << 20
    assert bytes_allowed("names.txt", 0) == 4 << 20
    assert bytes_allowed("generator.json", 5 << 20) == 0
