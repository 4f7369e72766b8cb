"""Text of unknown origin, made harmless for each format: names, reasons and error texts come from outside.

HTML is escaped by Jinja2's autoescape, which is on for every template.
"""

import re
from typing import Final

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_MARKDOWN: Final = re.compile(r"([\\`*_\[\]<>|#~$])")
_LATEX: Final = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "$": r"\$",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "[": "{[}",  # after the end of a row a bracket would be taken for its optional length
    "]": "{]}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "\N{MINUS SIGN}": "$-$",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{RIGHTWARDS ARROW}": r"$\rightarrow$",
    "\N{NARROW NO-BREAK SPACE}": r"\,",
    "\N{NO-BREAK SPACE}": "~",
    "\N{LEFT DOUBLE QUOTATION MARK}": "``",
    "\N{RIGHT DOUBLE QUOTATION MARK}": "''",
}


def csv_cell(value: object) -> object:
    """A value for a CSV file: text that looks like a formula to a spreadsheet gets a quote; None is empty."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return "" if value is None else value


def markdown_text(text: str) -> str:
    """Text for a Markdown cell or sentence: no markup, no HTML, one line."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split("\n"))).replace("\r", " ")


def latex_text(text: str) -> str:
    """Text for LaTeX: no command, no comment, one line."""
    return "".join(_LATEX.get(character, character) for character in " ".join(text.splitlines()))
