"""A recorder's files, from bytes to values: any bytes are values or one clear error."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bench.errors import StoreError
from bench.load.raw_samples import read_account, read_recent_rows, read_samples, read_start, read_valid_samples
from bench.load.recorded import (
    Account,
    Start,
    clean_text,
    find_valid_rows,
    parse_account,
    parse_names,
    parse_start,
    salvage_names,
)
from bench.results.base import LONGEST_NS
from bench.results.samples import RAW_ROW, write_parquet

START = {"zero_ns": 5, "wall_s": 6.5}
ACCOUNT = {
    "locust_requests": 3,
    "locust_failures": 1,
    "locust_p95_ms": 20.0,
    "recorded": 3,
    "derived_starts": 2,
    "clock_step_ms": 1.5,
    "problem": "",
    "options": ["think-time"],
}
NO_JSON_OBJECT = [b"[]", b"null", b"3", b'"a"', b"[" * 100_000, b"\xff\xfe", b'{"a": 1' + b"0" * 5000 + b"}"]


def test_reads_recorder_output() -> None:
    """Every value has its type."""
    assert parse_start(json.dumps(START).encode()) == Start(5, 6.5)
    assert parse_account(json.dumps(ACCOUNT).encode()) == Account(3, 1, 20.0, 3, 2, 1.5, options=("think-time",))
    assert parse_account(b'{"locust_p95_ms": null}') == Account()
    assert parse_names("page\nlogin ü\n".encode()) == ("page", "login ü")
    assert parse_names(b"") == ()


@pytest.mark.parametrize("parse", [parse_start, parse_account])
def test_torn_file_is_incomplete(parse: Callable[[bytes], object]) -> None:
    """A file that is not complete yet is no error."""
    assert parse(b"") is None
    assert parse(b'{"zero_ns": 5, "wa') is None


@pytest.mark.parametrize("content", NO_JSON_OBJECT)
@pytest.mark.parametrize("parse", [parse_start, parse_account])
def test_refuses_what_is_no_json_object(parse: Callable[[bytes], object], content: bytes) -> None:
    """Lists, depths, sizes and encodings that no recorder writes."""
    with pytest.raises(ValueError, match=r"^(it is|Exceeds)"):
        parse(content)


@pytest.mark.parametrize("key", START)
@pytest.mark.parametrize("value", [None, True, "5", [], {}, -1, float("nan"), float("inf"), 1e300, 10**30])
def test_refuses_invalid_start(key: str, value: Any) -> None:
    """On both clocks: missing, of another type, negative, not finite or out of range."""
    with pytest.raises(ValueError, match=rf"{key}|not a valid number"):
        parse_start(json.dumps({**START, key: value}).encode())
    with pytest.raises(ValueError, match=key):
        parse_start(json.dumps({other: START[other] for other in START if other != key}).encode())


@pytest.mark.parametrize("key", ACCOUNT)
@pytest.mark.parametrize("value", [True, [1], {"a": 1}, float("nan")])
def test_refuses_invalid_account(key: str, value: Any) -> None:
    """For each of its values."""
    with pytest.raises(ValueError, match=rf"{key}|not a valid number"):
        parse_account(json.dumps({**ACCOUNT, key: value}).encode())


def test_problem_is_one_short_line() -> None:
    """A pod's text is printed without control characters and with a limited length."""
    account = parse_account(json.dumps({"problem": "a\x1b[2J\nb" + "c" * 10_000}).encode())
    assert account is not None
    assert account.problem.startswith("a?[2J b")
    assert len(account.problem) == 2000


@pytest.mark.parametrize(
    "content", [b"\xff\n", b"a\x1b[31m\n", b"a\0b\n", b"a" * 10_000, b"a\n" * 1_100_000, "a\u2028b".encode()]
)
def test_refuses_invalid_names(content: bytes) -> None:
    """Not UTF-8, with control characters, too long or too many; the readable ones are returned all the same."""
    with pytest.raises(ValueError, match=r"it is not UTF-8|control characters|characters, more than|names, more than"):
        parse_names(content)
    salvaged = salvage_names(content)
    assert 0 < len(salvaged) <= 1 << 20
    assert all(name == clean_text(name, 8192) for name in salvaged)


@given(content=st.binary(max_size=200))
@pytest.mark.parametrize("parse", [parse_start, parse_account, parse_names])
def test_any_bytes_are_a_value_or_one_error(parse: Callable[[bytes], object], content: bytes) -> None:
    """No other exception is raised."""
    with suppress(ValueError):
        parse(content)


ODD_ROWS = [
    ("name", 1),
    ("ok", 2),
    ("bytes", -1),
    ("status", -1),
    ("latency_ns", -LONGEST_NS),
    ("started_ns", np.iinfo(np.int64).min),
    ("intended_ns", np.iinfo(np.int64).min),
    ("started_ns", LONGEST_NS),
    ("latency_ns", np.iinfo(np.int64).max),
]


def recorded(folder: Path, *, count: int = 3, part: str = "", zero_ns: int = 0) -> Any:
    """The rows of one recorder, from its files."""
    rows = np.zeros(count, RAW_ROW)
    rows["started_ns"] = rows["intended_ns"] = np.arange(count) * 1_000_000
    rows["latency_ns"], rows["ok"], rows["status"] = 5_000_000, 1, 200
    rows.tofile(folder / f"samples{part}.bin")
    (folder / f"names{part}.txt").write_text("page\n", "utf-8")
    (folder / f"started{part}.json").write_text(json.dumps({"zero_ns": zero_ns, "wall_s": 1}), "utf-8")
    return rows


@pytest.mark.parametrize(("field", "value"), ODD_ROWS)
@pytest.mark.parametrize("parts", [("",), ("-0", "-1")])
def test_reports_and_skips_invalid_rows(tmp_path: Path, field: str, value: int, parts: tuple[str, ...]) -> None:
    """All others stay, also where several recorders number their names differently."""
    for part in parts:
        rows = recorded(tmp_path, part=part)
    (tmp_path / f"names{parts[0]}.txt").write_text("page\nother\n" if len(parts) > 1 else "page\n", "utf-8")
    rows[field][1] = value
    rows.tofile(tmp_path / f"samples{parts[-1]}.bin")
    samples, odd = read_valid_samples(tmp_path)
    assert len(samples) == 3 * len(parts) - 1
    assert odd == f"samples{parts[-1]}.bin: 1 of 3 rows are invalid, the first is row 2"
    assert len(read_recent_rows(tmp_path, most=10)) == len(samples)
    assert len(read_samples(tmp_path)) == 3 * len(parts)


def test_keeps_rows_with_negative_times(tmp_path: Path) -> None:
    """The validity checks have a reason of their own for it."""
    rows = recorded(tmp_path)
    rows["latency_ns"][1] = rows["started_ns"][0] = -1
    rows.tofile(tmp_path / "samples.bin")
    samples, odd = read_valid_samples(tmp_path)
    assert (len(samples), odd) == (3, "")


@given(raw=hnp.arrays(RAW_ROW, st.integers(0, 30)), names=st.integers(0, 3))
def test_valid_rows_can_be_stored(tmp_path_factory: pytest.TempPathFactory, raw: Any, names: int) -> None:
    """Whatever the bytes are, the rows that are kept make samples and a file."""
    folder = tmp_path_factory.mktemp("any")
    recorded(folder)
    (folder / "names.txt").write_text("".join(f"n{number}\n" for number in range(names)), "utf-8")
    raw.tofile(folder / "samples.bin")
    samples, odd = read_valid_samples(folder)
    write_parquet(samples, folder / "samples.parquet")
    assert len(samples) == int(find_valid_rows(raw, names).sum())
    assert bool(odd) == (len(samples) < len(raw))


@pytest.mark.parametrize("content", ["[]", '{"zero_ns": NaN, "wall_s": 1}', '{"zero_ns": "0", "wall_s": 1}', "{}"])
def test_invalid_start_is_one_error(tmp_path: Path, content: str) -> None:
    """It has the file's name."""
    (tmp_path / "started.json").write_text(content, "utf-8")
    with pytest.raises(StoreError, match=r"^started.json is invalid: "):
        read_start(tmp_path)


def test_invalid_recorder_does_not_affect_the_others(tmp_path: Path) -> None:
    """A missing start, or one that is years later, loses the rows of its own recorder."""
    recorded(tmp_path, part="-0")
    recorded(tmp_path, part="-1", zero_ns=2 * LONGEST_NS)
    recorded(tmp_path, part="-2")
    (tmp_path / "started-2.json").write_text("[]", "utf-8")
    samples, odd = read_valid_samples(tmp_path)
    assert len(samples) == 3
    assert "started-1.json: it began" in odd
    assert "started-2.json is invalid" in odd


def test_names_that_are_not_text_keep_their_rows(tmp_path: Path) -> None:
    """The samples are there, with names that are as readable as possible."""
    recorded(tmp_path)
    (tmp_path / "names.txt").write_bytes(b"p\xffge\n")
    samples, odd = read_valid_samples(tmp_path)
    assert (len(samples), samples.names) == (3, ("p\ufffdge",))
    assert odd == "names.txt: it is not UTF-8"
    with pytest.raises(StoreError, match=r"names.txt: it is not UTF-8"):
        read_samples(tmp_path)


def test_account_is_read_or_missing(tmp_path: Path) -> None:
    """A missing or torn one is None; an invalid one is an error with the file's name."""
    assert read_account(tmp_path) is None
    (tmp_path / "generator.json").write_text('{"recorded"', "utf-8")
    assert read_account(tmp_path) is None
    (tmp_path / "generator.json").write_text('{"recorded": "3"}', "utf-8")
    with pytest.raises(StoreError, match=r"generator\.json is invalid: recorded is not a whole number"):
        read_account(tmp_path)


def test_workers_may_have_more_names_than_one(tmp_path: Path) -> None:
    """Each row keeps its own name: ids in URLs soon exceed 65,536 over several workers."""
    for worker in range(2):
        rows = recorded(tmp_path, count=40_000, part=f"-{worker}")
        rows["name"] = np.arange(40_000)
        rows.tofile(tmp_path / f"samples-{worker}.bin")
        names = "".join(f"/item/{worker}/{number}\n" for number in range(40_000))
        (tmp_path / f"names-{worker}.txt").write_text(names, "utf-8")
    samples, odd = read_valid_samples(tmp_path)
    assert (len(samples), len(samples.names), odd) == (80_000, 80_000, "")
    assert {samples.names[number] for number in samples.name.tolist()} == set(samples.names)
