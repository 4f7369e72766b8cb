"""Write a gate's history as one self-contained page: how each contrast went, night by night, and what changed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Final

from markupsafe import Markup

from bench import __version__
from bench.analysis.history import History, HistoryLine, find_last_success, is_recent
from bench.analysis.regression import FEWEST_NIGHTS
from bench.report.figures import Picture
from bench.report.figures.history import draw_history
from bench.report.gate import format_reason
from bench.report.model import Cell, Table, make_table
from bench.report.nights import Night, Series, make_series
from bench.report.page import render
from bench.results.store import write_text
from bench.units import format_change, format_counted, format_interval, format_ratio, format_span, format_time

_ORDER: Final = ("regression", "invalid", "warning", "inconclusive", "no baseline", "pass")  # the worst first
_FEWEST_FOR_RHYTHM: Final = 3  # nights: fewer do not show how often one is expected


@dataclass(frozen=True, slots=True)
class Panel:
    """What the page has of one contrast: the newest night in sentences, what happened, a picture, a table of nights."""

    name: str
    title: str
    outcome: str
    size: str
    sentences: tuple[str, ...]
    events: tuple[tuple[str, str], ...]
    picture: Picture
    svg: Markup
    nights: Table


def write_history_page(history: History, path: Path, *, now: datetime) -> None:
    """Write the page. Raises StoreError where it cannot be written."""
    write_text(path, render_history(history, now=now))


def render_history(history: History, *, now: datetime) -> str:
    """Return the page as text. `now`: when it is written."""
    series = [make_series(lines) for lines in history.all_series()]
    scenarios = history.by_scenario()
    overdue = {name: find_overdue(own, now) for name, own in scenarios.items()}
    return render(
        "history.html",
        title=f"Nightly history: {', '.join(scenarios) or 'no night yet'}",
        version=__version__,
        answer=_format_answer(series),
        measured=_format_measured(history, now),
        overdue=[f"{name}: {late}" if len(scenarios) > 1 else late for name, late in overdue.items() if late],
        panels=[_make_panel(number, one, several=len(scenarios) > 1) for number, one in enumerate(series, start=1)],
        problems=history.problems,
        pictures={},
    )


def _format_answer(series: Sequence[Series]) -> tuple[str, ...]:
    """Return a sentence for each outcome of the newest nights, the worst first."""
    pairs: dict[str, list[str]] = {}
    for one in series:
        pairs.setdefault(one.last.decision.outcome, []).append(_format_pair(one.last.line))
    ordered = sorted(pairs, key=_ORDER.index)
    return tuple(f"{outcome.capitalize()}: {', '.join(pairs[outcome])}." for outcome in ordered)


def _format_measured(history: History, now: datetime) -> str:
    starts = _list_starts(history)
    if not starts:
        return f"The history has no line that can be read. Written {format_time(now)}."
    span = f"{format_counted(len(starts), 'night')} from {format_time(starts[0])} to {format_time(starts[-1])}."
    last = "" if find_overdue(history, now) else f" {format_last_success(history, now)}"
    return f"{span}{last} Written {format_time(now)}."


def _list_starts(history: History) -> list[datetime]:
    """Return when each run began, oldest first."""
    return sorted({line.run_id: line.at for line in history.lines}.values())


def find_overdue(history: History, now: datetime) -> str:
    """Return that nights are missing, in a sentence: where the last valid one is more than two usual distances old."""
    starts = _list_starts(history)
    if len(starts) < _FEWEST_FOR_RHYTHM or is_recent(history, now, 2 * median(_list_gaps(starts))):
        return ""
    return f"A night is expected every {format_age(median(_list_gaps(starts)))}. {format_last_success(history, now)}"


def _list_gaps(starts: Sequence[datetime]) -> list[float]:
    """Return the seconds between one run and the next."""
    return [(after - before).total_seconds() for before, after in pairwise(starts)]


def format_last_success(history: History, now: datetime) -> str:
    """Return when the last night was valid, in a sentence."""
    last = find_last_success(history.lines)
    if last is None:
        return "No night was valid."
    return f"The last valid night began {format_age(max((now - last).total_seconds(), 0))} ago, {format_time(last)}."


def format_age(seconds: float) -> str:
    """Format seconds as people count nights: `5 hours`, `3 days`; below two hours as any duration."""
    for unit, length in (("day", 86400), ("hour", 3600)):
        if seconds >= 1.95 * length:
            return format_counted(round(seconds / length), unit)
    return format_span(round(seconds))


def _format_pair(line: HistoryLine) -> str:
    return f"{line.configuration} against {line.reference}"


def _make_panel(number: int, series: Series, *, several: bool) -> Panel:
    last, name = series.last, f"contrast-{number}"
    picture = Picture(name, draw_history(series))
    pair = _format_pair(last.line)
    return Panel(
        name=name,
        title=f"{last.line.scenario}: {pair}" if several else pair,
        outcome=last.decision.outcome,
        size=format_ratio(last.decision.ratio) if last.line.is_success else "",
        sentences=tuple(_describe_night(last)),
        events=tuple(_list_events(series)),
        picture=picture,
        svg=Markup(picture.inline),  # noqa: S704  # drawn by meshbench, texts escaped by the SVG writer
        nights=_make_table(name, pair, series),
    )


def _describe_night(night: Night) -> Iterator[str]:
    """Yield sentences about the newest night."""
    decision = night.decision
    if night.line.is_success:
        interval = _format_interval(night)
        yield f"P95 is {format_ratio(decision.ratio)} times that of {night.line.reference}{interval}."
    if decision.usual is not None:
        nights = format_counted(decision.nights, "night")
        limit = format_ratio(decision.limit_95)
        by_chance = f"one more may come out at {limit} by chance"
        until = by_chance if decision.nights >= FEWEST_NIGHTS else f"a regression above {limit}, with the margin"
        yield f"Usual, over {nights} before: {format_ratio(decision.usual)}; {until}."
    if reason := format_reason(decision):
        yield f"{reason[0].upper()}{reason[1:].rstrip('.')}."


def _list_events(series: Series) -> Iterator[tuple[str, str]]:
    """Yield date and text of each night that changed a level, a baseline, a condition or a version, newest first."""
    steps = {step.night.line.run_id: step for step in series.steps}
    for night in reversed(series.nights):
        step = steps.get(night.line.run_id)
        texts = [f"level {format_change(step.ratio)}"] if step else []
        texts += [f"accepted ({night.line.accepted})"] if night.line.accepted else []
        texts += ["new baseline"] if night.begins else []
        changed = "; ".join(night.changed) or ("nothing that is recorded changed" if step else "")
        if texts or changed:
            yield f"{night.line.at:%Y-%m-%d}", ": ".join(filter(None, (", ".join(texts), changed)))


def _make_table(name: str, pair: str, series: Series) -> Table:
    return make_table(
        f"{name}-nights",
        f"Nights of {pair}",
        rows=reversed(series.nights),
        columns={
            "Night": lambda night: Cell(format_time(night.line.at), night.line.run_id),
            "P95 ratio*": lambda night: Cell(
                format_ratio(night.decision.ratio), _format_interval(night).removeprefix(" ")
            ),
            "Usual*": lambda night: format_ratio(night.decision.usual),
            "95 % limit*": lambda night: format_ratio(night.decision.limit_95),
            "Outcome": lambda night: Cell(night.decision.outcome, verdict=True),
            "Why": lambda night: format_reason(night.decision),
            "Changed that night": lambda night: "; ".join(night.changed),
        },
    )


def _format_interval(night: Night) -> str:
    interval = night.interval
    return f" {format_interval(*interval, format_ratio)}" if interval else ""
