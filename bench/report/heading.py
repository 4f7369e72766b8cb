"""Make the heading of every format: what was measured, where, and the limits of the target."""

from dataclasses import dataclass
from typing import Final, NamedTuple

from bench.meshes.equalise import format_equalised
from bench.report.headline import format_headline
from bench.report.model import Report
from bench.units import format_count, format_counted, format_duration, format_tick, format_time

_STATUS: Final = {
    "running": ("UNFINISHED", "The run has not ended."),
    "interrupted": ("INTERRUPTED", "The run was interrupted; the trials before that are shown."),
    "failed": ("FAILED", "The run failed; the trials before that are shown."),
    "invalid": ("INVALID", "By its checks this run has no valid result; see the warnings."),
}


class Label(NamedTuple):
    """A prominent label, and why it is shown."""

    text: str
    why: str


@dataclass(frozen=True, slots=True)
class Heading:
    """The top of a report; `answer` is empty where the run has none in a sentence."""

    title: str
    labels: tuple[Label, ...]
    answer: str
    measured: str
    limits: tuple[str, ...]


def make_heading(report: Report) -> Heading:
    """Return the heading, the same for every format."""
    record = report.record
    return Heading(
        title=record.scenario.title,
        labels=_make_labels(report),
        answer=format_headline(record.scenario, report.summary),
        measured=f"Measured {format_time(record.started_at)}: {record.target.title}. {_format_load(report)}",
        limits=record.target.caveats,
    )


def _make_labels(report: Report) -> tuple[Label, ...]:
    found = []
    if report.summary.quick:
        found.append(Label("QUICK", "Short windows, for trying out: not a result to rely on."))
    if report.record.status in _STATUS:
        found.append(Label(*_STATUS[report.record.status]))
    elif not report.summary.valid:
        found.append(Label(*_STATUS["invalid"]))
    if equal := format_equalised(report.record.scenario.equalise):
        found.append(Label("EQUALISED", f"Set to the same value in all meshes, in place of their own: {equal}."))
    return tuple(found)


def _format_load(report: Report) -> str:
    scenario, load = report.record.scenario, report.record.scenario.load
    users = sorted({configuration.users for configuration in report.configurations.values()}) or [load.users]
    think = format_duration(load.think_time_s)
    model = (
        f"open loop: {format_tick(load.rate_per_s)} requests/s, independent of the response times"
        if load.rate_per_s is not None
        else f"closed loop: {', '.join(map(format_count, users))} users, each waits {think} after a response"
    )
    return (
        f"Load: {model}. {format_counted(len(scenario.configurations), 'configuration')} × "
        f"{format_counted(scenario.repeats, 'repeat')}, "
        f"{format_duration(load.duration_s)} each after {format_duration(load.warmup_s)} of warm-up."
    )
