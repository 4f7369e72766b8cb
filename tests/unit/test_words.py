"""Words that the language of the project avoids do not occur in it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Files and folders whose text is searched; add one when its text is free of these words.
_COVERED = ("README.md", "CHANGELOG.md", "docs", "bench", "tests", "locustfiles", "scenarios", "manifests")
_AVOIDED = frozenset(
    {
        *("told", "tells", "mend", "mends", "spoilt", "spoils", "nobody", "somebody", "everybody"),
        *("dawdle", "ails", "asker", "homeless"),
    }
)
# A key of older versions that programs may parse.
_ALLOWED: dict[str, set[str]] = {"bench/check_result.py": {"mend"}, "tests/unit/test_check_result.py": {"mend"}}
_RECORDED = ROOT / "tests" / "recorded"  # what programs wrote, earlier versions of this one among them
_SUFFIXES = frozenset({".md", ".py", ".html", ".css", ".yaml", ".yml", ".json", ".toml"})
_ESCAPE = re.compile(r"\\[nrt]")  # else `\ntold` would be the word `ntold`
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")  # of prose, `snake_case` and `CamelCase`


def avoided_words(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line number and the text of each avoided word."""
    for number, line in enumerate(text.splitlines(), start=1):
        words = _WORD.findall(_ESCAPE.sub(" ", line))
        yield from ((number, word) for word in words if word.lower() in _AVOIDED)


def covered_files(covered: str) -> list[Path]:
    """List the text files of a covered file or folder."""
    root = ROOT / covered
    files = [path for path in sorted((root, *root.rglob("*"))) if path.suffix in _SUFFIXES and path.is_file()]
    return [path for path in files if not path.is_relative_to(_RECORDED)]


def problems(path: Path) -> list[str]:
    """List the avoided words of a file with their lines, except for those that it may have."""
    allowed = _ALLOWED.get(str(path.relative_to(ROOT)), set())
    return [f"{number}: {word}" for number, word in avoided_words(path.read_text("utf-8")) if word not in allowed]


@pytest.mark.parametrize("covered", _COVERED)
def test_text_has_no_avoided_word(covered: str) -> None:
    """Covered files have none of the avoided words, neither in prose nor in names."""
    files = [path for path in covered_files(covered) if path != Path(__file__)]
    assert files
    found = {str(path.relative_to(ROOT)): problems(path) for path in files}
    assert {name: words for name, words in found.items() if words} == {}


_PROSE = ("is told of", "Nobody", "nobody's", "x(mend)", "MENDS", r"a\ntold")
_NAMES = ("_told", "told_s", "troubles_told", "ToldOnce", "isTold", "HTTPTold")


@pytest.mark.parametrize("text", [*_PROSE, *_NAMES])
def test_finds_whole_words(text: str) -> None:
    """A word is found in prose and in names of every form, in any case of letters."""
    assert len(list(avoided_words(text))) == 1


@pytest.mark.parametrize("text", ["stolder", "details", "amend", "recommends", "tasker", "emails", "retold", "Amend"])
def test_ignores_parts_of_words(text: str) -> None:
    """A longer word that contains an avoided one is not found."""
    assert list(avoided_words(text)) == []
