"""Compare two runs configuration by configuration; runs that were measured under different conditions are rejected."""

from bench.analysis.contrast import Side, contrast
from bench.analysis.run_summary import summarise
from bench.analysis.validity import format_issues
from bench.errors import InputError
from bench.results.environment import find_differences
from bench.results.records import RunRecord
from bench.results.store import StoredRun
from bench.results.summary_records import ConfigurationSummary
from bench.units import format_change, format_interval, format_ms


def compare_runs(one: StoredRun, other: StoredRun, *, force: bool) -> str:
    """Return a table of P95 in both runs. Raises InputError where environment or load differ, unless `force`."""
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


def find_run_differences(one: RunRecord, other: RunRecord) -> tuple[str, ...]:
    """List the differences that make two runs incomparable: environment, target, design, application, load,
    equalise."""
    ours, theirs = one.scenario, other.scenario
    same = ours.application == theirs.application
    application = [] if same else [f"application: {ours.application} / {theirs.application}"]
    known = {configuration.name for configuration in theirs.configurations}
    shared = [configuration.name for configuration in ours.configurations if configuration.name in known]
    load = [
        f"load of {name}: {ours.load_of(name)} / {theirs.load_of(name)}"
        for name in shared
        if ours.load_of(name) != theirs.load_of(name)
    ]
    keys = [", ".join(sorted(scenario.equalise)) or "nothing" for scenario in (ours, theirs)]
    equalise = [] if keys[0] == keys[1] else [f"equalise: {' / '.join(keys)}"]
    target = [] if one.target.kind == other.target.kind else [f"target: {one.target.kind} / {other.target.kind}"]
    designs = [record.plan.design_text for record in (one, other)]
    design = [] if designs[0] == designs[1] else [f"design: {' / '.join(designs)}"]
    return (*find_differences(one.environment, other.environment), *target, *design, *application, *load, *equalise)


def _row(name: str, before: ConfigurationSummary, after: ConfigurationSummary, *, margin: float) -> str:
    sides = (Side(name, after.mesh, after.repeats), Side(name, before.mesh, before.repeats))
    found = contrast(*sides, metric="p95_ms", margin=margin, confirmatory=False)
    change = f"{format_change(found.ratio)} {format_interval(found.ratio_low, found.ratio_high, format_change)}"
    reason = f" ({format_issues(found.issues)})" if found.issues else ""
    return f"{name}: {format_ms(before.p95_ms)} ms -> {format_ms(after.p95_ms)} ms, {change}: {found.verdict}{reason}"
