"""What was found by looking before a run: one line each, with what mends it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench.errors import MeshbenchError, RefusedError

State = Literal["ok", "doubt", "missing"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `missing` keeps a run from starting; `mend` is what to do about it."""

    state: State
    what: str
    found: str
    mend: str = ""
    error: type[MeshbenchError] = RefusedError


def as_text(findings: Sequence[Finding]) -> str:
    """The findings as lines for people."""
    width = max(len(finding.what) for finding in findings)
    return "\n".join(
        f"{finding.state:<8} {finding.what:<{width}}  {finding.found}"
        + (f"  -> {finding.mend}" if finding.mend else "")
        for finding in findings
    )


def findings_json(findings: Sequence[Finding]) -> str:
    """The findings for programs."""
    keys = ("state", "what", "found", "mend")
    return json.dumps([{key: getattr(finding, key) for key in keys} for finding in findings], indent=2)
