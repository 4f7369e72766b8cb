"""Find the field of a manifest that an API server's message is about. Pure."""

import re
from collections.abc import Iterator
from typing import Final

from bench.files.yaml_source import Document, Loc

# Keys and indices as API servers write them: `spec.rules[0].when`, `.spec.actoin`.
_PATH: Final = re.compile(r"[A-Za-z_][\w-]*(?:\.[A-Za-z_][\w/-]*|\[\d+\])+")
_STEP: Final = re.compile(r"\[(\d+)\]|[^.\[\]]+")


def format_refused_field(document: Document, message: str) -> str:
    """Format an API server's refusal of an object with the file and the line of the field that it names, or else of the
    object."""
    loc = next(_list_fields(document, message), ())
    return str(document.problem(loc, message))


def _list_fields(document: Document, message: str) -> Iterator[Loc]:
    """Yield the paths in a message that begin in the document."""
    for found in _PATH.finditer(message):
        steps = _STEP.finditer(found[0])
        loc: Loc = tuple(int(one[1]) if one[1] is not None else one[0] for one in steps)
        if loc[:1] in document.lines:
            yield loc
