"""Read and write samples: one exact row per request, in columns; no other module uses Parquet.

The recorder (`bench.load.recorder`) appends fixed-size rows to `samples.bin` while Locust runs; afterwards they become
`samples.parquet`, sorted by start.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bench.errors import StoreError
from bench.results.base import LONGEST_NS
from bench.results.records import Window
from bench.system.redaction import one_line

# The row that the recorder packs with struct "<qqqhBqI"; a test checks that the two are equal.
RAW_ROW = np.dtype(
    [
        ("intended_ns", "<i8"),
        ("started_ns", "<i8"),
        ("latency_ns", "<i8"),
        ("status", "<i2"),
        ("ok", "u1"),
        ("bytes", "<i8"),
        ("name", "<u4"),
    ]
)

# When a task of a user began: `previous_ns` is the beginning of the task before, `waited_ns` its end, when the user's
# wait began; `began_ns` is the end of that wait, which was due at `due_ns`, below zero where no task followed. Packed
# with "<qqqq".
TASK_ROW = np.dtype([("previous_ns", "<i8"), ("waited_ns", "<i8"), ("began_ns", "<i8"), ("due_ns", "<i8")])

_FREE_ROWS: Final = 1_000_000
_FREE_BYTES: Final = 64 * 1024 * 1024
_MOST_EXPANSION: Final = 50  # times the size of the file: compressed, a request takes several bytes
_SHOWN: Final = 200  # characters of a message of Arrow's

_SCHEMA = pa.schema(
    [
        ("intended_ns", pa.int64()),
        ("started_ns", pa.int64()),
        ("latency_ns", pa.int64()),
        ("status", pa.int16()),
        ("ok", pa.bool_()),
        ("bytes", pa.int64()),
        ("name", pa.dictionary(pa.int32(), pa.string())),
    ]
)


_MOST_WORDS = 1 << 20  # of a chunk, whose offsets have 32 bits


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """One trial's requests, warm-up included, as arrays of equal length, sorted by `started_ns`.

    intended_ns, started_ns: intended and actual start of the request, since the trial's start
    latency_ns: from start to the last byte of the body
    status: HTTP status, 0 without a response
    ok: status and body were as expected
    bytes: size of the body
    name: index into `names`
    """

    intended_ns: npt.NDArray[np.int64]
    started_ns: npt.NDArray[np.int64]
    latency_ns: npt.NDArray[np.int64]
    status: npt.NDArray[np.int16]
    ok: npt.NDArray[np.bool_]
    bytes: npt.NDArray[np.int64]
    name: npt.NDArray[np.int32]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.started_ns)

    @property
    def completed_ns(self) -> npt.NDArray[np.int64]:
        return self.started_ns + self.latency_ns

    def started_in(self, start_ns: int, end_ns: int) -> "Samples":
        """Return the samples that started inside [start_ns, end_ns): a view, since they are sorted."""
        first, last = np.searchsorted(self.started_ns, [start_ns, end_ns])
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        return Samples(**{n: c if n == "names" else c[first:last] for n, c in columns.items()})

    def counted(self, windows: Iterable[Window]) -> "Samples":
        """Return the samples that started inside one of the windows: a view, for one window."""
        spans = [(window.start_ns, window.end_ns) for window in windows] or [(0, 0)]
        parts = [self.started_in(*span) for span in spans]
        if len(parts) == 1:
            return parts[0]
        columns = [field.name for field in fields(self) if field.name != "names"]
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in columns}
        return Samples(**joined, names=self.names)


def make_samples(raw: npt.NDArray[Any], names: tuple[str, ...]) -> Samples:
    """Convert rows of `RAW_ROW`, in any order, to samples."""
    raw = raw[np.argsort(raw["started_ns"], kind="stable")]
    return Samples(
        intended_ns=raw["intended_ns"],
        started_ns=raw["started_ns"],
        latency_ns=raw["latency_ns"],
        status=raw["status"],
        ok=raw["ok"].astype(np.bool_),
        bytes=raw["bytes"],
        name=raw["name"].astype(np.int32),
        names=names,
    )


def write_parquet(samples: Samples, path: Path) -> None:
    """Write `samples.parquet`. Times are stored as differences to the row before: under 12 bytes per request."""
    columns = [_to_arrow(getattr(samples, field.name)) for field in _SCHEMA if field.name != "name"]
    name = pa.DictionaryArray.from_arrays(_to_arrow(samples.name), _encode_words(samples.names))
    table = pa.Table.from_arrays([*columns, name], schema=_SCHEMA)
    delta = dict.fromkeys(("intended_ns", "started_ns", "latency_ns", "bytes"), "DELTA_BINARY_PACKED")
    _write_table(table, path, use_dictionary=["name", "status"], column_encoding=delta)


def read_parquet(path: Path) -> Samples:
    """Read `samples.parquet`. Raises StoreError for anything but what `write_parquet` writes."""
    table = _conform(path, _read_table(path), _SCHEMA)
    name = table.column("name").unify_dictionaries().combine_chunks()
    codes = pa.chunked_array([name.indices if len(name) else pa.array([], pa.int32())])
    columns = {field.name: _to_numpy(table.column(field.name)) for field in _SCHEMA if field.name != "name"}
    names = tuple(name.dictionary.to_pylist()) if len(name) else ()
    samples = Samples(**columns, name=_to_numpy(codes), names=names)
    times = (samples.intended_ns, samples.started_ns, samples.latency_ns)
    if None in names or any(is_beyond_any_run(column) for column in times):
        raise StoreError(f"{path}: not a samples file: it has names or times that no load has")
    if (np.diff(samples.started_ns) < 0).any():
        raise StoreError(f"{path}: not a samples file: its rows are not in the order of their starts")
    return samples


def is_beyond_any_run(times_ns: npt.NDArray[np.int64]) -> bool:
    """Check whether one of these times is so large that sums would overflow."""
    return bool(len(times_ns)) and (int(times_ns.min()) <= -LONGEST_NS or int(times_ns.max()) >= LONGEST_NS)


def write_columns(path: Path, columns: dict[str, npt.NDArray[np.generic]]) -> None:
    """Write a small table of columns of equal length as Parquet."""
    table = pa.table({name: _to_arrow(column) for name, column in columns.items()})
    _write_table(table, path)


def read_columns(path: Path, types: Mapping[str, str]) -> dict[str, npt.NDArray[Any]]:
    """Read a table of `write_columns` with columns of these types, by Arrow's names. Raises StoreError for any
    other."""
    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in types.items()])
    table = _conform(path, _read_table(path), schema)
    return {name: _to_numpy(table.column(name)) for name in types}


def _write_table(table: pa.Table, path: Path, **options: Any) -> None:
    """Write one file. Arrow gets the open file: it would take a path for a URL, and none that is not UTF-8."""
    with path.open("wb") as file:
        pq.write_table(table, file, compression="zstd", **options)


def _read_table(path: Path) -> pa.Table:
    """Read one file, of no more rows and bytes than its size is for: some formats repeat a value for nothing.
    `pq.read_table` would load pandas."""
    try:
        with path.open("rb") as opened, pq.ParquetFile(opened) as file:
            size, facts = path.stat().st_size, file.metadata
            expanded = sum(facts.row_group(number).total_byte_size for number in range(facts.num_row_groups))
            if facts.num_rows > _FREE_ROWS + size or expanded > _FREE_BYTES + _MOST_EXPANSION * size:
                raise StoreError(f"{path}: has more rows or text than a file of {size} bytes is for")
            return file.read()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise StoreError(f"{path}: not a readable Parquet file: {one_line(str(error))[:_SHOWN]}") from error


def _conform(path: Path, table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table with these columns. Raises StoreError where it has others, or a value is missing."""
    try:
        cast = table.cast(schema)
        cast.validate(full=True)
    except (ValueError, pa.ArrowException) as error:
        raise StoreError(
            f"{path}: other columns than {', '.join(schema.names)}: {one_line(str(error))[:_SHOWN]}"
        ) from error
    if empty := [name for name in schema.names if cast.column(name).null_count]:
        raise StoreError(f"{path}: values of {', '.join(empty)} are missing")
    return cast


def _to_arrow(column: npt.NDArray[Any]) -> pa.Array | pa.ChunkedArray:
    """Convert a column to Arrow without a copy; `pa.array` would load pandas."""
    if column.dtype.kind == "U":
        starts = range(0, max(1, len(column)), _MOST_WORDS)
        return pa.chunked_array([_encode_words(column[at : at + _MOST_WORDS].tolist()) for at in starts])
    values = np.packbits(column, bitorder="little") if column.dtype == np.bool_ else np.ascontiguousarray(column)
    return pa.Array.from_buffers(pa.from_numpy_dtype(column.dtype), len(column), [None, pa.py_buffer(values)])


def _encode_words(words: Sequence[str]) -> pa.Array:
    encoded = [word.encode() for word in words]
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    return pa.StringArray.from_buffers(len(encoded), pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded)))


def _to_numpy(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """Convert a column without nulls to an array; Arrow's own `to_numpy` would load pandas."""
    if pa.types.is_string(column.type):
        return np.array(column.to_pylist(), np.str_)
    is_flag = pa.types.is_boolean(column.type)
    array = np.from_dlpack((column.cast(pa.uint8()) if is_flag else column).combine_chunks())
    return array.view(np.bool_) if is_flag else array
