"""Compare two runs configuration by configuration; runs that were measured under different conditions are rejected."""

from bench.analysis.conditions import find_run_differences
from bench.analysis.contrast import Side, contrast
from bench.analysis.run_summary import summarise
from bench.analysis.validity import format_issues
from bench.errors import InputError
from bench.results.store import StoredRun
from bench.results.summary_records import ConfigurationSummary
from bench.units import format_change, format_interval, format_ms


def compare_runs(one: StoredRun, other: StoredRun, *, force: bool) -> str:
    """Return a table of P95 in both runs. Raises InputError where environment or load differ, unless `force`, and for
    different designs in any case."""
    if one.record.plan.design_text != other.record.plan.design_text:
        raise InputError(
            "runs of different designs are never compared, since they estimate different ratios"
            f" ({one.record.plan.design_text} / {other.record.plan.design_text})"
        )
    found = find_run_differences(one.record, other.record)
    if found and not force:
        raise InputError(
            f"{one.record.run_id} and {other.record.run_id} were measured under different conditions "
            f"({'; '.join(found)}); hint: --force compares them anyway"
        )
    before, after = summarise(one)[0].configurations, summarise(other)[0].configurations
    shared = [name for name in before if name in after]
    if not shared:
        raise InputError(f"the runs share no configuration: {', '.join(before)} / {', '.join(after)}")
    margin = one.record.scenario.margin
    banner = [f"DIFFERENT CONDITIONS: {'; '.join(found)}"] if found else []
    rows = [_row(name, before[name], after[name], margin=margin) for name in shared]
    return "\n".join([*banner, f"{one.record.run_id} -> {other.record.run_id}, P95", *rows])


def _row(name: str, before: ConfigurationSummary, after: ConfigurationSummary, *, margin: float) -> str:
    sides = (Side(name, after.mesh, after.repeats), Side(name, before.mesh, before.repeats))
    found = contrast(*sides, metric="p95_ms", margin=margin, confirmatory=False)
    change = f"{format_change(found.ratio)} {format_interval(found.ratio_low, found.ratio_high, format_change)}"
    reason = f" ({format_issues(found.issues)})" if found.issues else ""
    return f"{name}: {format_ms(before.p95_ms)} ms -> {format_ms(after.p95_ms)} ms, {change}: {found.verdict}{reason}"
