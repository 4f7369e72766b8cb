"""The threat model is true to the tests: every edge names some, and each of them exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "threat-model.md").read_text("utf-8")
TEST = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


def list_edges() -> list[list[str]]:
    """The cells of each row of the table of edges."""
    table = PAGE.partition("\n## Edges\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return rows[1:]


@cache
def list_tests(file: str) -> frozenset[str]:
    """The names of the functions of a file below tests/."""
    tree = ast.parse((ROOT / "tests" / file).read_text("utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_page_has_a_table_of_edges() -> None:
    """Each row has who sends, who gets it, what it is, what of it is trusted, the rule, and tests."""
    edges = list_edges()
    assert len(edges) >= 20
    assert {len(cells) for cells in edges} == {6}


@pytest.mark.parametrize("edge", list_edges(), ids=lambda cells: f"{cells[0]} to {cells[1]}")
def test_rules_of_an_edge_are_tested(edge: list[str]) -> None:
    """A rule without a test is a promise that the next change breaks."""
    named = TEST.findall(edge[-1])
    assert named
    assert TEST.sub("", edge[-1]).strip() == ""
    assert [f"{file}::{name}" for file, name in named if name not in list_tests(file)] == []
