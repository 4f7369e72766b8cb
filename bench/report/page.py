"""Render pages from templates: self-contained, everything that is not markup of meshbench's own is escaped."""

import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

LONGEST = 20  # rows of a table; longer ones are folded


def render(template: str, **values: Any) -> str:
    """Return a page as text. `values` are what the template names; one that is missing is an error."""
    environment = Environment(
        loader=PackageLoader("bench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["kept"] = _keep_units
    return environment.get_template(template).render(longest=LONGEST, **values)


def _keep_units(text: str) -> str:
    """Keep numbers on one line with their unit."""
    return re.sub(r"(?<=\d) (?=%|ms\b|[KMG]iB)", "\N{NO-BREAK SPACE}", text)
