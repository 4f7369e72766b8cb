"""Cleanup of a run on a real cluster, from any state, and of nothing else; what cannot be removed is reported."""

import base64
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import yaml

from bench.errors import LeftoversError, exit_code_of
from bench.k8s.client import Cluster, Object, Ref, ref_of
from bench.k8s.kubeconfig import open_cluster
from bench.k8s.wait import wait_for
from bench.meshes.cluster_protocol import ControlPlane
from bench.run.cleanup import list_recorded_contexts
from bench.system.cancellation import CancelToken
from bench.system.journal import read_journal
from bench.targets.cluster.teardown.cleanup import CleanupResult, clean_cluster, cluster_cleanup
from bench.targets.cluster.teardown.inventory import find_leftovers
from tests.cluster.conftest import CONTEXT
from tests.cluster.emulated import RBAC, Run, create_run, make_namespace, make_object, owner_of, remove_run
from tests.cluster.job import delete_named

ROOT = Path(__file__).parents[2]
RARE = pytest.mark.soak("cluster")  # a unit test with the fake cluster covers every partial state
# A run that is killed at one of its journal's steps.
KILLED = """
import os, signal, sys, tempfile
from pathlib import Path
from bench.system.journal import Journal
from bench.meshes.cluster_protocol import ControlPlane
from bench.k8s.kubeconfig import open_cluster
from tests.cluster.emulated import Run, owner_of
from tests.cluster.job import delete_named
step, run, folder = int(sys.argv[1]), Run(sys.argv[2]), Path(sys.argv[3])
write = Journal.write
def count(journal, what, /, **facts):
    global step
    step -= 1
    write(journal, what, **facts)
    if step == 0:
        os.kill(os.getpid(), signal.SIGKILL)
Journal.write = count
with open_cluster("meshlab", private_folder=folder) as cluster, owner_of(run, cluster, folder) as owner:
    for one, component in run.few():
        owner.apply(one, component)
"""


def _own_leftovers(cluster: Cluster, *, since: str) -> tuple[Object, ...]:
    made = cluster.list("v1", "ConfigMap", namespace="default")
    young = (one for one in made if one["metadata"]["creationTimestamp"] >= since)
    return tuple(one for one in young if re.fullmatch(r"t-cleanup-\w+-outside", one["metadata"]["name"]))


# The emulated mesh has no control plane: objects that a real one would create belong to others here.
PLANES = cast("dict[str, ControlPlane]", {"kuma": SimpleNamespace(find_leftovers=_own_leftovers)})


def clean(cluster: Cluster, run: Run, *, wait_s: float | None = None) -> CleanupResult:
    """Remove a run."""
    return clean_cluster(cluster, run.run_id, watch=CancelToken(), wait_s=wait_s, planes=PLANES)


@pytest.fixture
def run(cluster: Cluster) -> Iterator[Run]:
    """A run of this test; what a failed test leaves of it is removed by name."""
    run = Run.new()
    yield run
    remove_run(run, cluster)


@pytest.fixture(autouse=True)
def environment(lab_kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lab's kubeconfig for the command."""
    monkeypatch.setenv("KUBECONFIG", str(lab_kubeconfig))


def _left(cluster: Cluster, run: Run) -> list[str]:
    return [str(one.ref) for one in find_leftovers(cluster, run.run_id).found]


def test_whole_run_and_its_mesh_are_removed(cluster: Cluster, run: Run, tmp_path: Path) -> None:
    """Its webhook does not respond, its pods ignore SIGTERM, and the mesh's own objects have no labels; a second
    cleanup finds nothing."""
    create_run(run, cluster, tmp_path)
    cluster.apply(make_object("v1", "ConfigMap", run.outside.name, "default"))
    cleaned = clean(cluster, run)
    assert _left(cluster, run) == []
    assert cluster.get(run.outside) is None
    assert {one.ref.name for one in cleaned.removed} >= {run.app, run.system, run.run_id, "mesh", "inside", "second"}
    assert cleaned.took_s < 150
    again = clean(cluster, run)
    assert again.removed == ()
    assert again.took_s < cleaned.took_s


def test_objects_of_others_stay(cluster: Cluster, run: Run, tmp_path: Path) -> None:
    """A namespace without labels and objects of another run stay, even those of this run's kind."""
    other = Run.new()
    create_run(run, cluster, tmp_path, only=("Namespace", "CustomResourceDefinition", "Mesh"))
    cluster.apply(make_namespace(f"{run.app}-foreign"))
    try:
        with owner_of(other, cluster, tmp_path) as owner:
            owner.apply(make_namespace(other.app), "namespace")
        clean(cluster, run)
        for name in (f"{run.app}-foreign", other.app):
            place = cluster.get(Ref("v1", "Namespace", name))
            assert place is not None
            assert place["status"]["phase"] == "Active"
    finally:
        delete_named(cluster, Ref("v1", "Namespace", f"{run.app}-foreign"))
        clean(cluster, other)


@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param(
            ("Namespace", "CustomResourceDefinition", "Mesh", "Policy", "ValidatingWebhookConfiguration"),
            id="the control plane never came up",
        ),
        pytest.param(
            ("CustomResourceDefinition", "Mesh", "ValidatingWebhookConfiguration"),
            id="its namespace is gone",
            marks=RARE,
        ),
        pytest.param(("ValidatingWebhookConfiguration", "ClusterRole"), id="a webhook was left", marks=RARE),
        pytest.param(("CustomResourceDefinition",), id="the kinds were left", marks=RARE),
    ],
)
def test_partial_state_is_removed(cluster: Cluster, run: Run, tmp_path: Path, kinds: tuple[str, ...]) -> None:
    """The webhook refuses every deletion as long as it exists."""
    create_run(run, cluster, tmp_path, only=kinds)
    clean(cluster, run)
    assert _left(cluster, run) == []


def test_namespace_blocked_by_dangling_webhook_is_freed(cluster: Cluster, run: Run, tmp_path: Path) -> None:
    """The control plane was removed by hand, and then the application's namespace."""
    create_run(
        run,
        cluster,
        tmp_path,
        only=("Namespace", "CustomResourceDefinition", "Policy", "ValidatingWebhookConfiguration"),
    )
    for name in (run.system, run.app):
        delete_named(cluster, Ref("v1", "Namespace", name))
    clean(cluster, run)
    assert _left(cluster, run) == []


def test_finalizer_is_reported_and_not_removed(
    cluster: Cluster, run: Run, tmp_path: Path, lab_kubeconfig: Path
) -> None:
    """The command in the hint removes the finalizer, and the cleanup after it succeeds."""
    create_run(run, cluster, tmp_path, only=("Namespace",))
    held = make_object("v1", "ConfigMap", "held", run.app)
    held["metadata"]["finalizers"] = ["meshbench.dev/hold"]
    cluster.apply(held)
    with pytest.raises(LeftoversError) as raised:
        clean(cluster, run, wait_s=10)
    message = str(raised.value)
    assert f"Namespace {run.app}: being deleted" in message
    assert f"ConfigMap {run.app}/held waits for meshbench.dev/hold" in message
    (command,) = re.findall(r"(kubectl --context \S+ -n \S+ patch .*)", message)
    kubectl = lab_kubeconfig.parent.parent / "bin" / "kubectl"
    assert kubectl.exists()
    subprocess.run(
        ["bash", "-c", command], check=True, env={**os.environ, "PATH": f"{kubectl.parent}:{os.environ['PATH']}"}
    )
    clean(cluster, run)
    assert _left(cluster, run) == []


def test_forbidden_deletions_are_reported_with_commands(
    cluster: Cluster, run: Run, tmp_path: Path, lab_kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A role that may only read gets a command for each object."""
    create_run(run, cluster, tmp_path, only=("Namespace", "ClusterRole"))
    reader = f"{run.run_id}-reader"
    with ExitStack() as stack:
        config = _reader(cluster, reader, stack=stack, lab=lab_kubeconfig, folder=tmp_path)
        monkeypatch.setenv("KUBECONFIG", str(config))
        poor = stack.enter_context(open_cluster(CONTEXT, private_folder=tmp_path))
        with pytest.raises(LeftoversError) as raised:
            clean(poor, run, wait_s=2)
    message = str(raised.value)
    assert re.search(rf"Namespace {run.app}: its deletion was refused: .*forbidden", message)
    assert f"kubectl --context {CONTEXT} delete namespace {run.app}" in message
    clean(cluster, run)


def _reader(cluster: Cluster, name: str, *, stack: ExitStack, lab: Path, folder: Path) -> Path:
    """Write a kubeconfig of an account that may read everything and change nothing."""
    rule = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list"]}
    subject = {"kind": "ServiceAccount", "name": "default", "namespace": name}
    role = {"apiGroup": RBAC, "kind": "ClusterRole", "name": name}
    secret: Object = make_object("v1", "Secret", "token", name, type="kubernetes.io/service-account-token")
    secret["metadata"]["annotations"] = {"kubernetes.io/service-account.name": "default"}
    things = (
        make_object(f"{RBAC}/v1", "ClusterRole", name, rules=[rule]),
        make_object(f"{RBAC}/v1", "ClusterRoleBinding", name, subjects=[subject], roleRef=role),
        make_namespace(name),
    )
    for one in things:
        stack.callback(delete_named, cluster, ref_of(one))
        cluster.create(one)
    wait_for(cluster, Ref("v1", "ServiceAccount", "default", name), bool, timeout_s=30, watch=CancelToken())
    cluster.create(secret)
    (filled,) = wait_for(cluster, ref_of(secret), _is_filled, timeout_s=30, watch=CancelToken())
    content = yaml.safe_load(lab.read_text("utf-8"))
    content["users"][0]["user"] = {"token": base64.b64decode(filled["data"]["token"]).decode()}
    path = folder / "reader"
    path.write_text(yaml.safe_dump(content), "utf-8")
    return path


def _is_filled(secrets: tuple[Object, ...]) -> bool:
    return bool(secrets) and "token" in secrets[0].get("data", {})


@pytest.mark.soak("kills")
def test_run_killed_at_any_journal_step_is_removed(cluster: Cluster, tmp_path: Path) -> None:
    """The run is killed before and after each object that it creates; cleanups of several runs at once do not disturb
    each other."""
    runs = {step: Run.new() for step in range(1, 2 * len(Run("t").few()) + 1)}

    def left_after(run: Run) -> list[str]:
        clean(cluster, run, wait_s=240)
        return _left(cluster, run)

    try:
        with ThreadPoolExecutor(2) as pool:
            written = list(pool.map(lambda step: _killed_at(step, runs[step], tmp_path), runs))
        assert written == list(runs)
        with ThreadPoolExecutor(len(runs)) as pool:
            assert [left for left in pool.map(left_after, runs.values()) if left] == []
    finally:
        for run in runs.values():
            remove_run(run, cluster)


def _killed_at(step: int, run: Run, folder: Path) -> int:
    """Return the lines that the killed run left in its journal, which also lead to the cluster."""
    killed = subprocess.run([sys.executable, "-c", KILLED, str(step), run.run_id, str(folder)], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    lines = read_journal(folder / f"{run.run_id}.jsonl")
    assert list_recorded_contexts(lines) == (CONTEXT,)
    return len(lines)


def test_cleanup_lists_removes_and_then_finds_nothing(cluster: Cluster, run: Run, tmp_path: Path) -> None:
    """From a machine that has only the cluster; the killed run's lock is removed, too."""
    create_run(run, cluster, tmp_path, only=("Namespace",))
    assert list(cluster_cleanup(CONTEXT, run_id=run.run_id, only_list=True))[1:] == [
        f"{run.run_id}: Namespace {run.app}; Namespace {run.system}"
    ]
    removed = list(cluster_cleanup(CONTEXT, run_id=run.run_id))
    assert re.fullmatch(rf"{run.run_id}: removed in .*s: Namespace {run.app}; Namespace {run.system}", removed[-1])
    assert list(cluster_cleanup(CONTEXT, run_id=run.run_id))[1:] == [f"no leftover objects of {run.run_id}"]
    assert removed[0] == f"context {CONTEXT}: {cluster.server}, Kubernetes {cluster.version}, 1 node"


def test_second_ctrl_c_ends_a_cleanup_at_once(cluster: Cluster, run: Run, tmp_path: Path) -> None:
    """One Ctrl-C does not end a cleanup. After the second one the first deletions were sent, and the message has the
    command for the rest."""
    create_run(run, cluster, tmp_path, only=("Namespace",))
    held = make_object("v1", "ConfigMap", "held", run.app)
    held["metadata"]["finalizers"] = ["meshbench.dev/hold"]
    cluster.apply(held)
    argv = [sys.executable, "-m", "bench.cli.main", "cleanup", "--context", CONTEXT, "--run-id", run.run_id]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as command:
        wait_for(cluster, Ref("v1", "Namespace", run.app), _is_going, timeout_s=30, watch=CancelToken())
        command.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            command.wait(3)
        command.send_signal(signal.SIGINT)
        began = time.monotonic()
        _out, err = command.communicate(timeout=30)
    assert time.monotonic() - began < 3
    assert command.returncode == exit_code_of(LeftoversError)
    assert f"meshbench cleanup --context {CONTEXT} --run-id {run.run_id}" in err
    cluster.apply({**held, "metadata": {**held["metadata"], "finalizers": []}})
    clean(cluster, run)


def _is_going(places: tuple[Object, ...]) -> bool:
    return any("deletionTimestamp" in place["metadata"] for place in places)
