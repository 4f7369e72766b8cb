"""What a recorder wrote, from bytes to values: whatever the bytes are, they are values or one clear error."""

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
from bench.load.raw_samples import read_account, read_samples, read_start, recent_rows, sensible_samples
from bench.load.recorded import (
    LONGEST_NS,
    Account,
    Start,
    parse_account,
    parse_names,
    parse_start,
    plain,
    salvage_names,
    sensible,
)
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
}
NO_JSON_OBJECT = [b"[]", b"null", b"3", b'"a"', b"[" * 100_000, b"\xff\xfe", b'{"a": 1' + b"0" * 5000 + b"}"]


def test_reads_what_a_recorder_writes() -> None:
    """Every value has its type."""
    assert parse_start(json.dumps(START).encode()) == Start(5, 6.5)
    assert parse_account(json.dumps(ACCOUNT).encode()) == Account(3, 1, 20.0, 3, 2, 1.5)
    assert parse_account(b'{"locust_p95_ms": null}') == Account()
    assert parse_names("page\nlogin ü\n".encode()) == ("page", "login ü")
    assert parse_names(b"") == ()


@pytest.mark.parametrize("parse", [parse_start, parse_account])
def test_a_torn_file_is_waited_for(parse: Callable[[bytes], object]) -> None:
    """It is no error that a file is not whole yet."""
    assert parse(b"") is None
    assert parse(b'{"zero_ns": 5, "wa') is None


@pytest.mark.parametrize("content", NO_JSON_OBJECT)
@pytest.mark.parametrize("parse", [parse_start, parse_account])
def test_what_is_no_json_object_is_an_error(parse: Callable[[bytes], object], content: bytes) -> None:
    """Lists, depths, sizes and encodings that no recorder writes."""
    with pytest.raises(ValueError, match=r"^(it is|Exceeds)"):
        parse(content)


@pytest.mark.parametrize("key", START)
@pytest.mark.parametrize("value", [None, True, "5", [], {}, -1, float("nan"), float("inf"), 1e300, 10**30])
def test_a_start_that_makes_no_sense_is_an_error(key: str, value: Any) -> None:
    """Of both clocks: missing, of another type, negative, not finite or beyond all times."""
    with pytest.raises(ValueError, match=rf"{key}|no number"):
        parse_start(json.dumps({**START, key: value}).encode())
    with pytest.raises(ValueError, match=key):
        parse_start(json.dumps({other: START[other] for other in START if other != key}).encode())


@pytest.mark.parametrize("key", ACCOUNT)
@pytest.mark.parametrize("value", [True, [1], {"a": 1}, float("nan")])
def test_an_account_that_makes_no_sense_is_an_error(key: str, value: Any) -> None:
    """Of every value of it."""
    with pytest.raises(ValueError, match=rf"{key}|no number"):
        parse_account(json.dumps({**ACCOUNT, key: value}).encode())


def test_a_problem_is_one_line_of_some_length() -> None:
    """What a pod calls its problem is printed: without control characters, and not megabytes of it."""
    account = parse_account(json.dumps({"problem": "a\x1b[2J\nb" + "c" * 10_000}).encode())
    assert account is not None
    assert account.problem.startswith("a?[2J b")
    assert len(account.problem) == 2000


@pytest.mark.parametrize(
    "content", [b"\xff\n", b"a\x1b[31m\n", b"a\0b\n", b"a" * 10_000, b"a\n" * 70_000, "a\u2028b".encode()]
)
def test_names_that_make_no_sense_are_an_error(content: bytes) -> None:
    """Not UTF-8, with control characters, too long or too many; what can be read of them can be had all the same."""
    with pytest.raises(ValueError, match=r"it is not UTF-8|control characters|characters, more than|names, and rows"):
        parse_names(content)
    salvaged = salvage_names(content)
    assert 0 < len(salvaged) <= 1 << 16
    assert all(name == plain(name, 8192) for name in salvaged)


@given(content=st.binary(max_size=200))
@pytest.mark.parametrize("parse", [parse_start, parse_account, parse_names])
def test_any_bytes_are_a_value_or_one_error(parse: Callable[[bytes], object], content: bytes) -> None:
    """Nothing else is ever raised."""
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
    """The files of one recorder; gives its rows."""
    rows = np.zeros(count, RAW_ROW)
    rows["started_ns"] = rows["intended_ns"] = np.arange(count) * 1_000_000
    rows["latency_ns"], rows["ok"], rows["status"] = 5_000_000, 1, 200
    rows.tofile(folder / f"samples{part}.bin")
    (folder / f"names{part}.txt").write_text("page\n", "utf-8")
    (folder / f"started{part}.json").write_text(json.dumps({"zero_ns": zero_ns, "wall_s": 1}), "utf-8")
    return rows


@pytest.mark.parametrize(("field", "value"), ODD_ROWS)
@pytest.mark.parametrize("parts", [("",), ("-0", "-1")])
def test_rows_that_make_no_sense_are_left_out_and_reported(
    tmp_path: Path, field: str, value: int, parts: tuple[str, ...]
) -> None:
    """All others stay, also where several recorders number their names differently."""
    for part in parts:
        rows = recorded(tmp_path, part=part)
    (tmp_path / f"names{parts[0]}.txt").write_text("page\nother\n" if len(parts) > 1 else "page\n", "utf-8")
    rows[field][1] = value
    rows.tofile(tmp_path / f"samples{parts[-1]}.bin")
    samples, odd = sensible_samples(tmp_path)
    assert len(samples) == 3 * len(parts) - 1
    assert odd == f"samples{parts[-1]}.bin: 1 of 3 rows make no sense, the first is row 2"
    assert len(recent_rows(tmp_path, most=10)) == len(samples)
    assert len(read_samples(tmp_path)) == 3 * len(parts)


def test_a_time_below_zero_is_left_to_the_checks(tmp_path: Path) -> None:
    """They have a reason of their own for it, and the row stays."""
    rows = recorded(tmp_path)
    rows["latency_ns"][1] = rows["started_ns"][0] = -1
    rows.tofile(tmp_path / "samples.bin")
    samples, odd = sensible_samples(tmp_path)
    assert (len(samples), odd) == (3, "")


@given(raw=hnp.arrays(RAW_ROW, st.integers(0, 30)), names=st.integers(0, 3))
def test_sensible_rows_can_be_stored(tmp_path_factory: pytest.TempPathFactory, raw: Any, names: int) -> None:
    """Whatever the bytes are, what is kept of them makes samples and a file."""
    folder = tmp_path_factory.mktemp("any")
    recorded(folder)
    (folder / "names.txt").write_text("".join(f"n{number}\n" for number in range(names)), "utf-8")
    raw.tofile(folder / "samples.bin")
    samples, odd = sensible_samples(folder)
    write_parquet(samples, folder / "samples.parquet")
    assert len(samples) == int(sensible(raw, names).sum())
    assert bool(odd) == (len(samples) < len(raw))


@pytest.mark.parametrize("content", ["[]", '{"zero_ns": NaN, "wall_s": 1}', '{"zero_ns": "0", "wall_s": 1}', "{}"])
def test_a_start_that_makes_no_sense_is_one_error(tmp_path: Path, content: str) -> None:
    """With the file's name."""
    (tmp_path / "started.json").write_text(content, "utf-8")
    with pytest.raises(StoreError, match=r"^started.json makes no sense: "):
        read_start(tmp_path)


def test_one_recorder_that_makes_no_sense_does_not_lose_the_others(tmp_path: Path) -> None:
    """A start that is none, or years later, costs the rows of its own recorder."""
    recorded(tmp_path, part="-0")
    recorded(tmp_path, part="-1", zero_ns=2 * LONGEST_NS)
    recorded(tmp_path, part="-2")
    (tmp_path / "started-2.json").write_text("[]", "utf-8")
    samples, odd = sensible_samples(tmp_path)
    assert len(samples) == 3
    assert "started-1.json: it began" in odd
    assert "started-2.json makes no sense" in odd


def test_names_that_are_not_text_keep_their_rows(tmp_path: Path) -> None:
    """The samples are there, and their names are as readable as can be."""
    recorded(tmp_path)
    (tmp_path / "names.txt").write_bytes(b"p\xffge\n")
    samples, odd = sensible_samples(tmp_path)
    assert (len(samples), samples.names) == (3, ("p\ufffdge",))
    assert odd == "names.txt: it is not UTF-8"
    with pytest.raises(StoreError, match=r"names.txt: it is not UTF-8"):
        read_samples(tmp_path)


def test_an_account_is_read_or_missing(tmp_path: Path) -> None:
    """One that is not there, or torn, is none; one that makes no sense is an error with the file's name."""
    assert read_account(tmp_path) is None
    (tmp_path / "generator.json").write_text('{"recorded"', "utf-8")
    assert read_account(tmp_path) is None
    (tmp_path / "generator.json").write_text('{"recorded": "3"}', "utf-8")
    with pytest.raises(StoreError, match=r"generator\.json makes no sense: recorded is not a whole number"):
        read_account(tmp_path)


def test_workers_may_have_more_names_together_than_one_alone(tmp_path: Path) -> None:
    """Each row keeps its own name: ids in URLs are soon more than 65,536 over several workers."""
    for worker in range(2):
        rows = recorded(tmp_path, count=40_000, part=f"-{worker}")
        rows["name"] = np.arange(40_000)
        rows.tofile(tmp_path / f"samples-{worker}.bin")
        names = "".join(f"/item/{worker}/{number}\n" for number in range(40_000))
        (tmp_path / f"names-{worker}.txt").write_text(names, "utf-8")
    samples, odd = sensible_samples(tmp_path)
    assert (len(samples), len(samples.names), odd) == (80_000, 80_000, "")
    assert {samples.names[number] for number in samples.name.tolist()} == set(samples.names)
