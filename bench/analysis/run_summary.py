"""Summarise a run from its folder alone: per repeat, per configuration, per contrast."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from math import log, sqrt
from statistics import fmean, stdev
from typing import Final, get_args

from bench.analysis.contrast import Side, contrast, within_interval
from bench.analysis.design_costs import estimate_sequential_minutes
from bench.analysis.proxy_cost import estimate_hop_costs, measure_paths
from bench.analysis.stats import (
    CONFIDENCE,
    MOST_REPEATS,
    Mean,
    arithmetic_mean,
    compute_blocks_needed,
    compute_repeats_needed,
    geometric_mean,
)
from bench.analysis.trial_summary import Digest, average_by_name, digest
from bench.analysis.validity import FEWEST_CPUS, MOST_DUET_CPU, make_issue
from bench.errors import InputError
from bench.meshes.resolved import resolve_stored
from bench.results.issues import Issue, IssueCode
from bench.results.records import PathLength, RunRecord
from bench.results.store import StoredRun, list_digests
from bench.results.summary_records import ConfigurationSummary, Contrast, HopCost, Metric, RepeatSummary, SummaryRecord
from bench.scenario.contrasts import are_equal, list_comparisons
from bench.scenario.model import Scenario
from bench.units import format_effect, format_percent

METRICS: Final[tuple[Metric, ...]] = get_args(Metric)
_NO_MEAN: Final = Mean(0.0, None, None, "no valid repeat")


def summarise(run: StoredRun) -> tuple[SummaryRecord, dict[str, Digest]]:
    """Return all numbers of a run, trial by trial so that one trial's samples are in memory at a time.

    The digests are keyed by the trials' folders. Raises StoreError where a trial's files are incomplete.
    """
    record, scenario = run.record, run.record.scenario
    digests = {trial.record.trial: _exclude_rerun(digest(trial), record.plan.again) for trial in run.trials}
    names = [configuration.name for configuration in scenario.configurations]
    repeats = {name: tuple(d.repeat for d in digests.values() if d.configuration == name) for name in names}
    configurations = {name: _summarise_configuration(record, name, own) for name, own in repeats.items()}
    contrasts = tuple(_compute_contrasts(record, repeats, order=order_blocks(run)))
    cpu_use = _mean_of(repeat.used_cpu for own in repeats.values() for repeat in own if repeat.valid)
    summary = SummaryRecord(
        run_id=record.run_id,
        scenario=scenario.name,
        target=record.target.kind,
        valid=all(configuration.valid for configuration in configurations.values()),
        quick=scenario.quick,
        design=record.plan.design,
        minutes=_count_minutes(record),
        cpu_use=cpu_use,
        reruns=len(record.plan.again),
        status=record.status,
        reference=scenario.reference,
        margin=scenario.margin,
        confidence=CONFIDENCE,
        configurations=configurations,
        contrasts=contrasts,
        hop_costs=tuple(_estimate_hop_costs(run, configurations)),
        issues=(*_find_busy_cpus(record, cpu_use), *_find_warnings(run, configurations, contrasts)),
    )
    return summary, digests


def _exclude_rerun(found: Digest, again: Sequence[int]) -> Digest:
    """Exclude a repeat, even a valid one, whose block has a rerun: half a block would break the balance."""
    if found.block not in again:
        return found
    rerun = Issue(code=IssueCode.MEASURED_AGAIN, severity="reason", detail=f"block {found.block} has a rerun")
    issues = (*found.repeat.issues, rerun)
    return replace(found, repeat=found.repeat.model_copy(update={"valid": False, "issues": issues}))


def _summarise_configuration(record: RunRecord, name: str, repeats: tuple[RepeatSummary, ...]) -> ConfigurationSummary:
    """Summarise one configuration: valid when enough planned repeats are; means are over valid ones."""
    scenario, valid = record.scenario, [repeat for repeat in repeats if repeat.valid]
    p95 = geometric_mean([r.p95_ms for r in valid if r.p95_ms]) if valid else _NO_MEAN
    rps = arithmetic_mean([r.rps for r in valid if r.rps]) if valid else _NO_MEAN
    proxies = [time for repeat in valid if (time := _cpu_ms(repeat, "sidecar")) is not None]
    cpu = arithmetic_mean(proxies) if proxies else _NO_MEAN
    return ConfigurationSummary(
        mesh=scenario.configuration(name).mesh,
        users=scenario.load_of(name).users,
        valid=len(valid) >= record.plan.fewest_valid,
        repeats=repeats,
        n=len(valid),
        p95_ms=p95.value if valid else None,
        p95_low_ms=p95.interval[0] if p95.interval else None,
        p95_high_ms=p95.interval[1] if p95.interval else None,
        p95_cv=p95.sd,
        no_interval=p95.reason,
        rps=rps.value if valid else None,
        rps_low=rps.interval[0] if rps.interval else None,
        rps_high=rps.interval[1] if rps.interval else None,
        thesis_p95_ms=_mean_of(repeat.thesis_p95_ms for repeat in valid),
        requests=sum(repeat.requests for repeat in valid),
        errors=sum(repeat.errors for repeat in valid),
        sidecar_cpu_ms_per_request=cpu.value if proxies else None,
        sidecar_cpu_low_ms_per_request=cpu.interval[0] if cpu.interval else None,
        sidecar_cpu_high_ms_per_request=cpu.interval[1] if cpu.interval else None,
        sidecar_rss_bytes=_mean_of(_rss_bytes(repeat, "sidecar") for repeat in valid),
        service_cpu_ms_per_request=_mean_of(_cpu_ms(repeat, "service") for repeat in valid),
        by_name=average_by_name(repeats),
    )


def _mean_of(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are not None."""
    present = [value for value in values if value is not None]
    return fmean(present) if present else None


def _cpu_ms(repeat: RepeatSummary, role: str) -> float | None:
    """Return the CPU time per request of all processes of a role; None where one or all were not observed."""
    times = [use.cpu_ms_per_request for use in repeat.resources if use.role == role]
    known = [time for time in times if time is not None]
    return sum(known) if known and len(known) == len(times) else None


def _rss_bytes(repeat: RepeatSummary, role: str) -> int | None:
    """Return the memory of all processes of a role; None where one or all were not observed."""
    sizes = [use.rss_max_bytes for use in repeat.resources if use.role == role]
    known = [size for size in sizes if size is not None]
    return sum(known) if known and len(known) == len(sizes) else None


def order_blocks(run: StoredRun) -> list[int]:
    """Return the blocks by the start of their first trial. A resumed run may measure one after its successors."""
    starts: dict[int, datetime] = {}
    for trial in (trial.record for trial in run.trials):
        starts[trial.block] = min(starts.get(trial.block, trial.started_at), trial.started_at)
    return sorted(starts, key=lambda block: (starts[block], block))


def _count_minutes(record: RunRecord) -> float | None:
    return None if record.ended_at is None else (record.ended_at - record.started_at).total_seconds() / 60


def _compute_contrasts(
    record: RunRecord, repeats: dict[str, tuple[RepeatSummary, ...]], *, order: Sequence[int]
) -> Iterator[Contrast]:
    """Yield every pair that the scenario compares, on every metric."""
    scenario, design = record.scenario, record.plan.design
    sides = {c.name: Side(c.name, c.mesh, repeats[c.name]) for c in scenario.configurations}
    for pair in list_comparisons(scenario):
        both = sides[pair.configuration], sides[pair.reference]
        marks = {"named": pair.named, "alike": are_equal(scenario, pair.configuration, pair.reference)}
        for metric in METRICS:
            found = contrast(
                *both,
                metric=metric,
                margin=scenario.margin,
                confirmatory=metric == "p95_ms" and pair.reference == scenario.reference,
                design=design,
                order=order,
            )
            if design == "sequential":
                within = within_interval(list(sides.values()), pair.configuration, pair.reference, metric=metric)
                yield found.model_copy(update=marks | {"within_low": within[0], "within_high": within[1]})
            else:
                minutes = estimate_sequential_minutes(record, found, *both)
                yield found.model_copy(update=marks | {"sequential_minutes": minutes})


def _estimate_hop_costs(run: StoredRun, configurations: dict[str, ConfigurationSummary]) -> Iterator[HopCost]:
    """Yield the cost of a proxy in each configuration whose page path is known."""
    reference = run.record.scenario.reference
    if reference is not None:
        paths = _read_paths(run) if run.record.paths is None else run.record.paths
        design, cpus = run.record.plan.design, run.record.environment.cpus
        yield from estimate_hop_costs(configurations, reference, paths=paths, cpus=cpus, design=design)


def _read_paths(run: StoredRun) -> dict[str, PathLength]:
    """Return the page path of each configuration of an older run, whose record has none: from its manifests."""
    paths: dict[str, PathLength] = {}
    for settings in run.record.scenario.configurations:
        one = run.record.scenario.model_copy(update={"configurations": (settings,)})
        with suppress(InputError):  # a folder without its manifests, or with some of another version of meshbench
            paths |= measure_paths(resolve_stored(one, run.path))
    return paths


def _find_busy_cpus(record: RunRecord, cpu_use: float | None) -> Iterator[Issue]:
    """Yield a warning about a duet that used more of the CPUs than it may: where the use is known in its first warm-up,
    it is not measured as one."""
    if record.plan.design == "duet" and cpu_use is not None and cpu_use > MOST_DUET_CPU:
        used, most = format_percent(cpu_use), format_percent(MOST_DUET_CPU)
        detail = f"the duet used {used} of the CPUs, more than {most}: waits that its configurations share pull ratios"
        yield make_issue(IssueCode.BUSY_CPUS, f"{detail} towards 1; use fewer users, or --design interleaved")


def _find_warnings(
    run: StoredRun, configurations: dict[str, ConfigurationSummary], contrasts: Sequence[Contrast]
) -> Iterator[Issue]:
    """Yield the warnings about the run as a whole."""
    record = run.record
    if (
        record.scenario.quick and not record.scenario.is_paired
    ):  # many short blocks are an answer, one after another not
        yield make_issue(IssueCode.QUICK, "windows are short")
    if record.environment.cpus < FEWEST_CPUS:
        yield make_issue(IssueCode.FEW_CPUS, f"the machine has {record.environment.cpus} CPUs")
    for problem in run.problems:
        yield make_issue(IssueCode.DAMAGED_TRIAL, problem)
    for repeat in (repeat for configuration in configurations.values() for repeat in configuration.repeats):
        if not repeat.valid and repeat.block not in record.plan.again:
            yield make_issue(IssueCode.INVALID_TRIAL, f"{repeat.trial} is not valid ({_format_codes(repeat)})")
    for number, block in enumerate(record.plan.again, start=record.plan.blocks + 1):
        was = "invalid or noisy" if record.scenario.is_paired else "invalid"
        yield make_issue(IssueCode.MEASURED_AGAIN, f"block {number} replaces block {block}, which was {was}")
    yield from _find_changed_images(run, configurations)
    missing = len(record.plan.trials) - len(run.trials) - len(run.problems)
    if missing > 0:
        planned = len(record.plan.trials)
        yield make_issue(IssueCode.UNFINISHED, f"{missing} of {planned} planned trials were not measured")
    yield from _find_undetectable(record.scenario, configurations, contrasts)


def _find_changed_images(run: StoredRun, names: Iterable[str]) -> Iterator[Issue]:
    for name in names:
        for container, images in list_digests(run, name).items():
            if len(images) > 1:
                yield make_issue(IssueCode.IMAGE_CHANGED, f"{container} of {name} was {' and '.join(sorted(images))}")


def _format_codes(repeat: RepeatSummary) -> str:
    return ", ".join(dict.fromkeys(reason.code for reason in repeat.reasons)) or "not complete"


def _find_undetectable(
    scenario: Scenario, configurations: dict[str, ConfigurationSummary], contrasts: Sequence[Contrast]
) -> Iterator[Issue]:
    """Yield a warning for each comparison whose minimum detectable effect is larger than the margin."""
    for found in (found for found in contrasts if found.standing != "exploratory" and found.verdict != "invalid"):
        pair = f"{found.configuration} against {found.reference}"
        if found.mde is None:
            reason = "; ".join(issue.detail for issue in found.issues)
            yield make_issue(IssueCode.RESOLUTION, f"{pair}: no difference can be distinguished from chance ({reason})")
        elif found.mde > scenario.margin:
            sides = configurations[found.configuration], configurations[found.reference]
            if found.effective_n is None:
                unit, needed = "repeats", compute_repeats_for_margin(sides, scenario.margin)
            else:
                unit, needed = "blocks", compute_blocks_for_margin(found, scenario.margin)
            seen = f"{min(found.n)} {unit} of this spread find {format_effect(found.mde)} in 4 of 5 runs (MDE)"
            need = f"{format_percent(scenario.margin)} would take {needed or f'over {MOST_REPEATS}'} {unit}"
            yield make_issue(IssueCode.RESOLUTION, f"{pair}: {seen}, {need}")


def compute_repeats_for_margin(sides: Iterable[ConfigurationSummary], margin: float) -> int | None:
    """Return how many repeats would detect the margin, given the spread of both sides; None: very many, or unknown."""
    spreads = [side.p95_cv for side in sides if side.p95_cv is not None]
    return compute_repeats_needed(fmean(spread**2 for spread in spreads) ** 0.5, margin) if spreads else None


def compute_blocks_for_margin(found: Contrast, margin: float) -> int | None:
    """Return how many blocks of a paired run would detect the margin, given the spread of this run's block ratios and
    the correlation of neighbours; None: very many, or unknown."""
    logs = [log(ratio) for ratio in found.block_ratios if ratio is not None]
    if found.effective_n is None or len(logs) < 2:
        return None
    return compute_blocks_needed(stdev(logs) * sqrt(len(logs) / found.effective_n), margin)
