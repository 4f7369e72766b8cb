"""Text of unknown origin in reports."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.report.text_formats import escape_csv_cell, escape_latex, escape_markdown


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_formula_is_quoted(start: str) -> None:
    """A cell that a spreadsheet would run becomes text."""
    assert escape_csv_cell(f"{start}cmd()") == f"'{start}cmd()"


@pytest.mark.parametrize("number", [-1, -0.5, 3, True])
def test_number_is_not_quoted(number: float) -> None:
    """Negative numbers are no formulas."""
    assert escape_csv_cell(number) is number


@given(st.text())
def test_no_cell_starts_like_a_formula(text: str) -> None:
    """Whatever the text, no cell of a CSV file starts like a formula."""
    assert not str(escape_csv_cell(text)).startswith(("=", "+", "-", "@", "\t", "\r"))


@given(st.text())
def test_markdown_stays_in_its_cell(text: str) -> None:
    """No text ends a Markdown cell or line, opens HTML or starts code."""
    made = escape_markdown(text)
    bare = made.replace("\\\\", "")
    assert "\n" not in made
    assert "\r" not in made
    for character in "|`<*":
        assert bare.count(character) == bare.count("\\" + character)


@given(st.text(alphabet=st.sampled_from("\\{}%&#$_~^[]<>|a \n")))
def test_latex_specials_are_escaped(text: str) -> None:
    """No text starts a command, a comment, a column or mathematics of its own in LaTeX."""
    made = escape_latex(text)
    for known in (r"\textbackslash{}", r"\textasciitilde{}", r"\textasciicircum{}", r"\textless{}", r"\textgreater{}"):
        made = made.replace(known, "")
    made = made.replace(r"\textbar{}", "").replace("{[}", "").replace("{]}", "")
    for character in "%&#$_{}":
        made = made.replace(f"\\{character}", "")
    assert not set(made) & set("\\{}%&#$_~^\n")


def test_csv_is_read_back_unchanged() -> None:
    """Quotes, commas and newlines survive a CSV reader."""
    out = io.StringIO()
    csv.writer(out).writerow([escape_csv_cell('a "b", c\nd')])
    assert next(csv.reader(io.StringIO(out.getvalue()))) == ['a "b", c\nd']
