"""Compare two builds that were measured in runs of their own: how the ratio to the reference changed.

Each run has its reference with it, so that what the machine does tonight is in numerator and denominator. The change is
the difference of the ln ratios of both sides, `head` less `base`. Its standard error and degrees of freedom come from
the intervals of the runs; with four runs or more in all, from the spread between runs, which has everything that varies
from one run to the next.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import Field

from bench.analysis.conditions import find_build_differences, find_builds_of, find_condition_differences
from bench.analysis.contrast import Side, judge, read_values
from bench.analysis.history import hash_conditions
from bench.analysis.night import read_conditions
from bench.analysis.run_summary import order_blocks, summarise
from bench.analysis.stats import (
    CONFIDENCE,
    EQUIVALENCE_CONFIDENCE,
    Comparison,
    average_blocks,
    explain_no_interval,
    ratio_interval,
    t_quantile,
    welch,
)
from bench.analysis.validity import make_issue
from bench.errors import InputError, InvalidMeasurementError, MeshbenchError, RegressionError, exit_code_of
from bench.results.base import SCHEMA_VERSION, Record
from bench.results.issues import Issue, IssueCode
from bench.results.store import StoredRun
from bench.results.summary_records import SummaryRecord, Verdict
from bench.scenario.types import Design

FEWEST_RUNS: Final = 4  # in all: with three, one degree of freedom, an interval would be useless

FailOn = Literal["slower", "different"]
Unit = Literal["blocks", "runs"]

_FAILING: Final[dict[FailOn | None, tuple[Verdict, ...]]] = {
    None: (),
    "slower": ("slower",),
    "different": ("slower", "faster", "different"),
}


class BuildSide(Record):
    """One side of a change: the ratio to the reference, or P95 in ms where the scenario has no reference."""

    value: float | None
    low: Annotated[float | None, Field(description="95 % interval, from the blocks or repeats of its runs")]
    high: float | None
    n: Annotated[int, Field(description="blocks or repeats, of all runs")]


class BuildChange(Record):
    """How one contrast changed from `base` to `head`; 1.05 is +5 %."""

    configuration: str
    reference: Annotated[str | None, Field(description="null: P95 itself, where the scenario has no reference")]
    base: BuildSide
    head: BuildSide
    change: float | None
    change_low: float | None
    change_high: float | None
    degrees_of_freedom: float | None
    unit: Annotated[Unit, Field(description="what the interval of the change is made of")]
    verdict: Verdict
    issues: tuple[Issue, ...] = ()
    hidden: Annotated[tuple[str, ...], Field(description="differences in the reference, which the ratio hides")] = ()
    fails: Annotated[bool, Field(description="whether `fail_on` counts this verdict as a failure")] = False

    @property
    def pair(self) -> str:
        return f"{self.configuration} against {self.reference}" if self.reference else self.configuration


class BuildComparison(Record):
    """The result of `meshbench compare --base --head`."""

    schema_version: Literal[2] = SCHEMA_VERSION
    scenario: str
    design: Design
    base: tuple[str, ...]
    head: tuple[str, ...]
    margin: float
    fail_on: FailOn | None
    exit_code: int
    builds: Annotated[tuple[str, ...], Field(description="differences in what was deployed")]
    conditions: Annotated[tuple[str, ...], Field(description="differences in how it was measured")]
    changes: tuple[BuildChange, ...]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean ln ratio with its standard error and degrees of freedom; without them, `reason` says why."""

    value: float
    n: int
    error: float | None = None
    df: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """A run with its summary, which is read once."""

    stored: StoredRun
    summary: SummaryRecord

    @property
    def run_id(self) -> str:
        return self.stored.record.run_id

    @property
    def design(self) -> Design:
        return self.stored.record.plan.design


def compare_builds(
    base: Sequence[StoredRun],
    head: Sequence[StoredRun],
    *,
    margin: float | None = None,
    fail_on: FailOn | None = None,
    force: bool = False,
) -> BuildComparison:
    """Compare the runs of two builds, contrast by contrast.

    `margin`: the smallest change that matters, as a ratio minus 1; None: that of the first run's scenario. Raises
    InputError for runs of different designs; for runs of one side that are not repetitions of each other; and for runs
    that differ in how they were measured, unless `force`, which is not possible with `fail_on`.
    """
    _require_runs(base, head)
    _require_equal_design([*base, *head])
    for side in (base, head):
        _require_repetitions(side)
    conditions = find_condition_differences(base[0], head[0])
    if conditions and (fail_on or not force):
        hint = "measure both in the same place" if fail_on else "--force compares them anyway, without --fail-on"
        raise InputError(
            f"base and head were measured under different conditions ({'; '.join(conditions)}); hint: {hint}"
        )
    chosen = base[0].record.scenario.margin if margin is None else margin
    sides = [[MeasuredRun(run, summarise(run)[0]) for run in runs] for runs in (base, head)]
    changes = tuple(
        change.model_copy(update={"fails": change.verdict in _FAILING[fail_on]})
        for change in _compare_all(sides[0], sides[1], margin=chosen)
    )
    error = _choose_error(changes) if fail_on else None
    return BuildComparison(
        scenario=head[0].record.scenario.name,
        design=base[0].record.plan.design,
        base=tuple(run.record.run_id for run in base),
        head=tuple(run.record.run_id for run in head),
        margin=chosen,
        fail_on=fail_on,
        exit_code=exit_code_of(error),
        builds=find_build_differences(base[0], head[0]),
        conditions=conditions,
        changes=changes,
    )


def combine(parts: Sequence[Estimate]) -> Estimate:
    """Return the mean of independent estimates, with Satterthwaite's degrees of freedom. Raises ValueError without
    any."""
    value, count = float(np.mean([part.value for part in parts])), sum(part.n for part in parts)
    error, df, reason = _add_errors(parts)
    return Estimate(value, count, None if error is None else error / len(parts), df, reason)


def subtract(head: Estimate, base: Estimate) -> Estimate:
    """Return the difference of two independent estimates, with Satterthwaite's degrees of freedom."""
    return Estimate(head.value - base.value, head.n + base.n, *_add_errors([head, base]))


def subtract_runs(head: Sequence[float], base: Sequence[float]) -> Estimate:
    """Return the difference of the means of runs. Both sides are measured by the same plan, so that runs are taken to
    spread equally on both: n - 2 degrees of freedom. Raises ValueError for fewer than four runs in all."""
    df = len(head) + len(base) - 2
    if df + 2 < FEWEST_RUNS or not head or not base:
        raise ValueError(f"the spread between runs needs {FEWEST_RUNS} of them")
    squares = sum(float(np.var(side)) * len(side) for side in (head, base))
    error = math.sqrt(squares / df * (1 / len(head) + 1 / len(base)))
    value = float(np.mean(head) - np.mean(base))
    if error == 0:
        return Estimate(value, df + 2, reason="all runs are equal: no interval (resolution)")
    return Estimate(value, df + 2, error, df)


def _add_errors(parts: Sequence[Estimate]) -> tuple[float | None, float | None, str]:
    """Return the standard error of a sum, its degrees of freedom, and why there are none."""
    reason = next((part.reason for part in parts if part.error is None), "")
    variances = [(part.error**2, part.df) for part in parts if part.error is not None and part.df is not None]
    if reason or len(variances) < len(parts):
        return None, None, reason
    total = sum(variance for variance, _ in variances)
    df = total**2 / sum(variance**2 / df for variance, df in variances)
    return math.sqrt(total), df, ""


def _require_runs(base: Sequence[StoredRun], head: Sequence[StoredRun]) -> None:
    for flag, runs in (("--base", base), ("--head", head)):
        if not runs:
            raise InputError(f"{flag}: names no run")
    seen: set[str] = set()
    for run in (*base, *head):
        if run.record.status == "running":
            raise InputError(f"{run.path}: this run has not ended; hint: if it was killed, run 'meshbench cleanup'")
        if run.record.run_id in seen:
            raise InputError(f"{run.path}: {run.record.run_id} is named twice, and would count twice")
        seen.add(run.record.run_id)


def _require_equal_design(runs: Sequence[StoredRun]) -> None:
    designs = {run.record.plan.design_text: run.record.run_id for run in runs}
    if len(designs) > 1:
        named = "; ".join(f"{run_id}: {design}" for design, run_id in designs.items())
        raise InputError(
            f"runs of different designs are never compared, since they estimate different ratios ({named});"
            " hint: measure both with the same --design"
        )


def _require_repetitions(runs: Sequence[StoredRun]) -> None:
    """Raise InputError for runs of one side under different conditions, of which their spread would be."""
    first = read_conditions(runs[0])
    for run in runs[1:]:
        known = read_conditions(run)
        if hash_conditions(known) != hash_conditions(first):
            changed = ", ".join(sorted(key for key in {*known, *first} if known.get(key) != first.get(key)))
            raise InputError(
                f"{run.record.run_id} is no repetition of {runs[0].record.run_id}: they differ in {changed};"
                " hint: runs of one side have equal scenarios, files and environments"
            )


def _compare_all(base: Sequence[MeasuredRun], head: Sequence[MeasuredRun], *, margin: float) -> Iterator[BuildChange]:
    pairs = [pair for pair in _list_pairs(head[0]) if pair in _list_pairs(base[0])]
    if not pairs:
        raise InputError("base and head have no comparison in common; hint: give runs of the same scenario")
    for configuration, reference in pairs:
        yield _compare_pair(base, head, configuration, reference, margin=margin)


def _list_pairs(run: MeasuredRun) -> list[tuple[str, str | None]]:
    """Return the comparisons with the reference, else those that the scenario names, else each configuration alone."""
    contrasts = [one for one in run.summary.contrasts if one.metric == "p95_ms"]
    direct = [(one.configuration, one.reference) for one in contrasts if one.confirmatory]
    named = [(one.configuration, one.reference) for one in contrasts if one.named]
    return [*(direct or named)] or [(name, None) for name in run.summary.configurations]


def _compare_pair(
    base: Sequence[MeasuredRun],
    head: Sequence[MeasuredRun],
    configuration: str,
    reference: str | None,
    *,
    margin: float,
) -> BuildChange:
    invalid = issues = tuple(_find_invalid([*base, *head], configuration, reference))
    found = [[_estimate(run, configuration, reference) for run in runs] for runs in (base, head)]
    known = [[one for one in side if one is not None] for side in found]
    complete = all(len(side) == len(runs) for side, runs in zip(known, (base, head), strict=True))
    sides = [_make_side(combine(side) if side else None) for side in known]
    by_run = complete and len(base) + len(head) >= FEWEST_RUNS
    unit: Unit = "runs" if by_run else "blocks"
    change = _subtract_sides(known[1], known[0], by_run=by_run) if complete else None
    comparison = _make_comparison(change) if change else None
    if not complete and not invalid:
        issues = (make_issue(IssueCode.NO_PERCENTILE, "a run has too few requests for p95_ms"),)
    if change and change.reason:
        issues = (*issues, make_issue(IssueCode.NO_INTERVAL, change.reason))
    return BuildChange(
        configuration=configuration,
        reference=reference,
        base=sides[0],
        head=sides[1],
        change=comparison.ratio if comparison else None,
        change_low=comparison.interval[0] if comparison and comparison.interval else None,
        change_high=comparison.interval[1] if comparison and comparison.interval else None,
        degrees_of_freedom=change.df if change else None,
        unit=unit,
        verdict="invalid" if invalid else "inconclusive" if comparison is None else judge(comparison, margin),
        issues=issues,
        hidden=find_builds_of(base[0].stored, head[0].stored, reference) if reference else (),
    )


def _subtract_sides(head: Sequence[Estimate], base: Sequence[Estimate], *, by_run: bool) -> Estimate:
    if by_run:
        return subtract_runs([one.value for one in head], [one.value for one in base])
    return subtract(combine(head), combine(base))


def _find_invalid(runs: Sequence[MeasuredRun], configuration: str, reference: str | None) -> Iterator[Issue]:
    """Yield why a side is invalid: a run in which a planned repeat of the configuration or the reference is not."""
    for run in runs:
        for name in filter(None, (configuration, reference)):
            side = run.summary.configurations[name]
            if not side.valid:
                code = IssueCode.EXCLUDED_REPEATS if side.n else IssueCode.NO_VALID_REPEAT
                planned = run.stored.record.plan.blocks
                yield make_issue(code, f"{run.run_id}: {side.n} of {planned} planned repeats of {name} are valid")


def _estimate(run: MeasuredRun, configuration: str, reference: str | None) -> Estimate | None:
    """Return a run's own estimate; None where a side has no value."""
    one, other = _make_measured(run, configuration), _make_measured(run, reference or configuration)
    values = read_values(one, other, "p95_ms", design=run.design, order=order_blocks(run.stored))
    logs, reference_logs = (np.log(side) for side in values.both)
    if not len(logs) or not len(reference_logs):
        return None
    if reference is None:
        return _estimate_mean(logs.tolist())
    if run.summary.is_paired:
        return _estimate_mean((logs - reference_logs).tolist())
    value, count = float(logs.mean() - reference_logs.mean()), min(len(logs), len(reference_logs))
    if reason := explain_no_interval(values.both[0]) or explain_no_interval(values.both[1]):
        return Estimate(value, count, reason=reason)
    return Estimate(value, count, *welch(logs, reference_logs))


def _estimate_mean(differences: list[float]) -> Estimate:
    found = average_blocks(differences)
    return Estimate(found.value, found.n, found.error, found.n - 1 if found.error is not None else None, found.reason)


def _make_measured(run: MeasuredRun, name: str) -> Side:
    found = run.summary.configurations[name]
    return Side(name, found.mesh, found.repeats)


def _make_side(found: Estimate | None) -> BuildSide:
    if found is None:
        return BuildSide(value=None, low=None, high=None, n=0)
    interval = _make_comparison(found).interval
    return BuildSide(
        value=math.exp(found.value),
        low=interval[0] if interval else None,
        high=interval[1] if interval else None,
        n=found.n,
    )


def _make_comparison(found: Estimate) -> Comparison:
    """Return an estimate as a ratio with its intervals."""
    if found.error is None or found.df is None:
        return Comparison(math.exp(found.value), None, None, None, found.reason)
    interval, equivalence_interval = (
        ratio_interval(found.value, found.error * t_quantile(confidence, found.df))
        for confidence in (CONFIDENCE, EQUIVALENCE_CONFIDENCE)
    )
    return Comparison(math.exp(found.value), interval, equivalence_interval, None, "")


def _choose_error(changes: Sequence[BuildChange]) -> type[MeshbenchError] | None:
    """Return the class of the failure. A change that fails takes precedence over an invalid one of another contrast."""
    if any(change.fails for change in changes):
        return RegressionError
    return InvalidMeasurementError if any(change.verdict == "invalid" for change in changes) else None
