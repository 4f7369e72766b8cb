"""Print progress on standard error: a live table on a terminal, plain lines elsewhere."""

import signal
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from bench.analysis.trial_summary import Headline
from bench.analysis.validity import format_issue
from bench.errors import Interrupted
from bench.load.generator import Progress
from bench.results.records import TrialRecord
from bench.scenario.model import Scenario
from bench.scenario.plan import Plan, Trial, estimate_load_seconds
from bench.system.output import OutputStream, show_controls
from bench.system.redaction import redact
from bench.units import format_duration, format_ms, format_rps

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table


@dataclass
class PlainLines:
    """Print a line when a trial begins and when it ends, for logs."""

    scenario: Scenario
    plan: Plan

    def phase(self, trial: Trial, phase: str) -> None:
        if phase != "deploy":
            return
        unit = _find_unit(self.plan, trial)
        if len(unit) == 1:
            _print_line(f"trial {trial.number} of {len(self.plan.trials)}: {trial.configuration}, block {trial.block}")
        elif trial == unit[0]:
            names = ", ".join(one.configuration for one in unit)
            _print_line(f"block {trial.block} of {len(self.plan.order)}: {names}, {_describe_turns(self.plan)}")

    def progress(self, trial: Trial, progress: Progress) -> None:
        """Print nothing, since a log cannot show a changing number."""

    def done(self, record: TrialRecord, figures: Headline) -> None:
        p95 = "no P95" if figures.p95_ms is None else f"P95 {format_ms(figures.p95_ms)} ms"
        seen = f"{p95}, RPS {format_rps(figures.rps)}"
        if self.plan.is_paired:
            seen = f"{record.configuration}: {seen}"
        _print_line(f"  {seen}; {_format_remaining_load(self.scenario, self.plan, after=record.number)}")
        for reason in record.reasons:
            _print_line(f"  invalid: {format_issue(reason)}")
        for warning in record.warnings:
            _print_line(f"  warning: {format_issue(warning)}")

    def extend(self, plan: Plan) -> None:
        self.plan = plan

    def note(self, text: str) -> None:
        _print_line(text)

    def close(self) -> None:
        """Do nothing: lines need no end."""


@dataclass
class LiveTable:
    """Draw a table with a row per trial, live figures of the running one, and the remaining time."""

    scenario: Scenario
    plan: Plan
    rows: dict[int, tuple[str, str, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _live: "Live | None" = None

    def phase(self, trial: Trial, phase: str) -> None:
        _, p95, rps = self.rows.get(trial.number, ("", "", ""))
        self.rows[trial.number] = (phase, p95, rps)
        self._draw(trial.number)

    def progress(self, trial: Trial, progress: Progress) -> None:
        errors = f", {progress.errors} errors" if progress.errors else ""
        share = min(1.0, progress.elapsed_s / progress.total_s)
        self.rows[trial.number] = (
            f"{progress.phase} {share:.0%}{errors}",
            f"{format_ms(progress.p95_ms)} ms",
            f"{format_rps(progress.rps)} /s",
        )
        self._draw(trial.number)

    def done(self, record: TrialRecord, figures: Headline) -> None:  # noqa: ARG002  # the report follows at once
        _, p95, rps = self.rows.get(record.number, ("", "", ""))
        self.rows[record.number] = ("invalid" if record.reasons else "done", p95, rps)
        # before lines are wrapped: a secret on two lines would not be found
        issues = (*record.reasons, *record.warnings)
        self.notes += [_clean(f"{record.trial}: {format_issue(issue)}") for issue in issues]
        self._draw(record.number)

    def extend(self, plan: Plan) -> None:
        self.plan = plan

    def note(self, text: str) -> None:
        self.notes.append(_clean(text))

    def close(self) -> None:
        """Stop drawing; the last table stays on the screen."""
        if self._live is not None:
            self._live.stop()

    def _draw(self, number: int) -> None:
        from rich.console import Console
        from rich.live import Live

        if self._live is None:
            stream = sys.stderr
            console = Console(file=stream.styled()) if isinstance(stream, OutputStream) else Console(stderr=True)
            self._live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
            self._live.start()
        self._live.update(self._table(number), refresh=True)
        _require_reader()

    def _table(self, number: int) -> "Table":
        from rich.markup import escape
        from rich.table import Table

        now = self.plan.trials[number - 1]
        unit = _find_unit(self.plan, now)
        left = _format_remaining_load(self.scenario, self.plan, after=unit[0].number - 1)
        where = f"trial {number} of {len(self.plan.trials)}"
        if len(unit) > 1:
            where = f"block {now.block} of {len(self.plan.order)}, {_describe_turns(self.plan)}"
        title = f"{self.scenario.name}: {where}, {left}"
        table = Table(title=title, title_justify="left", caption_justify="left", box=None)
        for heading in ("trial", "configuration", "block", "", "P95, last 5 s", "RPS, last 5 s"):
            table.add_column(heading, justify="right" if "5 s" in heading else "left")
        for trial in self.plan.trials:
            state = self.rows.get(trial.number, ("", "", ""))
            table.add_row(f"{trial.number}", trial.configuration, f"{trial.block}", *state)
        if self.notes:
            table.caption = "\n".join(escape(note) for note in self.notes[-4:])
        return table


def make_progress_display(scenario: Scenario, plan: Plan) -> PlainLines | LiveTable:
    """Return the live table where standard error is a terminal, else plain lines."""
    if sys.stderr.isatty():
        return LiveTable(scenario, plan)
    return PlainLines(scenario, plan)


def _clean(text: str) -> str:
    return show_controls(redact(text))


def _find_unit(plan: Plan, trial: Trial) -> tuple[Trial, ...]:
    """Return the trials that are deployed together with this one."""
    return next(unit for unit in plan.units if trial in unit)


def _describe_turns(plan: Plan) -> str:
    return "at the same time" if plan.design == "duet" else "in turn"


def _format_remaining_load(scenario: Scenario, plan: Plan, *, after: int) -> str:
    """Format the time of load of the trials after number `after`; a block's load has ended when its first trial is
    stored."""
    if not (remaining := plan.trials[after:]):
        return "no trials left"
    if not plan.is_paired:
        loads = [scenario.load_of(trial.configuration) for trial in remaining]
        seconds = sum(load.warmup_s + load.duration_s for load in loads)
    else:
        blocks = {trial.block for trial in remaining} - {trial.block for trial in plan.trials[:after]}
        seconds = len(blocks) * estimate_load_seconds(scenario, plan)
    return f"about {format_duration(seconds)} of load left" if seconds else "no load left"


def _print_line(line: str) -> None:
    click.echo(line, err=True)
    _require_reader()


def _require_reader() -> None:
    """Raise Interrupted, as for SIGHUP, where the terminal or pipe of standard error was closed."""
    if isinstance(sys.stderr, OutputStream) and sys.stderr.is_hung_up:
        raise Interrupted(signal.SIGHUP)
