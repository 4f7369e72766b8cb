"""The load pod without a cluster: its manifest, its node, its files, and its failures."""

import base64
import io
import json
import random
import tarfile
from collections.abc import Sequence
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
from bench.scenario.load_settings import EnvironmentValue
from bench.system.timing import PATIENCE_S
from bench.targets.cluster.load.clock import Reading, offset_of, parse_clocks
from bench.targets.cluster.load.placement import place_load
from bench.targets.cluster.load.pod import (
    default_image,
    fill_secret,
    find_load_problem,
    find_missing,
    load_objects,
    uid_for,
)
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


def sources_of(pod: Object) -> list[Object]:
    (volume,) = (one["projected"] for one in pod["spec"]["volumes"] if one["name"] == "code")
    return [source["configMap"] for source in volume["sources"]]


def unpack(objects: Sequence[Object]) -> dict[str, tuple[bytes, int]]:
    """Return content and mode of the files that the pod unpacks, from its ConfigMaps in the order of their paths."""
    maps = {one["metadata"]["name"]: one for one in objects if one["kind"] == "ConfigMap"}
    parts = {
        item["path"]: base64.b64decode(maps[source["name"]]["binaryData"][item["key"]])
        for source in sources_of(objects[-1])
        for item in source["items"]
        if item["path"].startswith("files/")
    }
    content = io.BytesIO(b"".join(parts[path] for path in sorted(parts)))
    with tarfile.open(fileobj=content, mode="r|gz") as archive:
        return {one.name: (archive.extractfile(one).read(), one.mode) for one in archive}  # type: ignore[union-attr]


def test_pod_has_the_local_files(order: LoadSpec) -> None:
    """Locustfile, recorder and the modules that they import are the files of this package, byte for byte."""
    account, code, archive, pod = objects = load_objects(order, namespace="here")
    assert [one["kind"] for one in objects] == ["ServiceAccount", "ConfigMap", "ConfigMap", "Pod"]
    assert {one["metadata"]["namespace"] for one in (account, code, archive, pod)} == {"here"}
    own, packed = sources_of(pod)
    projected = {item["path"]: code["data"][item["key"]] for item in own["items"]}
    assert [own["name"], packed["name"]] == [code["metadata"]["name"], archive["metadata"]["name"]]
    assert projected == {
        "recorder.py": recorder_path().read_text("utf-8"),
        "bench/__init__.py": "",
        "bench/application/bookinfo/__init__.py": "",
        "bench/application/bookinfo/pages.py": Path(pages.__file__).read_text("utf-8"),
        "bench/bookinfo/pages.py": Path(old_pages.__file__).read_text("utf-8"),
        "bench/load/__init__.py": "",
        "bench/load/judging.py": recorder_path().with_name("judging.py").read_text("utf-8"),
        "bench/load/leading.py": recorder_path().with_name("leading.py").read_text("utf-8"),
        "bench/load/pacing.py": recorder_path().with_name("pacing.py").read_text("utf-8"),
        "bench/load/timing.py": recorder_path().with_name("timing.py").read_text("utf-8"),
    }
    assert {name: content for name, (content, _) in unpack(objects).items()} == {
        "bookinfo.py": order.locustfile.read_bytes()
    }


def test_pod_has_every_file_that_travels(order: LoadSpec, tmp_path: Path) -> None:
    """Helpers keep path, mode and binary content, also where they are larger than a ConfigMap may be."""
    large = random.Random(1).randbytes(2 << 20)
    files = {"mine.py": b"import helper\n", "data/names.bin": large, "run.sh": b"#!/bin/sh\n", "lib/__init__.py": b""}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "run.sh").chmod(0o755)
    order = replace(order, locustfile=tmp_path / "mine.py", helpers=("data/names.bin", "lib/__init__.py", "run.sh"))
    objects = load_objects(order, namespace="here")
    found = unpack(objects)
    assert {name: content for name, (content, _) in found.items()} == files
    assert found["run.sh"][1] == 0o755
    maps = [one for one in objects if one["kind"] == "ConfigMap"]
    assert len(maps) == 4
    assert all(len(json.dumps(one.get("binaryData", {}))) < 1.4 * 2**20 for one in maps)
    assert words_after(objects[-1], "--locustfile") == "/meshbench/recorder.py,/locust/mine.py"
    assert locust_of(objects[-1])["workingDir"] == "/locust"


def test_other_code_has_another_name(order: LoadSpec, tmp_path: Path) -> None:
    """A kubelet that caches an immutable ConfigMap cannot give a new pod the code of an earlier one."""
    (tmp_path / "other.py").write_text("other", "utf-8")
    made = [load_objects(one, namespace="here") for one in (order, replace(order, users=3))]
    other = load_objects(replace(order, locustfile=tmp_path / "other.py"), namespace="here")
    names = [[one["metadata"]["name"] for one in objects if one["kind"] == "ConfigMap"] for objects in (*made, other)]
    assert names[0] == names[1]
    assert names[0][0] == names[2][0]
    assert names[0][1] != names[2][1]


def test_recorded_objects_have_no_secret_value(order: LoadSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value from this machine's environment is in the Secret that is applied, and in no object that is planned."""
    monkeypatch.setenv("CI_TOKEN", "s3cret-of-the-shop")
    env = {"TOKEN": EnvironmentValue(env="CI_TOKEN"), "PRICE": EnvironmentValue(value="$(HOME) $5")}
    order = replace(order, env=env, options={"region": "$(HOME)"})
    objects = load_objects(order, namespace="here")
    assert "s3cret" not in str(objects)
    (secret,) = (one for one in objects if one["kind"] == "Secret")
    filled = [fill_secret(one, order) for one in objects]
    assert [one for one in filled if one not in objects] == [
        {**secret, "data": {"TOKEN": base64.b64encode(b"s3cret-of-the-shop").decode()}}
    ]
    locust = locust_of(objects[-1])
    reference = {"secretKeyRef": {"name": secret["metadata"]["name"], "key": "TOKEN"}}
    assert locust["env"][-2:] == [
        {"name": "TOKEN", "valueFrom": reference},
        {"name": "PRICE", "value": "$$(HOME) $$5"},  # Kubernetes expands what is not escaped
    ]
    assert "--region=$$(HOME)" in locust["args"]


def test_locust_has_the_local_options(order: LoadSpec) -> None:
    """The options are those of the load specification, with the paths of the pod."""
    pod = pod_of(order)
    expected = order.argv("python", locustfile="/locust/bookinfo.py", recorder="/meshbench/recorder.py", folder="/load")
    assert locust_of(pod)["args"] == expected
    mounts = {mount["mountPath"] for mount in locust_of(pod)["volumeMounts"]}
    assert mounts == {"/load", "/locust", "/meshbench"}


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
