"""Starts and latencies of requests, from Locust's event and pairs of both clocks."""

import datetime as dt
import math
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from bench.load.timing import Clocks, convert_latency, convert_start

MS = 1_000_000
S = 1_000_000_000
ZERO_NS = 500 * S  # the load's start, on the monotonic clock
NOW_NS = ZERO_NS + 10 * S
AHEAD_NS = 1_795_000_000 * S + 123_456_789  # by how much the wall clock is ahead
FLOAT_NS = 512  # seconds since the epoch have no finer steps as a float


class FakeClocks:
    """Two clocks under the test's control: each reading takes `reading_ns`, and `pauses` are interruptions within
    readings."""

    def __init__(self, *, reading_ns: int = 50, pauses: tuple[int, ...] = ()) -> None:
        self.now_ns = ZERO_NS
        self.ahead_ns = AHEAD_NS
        self.reading_ns = reading_ns
        self.pauses: Iterator[int] = iter(pauses)

    def monotonic(self) -> int:
        self.now_ns += self.reading_ns
        return self.now_ns

    def wall(self) -> int:
        self.now_ns += self.reading_ns + next(self.pauses, 0)
        return self.now_ns + self.ahead_ns

    def watched(self) -> Clocks:
        return Clocks(self.monotonic, self.wall)


def start(start_time: Any, *, latency_ns: int = 20 * MS, zero_ns: int = ZERO_NS) -> int | None:
    """The start of a request whose event comes at `NOW_NS`."""
    return convert_start(start_time, latency_ns=latency_ns, now_ns=NOW_NS, ahead_ns=AHEAD_NS, zero_ns=zero_ns)


def wall_s(monotonic_ns: int) -> float:
    return (monotonic_ns + AHEAD_NS) / 1e9


@pytest.mark.parametrize("before_ms", [20, 20.001, 25, 5000, 9999])
def test_converts_start_from_the_wall_clock(before_ms: float) -> None:
    """A start is the event's own, however long after the response the event comes, as with `catch_response`."""
    started_ns = NOW_NS - round(before_ms * MS)
    assert start(wall_s(started_ns)) == pytest.approx(started_ns, abs=FLOAT_NS)


def test_accepts_start_in_whole_milliseconds() -> None:
    """Clients that count in whole milliseconds may end a request up to 1 ms after its event."""
    assert start(wall_s(NOW_NS - 20 * MS + 900_000)) is not None


NO_STARTS: dict[str, Any] = {
    "missing": None,
    "text": "2026-11-23T03:15:00Z",
    "datetime": dt.datetime.now(dt.UTC),
    "decimal": Decimal("1795000505.5"),
    "list": [1795000505.5],
    "NaN": math.nan,
    "infinite": math.inf,
    "zero": 0,
    "monotonic clock": (NOW_NS - 20 * MS) / 1e9,
    "milliseconds": wall_s(NOW_NS - 20 * MS) * 1e3,
    "nanoseconds": NOW_NS - 20 * MS + AHEAD_NS,
    "future": wall_s(NOW_NS + S),
    "after the answer": wall_s(NOW_NS - 10 * MS),
    "answered before the load": wall_s(ZERO_NS - 25 * MS),
}


@pytest.mark.parametrize("start_time", NO_STARTS.values(), ids=NO_STARTS)
def test_impossible_start_is_none(start_time: Any) -> None:
    """A start that is missing, of another type, clock or unit, or that does not fit the latency is not used."""
    assert start(start_time) is None


def test_accepts_request_from_before_the_load() -> None:
    """A request of a `test_start` listener may have started before the load's zero."""
    started_ns = ZERO_NS - 15 * MS
    assert start(wall_s(started_ns)) == pytest.approx(started_ns, abs=FLOAT_NS)


@pytest.mark.parametrize("response_time", [0, 0.0, 1, 1.25, 20.000001, 3_600_000])
def test_latency_is_locusts_response_time(response_time: float) -> None:
    """Nothing is added to Locust's own response time: milliseconds become nanoseconds."""
    assert convert_latency(response_time) == round(response_time * 1_000_000)


@pytest.mark.parametrize("response_time", [None, math.nan, math.inf, -0.5, -1, "12", Decimal(12), 1e12, [1]], ids=str)
def test_refuses_invalid_response_time(response_time: Any) -> None:
    """A response time that is no number of milliseconds between 0 and a day is named and refused."""
    with pytest.raises(ValueError, match=r"response_time .* is not a time in ms"):
        convert_latency(response_time)


def test_pair_reads_both_clocks() -> None:
    """The lead of the wall clock is taken between two readings of the monotonic one."""
    fake = FakeClocks()
    now_ns, ahead_ns = fake.watched().read()
    assert now_ns == fake.now_ns
    assert ahead_ns == AHEAD_NS


def test_reads_interrupted_pair_again() -> None:
    """A process that is paused between the clocks does not shift the start by half of the pause."""
    fake = FakeClocks(pauses=(0, 8 * MS, 3 * MS, 0))
    clocks = fake.watched()
    now_ns, ahead_ns = clocks.read()
    assert (now_ns, ahead_ns) == (fake.now_ns, AHEAD_NS)
    assert clocks.step_ns == 0


def test_interrupted_pairs_show_no_step() -> None:
    """The uncertainty of the pair is not taken for a step."""
    fake = FakeClocks(pauses=(0, *[5 * MS] * 30))
    clocks = fake.watched()
    for _ in range(4):
        clocks.read()
    assert clocks.step_ns == 0


@pytest.mark.parametrize("step_ns", [2 * MS, -2 * MS, S, -3600 * S])
def test_detects_step_of_the_wall_clock(step_ns: int) -> None:
    """Setting the wall clock by 2 ms or more, forward or back, is a step; the largest one is kept."""
    fake = FakeClocks()
    clocks = fake.watched()
    clocks.read()
    fake.ahead_ns += step_ns
    clocks.read()
    assert clocks.step_ns == abs(step_ns)
    for _ in range(3):
        clocks.read()
    assert clocks.step_ns == abs(step_ns)


def test_detects_step_between_requests() -> None:
    """Pairs that are half a second apart, as those of the regular flush, show a step between them."""
    fake = FakeClocks()
    clocks = fake.watched()
    for _ in range(20):
        fake.now_ns += S // 2
        clocks.read()
    fake.ahead_ns += 5 * MS
    fake.now_ns += S // 2
    clocks.read()
    assert clocks.step_ns == 5 * MS


@pytest.mark.parametrize("apart_ns", [MS, 100 * MS, S, 5 * S])
def test_slewed_clock_has_no_steps(apart_ns: int) -> None:
    """A wall clock that is slewed by 500 ppm moves by milliseconds over time, but is never reported as set."""
    fake = FakeClocks()
    clocks = fake.watched()
    for _ in range(500):
        fake.now_ns += apart_ns
        fake.ahead_ns += apart_ns // 2000
        clocks.read()
    assert clocks.step_ns == 0


def test_detects_fast_drift() -> None:
    """Moves that are small from request to request add up to a step within half a second."""
    fake = FakeClocks()
    clocks = fake.watched()
    for _ in range(100):
        fake.now_ns += 10 * MS
        fake.ahead_ns += MS // 4
        clocks.read()
    assert clocks.step_ns > MS


def test_ignores_steps_before_the_load() -> None:
    """The clocks are watched from the load's start on."""
    fake = FakeClocks()
    clocks = fake.watched()
    fake.ahead_ns += S
    clocks.restart()
    clocks.read()
    assert clocks.step_ns == 0
