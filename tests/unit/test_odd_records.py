"""Stored runs whose checksums fit and whose content is odd: one message with the file and what is wrong with it."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.analysis.run_summary import summarise
from bench.errors import StoreError, exit_code_of
from bench.results.samples import read_parquet
from bench.results.store import read_run
from tests.factory import ConfigSpec, RunSpec, make_run

SMALL = RunSpec(
    configurations=(ConfigSpec("baseline"), ConfigSpec("istio", "istio")), repeats=1, warmup_s=1, duration_s=2
)
SECOND = 10**9
PACE = {"tasks": 9, "waiting_s": 1.0, "working_s": 1.0, "late_p95_ms": 0.1}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a complete run."""
    return make_run(tmp_path, SMALL).path


def trial_of(run: Path) -> Path:
    return next(iter(sorted((run / "trials").iterdir())))


def change(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_bytes()), **changes}), "utf-8")


def fit_checksum(run: Path, file: Path) -> None:
    """Let the checksum of a trial's file fit its content."""
    record = json.loads((run / "run.json").read_bytes())
    for entry in record["trials"]:
        if entry["folder"] == file.parent.name:
            entry["sha256"][file.name] = sha256(file.read_bytes()).hexdigest()
    (run / "run.json").write_text(json.dumps(record), "utf-8")


def window(start_ns: int, end_ns: int) -> dict[str, int]:
    return {"start_ns": start_ns, "end_ns": end_ns}


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"windows": [window(5, 3)]}, "windows.0: .*ends before it starts"),
        ({"windows": [window(0, 2**62)]}, "windows.0.end_ns"),
        ({"windows": [window(-1, 2)]}, "windows.0.start_ns"),
        ({"windows": [window(3, 9), window(1, 2)]}, "starts before the one before has ended"),
        ({"windows": None}, "windows"),
        ({"block": None}, "block"),
        ({"block": -1}, "block"),
        ({"users": 10**30}, "users"),
        ({"rate": -3.0}, "rate"),
        ({"trial": "../../elsewhere"}, "trial"),
        ({"started_at": "2026-11-23T03:15:00"}, "started_at"),
        ({"started_at": "0001-01-01T00:00:00+14:00"}, "started_at"),
        ({"pace": {**PACE, "tasks": 0}}, "pace.tasks"),
    ],
)
def test_refuses_odd_trial_record(run: Path, changes: dict[str, Any], where: str) -> None:
    """Nulls, negative numbers, reversed and huge windows, times without a zone."""
    file = trial_of(run) / "trial.json"
    change(file, **changes)
    fit_checksum(run, file)
    with pytest.raises(StoreError, match=rf"trial\.json: .*{where}") as caught:
        read_run(run)
    assert exit_code_of(caught.value) == 9


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"trials": [{"folder": "../..", "sha256": {}}]}, "trials.0.folder"),
        ({"trials": [{"folder": "a", "sha256": {"../../../etc/passwd": "0"}}]}, "trials.0.sha256"),
        ({"trials": [{"folder": "a", "sha256": {}}] * 2}, "a trial is listed twice"),
        ({"plan": {"seed": 1, "method": "", "order": [["other"]]}}, "configurations that the scenario has not: other"),
        ({"plan": {"seed": 1, "method": "", "order": [["istio"]], "again": [7]}}, "plan"),
        ({"environment": None}, "environment"),
        ({"ended_at": "9999-12-31T23:59:59-14:00"}, "ended_at"),
    ],
)
def test_refuses_odd_run_record(run: Path, changes: dict[str, Any], where: str) -> None:
    """Also paths that lead out of the run's folder, parts that do not fit together, and impossible times."""
    change(run / "run.json", **changes)
    with pytest.raises(StoreError, match=rf"run\.json: .*{where}"):
        read_run(run)


def test_trial_of_another_place_is_left_out(run: Path) -> None:
    """Its numbers would count for another configuration, or for a block that was never measured."""
    file = trial_of(run) / "trial.json"
    change(file, block=2)
    fit_checksum(run, file)
    [problem] = read_run(run).problems
    assert problem.endswith("its trial.json is of another trial than the plan's")


def write_table(path: Path, **columns: Any) -> None:
    table = pq.ParquetFile(path).read()
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, values)
    pq.write_table(table, path)


@pytest.mark.parametrize("name", ["started_ns", "latency_ns", "status", "ok", "name"])
def test_refuses_samples_without_values(run: Path, name: str) -> None:
    """A null is no time, status or name."""
    path = trial_of(run) / "samples.parquet"
    table = pq.ParquetFile(path).read()
    write_table(path, **{name: pa.nulls(len(table), table.schema.field(name).type)})
    with pytest.raises(StoreError, match=rf"samples\.parquet: values of {name} are missing"):
        read_parquet(path)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("latency_ns", 2**62, "times that no load has"),
        ("intended_ns", -(2**62), "times that no load has"),
        ("started_ns", 0, "not in the order of their starts"),
    ],
)
def test_refuses_odd_samples(run: Path, name: str, value: int, why: str) -> None:
    """Times whose sums overflow, and rows in another order, which a window would not find."""
    path = trial_of(run) / "samples.parquet"
    column = pq.ParquetFile(path).read().column(name).to_pylist()
    write_table(path, **{name: pa.array([*column[:-1], value], pa.int64())})
    with pytest.raises(StoreError, match=why):
        read_parquet(path)


def test_refuses_file_that_grows_in_memory(tmp_path: Path) -> None:
    """A value that is repeated for nothing is no measurement: a small file has no millions of rows."""
    path, rows = tmp_path / "samples.parquet", 1_100_000
    zeros = pa.array(np.zeros(rows, np.int64))
    pq.write_table(pa.table({"started_ns": zeros}), path, compression="zstd")
    assert path.stat().st_size < 100_000
    with pytest.raises(StoreError, match="more rows or text than a file of"):
        read_parquet(path)


def test_negative_latency_makes_a_trial_invalid(run: Path) -> None:
    """It has no logarithm, and so no ratio; the run is still reported."""
    path = trial_of(run) / "samples.parquet"
    rows = len(pq.ParquetFile(path).read())
    write_table(path, latency_ns=pa.array([-SECOND] * rows, pa.int64()))
    fit_checksum(run, path)
    summary, _ = summarise(read_run(run))
    invalid = [one for one in summary.configurations.values() if not one.valid]
    assert [one.repeats[0].issues[-1].code for one in invalid] == ["empty"]
