"""Detect regressions: compare each night's ratio to its own baseline with the prediction from earlier nights."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Final, Literal

from pydantic import Field

from bench.analysis.history import History, HistoryLine, append_lines, make_lines
from bench.analysis.stats import t_quantile
from bench.errors import InvalidMeasurementError, MeshbenchError, ProofError, RegressionError, exit_code_of
from bench.results.base import SCHEMA_VERSION, Record
from bench.results.issues import Issue
from bench.results.records import ANY_NODE
from bench.results.store import StoredRun
from bench.units import format_change, format_counted

NIGHTS: Final = 20
# The limit from 3 nights is twice as far away as that from 20 and misses +20 % in 2 of 5 cases; from 5, in 1 of 6.
FEWEST_NIGHTS: Final = 5
WORTH_A_WARNING: Final = 1.05
INVALID_ALARM: Final = 3
# The conditions of nights whose lines do not name them.
_FIRST: Final = {"design": "sequential", "share of requests": "1", "placement": ANY_NODE}

Outcome = Literal["pass", "warning", "regression", "no baseline", "inconclusive", "invalid"]


class Decision(Record):
    """One night of one contrast. Ratios are P95 against the reference of the same run; 1.42 is +42 %."""

    run_id: str
    at: datetime
    configuration: str
    reference: str
    outcome: Outcome
    reason: Annotated[str, Field(description="why the gate decided so")]
    issues: Annotated[tuple[Issue, ...], Field(description="why the night is not valid, or has no ratio")] = ()
    ratio: float | None = None
    usual: Annotated[float | None, Field(description="geometric mean over the nights before")] = None
    limit_95: Annotated[float | None, Field(description="one-sided prediction limit for one more night")] = None
    limit_99: float | None = None
    nights: Annotated[int, Field(description="nights that the limits come from")] = 0

    @property
    def pair(self) -> str:
        return f"{self.configuration} against {self.reference}"


class GateRecord(Record):
    """The decisions of `meshbench gate` on one run."""

    schema_version: Literal[2] = SCHEMA_VERSION
    run_id: str
    scenario: str
    fingerprint: str
    exit_code: int
    decisions: tuple[Decision, ...]


@dataclass(slots=True)
class _Epoch:
    """The nights under the same conditions: usual ln ratios, and the latest consecutive ones above the limit."""

    usual: list[float] = field(default_factory=list)
    above: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Limits:
    """The range that one more night may reach by chance, as ln ratios."""

    mean: float
    limit_95: float
    limit_99: float


def gate(run: StoredRun, history: Path, *, accepted: str = "") -> tuple[GateRecord, History]:
    """Add a run to the history, once, and judge it by the nights before it."""
    lines = make_lines(run, accepted=accepted)
    known = append_lines(history, lines)
    decisions = tuple(d for line in lines for d in decide(known.series(line)) if d.run_id == line.run_id)
    found = GateRecord(
        run_id=run.record.run_id,
        scenario=run.record.scenario.name,
        fingerprint=lines[0].fingerprint,
        exit_code=exit_code_of(_choose_error(decisions, run.record.exit_code)),
        decisions=decisions,
    )
    return found, known


def decide(nights: Iterable[HistoryLine]) -> tuple[Decision, ...]:
    """Return one decision for each night of a contrast, from the nights before it. `nights`: oldest first."""
    epochs: dict[str, _Epoch] = {}
    decisions: list[Decision] = []
    invalid = 0
    before: HistoryLine | None = None
    for night in nights:
        if night.accepted or night.fingerprint not in epochs:
            epochs[night.fingerprint] = _Epoch()
        invalid = 0 if night.valid else invalid + 1
        decisions.append(_decide(night, epochs[night.fingerprint], invalid=invalid, before=before))
        before = night
    return tuple(decisions)


def compute_limits(usual: Sequence[float]) -> Limits | None:
    """Return limits for one more night, from the last 20; None where they are fewer than 5, or all equal."""
    last = usual[-NIGHTS:]
    if len(last) < FEWEST_NIGHTS or max(last) == min(last):
        return None
    mean, spread = fmean(last), stdev(last) * math.sqrt(1 + 1 / len(last))
    reach = [t_quantile(two_sided, len(last) - 1) * spread for two_sided in (0.90, 0.98)]
    return Limits(mean, mean + reach[0], mean + reach[1])


def _decide(night: HistoryLine, epoch: _Epoch, *, invalid: int, before: HistoryLine | None) -> Decision:
    """Judge a night by its epoch, and add it to the epoch."""
    expected, nights = compute_limits(epoch.usual), min(len(epoch.usual), NIGHTS)
    if not night.valid:
        alarm = f"ALARM: {format_counted(invalid, 'consecutive night')} without a valid measurement"
        return _make_decision(night, "invalid", alarm if invalid >= INVALID_ALARM else "")
    if night.ln_ratio is None:
        return _make_decision(night, "inconclusive", "")
    if expected is None:
        epoch.usual.append(night.ln_ratio)
        return _make_decision(night, "no baseline", _explain_no_baseline(night, before, nights), nights=nights)
    _add_to_epoch(night.ln_ratio, epoch, expected)
    outcome, reason = _judge(night.ln_ratio, expected, running=len(epoch.above))
    return _make_decision(night, outcome, reason, expected=expected, nights=nights)


def _add_to_epoch(ln_ratio: float, epoch: _Epoch, expected: Limits) -> None:
    """Add a ratio to its epoch. A single night above the limit was chance; a regression never becomes usual."""
    if ln_ratio > expected.limit_95:
        epoch.above.append(ln_ratio)
        return
    epoch.usual += [*(epoch.above if len(epoch.above) == 1 else ()), ln_ratio]
    epoch.above.clear()


def _judge(ln_ratio: float, expected: Limits, *, running: int) -> tuple[Outcome, str]:
    more = format_change(math.exp(ln_ratio - expected.mean))
    if running > 1:
        return "regression", f"{more} against the usual ratio: {running} consecutive nights beyond the 95 % limit"
    if ln_ratio > expected.limit_99 and math.exp(ln_ratio - expected.mean) > WORTH_A_WARNING:
        return (
            "warning",
            f"{more} against the usual ratio, beyond the 99 % limit; a regression if the next night is too",
        )
    return "pass", f"{more}, beyond the 95 % limit, as 1 night in 20 is by chance" if running else ""


def _explain_no_baseline(night: HistoryLine, before: HistoryLine | None, nights: int) -> str:
    """Explain why a night cannot be judged, and what began a new epoch, if something did."""
    was, now = (_FIRST | known.conditions for known in (before or night, night))
    changed = [f"{name}: {was.get(name)} / {now[name]}" for name in now if was.get(name) != now[name]]
    causes = [f"accepted: {night.accepted}"] if night.accepted else []
    causes += [f"new conditions ({'; '.join(changed)})"] if changed else []
    count = "they are all equal" if nights >= FEWEST_NIGHTS else f"{FEWEST_NIGHTS} are needed"
    return "; ".join([*causes, f"recorded only: {format_counted(nights, 'valid night')} before this one, {count}"])


def _make_decision(
    night: HistoryLine, outcome: Outcome, reason: str, *, expected: Limits | None = None, nights: int = 0
) -> Decision:
    return Decision(
        run_id=night.run_id,
        at=night.at,
        configuration=night.configuration,
        reference=night.reference,
        outcome=outcome,
        reason=reason,
        issues=night.issues if outcome in ("invalid", "inconclusive") else (),
        ratio=None if night.ln_ratio is None else math.exp(night.ln_ratio),
        usual=math.exp(expected.mean) if expected else None,
        limit_95=math.exp(expected.limit_95) if expected else None,
        limit_99=math.exp(expected.limit_99) if expected else None,
        nights=nights,
    )


def _choose_error(decisions: Sequence[Decision], run_exit_code: int | None) -> type[MeshbenchError] | None:
    """Return the class of the failure. A regression of one contrast takes precedence over an invalid one of another."""
    outcomes = {decision.outcome for decision in decisions}
    if "regression" in outcomes:
        return RegressionError
    if "invalid" not in outcomes:
        return None
    return ProofError if run_exit_code == exit_code_of(ProofError) else InvalidMeasurementError
