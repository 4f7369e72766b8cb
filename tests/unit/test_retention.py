"""The newest runs of a folder are kept, and nothing else of it is touched."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bench.run.retention import list_runs, remove_old_runs
from tests.factory import ISTIO_POLICIES, RunSpec, make_run

FIRST = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
def nights(tmp_path: Path) -> list[Path]:
    """The folders of four nights."""
    return [make_night(tmp_path, day) for day in range(4)]


def make_night(output: Path, day: int) -> Path:
    """Store a run of one day of November, and return its folder."""
    spec = RunSpec(name=f"night-{9 - day}", configurations=ISTIO_POLICIES[:2], repeats=1, warmup_s=1, duration_s=2)
    folder = make_run(output, spec).path
    record = json.loads((folder / "run.json").read_text("utf-8"))
    record["started_at"] = (FIRST + timedelta(days=day)).isoformat()
    (folder / "run.json").write_text(json.dumps(record), "utf-8")
    return folder


def test_oldest_runs_are_removed(nights: list[Path], tmp_path: Path) -> None:
    """By the time of their beginning."""
    assert list(remove_old_runs(tmp_path, keep=2)) == nights[:2]
    assert list_runs(tmp_path) == set(nights[2:])
    assert list(remove_old_runs(tmp_path, keep=2)) == []


def test_run_that_is_not_over_stays(nights: list[Path], tmp_path: Path) -> None:
    """A run that is running, or whose record cannot be read, needs a look first."""
    record = nights[0] / "run.json"
    record.write_text(record.read_text("utf-8").replace('"status": "complete"', '"status": "running"', 1), "utf-8")
    (nights[1] / "run.json").write_text("{", "utf-8")
    assert list(remove_old_runs(tmp_path, keep=1)) == [nights[2]]


def test_run_behind_a_link_stays(nights: list[Path], tmp_path: Path) -> None:
    """A link's target is elsewhere, and so not ours to remove."""
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "old").symlink_to(nights[0])
    assert list(remove_old_runs(tmp_path / "results", keep=1)) == []
    assert nights[0].is_dir()
