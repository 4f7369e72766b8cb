"""Detect regressions: compare each night's ratio to its own baseline with the prediction from earlier nights."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import Field

from bench.analysis.history import History, HistoryLine, append_lines, list_new_conditions, list_other_machines
from bench.analysis.night import make_lines
from bench.analysis.stats import average_blocks, explain_no_interval, t_quantile, welch
from bench.analysis.validity import make_issue
from bench.errors import InvalidMeasurementError, MeshbenchError, ProofError, RegressionError, exit_code_of
from bench.results.base import SCHEMA_VERSION, Record
from bench.results.issues import Issue, IssueCode
from bench.results.store import StoredRun
from bench.units import format_change, format_counted, format_percent

NIGHTS: Final = 20
# The limit from 3 nights is twice as far away as that from 20 and misses +20 % in 2 of 5 cases; from 5, in 1 of 6. So
# few nights are compared by the errors of their runs.
FEWEST_NIGHTS: Final = 5
WORTH_A_WARNING: Final = 1.05
INVALID_ALARM: Final = 3

Outcome = Literal["pass", "warning", "regression", "no baseline", "inconclusive", "invalid"]


class Decision(Record):
    """One night of one contrast. Ratios are P95 against the reference of the same run; 1.42 is +42 %."""

    run_id: str
    at: datetime
    configuration: str
    reference: str
    outcome: Outcome
    reason: Annotated[str, Field(description="why the gate decided so")]
    issues: Annotated[
        tuple[Issue, ...], Field(description="why the night is not valid, or has no ratio; what limits its comparison")
    ] = ()
    ratio: float | None = None
    usual: Annotated[float | None, Field(description="geometric mean over the nights before")] = None
    limit_95: Annotated[
        float | None, Field(description="one-sided limit for one more night; after 1 to 4 nights a margin beyond it")
    ] = None
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
    """Nights that are compared with one another: the usual ones, and the latest consecutive ones above the limit."""

    usual: list[HistoryLine] = field(default_factory=list)
    above: list[HistoryLine] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Error:
    """The standard error of a ln ratio, with its degrees of freedom."""

    se: float
    df: float


@dataclass(frozen=True, slots=True)
class Limits:
    """The range that one more night may reach by chance, as ln ratios.

    limit_99: None for the limits of first nights, where the first night beyond `limit_95` is a regression
    chance: where the difference from the mean begins to be more than chance; below a first night's limit by the margin
    """

    mean: float
    limit_95: float
    limit_99: float | None
    chance: float


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
        if night.accepted or night.kind not in epochs:
            epochs[night.kind] = _Epoch()
        invalid = 0 if night.valid else invalid + 1
        decisions.append(_decide(night, epochs[night.kind], invalid=invalid, before=before))
        before = night
    return tuple(decisions)


def compute_limits(usual: Sequence[float]) -> Limits | None:
    """Return limits for one more night, from the last 20; None where they are fewer than 5, or all equal."""
    last = usual[-NIGHTS:]
    if len(last) < FEWEST_NIGHTS or max(last) == min(last):
        return None
    mean, spread = fmean(last), stdev(last) * math.sqrt(1 + 1 / len(last))
    reach = [t_quantile(two_sided, len(last) - 1) * spread for two_sided in (0.90, 0.98)]
    return Limits(mean, mean + reach[0], mean + reach[1], chance=mean + reach[0])


def compute_first_limits(night: HistoryLine, usual: Sequence[HistoryLine]) -> Limits | None:
    """Return the limits for a night after 1 to 4 others: too few to know how much nights differ, so the errors of all
    these runs and the margin have to do. None where a run has no error, or there is no night.

    The difference between `night` and the mean of the others has the sum of their variances, each divided by the square
    of the number of nights that it is averaged over; its degrees of freedom are Welch and Satterthwaite's.
    """
    errors = [find_error(line) for line in (night, *usual)]
    if not usual or None in errors:
        return None
    shares = (1.0, *([1 / len(usual) ** 2] * len(usual)))
    parts = [(share * error.se**2, error.df) for share, error in zip(shares, filter(None, errors), strict=True)]
    variance = sum(part for part, _ in parts)
    df = variance**2 / sum(part**2 / df for part, df in parts)
    mean = fmean(_read_ratios(usual))
    chance = mean + t_quantile(0.90, df) * math.sqrt(variance)
    return Limits(mean, chance + math.log1p(night.margin), None, chance=chance)


def find_error(night: HistoryLine) -> Error | None:
    """Return the standard error of a night's ln ratio, from its own repeats or blocks; None where they have none."""
    values, reference = (np.asarray(side) for side in (night.ln_p95_ms, night.ln_reference_p95_ms))
    if night.is_paired:
        found = average_blocks((values - reference).tolist()) if len(values) else None
        return Error(found.error, found.n - 1) if found is not None and found.error is not None else None
    if any(explain_no_interval(side.tolist()) for side in (values, reference)):
        return None
    return Error(*welch(values, reference))


def _decide(night: HistoryLine, epoch: _Epoch, *, invalid: int, before: HistoryLine | None) -> Decision:
    """Judge a night by its epoch, and add it to the epoch."""
    if not night.valid:
        alarm = f"ALARM: {format_counted(invalid, 'consecutive night')} without a valid measurement"
        return _make_decision(night, "invalid", alarm if invalid >= INVALID_ALARM else "", issues=night.issues)
    if night.ln_ratio is None:
        return _make_decision(night, "inconclusive", "", issues=night.issues)
    baseline = tuple(epoch.usual[-NIGHTS:])
    is_first = len(baseline) < FEWEST_NIGHTS
    expected = compute_first_limits(night, baseline) if is_first else compute_limits(_read_ratios(baseline))
    if expected is None:
        epoch.usual.append(night)
        return _make_decision(night, "no baseline", _explain_no_baseline(night, before, baseline), baseline=baseline)
    outcome, reason = (_judge_first if is_first else _judge)(night.ln_ratio, expected, night=night, epoch=epoch)
    issues = tuple(_find_other_machines(night, baseline))
    return _make_decision(night, outcome, reason, issues=issues, expected=expected, baseline=baseline)


def _judge_first(ln_ratio: float, expected: Limits, *, night: HistoryLine, epoch: _Epoch) -> tuple[Outcome, str]:
    """Judge one of the first nights. It becomes usual, unless it is a regression."""
    before = "the night before" if len(epoch.usual) == 1 else f"the {len(epoch.usual)} nights before"
    more = f"{format_change(math.exp(ln_ratio - expected.mean))} against {before}"
    margin = f"the margin of {format_percent(night.margin)}"
    if ln_ratio > expected.limit_95:
        least = format_change(math.exp(ln_ratio - expected.chance))
        return "regression", f"{more}, at least {least} with 95 % confidence, beyond {margin}"
    epoch.usual.append(night)
    return "pass", f"{more}: more than chance, but not surely beyond {margin}" if ln_ratio > expected.chance else ""


def _judge(ln_ratio: float, expected: Limits, *, night: HistoryLine, epoch: _Epoch) -> tuple[Outcome, str]:
    """Judge a night by a full baseline. A single night above the limit was chance, and becomes usual when the next one
    is below it; a regression never does."""
    if ln_ratio <= expected.limit_95:
        epoch.usual += [*(epoch.above if len(epoch.above) == 1 else ()), night]
        epoch.above.clear()
        return "pass", ""
    epoch.above.append(night)
    more = format_change(math.exp(ln_ratio - expected.mean))
    if (running := len(epoch.above)) > 1:
        return "regression", f"{more} against the usual ratio: {running} consecutive nights beyond the 95 % limit"
    beyond_99 = expected.limit_99 is not None and ln_ratio > expected.limit_99
    if beyond_99 and math.exp(ln_ratio - expected.mean) > WORTH_A_WARNING:
        return (
            "warning",
            f"{more} against the usual ratio, beyond the 99 % limit; a regression if the next night is too",
        )
    return "pass", f"{more}, beyond the 95 % limit, as 1 night in 20 is by chance"


def _find_other_machines(night: HistoryLine, baseline: Sequence[HistoryLine]) -> Iterator[Issue]:
    """Yield a warning where nights of the baseline were on other machines of the same kind."""
    count, differ = list_other_machines(baseline, night)
    if count:
        nights = f"{count} of the {format_counted(len(baseline), 'night')} before"
        yield make_issue(IssueCode.OTHER_MACHINE, f"{nights} had another {', '.join(differ)} of the same kind")


def _explain_no_baseline(night: HistoryLine, before: HistoryLine | None, baseline: Sequence[HistoryLine]) -> str:
    """Explain why a night cannot be judged, and what began a new epoch, if something did."""
    changed = list_new_conditions(before, night) if before is not None and before.kind != night.kind else ()
    causes = [f"accepted: {night.accepted}"] if night.accepted else []
    causes += [f"new conditions ({'; '.join(changed)})"] if changed else []
    count = f"recorded only: {format_counted(len(baseline), 'valid night')} before this one"
    if len(baseline) >= FEWEST_NIGHTS:
        count += ", they are all equal"
    elif baseline:
        count += f", and not every run has an interval; {FEWEST_NIGHTS} nights are judged without"
    return "; ".join([*causes, count])


def _read_ratios(nights: Iterable[HistoryLine]) -> list[float]:
    return [night.ln_ratio for night in nights if night.ln_ratio is not None]


def _make_decision(
    night: HistoryLine,
    outcome: Outcome,
    reason: str,
    *,
    issues: Sequence[Issue] = (),
    expected: Limits | None = None,
    baseline: Sequence[HistoryLine] = (),
) -> Decision:
    return Decision(
        run_id=night.run_id,
        at=night.at,
        configuration=night.configuration,
        reference=night.reference,
        outcome=outcome,
        reason=reason,
        issues=tuple(issues),
        ratio=_exp(night.ln_ratio),
        usual=_exp(expected.mean if expected else None),
        limit_95=_exp(expected.limit_95 if expected else None),
        limit_99=_exp(expected.limit_99 if expected else None),
        nights=len(baseline),
    )


def _exp(logarithm: float | None) -> float | None:
    return None if logarithm is None else math.exp(logarithm)


def _choose_error(decisions: Sequence[Decision], run_exit_code: int | None) -> type[MeshbenchError] | None:
    """Return the class of the failure. A regression of one contrast takes precedence over an invalid one of another."""
    outcomes = {decision.outcome for decision in decisions}
    if "regression" in outcomes:
        return RegressionError
    if "invalid" not in outcomes:
        return None
    return ProofError if run_exit_code == exit_code_of(ProofError) else InvalidMeasurementError
