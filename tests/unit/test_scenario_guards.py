"""Scenario files that would exhaust the machine are refused at once, in little memory."""

import time
import tracemalloc
from pathlib import Path

import pytest

from tests.validating import validate_file

BILLION_LAUGHS = "a: &a [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
FLOODS = {
    "bomb": BILLION_LAUGHS,
    "merge keys": "a: &a {x: 1}\n" + "".join(f"b{n}: {{<<: *a}}\n" for n in range(5000)),
    "too large": "name: " + "x" * 300_000,
    "deep": "name: " + "[" * 100_000,
    "many keys": "".join(f"k{n}: 1\n" for n in range(2_000)),
    "long number": "repeats: " + "9" * 200_000,
    "long text": "load: {duration: " + "9" * 200_000 + "s}",
}  # fmt: skip


@pytest.mark.parametrize("text", FLOODS.values(), ids=FLOODS)
def test_refuses_huge_file_quickly(tmp_path: Path, text: str) -> None:
    """Case 5: a file of any size and content is refused in under a second and 100 MB."""
    path = tmp_path / "flood.yaml"
    path.write_text(text)
    validate_file(path)  # imports and compiles what is needed once
    started = time.process_time()
    problems = validate_file(path)
    took = time.process_time() - started
    tracemalloc.start()
    try:
        validate_file(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert problems
    assert took < 1
    assert peak < 100e6
