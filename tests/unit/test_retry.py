"""Work that an outage of the API server interrupts."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import pytest

from bench.errors import ClusterError, DeployError, Interrupted
from bench.k8s.client import Cluster
from bench.k8s.retry import retry_after_outage
from bench.system.cancellation import CancelToken
from bench.system.timing import Timing

AWAY = ClusterError("listing pods: no answer", status=0)
REFUSED = ClusterError("listing pods: forbidden", status=403)
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

    def read(self, _path: str) -> object:
        self.asked += 1
        if self.asked <= self.away:
            raise AWAY
        return {}


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
