"""Define the result of one check before a run, and format a list of them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from bench.errors import MeshbenchError, RefusedError

Status = Literal["ok", "warning", "error"]
_OLD_STATES: Final = {"ok": "ok", "warning": "doubt", "error": "missing"}


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check. An `error` keeps a run from starting and is raised as the class `error`; `hint` fixes
    it."""

    name: str
    status: Status
    detail: str
    hint: str = ""
    error: type[MeshbenchError] = RefusedError


def format_results(results: Sequence[CheckResult]) -> str:
    """Format results as lines of text."""
    width = max(len(result.name) for result in results)
    return "\n".join(
        f"{result.status:<8} {result.name:<{width}}  {result.detail}" + (f"  -> {result.hint}" if result.hint else "")
        for result in results
    )


def format_results_json(results: Sequence[CheckResult]) -> str:
    """Format results as JSON; the last four keys and the values of `state` are those of older versions."""
    return json.dumps([_as_json(result) for result in results], indent=2)


def _as_json(result: CheckResult) -> dict[str, str]:
    return {
        "name": result.name,
        "status": result.status,
        "detail": result.detail,
        "hint": result.hint,
        "state": _OLD_STATES[result.status],
        "what": result.name,
        "found": result.detail,
        "mend": result.hint,
    }
