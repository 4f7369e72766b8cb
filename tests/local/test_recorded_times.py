"""Recorded times of Locust's user classes, compared with the server's times: one Locust for each kind of load."""

import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.load.pacing import poisson_arrivals
from tests.stamping import Compared, compare, compare_own, load, run_stamping_server

pytestmark = pytest.mark.measures

MS = 1_000_000
PROCESSING_S = 0.02
CLASSES = ("Http", "Fast", "Inheriting", "Caught", "Custom")
USERS = 10
RATE = 60.0
SECONDS = 4
NEAR_MS = 10  # in the median; a client that is not busy takes 1 to 3 ms on each side
DERIVED_MS = 5  # a start that is counted back from its event is later by what the client did before it fired that
ORDERED = 0.95  # of the requests: FastHttpUser may be stopped between its start and its latency's


@dataclass(frozen=True)
class Loaded:
    """The results of a load with all classes."""

    by_class: dict[str, Compared]
    own: dict[str, Any]
    account: dict[str, Any]


def loaded(folder: Path, *, rate: float) -> Loaded:
    with run_stamping_server(PROCESSING_S) as stamps:
        load(folder, stamps, *CLASSES, users=USERS, seconds=SECONDS, rate=rate)
        return Loaded(
            compare(folder, stamps), compare_own(folder), json.loads((folder / "generator.json").read_text("utf-8"))
        )


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return loaded(tmp_path_factory.mktemp("closed"), rate=0)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return loaded(tmp_path_factory.mktemp("open"), rate=RATE)


@pytest.fixture(params=["closed", "opened"])
def either(request: pytest.FixtureRequest) -> Loaded:
    found: Loaded = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("name", CLASSES)
def test_request_times_enclose_server_times(either: Loaded, name: str) -> None:
    """Start, receipt, response and end come in this order for users of every class, and close together: a latency
    covers its whole request, neither counted twice nor from its response on."""
    found = either.by_class[name]
    assert len(found.started) > 10
    later_ms = DERIVED_MS if name == "Custom" else 0
    assert (found.started <= found.received + later_ms * MS).mean() >= ORDERED
    assert (found.sent <= found.ended).mean() >= ORDERED
    assert np.median(found.received - found.started) < NEAR_MS * MS
    assert np.median(found.ended - found.sent) < NEAR_MS * MS
    assert PROCESSING_S * 1e3 <= np.median(found.ended - found.started) / MS < PROCESSING_S * 1e3 + 2 * NEAR_MS


@pytest.mark.parametrize("name", CLASSES)
def test_recording_adds_nothing(either: Loaded, name: str) -> None:
    """Latencies are Locust's response times, exactly, and starts are the client's own, for users of every class."""
    starts_ns, added_ns = either.own[name]
    assert len(starts_ns) > 10
    assert not added_ns.any()
    assert np.median(np.abs(starts_ns)) < 0.3 * MS


@pytest.mark.parametrize("name", CLASSES)
def test_closed_loop_intended_starts_precede_starts(closed: Loaded, name: str) -> None:
    """Requests are due before they start, and the median one starts soon after."""
    found = closed.by_class[name]
    assert (found.intended <= found.started).all()
    assert np.median(found.started - found.intended) < NEAR_MS * MS


def test_open_loop_uses_every_arrival_once(opened: Loaded) -> None:
    """Users of all classes together use the arrivals of one schedule, in order, each of them once."""
    intended = np.concatenate([found.intended for found in opened.by_class.values()])
    started = np.concatenate([found.started for found in opened.by_class.values()])
    assert (intended <= started).all()
    schedule = np.array([*islice(poisson_arrivals(RATE, 1, clock=lambda: 0), 1000)])
    logins = len(intended) - USERS
    dues = np.sort(intended)[USERS:]  # those of `on_start` are due when they start, before the first arrival
    assert logins > RATE * (SECONDS - 1) / 2
    np.testing.assert_allclose(np.diff(dues), np.diff(schedule[: len(dues)]), atol=1000)


def test_missing_starts_are_derived(either: Loaded) -> None:
    """All starts of the client that fires the event without `start_time` are derived, and no others."""
    assert either.account["derived_starts"] == len(either.by_class["Custom"].started)
    assert either.account["recorded"] == either.account["locust_requests"]
    assert (either.account["problem"], either.account["clock_step_ms"]) == ("", 0)
