"""Links of the pages resolve: a file that exists, and in it a heading that the anchor names."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")))

_FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


def links(page: str) -> Iterator[str]:
    """Yield each target of a link outside of code."""
    yield from _LINK.findall(_CODE.sub("", _FENCE.sub("", page)))


def anchors(page: str) -> Iterator[str]:
    """Yield the anchor of each heading as GitHub makes it: repeated ones get a number."""
    seen: dict[str, int] = {}
    for heading in _HEADING.findall(_FENCE.sub("", page)):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        seen[anchor] = seen.get(anchor, -1) + 1
        yield f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor


def resolves(page: Path, link: str) -> bool:
    """Whether the file of a relative link is in the repository and has a heading for its anchor."""
    path, _, anchor = link.partition("#")
    file = page.parent / path if path else page
    if not file.exists() or not file.resolve().is_relative_to(ROOT):
        return False
    return not anchor or anchor in anchors(file.read_text("utf-8"))


def broken(page: Path) -> Iterator[str]:
    """Yield each relative link of a page whose file or anchor does not exist."""
    for link in links(page.read_text("utf-8")):
        if not re.match(r"[a-z]+:", link) and not resolves(page, link):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_resolves(page: Path) -> None:
    """A relative link names an existing file and, after `#`, one of its headings."""
    assert list(broken(page)) == []


def test_every_page_is_linked() -> None:
    """A reader reaches each page in docs/ from the README or from another page."""
    reached = {
        (page.parent / link.partition("#")[0]).resolve() for page in PAGES for link in links(page.read_text("utf-8"))
    }
    assert [page.name for page in PAGES if page.parent.name == "docs" and page not in reached] == []


def test_finds_broken_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing file, a missing heading and a file outside of the repository are found; code and web links are not."""
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    (page := tmp_path / "page.md").write_text(
        "# A `b` c\n## Two\n## Two\n[1](page.md#a-b-c) [2](#two-1) [3](https://example.org/x) `[4](none.md)`\n"
        "```\n# Not a heading\n[5](none.md)\n```\n[6](none.md) [7](#not-a-heading) [8](../..)\n"
    )
    assert list(broken(page)) == ["none.md", "#not-a-heading", "../.."]
