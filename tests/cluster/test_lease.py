"""The lock of a real cluster, held by real processes."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from bench.errors import LockedError
from bench.k8s.client import Cluster, Ref
from bench.k8s.kubeconfig import open_cluster
from bench.system.cancellation import CancelToken
from bench.system.timing import Timing
from bench.targets.cluster.lock import LOCK_NAMESPACE, cluster_lock, ensure_held, is_alive, read_holder, remove_lock
from tests.cluster.job import delete_named
from tests.cluster.lab import CONTEXT

# A run that takes the lock, reports it, and holds it until it has to end.
RUN = """
import sys, tempfile
from dataclasses import replace
from pathlib import Path
from bench.errors import LockedError
from bench.k8s.kubeconfig import open_cluster
from bench.targets.cluster.lock import LOCK_NAMESPACE, cluster_lock
from tests.cluster.job import delete_named
place = replace(LOCK_NAMESPACE, name=sys.argv[1])
with tempfile.TemporaryDirectory() as folder, open_cluster("meshlab", private_folder=Path(folder)) as cluster:
    sys.stdin.readline()
    try:
        with cluster_lock(cluster, sys.argv[2], place=place):
            print("taken", flush=True)
            sys.stdin.readline()
    except LockedError as error:
        print(error, flush=True)
"""


@pytest.fixture
def place(cluster: Cluster) -> Iterator[Ref]:
    """A lock of this test, apart from the one that runs use."""
    ref = replace(LOCK_NAMESPACE, name=f"t-lease-{secrets.token_hex(3)}")
    yield ref
    delete_named(cluster, ref)


@pytest.fixture
def others(lab_kubeconfig: Path) -> Iterator[ExitStack]:
    """Other runs, ended when the test ends."""
    with ExitStack() as stack:
        yield stack


def _other(others: ExitStack, place: Ref, run_id: str, lab_kubeconfig: Path) -> "subprocess.Popen[str]":
    argv = [sys.executable, "-c", RUN, place.name, run_id]
    environment = {**os.environ, "KUBECONFIG": str(lab_kubeconfig)}
    pipe = subprocess.PIPE
    process = others.enter_context(subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True, env=environment))
    others.callback(process.kill)
    return process


def _say(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def _answer(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_lock_is_renewed_and_leaves_nothing(
    cluster: Cluster, place: Ref, tmp_path: Path, lab_kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither Lease nor namespace is left; the renewal runs by itself."""
    monkeypatch.setenv("KUBECONFIG", str(lab_kubeconfig))
    with (
        open_cluster(CONTEXT, private_folder=tmp_path, timing=Timing(renew_s=0.2)) as often,
        cluster_lock(often, "t-lease-one", place=place),
    ):
        first = read_holder(cluster, place)
        assert first is not None
        assert is_alive(cluster, replace(first, host="elsewhere"), watch=CancelToken(), place=place)
        ensure_held(cluster, "t-lease-one", place=place)
    assert cluster.get(place) is None


def test_one_of_several_runs_gets_the_lock(
    cluster: Cluster, place: Ref, others: ExitStack, lab_kubeconfig: Path
) -> None:
    """The other runs report the holder's name, and change nothing."""
    runs = [_other(others, place, f"t-lease-{number}", lab_kubeconfig) for number in range(4)]
    for run in runs:
        _say(run)
    answers = [_answer(run) for run in runs]
    assert answers.count("taken") == 1
    winner = f"t-lease-{answers.index('taken')}"
    refusals = [answer for answer in answers if answer != "taken"]
    assert all(f"context meshlab is being measured by the run {winner} " in answer for answer in refusals)
    ensure_held(cluster, winner, place=place)


def test_killed_holder_is_reported_at_once(
    cluster: Cluster, place: Ref, others: ExitStack, lab_kubeconfig: Path
) -> None:
    """On the same machine a run does not wait until the killed one's Lease expires; after the cleanup the cluster is
    free."""
    dead = _other(others, place, "t-lease-dead", lab_kubeconfig)
    _say(dead)
    assert _answer(dead) == "taken"
    with (
        pytest.raises(LockedError, match=r"measured by the run t-lease-dead"),
        cluster_lock(cluster, "t-lease-two", place=place),
    ):
        pytest.fail("two runs at once")
    dead.send_signal(signal.SIGKILL)
    dead.wait()
    command = r"without cleaning up .*meshbench cleanup --context meshlab --run-id t-lease-dead$"
    with pytest.raises(LockedError, match=command), cluster_lock(cluster, "t-lease-two", place=place):
        pytest.fail("took over")
    remove_lock(cluster, "t-lease-dead", watch=CancelToken(), place=place)
    with cluster_lock(cluster, "t-lease-two", place=place):
        ensure_held(cluster, "t-lease-two", place=place)


def test_next_run_waits_for_a_terminating_namespace(cluster: Cluster, place: Ref) -> None:
    """The namespace of the last run may still be terminating when the next run begins."""
    hurried = CancelToken()
    hurried.signals = [signal.SIGINT, signal.SIGINT]
    with cluster_lock(cluster, "t-lease-one", place=place):
        remove_lock(cluster, "t-lease-one", watch=hurried, place=place)
        assert cluster.get(place) is not None
        began = time.monotonic()
        with cluster_lock(cluster, "t-lease-two", place=place):
            ensure_held(cluster, "t-lease-two", place=place)
        assert time.monotonic() - began < 150
