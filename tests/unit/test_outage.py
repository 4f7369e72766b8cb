"""Work that an absent API server interrupts."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import pytest

from bench.errors import ClusterError, DeployError, Interrupted
from bench.k8s.client import Cluster
from bench.k8s.retry import outlasting
from bench.k8s.timing import Timing
from bench.system.cancellation import Watch

AWAY = ClusterError("listing pods: no answer", status=0)
REFUSED = ClusterError("listing pods: forbidden", status=403)
SILENT = DeployError("reviews' sidecar does not answer GET /stats")


@dataclass
class FakeServer:
    """An API server that does not answer the next `away` questions about its version."""

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


def outlast(server: FakeServer, act: Callable[[], int], watch: Watch | None = None) -> int:
    return outlasting(cast("Cluster", server), act, watch=watch or Watch())


@pytest.mark.parametrize("error", [AWAY, SILENT])
def test_what_an_outage_cut_is_begun_anew_when_the_server_is_back(error: Exception) -> None:
    """Also where a page came through it, whose failure sounds otherwise."""
    work, server = Work([error]), FakeServer(away=3)
    assert outlast(server, work) == 7
    assert (work.done, server.asked) == (2, 4)


@pytest.mark.parametrize("error", [REFUSED, SILENT])
def test_a_failure_under_a_server_that_answers_is_told_at_once(error: Exception) -> None:
    """Asking again would end the same."""
    work = Work([error])
    with pytest.raises(type(error)):
        outlast(FakeServer(), work)
    assert work.done == 1


def test_a_server_that_stays_away_is_told_as_it_was_first() -> None:
    """After a while; the error is that of the work, which says what could not be done."""
    work = Work([AWAY])
    with pytest.raises(ClusterError, match="listing pods"):
        outlast(FakeServer(away=10**9, patience_s=0.05), work)
    assert work.done == 1


def test_a_server_that_comes_and_goes_is_not_waited_for_without_end() -> None:
    """Three times, and the last failure is told."""
    work = Work([AWAY] * 9)
    with pytest.raises(ClusterError):
        outlast(FakeServer(), work)
    assert work.done == 3


def test_a_signal_ends_the_waiting() -> None:
    """Who pressed Ctrl-C does not wait for a server."""
    watch = Watch()
    watch.signals.append(2)
    with pytest.raises(Interrupted):
        outlast(FakeServer(away=10**9), Work([AWAY]), watch)
