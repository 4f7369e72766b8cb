"""What was measured, where, and what it is not: the first lines of every format."""

from dataclasses import dataclass
from typing import Final, NamedTuple

from bench.meshes.equalise import said
from bench.report.model import Report
from bench.units import format_count, format_counted, format_duration, format_tick, format_time

_STATUS: Final = {
    "running": ("UNFINISHED", "The run has not come to its end."),
    "interrupted": ("INTERRUPTED", "The run was ended early; what was measured until then is shown."),
    "failed": ("FAILED", "The run failed; what was measured until then is shown."),
    "invalid": ("INVALID", "The checks say that these measurements cannot carry a result."),
}


class Label(NamedTuple):
    """A word that must not be overlooked, and why it is there."""

    text: str
    why: str


@dataclass(frozen=True, slots=True)
class Heading:
    title: str
    labels: tuple[Label, ...]
    measured: str
    caveats: tuple[str, ...]


def heading(report: Report) -> Heading:
    """The heading, the same for every format."""
    record = report.record
    return Heading(
        title=record.scenario.title,
        labels=_labels(report),
        measured=f"Measured {format_time(record.started_at)}: {record.target.title}. {_load(report)}",
        caveats=record.target.caveats,
    )


def _labels(report: Report) -> tuple[Label, ...]:
    found = []
    if report.summary.quick:
        found.append(Label("QUICK", "Short windows, for trying out: not a result to rely on."))
    if report.record.status in _STATUS:
        found.append(Label(*_STATUS[report.record.status]))
    elif not report.summary.valid:
        found.append(Label(*_STATUS["invalid"]))
    if equal := said(report.record.scenario.equalise):
        found.append(Label("EQUALISED", f"Set alike in all meshes, where each would have its own: {equal}."))
    return tuple(found)


def _load(report: Report) -> str:
    scenario, load = report.record.scenario, report.record.scenario.load
    users = sorted({configuration.users for configuration in report.configurations.values()}) or [load.users]
    think = format_duration(load.think_time_s)
    model = (
        f"open loop: {format_tick(load.rate_per_s)} requests/s, whatever the answers take"
        if load.rate_per_s is not None
        else f"closed loop: {', '.join(map(format_count, users))} users, each waits {think} after an answer"
    )
    return (
        f"Load: {model}. {format_counted(len(scenario.configurations), 'configuration')} × "
        f"{format_counted(scenario.repeats, 'repeat')}, "
        f"{format_duration(load.duration_s)} each after {format_duration(load.warmup_s)} of warm-up."
    )
