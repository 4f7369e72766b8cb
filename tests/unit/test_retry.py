"""Retries of requests, and of work that an outage of the API server interrupts."""

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import pytest

import bench
from bench.errors import ClusterError, DeployError, ErrorKind, Interrupted
from bench.k8s.client import Cluster
from bench.k8s.retry import ONCE, REQUEST, RetryPolicy, is_retryable, retry, retry_after_outage, retry_async
from bench.system.cancellation import CancelToken
from bench.system.timing import Timing

AWAY = ClusterError("listing pods: no answer", kind=ErrorKind.UNREACHABLE)
REFUSED = ClusterError("listing pods: forbidden", kind=ErrorKind.FORBIDDEN)
BENCH = Path(bench.__file__).parent
SILENT = DeployError("reviews' sidecar does not answer GET /stats")


@dataclass
class FakeServer:
    """An API server that does not answer the next `away` requests for its version."""

    away: int = 0
    asked: int = 0
    patience_s: float = 60.0

    @property
    def timing(self) -> Timing:
        return Timing(away_poll_s=0.001, away_s=self.patience_s)

    def check_reachable(self) -> None:
        self.asked += 1
        if self.asked <= self.away:
            raise AWAY


@dataclass
class Work:
    """Fails with these errors, one after another, and then gives 7."""

    errors: list[Exception] = field(default_factory=list)
    done: int = 0

    def __call__(self) -> int:
        self.done += 1
        if self.errors:
            raise self.errors.pop(0)
        return 7


def outlast(server: FakeServer, act: Callable[[], int], watch: CancelToken | None = None) -> int:
    return retry_after_outage(cast("Cluster", server), act, watch=watch or CancelToken())


@pytest.mark.parametrize("error", [AWAY, SILENT])
def test_restarts_work_after_an_outage(error: Exception) -> None:
    """Also for a page through a forwarded port, whose failure has another message."""
    work, server = Work([error]), FakeServer(away=3)
    assert outlast(server, work) == 7
    assert (work.done, server.asked) == (2, 4)


@pytest.mark.parametrize("error", [REFUSED, SILENT])
def test_does_not_retry_under_a_live_server(error: Exception) -> None:
    """A retry would fail in the same way."""
    work = Work([error])
    with pytest.raises(type(error)):
        outlast(FakeServer(), work)
    assert work.done == 1


def test_raises_first_error_when_server_stays_away() -> None:
    """After the timeout, the error is that of the work, which says what failed."""
    work = Work([AWAY])
    with pytest.raises(ClusterError, match="listing pods"):
        outlast(FakeServer(away=10**9, patience_s=0.05), work)
    assert work.done == 1


def test_limits_the_number_of_outages() -> None:
    """After three outages the last failure is raised."""
    work = Work([AWAY] * 9)
    with pytest.raises(ClusterError):
        outlast(FakeServer(), work)
    assert work.done == 3


def test_signal_ends_the_wait() -> None:
    """Ctrl-C does not wait for the API server."""
    watch = CancelToken()
    watch.signals.append(2)
    with pytest.raises(Interrupted):
        outlast(FakeServer(away=10**9), Work([AWAY]), watch)


QUICK = RetryPolicy(first_pause_s=0.001, longest_pause_s=0.004)


@pytest.mark.parametrize(
    ("policy", "calls"),
    [
        (ONCE, 1),
        (replace(QUICK, attempts=3), 3),
        (replace(QUICK, patience_s=0), 1),
        (replace(QUICK, attempts=5, patience_s=60), 5),
    ],
)
def test_policy_limits_attempts(policy: RetryPolicy, calls: int) -> None:
    """The last failure is raised, whichever limit comes first."""
    work = Work([AWAY] * 9)
    with pytest.raises(ClusterError):
        retry(work, policy)
    assert work.done == calls


def test_policy_limits_time() -> None:
    """The last attempt is at the end of the patience."""
    work = Work([AWAY] * 10**6)
    began = time.monotonic()
    with pytest.raises(ClusterError):
        retry(work, replace(QUICK, patience_s=0.05))
    assert 0.05 <= time.monotonic() - began < 1
    assert work.done > 5


def test_pauses_double_up_to_the_longest() -> None:
    """Many failures do not overflow."""
    assert [REQUEST.pause_s(failures) for failures in (1, 2, 3, 5, 6, 10**6)] == [0.1, 0.2, 0.4, 1.6, 2.0, 2.0]


def test_retries_only_what_may_pass() -> None:
    """A refusal, and an error that is not the API server's, are raised at once."""
    for error in (REFUSED, SILENT, ValueError("a bug")):
        work = Work([error])
        with pytest.raises(type(error)):
            retry(work, QUICK)
        assert work.done == 1


def test_retries_in_an_event_loop() -> None:
    """Both kinds of requests have one policy."""
    work = Work([AWAY, AWAY])

    async def act() -> int:
        return work()

    assert asyncio.run(retry_async(act, QUICK, may_retry=is_retryable)) == 7
    assert work.done == 3


def test_only_the_policy_pauses_between_attempts() -> None:
    """A handler of errors in a loop with a pause would be a second policy; polls for a state use `wait_until`."""
    sleeping = {
        path.relative_to(BENCH).as_posix()
        for folder in ("k8s", "targets/cluster", "meshes")
        for path in (BENCH / folder).rglob("*.py")
        if re.search(r"\bsleep\(", path.read_text("utf-8"))
    }
    assert sleeping == {"k8s/retry.py", "k8s/websocket.py", "k8s/exec.py"}  # two wait for a connection of theirs
