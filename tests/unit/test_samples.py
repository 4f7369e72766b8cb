"""Samples: from raw rows to Parquet and back; `test_recorder` holds the rows' layout to the recorder's."""

from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bench.errors import StoreError
from bench.load.raw_samples import read_samples
from bench.results import samples as samples_module
from bench.results.base import LONGEST_NS
from bench.results.records import Window
from bench.results.samples import (
    RAW_ROW,
    Samples,
    make_samples,
    read_columns,
    read_parquet,
    write_columns,
    write_parquet,
)
from tests.factory import ISTIO_POLICIES, RunSpec, simulate

COLUMNS = [field.name for field in fields(Samples) if field.name != "names"]
TYPES = {
    "intended_ns": np.int64,
    "started_ns": np.int64,
    "latency_ns": np.int64,
    "status": np.int16,
    "ok": np.bool_,
    "bytes": np.int64,
}


@st.composite
def any_samples(draw: st.DrawFn) -> Samples:
    """Any values of the types, sorted by start; times are those that a run can have."""
    count, times = draw(st.integers(0, 50)), st.integers(1 - LONGEST_NS, LONGEST_NS - 1)
    columns: dict[str, Any] = {
        name: draw(hnp.arrays(kind, count, elements=times if kind is np.int64 else None))
        for name, kind in TYPES.items()
    }
    names = tuple(draw(st.lists(st.text(), min_size=1, max_size=4, unique=True)))
    codes = draw(hnp.arrays(np.int32, count, elements=st.integers(0, len(names) - 1)))
    columns["started_ns"] = np.sort(columns["started_ns"])
    return Samples(**columns, name=codes, names=names)


@given(samples=any_samples())
def test_parquet_round_trip(samples: Samples) -> None:
    """Every value and every type of samples comes back from their file, whatever the values are."""
    with TemporaryDirectory() as folder:
        write_parquet(samples, Path(folder) / "samples.parquet")
        found = read_parquet(Path(folder) / "samples.parquet")
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(found, name), getattr(samples, name), strict=True)
    assert found.names == (samples.names if len(samples) else ())


def test_columns_are_documented(tmp_path: Path) -> None:
    """The file's columns have the names and types that the results format documents."""
    samples = simulate(ISTIO_POLICIES[0], 2, RunSpec(duration_s=5), rng=np.random.default_rng(1))
    write_parquet(samples, tmp_path / "samples.parquet")
    schema = pq.read_schema(tmp_path / "samples.parquet")
    assert {name: str(kind) for name, kind in zip(schema.names, schema.types, strict=True)} == {
        "intended_ns": "int64",
        "started_ns": "int64",
        "latency_ns": "int64",
        "status": "int16",
        "ok": "bool",
        "bytes": "int64",
        "name": "dictionary<values=string, indices=int32, ordered=0>",
    }


def test_request_needs_at_most_12_bytes(tmp_path: Path) -> None:
    """A trial of 20 users over two minutes is stored in 12 bytes a request."""
    samples = simulate(ISTIO_POLICIES[0], 20, RunSpec(), rng=np.random.default_rng(1))
    write_parquet(samples, tmp_path / "samples.parquet")
    assert (tmp_path / "samples.parquet").stat().st_size <= 12 * len(samples)


def begin(folder: Path) -> None:
    """Begin as a recorder does before its first row."""
    (folder / "started.json").write_text('{"zero_ns": 0, "wall_s": 0}', "utf-8")


@given(raw=hnp.arrays(RAW_ROW, st.integers(0, 20)), torn=st.integers(0, RAW_ROW.itemsize - 1))
def test_torn_last_row_is_left_out(raw: "np.ndarray[tuple[int], np.dtype[np.void]]", torn: int) -> None:
    """However much of the last row was written, all complete rows are read, and nothing else."""
    with TemporaryDirectory() as folder:
        begin(Path(folder))
        (Path(folder) / "samples.bin").write_bytes(raw.tobytes() + b"\1" * torn)
        found = read_samples(Path(folder))
    assert sorted(found.started_ns.tolist()) == found.started_ns.tolist() == sorted(raw["started_ns"].tolist())
    assert sorted(found.latency_ns.tolist()) == sorted(raw["latency_ns"].tolist())


def test_no_rows_are_no_samples(tmp_path: Path) -> None:
    """Before the first request there is an empty file, and before that none: both have no samples."""
    assert len(read_samples(tmp_path)) == 0
    begin(tmp_path)
    assert len(read_samples(tmp_path)) == 0
    (tmp_path / "samples.bin").touch()
    assert len(read_samples(tmp_path)) == 0


def test_empty_samples_round_trip(tmp_path: Path) -> None:
    """A trial without a single request has a file like any other."""
    write_parquet(make_samples(np.empty(0, RAW_ROW), ()), tmp_path / "samples.parquet")
    found = read_parquet(tmp_path / "samples.parquet")
    assert len(found) == 0
    assert found.latency_ns.dtype == np.int64


@pytest.mark.parametrize("kept", [0, 4, 100, -4, -1])
def test_truncated_file_is_an_error(tmp_path: Path, kept: int) -> None:
    """A file whose end is missing is an error with its name, never fewer samples."""
    path = tmp_path / "samples.parquet"
    write_parquet(simulate(ISTIO_POLICIES[0], 2, RunSpec(duration_s=5), rng=np.random.default_rng(1)), path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(StoreError, match=r"samples\.parquet: not a readable Parquet file"):
        read_parquet(path)


def test_other_table_is_an_error(tmp_path: Path) -> None:
    """A Parquet file of another table is an error with its name."""
    write_columns(tmp_path / "samples.parquet", {"at_ns": np.arange(3)})
    with pytest.raises(StoreError, match=r"samples\.parquet: other columns than intended_ns, "):
        read_parquet(tmp_path / "samples.parquet")


def test_missing_file_is_a_store_error(tmp_path: Path) -> None:
    """A missing file raises the store's error, not Python's."""
    with pytest.raises(StoreError, match=r"samples\.parquet: not a readable Parquet file"):
        read_parquet(tmp_path / "samples.parquet")


def test_small_table_round_trip(tmp_path: Path) -> None:
    """Numbers and words come back from a table of columns unchanged."""
    columns = {"at_ns": np.array([1, 2**62]), "process": np.array(["ratings", "locust"]), "rss": np.array([0.5, 1e9])}
    write_columns(tmp_path / "table.parquet", columns)
    found = read_columns(tmp_path / "table.parquet", {"at_ns": "int64", "process": "string", "rss": "float64"})
    assert list(found) == list(columns)
    for name, column in columns.items():
        np.testing.assert_array_equal(found[name], column)


def test_samples_of_an_older_width_are_read(tmp_path: Path) -> None:
    """Runs from before sizes had 64 bits keep their reports."""
    samples = simulate(ISTIO_POLICIES[0], 2, RunSpec(duration_s=5), rng=np.random.default_rng(1))
    path = tmp_path / "samples.parquet"
    write_parquet(samples, path)
    table = pq.read_table(path)
    at = table.schema.get_field_index("bytes")
    pq.write_table(table.set_column(at, "bytes", table.column("bytes").cast(pa.int32())), path)
    found = read_parquet(path)
    assert found.bytes.dtype == np.int64
    np.testing.assert_array_equal(found.bytes, samples.bytes)


def test_words_of_a_long_run_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column of words is written in chunks, each within the width of its offsets."""
    monkeypatch.setattr(samples_module, "_MOST_WORDS", 3)
    for count in (0, 1, 3, 10):
        words = np.array([f"process-{number}" for number in range(count)], np.str_)
        write_columns(tmp_path / "table.parquet", {"process": words})
        np.testing.assert_array_equal(read_columns(tmp_path / "table.parquet", {"process": "string"})["process"], words)


def test_window_holds_samples_that_started_inside() -> None:
    """A sample counts when it started at a window's start or later, and before its end; windows add up."""
    count = 10
    columns: dict[str, Any] = {name: np.arange(count).astype(kind) for name, kind in TYPES.items()}
    samples = Samples(**columns, name=np.zeros(count, np.int32), names=("page",))
    one, other = Window(start_ns=2, end_ns=4), Window(start_ns=7, end_ns=8)
    assert samples.counted([one]).started_ns.tolist() == [2, 3]
    assert samples.counted([one, other]).started_ns.tolist() == [2, 3, 7]
    assert len(samples.counted([])) == 0
