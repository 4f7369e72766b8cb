"""`meshbench cleanup --context` while the API server does not respond."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bench.errors import Interrupted, LeftoversError, RefusedError, exit_code_of
from bench.k8s.client import Cluster
from bench.system.timing import Timing
from bench.targets.cluster.teardown.cleanup import cluster_cleanup
from tests.fake_cluster import FakeCluster, make_object
from tests.kubeconfigs import write_kubeconfig

RUN = "20261123T031500Z-mine-7f3a"
AWAY = 10**9


@pytest.fixture
def fake() -> FakeCluster:
    """The cluster of every context, with objects of a run and short waits."""
    cluster = FakeCluster()
    cluster.add([make_object("v1", "Namespace", "bookinfo-7f3a", run=RUN, component="namespace")])
    return cluster


def clean(fake: FakeCluster, *, run_id: str | None = None, only_list: bool = False) -> Iterator[str]:
    """The command, on this cluster."""

    @contextmanager
    def opened(_context: str, *, private_folder: Path, timing: Timing) -> Iterator[Cluster]:
        assert private_folder.is_dir()
        assert timing == Timing()
        yield fake.cluster

    return cluster_cleanup("fake", run_id=run_id, only_list=only_list, opened=opened)


def test_waits_for_an_api_server(fake: FakeCluster) -> None:
    """The command prints that it waits, and then continues as usual."""
    fake.down = 3
    waits, *lines = clean(fake, run_id=RUN)
    assert waits.endswith("no answer from https://fake.invalid: connection refused; waiting for up to 120 s")
    assert lines[-1].startswith(f"{RUN}: removed in ")
    assert fake.things == {}


@pytest.mark.parametrize(
    ("run_id", "only_list", "command"),
    [
        (None, False, "meshbench cleanup --context fake"),
        (RUN, False, f"meshbench cleanup --context fake --run-id {RUN}"),
        (None, True, "meshbench cleanup --context fake --list"),
    ],
)
def test_reports_command_when_api_server_stays_away(
    fake: FakeCluster, run_id: str | None, only_list: bool, command: str
) -> None:
    """Case 58: nothing could be listed, so something may be left."""
    fake.timing = replace(fake.timing, clean_s=0.05)
    fake.down = AWAY
    with pytest.raises(LeftoversError, match=rf"no answer from(.|\n)*; hint: later run: {command}$") as raised:
        list(clean(fake, run_id=run_id, only_list=only_list))
    assert exit_code_of(raised.value) == 7


def test_reports_command_when_api_server_fails_midway(fake: FakeCluster) -> None:
    """The failure is the same as if the API server was away from the start."""
    fake.answers = 4
    with pytest.raises(LeftoversError, match=f"; hint: later run: meshbench cleanup --context fake --run-id {RUN}$"):
        list(clean(fake, run_id=RUN))


def test_first_signal_ends_the_wait_for_an_api_server(fake: FakeCluster) -> None:
    """Nothing was removed yet."""
    fake.down = AWAY
    lines = clean(fake)
    assert "waiting for" in next(lines)
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(Interrupted):
        next(lines)
    assert fake.log == []


def test_does_not_wait_with_refused_credentials(fake: FakeCluster) -> None:
    """Refused credentials are permanent; nothing was begun."""
    fake.denied = 401
    with pytest.raises(RefusedError, match="log in again") as raised:
        next(clean(fake))
    assert exit_code_of(raised.value) == 3


def test_does_not_wait_for_unknown_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown context is permanent: its name is wrong."""
    monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "config", "lab", server="https://127.0.0.1:1")))
    with pytest.raises(RefusedError, match="there is no context lib"):
        next(cluster_cleanup("lib"))
