"""Words that the language of the project avoids do not occur in it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Files and folders whose text is searched; add one when its text is free of these words.
_COVERED = ("README.md", "docs")
_AVOIDED = (
    *("told", "tells", "mend", "mends", "spoilt", "spoils", "nobody", "somebody", "everybody"),
    *("dawdle", "ails", "asker", "homeless"),
)
_SUFFIXES = frozenset({".md", ".py", ".html", ".css", ".yaml", ".yml", ".json", ".toml"})
_WORD = re.compile(rf"(?<![a-z])({'|'.join(_AVOIDED)})(?![a-z])", re.IGNORECASE)


def avoided_words(text: str) -> Iterator[str]:
    """Yield each avoided word with the number of its line; a part of a name (`_told`, `told_s`) is a word, too."""
    for number, line in enumerate(text.splitlines(), start=1):
        yield from (f"{number}: {found}" for found in _WORD.findall(line))


def covered_files(covered: str) -> list[Path]:
    """List the text files of a covered file or folder."""
    root = ROOT / covered
    return [path for path in sorted((root, *root.rglob("*"))) if path.suffix in _SUFFIXES and path.is_file()]


@pytest.mark.parametrize("covered", _COVERED)
def test_text_has_no_avoided_word(covered: str) -> None:
    """Covered files use none of the avoided words, as a whole word in any case of letters."""
    files = [path for path in covered_files(covered) if path != Path(__file__)]
    assert files
    found = {str(path.relative_to(ROOT)): list(avoided_words(path.read_text("utf-8"))) for path in files}
    assert {name: words for name, words in found.items() if words} == {}


@pytest.mark.parametrize("text", ["is told of", "Nobody", "_told", "told_s", "x(mend)", "MENDS"])
def test_finds_whole_words(text: str) -> None:
    """A whole word is found in prose and between underscores, in any case of letters."""
    assert len(list(avoided_words(text))) == 1


@pytest.mark.parametrize("text", ["stolder", "details", "amend", "recommends", "tasker", "emails", "retold"])
def test_ignores_parts_of_words(text: str) -> None:
    """A longer word that contains an avoided one is not found."""
    assert list(avoided_words(text)) == []
