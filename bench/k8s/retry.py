"""Retry requests to an API server: the one policy of when, how often and for how long.

What may be retried depends on the kind of an error; `Timing` has for how long. Reading a condition until it holds is
no retry: `bench.system.cancellation.wait_until` does that.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from itertools import count, takewhile
from math import inf
from typing import Final, Protocol, TypeVar

from bench.errors import ClusterError, DeployError, ErrorKind
from bench.system.cancellation import CancelToken
from bench.system.timing import PATIENCE_S, Timing

T = TypeVar("T")

_NOT_ACTED_ON: Final = (ErrorKind.UNREACHABLE, ErrorKind.TOO_MANY_REQUESTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How a failure is retried: `attempts` times at most, for `patience_s` seconds; each pause is twice as long as the
    one before, up to `longest_pause_s`."""

    first_pause_s: float
    longest_pause_s: float
    patience_s: float = inf
    attempts: int | None = None

    def pause_s(self, failures: int) -> float:
        """Return the pause after so many failures in a row, from 1."""
        return float(min(self.first_pause_s * 2 ** min(failures - 1, 32), self.longest_pause_s))

    def pauses(self) -> Iterator[float]:
        """Return the pause before each further attempt, from now on; the last one ends with the patience."""
        end_s = time.monotonic() + self.patience_s
        numbers = count(1) if self.attempts is None else range(1, self.attempts)
        left = ((failures, end_s - time.monotonic()) for failures in numbers)
        return (min(self.pause_s(failures), left_s) for failures, left_s in takewhile(lambda one: one[1] > 0, left))


ONCE: Final = RetryPolicy(first_pause_s=0.0, longest_pause_s=0.0, attempts=1)
REQUEST: Final = RetryPolicy(first_pause_s=0.1, longest_pause_s=2.0)
"""One request, with the patience of the cluster's `Timing`."""
LOAD: Final = RetryPolicy(first_pause_s=2.0, longest_pause_s=16.0, patience_s=PATIENCE_S)
"""Looks at a load, which goes on without them."""
PAGE: Final = RetryPolicy(first_pause_s=0.0, longest_pause_s=0.0, attempts=3)
"""A page through a forwarded port, whose connection may break."""
STEP: Final = RetryPolicy(first_pause_s=0.0, longest_pause_s=0.0, attempts=3)
"""A whole step of a trial, after each of which the API server answers again."""


def wait_policy(poll_s: float, patience_s: float) -> RetryPolicy:
    """Return the policy for an API server that is away: with pauses that do not grow."""
    return RetryPolicy(first_pause_s=poll_s, longest_pause_s=poll_s, patience_s=patience_s)


def is_retryable(error: Exception) -> bool:
    """Return whether it is a failure of the API server that may pass."""
    return isinstance(error, ClusterError) and error.is_retryable


def may_repeat(error: Exception, *, idempotent: bool) -> bool:
    """Return whether a request may be sent again: where the server may have acted on it, only an idempotent one."""
    return is_retryable(error) and (idempotent or (isinstance(error, ClusterError) and error.kind in _NOT_ACTED_ON))


def retry(
    act: Callable[[], T],
    policy: RetryPolicy,
    *,
    watch: CancelToken | None = None,
    may_retry: Callable[[Exception], bool] = is_retryable,
) -> T:
    """Return the result of `act`, which is called again after failures that may be retried. Raises the last of them."""
    pauses = policy.pauses()
    while True:
        if watch is not None:
            watch.check()
        try:
            return act()
        except Exception as error:
            pause_s = next(pauses, None)
            if pause_s is None or not may_retry(error):
                raise
        time.sleep(pause_s)


async def retry_async(
    act: Callable[[], Awaitable[T]], policy: RetryPolicy, *, may_retry: Callable[[Exception], bool]
) -> T:
    """Do the same as `retry`, in an event loop."""
    pauses = policy.pauses()
    while True:
        try:
            return await act()
        except Exception as error:
            pause_s = next(pauses, None)
            if pause_s is None or not may_retry(error):
                raise
        await asyncio.sleep(pause_s)


@dataclass
class Outage:
    """An outage of the API server during a load, or none. Times are seconds of a monotonic clock; the policy has how
    long it may last."""

    policy: RetryPolicy = LOAD
    since_s: float | None = None
    error: str = ""
    spans_s: list[float] = field(default_factory=list)
    _next_s: float = 0.0
    _failures: int = 0

    def is_due(self, now_s: float) -> bool:
        """Return whether it is time for the next request; always, outside an outage."""
        return self.since_s is None or now_s >= self._next_s

    def record_failure(self, error: ClusterError, now_s: float) -> None:
        """Record a request without an answer: the pauses grow."""
        if self.since_s is None:
            self.since_s, self._failures = now_s, 0
        self.error = str(error)
        self._failures += 1
        self._next_s = now_s + self.policy.pause_s(self._failures)

    def record_answer(self, now_s: float) -> None:
        """Record an answer: the outage, if there was one, is over."""
        if self.since_s is not None:
            self.spans_s.append(now_s - self.since_s)
        self.since_s = None

    def give_up_reason(self, now_s: float) -> str:
        """Return why waiting ends now; empty while it goes on."""
        if self.since_s is None or now_s < self.since_s + self.policy.patience_s:
            return ""
        return f"the API server has not answered for {self.policy.patience_s:.0f} s: {self.error}"

    def format_outages(self) -> str:
        """Format the outages for people; empty if there were none."""
        if not self.spans_s:
            return ""
        times = ", ".join(f"{span:.0f} s" for span in self.spans_s)
        return (
            f"the API server was away during the load for {times}; the load went on, and its samples were fetched later"
        )


class Server(Protocol):
    """An API server; see `bench.k8s.client.Cluster`."""

    @property
    def timing(self) -> Timing: ...

    def check_reachable(self) -> None: ...


def retry_after_outage(cluster: Server, act: Callable[[], T], *, watch: CancelToken) -> T:
    """Return the result of `act`, which must be idempotent, and run it again after an outage of the API server. Raises
    what `act` raises where the API server answers, or does not answer again in time."""
    back = wait_policy(cluster.timing.away_poll_s, cluster.timing.away_s)
    return retry(
        act,
        STEP,
        may_retry=lambda error: _is_outage(cluster, error) and _is_reachable(cluster, policy=back, watch=watch),
    )


def _is_outage(cluster: Server, error: Exception) -> bool:
    """Return whether an outage is the cause. What came through the API server from elsewhere, such as a page, fails
    with other errors."""
    return is_retryable(error) or (isinstance(error, DeployError) and not _is_reachable(cluster))


def _is_reachable(cluster: Server, *, policy: RetryPolicy = ONCE, watch: CancelToken | None = None) -> bool:
    """Return whether the API server answers, be it with a refusal."""
    try:
        retry(cluster.check_reachable, policy, watch=watch)
    except ClusterError as error:
        return not error.is_retryable
    return True
