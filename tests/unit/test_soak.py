"""Slow and rare tests are run in parts that can be continued, and at random in CI."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.soak import PART_S, Unit, group_units, run_part, run_sample

UNITS = tuple(Unit("kills", (f"tests/cluster/test_a.py::test_{letter}",)) for letter in "abcdef")


class Runs:
    """A pytest that fails the tests of these letters so many times, and takes a minute for each."""

    def __init__(self, **failures: int) -> None:
        self.failures = failures
        self.ran: list[str] = []
        self.reported: list[str] = []

    def __call__(self, tests: Sequence[str]) -> bool:
        letter = tests[0][-1]
        self.ran.append(letter)
        self.failures[letter] = self.failures.get(letter, 0) - 1
        return self.failures[letter] < 0

    def clock(self) -> float:
        return 60.0 * len(self.ran)


def part(runs: Runs, state: Path, *, commit: str = "1", units: Sequence[Unit] = UNITS) -> int:
    return run_part(units, state, commit=commit, run=runs, report=runs.reported.append, clock=runs.clock)


def sample(runs: Runs, *, seed: int, seconds: float) -> int:
    return run_sample(UNITS, seed=seed, seconds=seconds, run=runs, report=runs.reported.append, clock=runs.clock)


def test_runs_tests_alone_unless_grouped() -> None:
    """Tests with a common mark are one unit for each module and part."""
    marked = [("m.py::a", "x", False), ("m.py::b", "x", True), ("n.py::c", "x", True), ("m.py::d[m::1]", "x", True)]
    assert group_units(marked) == (
        Unit("x", ("m.py::a",)),
        Unit("x", ("m.py::b", "m.py::d[m::1]")),
        Unit("x", ("n.py::c",)),
    )


def test_part_continues_after_what_passed(tmp_path: Path) -> None:
    """A failure does not stop it; the next call runs only tests that have not passed, and then the part begins anew."""
    state = tmp_path / ".soak" / "kills.json"
    runs = Runs(c=1)
    assert part(runs, state) == 1
    assert runs.ran == [*"abcdef"]
    assert runs.reported[-1] == "failed: tests/cluster/test_a.py::test_c"
    assert part(runs, state) == 0
    assert runs.ran == [*"abcdef", "c"]
    assert not state.exists()


def test_other_commit_begins_anew(tmp_path: Path) -> None:
    """Results from before a change do not count."""
    state = tmp_path / "kills.json"
    assert part(Runs(f=1), state) == 1
    runs = Runs()
    assert part(runs, state, commit="2") == 0
    assert runs.ran == [*"abcdef"]


def test_part_stops_at_its_time_limit(tmp_path: Path) -> None:
    """No test begins after the limit, and the next call continues."""
    many = tuple(Unit("kills", (f"test_{number}",)) for number in range(100))
    runs = Runs()
    assert part(runs, tmp_path / "kills.json", units=many) == 3
    assert len(runs.ran) == PART_S / 60 + 1
    assert part(runs, tmp_path / "kills.json", units=many) == 0
    assert len(runs.ran) == 100


def test_sample_is_reproducible_and_limited() -> None:
    """The printed seed draws the same tests again."""
    runs, same, other = Runs(), Runs(), Runs()
    assert [
        sample(runs, seed=7, seconds=150),
        sample(same, seed=7, seconds=150),
        sample(other, seed=8, seconds=150),
    ] == [
        0,
        0,
        0,
    ]
    assert runs.ran == same.ran != other.ran
    assert len(runs.ran) == 3
    assert runs.reported[0] == "seed 7: to run the same, python -m tests.soak --sample 150 --seed 7"


@pytest.mark.parametrize(("failures", "code"), [(1, 0), (2, 1)])
def test_sample_fails_when_a_test_fails_twice(failures: int, code: int) -> None:
    """A busy machine may fail a test once."""
    runs = Runs(**dict.fromkeys("abcdef", failures))
    assert sample(runs, seed=1, seconds=0) == code
    assert runs.ran == [runs.ran[0]] * 2
