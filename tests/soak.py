"""Run slow and rare tests: sweeps of kill points and fault cases that differ only in where something happens.

    python -m tests.soak                              list the parts
    python -m tests.soak kills                        run a part, or continue one that was interrupted
    python -m tests.soak --sample 300 [--seed 7]      run some tests of all parts, begun within so many seconds

A test belongs to a part by its mark: `@pytest.mark.soak("kills")`. Each is run by itself, in its own pytest; tests that
share a fixture of their module are marked with `together=True`, and are run as one.
"""

import argparse
import json
import math
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[1]
STATE: Final = ROOT / ".soak"
PART_S: Final = 80 * 60.0  # nothing is begun later, so that a part ends within 90 minutes
_SAMPLED_S: Final = 1200.0  # no test of a sample has a longer time limit, since CI has to end

Run = Callable[[Sequence[str]], bool]
Report = Callable[[str], None]
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Unit:
    """Tests that are run in one pytest: their part, and their node ids."""

    part: str
    tests: tuple[str, ...]

    @property
    def name(self) -> str:
        """The first test, which no other unit has."""
        return self.tests[0]


def group_units(marked: Iterable[tuple[str, str, bool]]) -> tuple[Unit, ...]:
    """Group tests into units, in their order. `marked` has node id, part, and whether it is run with its module's."""
    groups: dict[tuple[str, str], list[str]] = {}
    for test, part, together in marked:
        groups.setdefault((part, test.partition("::")[0] if together else test), []).append(test)
    return tuple(Unit(part, tuple(tests)) for (part, _), tests in groups.items())


def run_part(
    units: Sequence[Unit], state: Path, *, commit: str, run: Run, report: Report, clock: Clock = time.monotonic
) -> int:
    """Run the units that have not passed at this commit; return 1 if one failed, 3 if time was up, else 0.

    `state` keeps those that passed, so that the next call continues; it is removed when all have.
    """
    began, failed = clock(), list[str]()
    passed = _read_passed(state, commit)
    for number, unit in enumerate(units, start=1):
        if unit.name in passed:
            continue
        if clock() - began > PART_S:
            report(f"time is up after {len(passed)} of {len(units)}; the same command continues")
            return 3
        report(f"{number} of {len(units)}: {unit.name}")
        if run(unit.tests):
            passed.append(unit.name)
            state.parent.mkdir(exist_ok=True)
            state.write_text(json.dumps({"commit": commit, "passed": passed}), "utf-8")
        else:
            failed.append(unit.name)
    for name in failed:
        report(f"failed: {name}")
    if not failed:
        state.unlink(missing_ok=True)
    return 1 if failed else 0


def run_sample(
    units: Sequence[Unit], *, seed: int, seconds: float, run: Run, report: Report, clock: Clock = time.monotonic
) -> int:
    """Run units in an order that the seed draws, as long as they begin in time; return 1 if one failed twice.

    A busy machine may fail one of them; the same failure in a second try is no coincidence.
    """
    report(f"seed {seed}: to run the same, python -m tests.soak --sample {seconds:g} --seed {seed}")
    began, count = clock(), 0
    for unit in random.Random(seed).sample(units, len(units)):
        if clock() - began > seconds:
            break
        count += 1
        if not run(unit.tests):
            report(f"failed, and is retried: {unit.name}")
            if not run(unit.tests):
                report(f"failed twice: {unit.name}")
                return 1
    report(f"{count} of {len(units)} units in {clock() - began:.0f} s")
    return 0


def _read_passed(state: Path, commit: str) -> list[str]:
    try:
        found = json.loads(state.read_text("utf-8"))
    except FileNotFoundError:
        return []
    return list(found["passed"]) if found["commit"] == commit else []


class _Collection:
    """Pytest's collection of the marked tests, without those that may take longer than `most_s`."""

    def __init__(self, most_s: float) -> None:
        self.most_s = most_s
        self.marked: list[tuple[str, str, bool]] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            mark = item.get_closest_marker("soak")
            limit = item.get_closest_marker("timeout")
            if mark is not None and (limit is None or limit.args[0] <= self.most_s):
                self.marked.append((item.nodeid, mark.args[0], bool(mark.kwargs.get("together"))))


def _collect(most_s: float) -> tuple[Unit, ...]:
    collection = _Collection(most_s)
    code = pytest.main(["--collect-only", "-qq", "--no-header", "-m", "soak", str(ROOT / "tests")], [collection])
    if code != pytest.ExitCode.OK:
        sys.exit(f"the tests cannot be collected: {code.name if isinstance(code, pytest.ExitCode) else code}")
    return group_units(collection.marked)


def _pytest(tests: Sequence[str]) -> bool:
    return subprocess.run([sys.executable, "-m", "pytest", "-q", "-m", "soak", *tests], cwd=ROOT).returncode == 0


def _read_commit() -> str:
    asked = ["git", "rev-parse", "HEAD"]
    return subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def _print(line: str) -> None:
    sys.stdout.write(f"=== {line}\n")
    sys.stdout.flush()


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Run what is slow and rare.")
    parser.add_argument("part", nargs="?", help="default: list the parts")
    parser.add_argument("--sample", type=float, metavar="SECONDS", help="some tests of all parts")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32), help="default: drawn")
    options = parser.parse_args()
    units = _collect(math.inf if options.sample is None else _SAMPLED_S)
    parts = sorted({unit.part for unit in units})
    if options.sample is not None:
        return run_sample(units, seed=options.seed, seconds=options.sample, run=_pytest, report=_print)
    if options.part is None:
        for part in parts:
            tests = sum(len(unit.tests) for unit in units if unit.part == part)
            _print(f"make soak PART={part}: {tests} tests")
        return 0
    if options.part not in parts:
        parser.error(f"no part {options.part!r}; there are {', '.join(parts)}")
    chosen = [unit for unit in units if unit.part == options.part]
    return run_part(chosen, STATE / f"{options.part}.json", commit=_read_commit(), run=_pytest, report=_print)


if __name__ == "__main__":
    sys.exit(main())
