"""Make the heading of every format: what was measured, where, and the limits of the target."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Final, NamedTuple

from bench.meshes.equalise import format_equalised
from bench.report.design_table import find_sequential_minutes
from bench.report.headline import format_headline
from bench.report.model import Report
from bench.results.issues import IssueCode
from bench.results.records import RunRecord
from bench.results.summary_records import SummaryRecord
from bench.scenario.model import Load
from bench.scenario.types import Design
from bench.units import format_count, format_counted, format_duration, format_ms, format_span, format_tick, format_time

_FEWEST_OTHERS: Final = 0.05  # a share of the CPUs that other processes always use a part of
_COUNTS: Final = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")

_STATUS: Final = {
    "running": ("UNFINISHED", "The run has not ended."),
    "interrupted": ("INTERRUPTED", "The run was interrupted; the trials before that are shown."),
    "failed": ("FAILED", "The run failed; the trials before that are shown."),
    "invalid": ("INVALID", "By its checks this run has no valid result; see the warnings."),
}
_REMARKS: Final = {
    IssueCode.NO_EFFECT: "POLICY",
    IssueCode.UNPROBED: "POLICY",
    IssueCode.LEFT_OUT: "NOT APPLIED",
}  # labels of remarks; others are about the design
_DESIGN_LIMITS: Final[Mapping[Design, tuple[str, ...]]] = {
    "duet": ("duet: all configurations use the machine at once; a wait that they share pulls ratios towards 1",),
    "interleaved": ("interleaved: while one configuration is loaded, the others are deployed and idle",),
    "sequential": (),
}


class Label(NamedTuple):
    """A prominent label, and why it is shown."""

    text: str
    why: str


@dataclass(frozen=True, slots=True)
class Heading:
    """The top of a report; `answer` has a sentence per mesh, or none."""

    title: str
    labels: tuple[Label, ...]
    answer: tuple[str, ...]
    measured: str
    limits: tuple[str, ...]


def make_heading(report: Report) -> Heading:
    """Return the heading, the same for every format."""
    record = report.record
    measured = f"Measured {format_time(record.started_at)}: {record.target.title}."
    load = format_load(record, report.summary)
    parts = (measured, load) if not report.summary.is_paired else (load, measured)
    return Heading(
        title=record.scenario.title,
        labels=_make_labels(report),
        answer=format_headline(record.scenario, report.summary),
        measured=" ".join(filter(None, (*parts, format_minutes(report.summary)))),
        limits=(*record.target.caveats, *_DESIGN_LIMITS[report.summary.design]),
    )


def format_top(record: RunRecord, summary: SummaryRecord) -> tuple[str, ...]:
    """Return the paragraphs at the top of a terminal: the answer in a sentence, and how a paired run got it."""
    answer = format_headline(record.scenario, summary)
    if not summary.is_paired:
        return ("\n".join(answer),)
    return "\n".join(answer), " ".join(filter(None, (format_load(record, summary), format_minutes(summary))))


def format_load(record: RunRecord, summary: SummaryRecord) -> str:
    """Return the design, the load and the use of the CPUs in sentences."""
    load = _format_repeats(record, summary) if not summary.is_paired else _format_blocks(record, summary)
    return " ".join((load, *_format_use(summary)))


def format_minutes(summary: SummaryRecord) -> str:
    """Return the minutes that a paired run took, and those that a sequential one would have needed to know each answer
    as well. Empty for a sequential run."""
    if not summary.is_paired or summary.minutes is None:
        return ""
    took = f"This took {format_counted(max(round(summary.minutes), 1), 'minute')}."
    needed = find_sequential_minutes(summary)
    if needed is None:
        return took
    return f"{took} A sequential run would have needed about {format_count(round(needed))} for the same precision."


def _make_labels(report: Report) -> tuple[Label, ...]:
    found = []
    if report.summary.quick:
        found.append(Label("QUICK", _explain_quick(report)))
    if report.record.status in _STATUS:
        found.append(Label(*_STATUS[report.record.status]))
    elif not report.summary.valid:
        found.append(Label(*_STATUS["invalid"]))
    if equal := format_equalised(report.record.scenario.equalise):
        found.append(Label("EQUALISED", f"Set to the same value in all meshes, in place of their own: {equal}."))
    found += [
        Label(_REMARKS.get(issue.code, "DESIGN"), f"{issue.detail.rstrip('.')}.") for issue in report.record.remarks
    ]
    return tuple(found)


def _explain_quick(report: Report) -> str:
    if not report.summary.is_paired:
        return "Short windows, for trying out: not a result to rely on."
    blocks, length = _format_length(report.record)[0], format_span(report.record.scenario.load.duration_s)
    return f"{blocks} of {length}, for a first answer: longer windows see more of the rare, slow requests."


def _format_repeats(record: RunRecord, summary: SummaryRecord) -> str:
    scenario, load = record.scenario, record.scenario.load
    users = sorted({configuration.users for configuration in summary.configurations.values()}) or [load.users]
    waits = _format_own_waits(summary) or f"each waits {format_duration(load.think_time_s)} after a response"
    model = (
        f"open loop: {format_tick(load.rate_per_s)} requests/s, independent of the response times"
        if load.rate_per_s is not None
        else f"closed loop: {', '.join(map(format_count, users))} users, {waits}"
    )
    return (
        f"Load: {model}. {format_counted(len(scenario.configurations), 'configuration')} × "
        f"{format_counted(scenario.repeats, 'repeat')}, "
        f"{format_duration(load.duration_s)} each after {format_duration(load.warmup_s)} of warm-up."
    )


def _format_blocks(record: RunRecord, summary: SummaryRecord) -> str:
    """Return how the configurations of a paired run shared the time of its blocks."""
    load, count = record.scenario.load, len(record.scenario.configurations)
    blocks, length = _format_length(record)
    many = f"{_COUNTS[count] if count < len(_COUNTS) else format_count(count)} configurations"
    waits = _format_own_waits(summary) or f"each user waits {format_span(load.think_time_s)} after a response"
    pause = f"{waits[0].upper()}{waits[1:]}"
    if load.rate_per_s is not None:
        pause = "Requests arrive independently of the responses (open loop)"
    end = f"{pause}; the first {format_span(load.warmup_s)} of load are not counted."
    if summary.design == "duet":
        shares = f"{_format_shares(record, summary)}"
        return f"{many} side by side (duet): {blocks} of {length}, {shares}. {end}"
    each = format_counted(record.plan.rounds, "window")
    amount = _format_amount(load.users if load.rate_per_s is None else load.rate_per_s, load)
    return (
        f"{many} in turn (interleaved): {blocks}, in each {each} of {length} per configuration, {amount} on one at a"
        f" time. {end}"
    )


def _format_own_waits(summary: SummaryRecord) -> str:
    """Return how users wait by their locustfile; empty where they wait as the scenario says."""
    repeats = [repeat for one in summary.configurations.values() for repeat in one.repeats]
    waits_ms = [repeat.own_wait_ms for repeat in repeats if repeat.own_wait_ms is not None]
    return f"each waits as its Locust file says, {format_ms(fmean(waits_ms))} ms on average" if waits_ms else ""


def _format_length(record: RunRecord) -> tuple[str, str]:
    """Return the number of blocks without reruns, and the length of a window."""
    length_s = record.scenario.load.duration_s / record.plan.rounds
    return format_counted(record.plan.blocks, "block"), format_span(length_s)


def _format_shares(record: RunRecord, summary: SummaryRecord) -> str:
    """Return the load of each configuration of a duet, and of all."""
    loads = [record.scenario.load_of(name) for name in summary.configurations]
    values = [load.users if load.rate_per_s is None else load.rate_per_s for load in loads]
    each = [_format_amount(value, loads[0]) for value in dict.fromkeys(values)]
    return f"{' or '.join(each)} each, {format_tick(round(sum(values), 1))} in total"


def _format_amount(value: float, load: Load) -> str:
    if load.rate_per_s is not None:
        return f"{format_tick(round(value, 1))} requests/s"
    return format_counted(round(value), "user")


def _format_use(summary: SummaryRecord) -> Iterator[str]:
    """Yield the use of the CPUs, and the number of blocks that were measured again, where the run knows them."""
    if summary.cpu_use is not None:
        others = _measure_others(summary)
        by_others = f", and {others * 100:.0f} % by other processes" if others >= _FEWEST_OTHERS else ""
        yield f"About {summary.cpu_use * 100:.0f} % of the CPUs were in use{by_others}."
    if summary.reruns and summary.is_paired:
        again = "1 block was" if summary.reruns == 1 else f"{format_count(summary.reruns)} blocks were"
        yield f"{again} measured again."


def _measure_others(summary: SummaryRecord) -> float:
    """Return the mean share of the CPUs that other processes used in the windows of valid repeats; 0 if unknown."""
    repeats = (repeat for configuration in summary.configurations.values() for repeat in configuration.repeats)
    shares = [repeat.other_cpu for repeat in repeats if repeat.valid and repeat.other_cpu is not None]
    return fmean(shares) if shares else 0.0
