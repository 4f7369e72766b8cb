"""Edges of what runs left on a disk: records, samples, journals, histories, the host lock."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from bench.analysis.builds import compare_builds
from bench.analysis.history import append_lines, read_history
from bench.analysis.night import make_lines
from bench.analysis.regression import decide
from bench.analysis.run_summary import summarise
from bench.errors import MeshbenchError
from bench.frames.run import Run
from bench.report import write_report
from bench.report.compare import compare_runs
from bench.report.gate import format_history
from bench.report.history_page import write_history_page
from bench.report.openmetrics import format_openmetrics
from bench.results.store import StoredRun, read_run
from bench.run.cleanup import find_leftovers, find_runs_below
from bench.system.lock import PATH_VARIABLE, hold_host_lock, read_holder
from tests.bookinfo import ROOT
from tests.factory import ConfigSpec, RunSpec, make_run
from tests.fuzz.edge import Case, Cases, Edge, Read
from tests.fuzz.mutations import mutate_bytes, mutate_json, mutate_lines

RECORDED: Final = ROOT / "tests" / "recorded"
_SHORT: Final[dict[str, Any]] = {
    "configurations": (ConfigSpec("baseline"), ConfigSpec("istio", "istio", median_ms=8.6, sidecar_cpu_ms=2.4)),
    "users": 3,
    "warmup_s": 1,
    "duration_s": 5,
}
_RUNS: Final = (
    RunSpec(**_SHORT, repeats=2),
    RunSpec(**_SHORT, name="duet", repeats=3, design="duet", noise={}),
    RunSpec(**_SHORT, name="turns", repeats=2, design="interleaved"),
)


def _prepare_records(folder: Path) -> tuple[Cases, Read]:
    """The records of runs in each design."""
    paths = [make_run(folder / "runs", made).path for made in _RUNS]
    other = make_run(folder / "others", _RUNS[0]).path
    files = [
        path / file for path in paths for file in ("run.json", *_list_trial_files(path, "trial.json", "proof.json"))
    ]
    contents = {file: json.loads(file.read_bytes()) for file in files}
    cases = st.sampled_from(files).flatmap(lambda file: st.tuples(st.just(file), mutate_json(contents[file])))
    return _with_uses(cases, other)


def _prepare_tables(folder: Path) -> tuple[Cases, Read]:
    """The Parquet files of a run: other bytes, and tables with other columns and values."""
    path, other = (make_run(folder / name, _RUNS[1]).path for name in ("runs", "others"))
    files = [path / file for file in _list_trial_files(path, "samples.parquet", "resources.parquet")]
    contents = {file: file.read_bytes() for file in files}
    tables = {file: pq.ParquetFile(file).read() for file in files}

    def change(file: Path) -> Cases:
        made = _change_table(tables[file]).map(_write_table)
        return st.tuples(st.just(file), st.one_of(made, mutate_bytes(contents[file])))

    return _with_uses(st.sampled_from(files).flatmap(change), other)


def _with_uses(changes: Cases, other: Path) -> tuple[Cases, Read]:
    """Return cases of a changed file and one use of its run."""

    def read(case: Case) -> None:
        change, use = case
        _read_changed(change, lambda run: use(read_run(run), read_run(other)))

    return st.tuples(changes, st.sampled_from(_USES)), read


def _list_trial_files(run: Path, *names: str) -> list[str]:
    trial = next(path for path in sorted((run / "trials").iterdir()) if "istio" in path.name)
    return [f"trials/{trial.name}/{name}" for name in names]


def _change_table(table: pa.Table) -> st.SearchStrategy[pa.Table]:
    """Return tables with a column that is missing, of another type, or with an odd value."""
    kinds = (
        pa.int8(),
        pa.int64(),
        pa.uint64(),
        pa.float64(),
        pa.string(),
        pa.bool_(),
        pa.binary(),
        pa.list_(pa.int64()),
    )
    values = (None, 0, -1, 1, 2**62, -(2**62), 2**63 - 1, float("nan"), 1e300, "", "x", "\x1b[2J", b"\xff", [1], True)
    column = st.sampled_from(table.column_names)

    def put(name: str, value: Any, row: int, kind: pa.DataType) -> pa.Table:
        index, rows = table.column_names.index(name), len(table)
        try:
            found = table.column(name).to_pylist()
            found[row % rows] = value
            made = pa.array(found, table.column(name).type)
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            try:
                made = pa.array([value] * rows, kind)
            except (pa.ArrowException, OverflowError, TypeError, ValueError):
                made = pa.nulls(rows, kind)
        return table.set_column(index, name, made)

    return st.one_of(
        column.map(lambda name: table.drop_columns([name])),
        st.tuples(column, column).map(
            lambda names: table.rename_columns([names[1] if x == names[0] else x for x in table.column_names])
        ),
        st.integers(0, len(table)).map(table.slice),
        st.just(table.take(list(reversed(range(len(table)))))),
        st.builds(put, column, st.sampled_from(values), st.integers(0, 10**6), st.sampled_from(kinds)),
    )


def _write_table(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    try:
        pq.write_table(table, sink)
    except pa.ArrowException:  # two columns of a name
        return b""
    return bytes(sink.getvalue())


def _read_changed(change: Case, use: Callable[[Path], object]) -> None:
    """Use a run one of whose files has this content, and a checksum that fits; restore it."""
    file, content = change
    run = file.parent if file.name == "run.json" else file.parents[2]
    before, record = file.read_bytes(), (run / "run.json").read_bytes()
    try:
        file.write_bytes(content)
        if file.name != "run.json":
            _write_checksum(run / "run.json", file)
        use(run)
    finally:
        file.write_bytes(before)
        (run / "run.json").write_bytes(record)


def _write_checksum(record: Path, file: Path) -> None:
    content = json.loads(record.read_bytes())
    for entry in content["trials"]:
        if entry["folder"] == file.parent.name:
            entry["sha256"][file.name] = sha256(file.read_bytes()).hexdigest()
    record.write_text(json.dumps(content), "utf-8")


def _use_frames(stored: StoredRun, _other: StoredRun) -> None:
    frames = Run(stored)
    for make in (frames.repeats, frames.configurations, frames.contrasts, frames.processes, frames.evidence):
        make()
    for make in (frames.request_names, frames.proxy_costs, frames.samples, frames.resources):
        make()


_USES: Final[tuple[Callable[[StoredRun, StoredRun], object], ...]] = (
    lambda stored, _: summarise(stored),
    _use_frames,
    lambda stored, _: write_report(stored, formats=("md", "csv", "latex")),
    lambda stored, other: compare_runs(stored, other, force=True),
    lambda stored, other: compare_builds([stored], [other], force=True),
    lambda stored, _: decide(make_lines(stored)),
)
"""What stored runs are used for; plots have an edge of their own."""


def _prepare_reports(folder: Path) -> tuple[Cases, Read]:
    """The same records and tables as plots and a page, which take a second each."""
    records, tables = _prepare_records(folder / "records")[0], _prepare_tables(folder / "tables")[0]

    def read(case: Case) -> None:
        _read_changed(case[0], lambda run: write_report(read_run(run), formats=("html",)))

    return st.one_of(records, tables), read


def _prepare_journals(folder: Path) -> tuple[Cases, Read]:
    """The journal of a killed run."""
    run = make_run(folder / "runs", _RUNS[0]).path
    recorded = (RECORDED / "run_of_version_1" / "journal.jsonl").read_text("utf-8").splitlines()
    lines = [line for line in map(json.loads, recorded[:12]) if line["step"] != "end"]
    lines[0] |= {"pid": os.getpid() + 1, "started_ns": 1, "boot": "x"}
    lines += [{"at": "2026-11-23T07:38:18+00:00", "step": step, "context": "a"} for step in ("apply", "cleaned")]

    def read(content: bytes) -> None:
        (run / "journal.jsonl").write_bytes(content)
        with own_lock(folder / "lock"):
            for one in find_runs_below(run.parent)[0]:
                find_leftovers(one, {})

    return mutate_lines(lines), read


def _prepare_locks(folder: Path) -> tuple[Cases, Read]:
    """The file of the host lock, which anything of the user's may have written."""
    holder = {"run": str(folder / "run"), "pid": 1, "since": 1795419498.4, "run_id": "20261123T031500Z-smoke-7f3a"}

    def read(content: bytes) -> None:
        (folder / "lock").write_bytes(content)
        with own_lock(folder / "lock"):
            read_holder()
            with hold_host_lock(folder / "run", "20261123T031500Z-smoke-7f3a"):
                pass

    return mutate_json(holder), read


@contextmanager
def own_lock(path: Path) -> Iterator[None]:
    """Let the host lock be this file."""
    before = os.environ.get(PATH_VARIABLE)
    os.environ[PATH_VARIABLE] = str(path)
    try:
        yield
    finally:
        if before is None:
            del os.environ[PATH_VARIABLE]
        else:
            os.environ[PATH_VARIABLE] = before


def _prepare_histories(folder: Path) -> tuple[Cases, Read]:
    """The history of a gate."""
    added, path = make_lines(make_run(folder / "runs", _RUNS[0])), folder / "history.jsonl"
    append_lines(path, added)
    line = json.loads(path.read_text("utf-8").splitlines()[0])
    lines = [{**line, "run_id": f"20261123T03150{number}Z-smoke-7f3a"} for number in range(4)]

    def read(content: bytes) -> None:
        path.write_bytes(content)
        known = read_history(path)
        format_history(known), format_openmetrics(known, every_night=True)
        write_history_page(known, folder / "page", now=datetime(2026, 12, 1, tzinfo=UTC))
        append_lines(path, added)

    return mutate_lines(lines), read


EDGES: Final = (
    Edge("run.json, trial.json, proof.json", MeshbenchError, _prepare_records),
    Edge("parquet", MeshbenchError, _prepare_tables),
    Edge("journals", MeshbenchError, _prepare_journals),
    Edge("host lock", MeshbenchError, _prepare_locks),
    Edge("histories", MeshbenchError, _prepare_histories),
)
REPORTS: Final = Edge("plots of records and parquet", MeshbenchError, _prepare_reports)
