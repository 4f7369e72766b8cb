"""Retry what an outage of the API server interrupted: when, for how long, and what to report of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from bench.errors import ClusterError, DeployError
from bench.k8s.client import Cluster
from bench.system.cancellation import CancelToken, wait_until
from bench.system.timing import PATIENCE_S

_FIRST_PAUSE_S: Final = 2.0
_LONGEST_PAUSE_S: Final = 16.0
_ATTEMPTS: Final = 3

T = TypeVar("T")


@dataclass
class Outage:
    """An outage of the API server, or none. Times are seconds of a monotonic clock; `patience_s` is how long it may
    last."""

    since_s: float | None = None
    error: str = ""
    spans_s: list[float] = field(default_factory=list)
    patience_s: float = PATIENCE_S
    _next_s: float = 0.0
    _pause_s: float = _FIRST_PAUSE_S

    def is_due(self, now_s: float) -> bool:
        """Return whether it is time for the next request; always, outside an outage."""
        return self.since_s is None or now_s >= self._next_s

    def record_failure(self, error: ClusterError, now_s: float) -> None:
        """Record a request without an answer: the pauses grow."""
        if self.since_s is None:
            self.since_s, self._pause_s = now_s, _FIRST_PAUSE_S
        self.error = str(error)
        self._next_s = now_s + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    def record_answer(self, now_s: float) -> None:
        """Record an answer: the outage, if there was one, is over."""
        if self.since_s is not None:
            self.spans_s.append(now_s - self.since_s)
        self.since_s = None

    def left_s(self, now_s: float) -> float:
        """Return how many seconds longer it may last."""
        return self.patience_s if self.since_s is None else max(0.0, self.since_s + self.patience_s - now_s)

    def give_up_reason(self, now_s: float) -> str:
        """Return why waiting ends now; empty while it goes on."""
        if self.left_s(now_s) > 0:
            return ""
        return f"the API server has not answered for {self.patience_s:.0f} s: {self.error}"

    def format_outages(self) -> str:
        """Format the outages for people; empty if there were none."""
        if not self.spans_s:
            return ""
        times = ", ".join(f"{span:.0f} s" for span in self.spans_s)
        return (
            f"the API server was away during the load for {times}; the load went on, and its samples were fetched later"
        )


def retry_after_outage(cluster: Cluster, act: Callable[[], T], *, watch: CancelToken) -> T:
    """Return the result of `act`, which must be idempotent, and run it again after an outage of the API server. Raises
    what `act` raises where the API server answers, or does not answer again in time."""
    timing = cluster.timing
    for _ in range(_ATTEMPTS - 1):
        try:
            return act()
        except (ClusterError, DeployError) as error:
            if not _is_outage(cluster, error):
                raise
            back = wait_until(
                lambda: _is_reachable(cluster), timeout_s=timing.away_s, watch=watch, poll_s=timing.away_poll_s
            )
            if not back:
                raise
    return act()


def _is_outage(cluster: Cluster, error: ClusterError | DeployError) -> bool:
    """Return whether an outage is the cause. What came through the API server from elsewhere, such as a page, fails
    with other errors."""
    return error.is_retryable if isinstance(error, ClusterError) else not _is_reachable(cluster)


def _is_reachable(cluster: Cluster) -> bool:
    """Return whether the API server answers, be it with a refusal."""
    try:
        cluster.read("/version")
    except ClusterError as error:
        return not error.is_retryable
    return True
