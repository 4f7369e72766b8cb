"""Time of a run that is not load: its wall time over windows and warm-ups, and the stages that take the rest."""

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.errors import InvalidMeasurementError, exit_code_of
from bench.k8s.ownership import STAGE
from bench.results.store import StoredRun, read_run
from bench.scenario.plan import estimate_load_seconds
from bench.system.journal import NAME, read_journal
from bench.units import NANOSECONDS, format_counted, format_ratio
from tests.benchmarks.children import MESHBENCH, used_by
from tests.benchmarks.figure import Figure, format_s

_AIMS = {("istio-policies", True): 1.3, ("istio-policies", False): 1.15}  # of the main job: quick, full
_LOAD = "Locust's start and end, proof after, all ended"
_STARTED = {
    "service": "services started",
    "sidecar": "sidecars started",
    "generator": _LOAD,
    None: "run folder, certificates",
}
_ON_CLUSTER = {
    "installed": "control planes installed, first block deployed",
    "deployed": "pods started, page and policies right, namespaces before deleted",
    "counting": "proof before",
    "loaded": _LOAD,
    "proven": "proof after",
    "removed": "removal requested",
}


def figures(runs: Sequence[Path], *, options: Sequence[str]) -> Iterator[Figure]:
    """Yield figures of each of `runs`; without any, of one that is made now with these options of `meshbench run`."""
    for run in runs:
        yield from _of(read_run(run), command_s=None)
    if not runs:
        with tempfile.TemporaryDirectory() as folder:
            argv = [MESHBENCH, "run", *options, "--output", folder]
            # durations count whether the latencies are valid or not
            used = used_by(argv, accepted=(0, exit_code_of(InvalidMeasurementError)))
            run = next(path.parent for path in Path(folder).glob("*/run.json"))
            yield from _of(read_run(run), command_s=used.wall_s)


def stages(lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return seconds by stage, from a journal's lines: the time before a line belongs to the stage that it records."""
    spent: defaultdict[str, float] = defaultdict(float)
    if any(line["step"] == STAGE for line in lines):
        lines = [line for line in lines if line["step"] in (STAGE, "begin") or line in (lines[0], lines[-1])]
    for before, line in pairwise(lines):
        if line["step"] == "begin":
            continue  # the run was resumed: the time until here is no work
        spent[_stage(before, line)] += (_at(line) - _at(before)).total_seconds()
    return dict(spent)


def _stage(before: Mapping[str, Any], line: Mapping[str, Any]) -> str:
    step, name = line["step"], line.get("name", "")
    if step == STAGE:
        return _ON_CLUSTER["installed" if before["step"] != STAGE else line["stage"]]
    if before["step"] == STAGE:
        return "everything removed"
    if name.endswith("-validate"):
        return "sidecars' configuration checked"
    if step == "ended-process":
        return _LOAD
    if step == "start-process-done":
        return _STARTED[line["role"]]
    if before["step"] == "ended-process" and not before["name"].endswith("-validate"):
        return "samples checked, trial stored"
    return "readiness, proof before" if line.get("role") == "generator" else _STARTED[line.get("role")]


def _of(run: StoredRun, *, command_s: float | None) -> Iterator[Figure]:
    """`command_s`: of the whole command; unknown for an earlier run, whose journal ends before the report."""
    spent = stages(read_journal(run.path / NAME))
    if command_s is not None:
        spent["command's start, report"] = command_s - sum(spent.values())
    wall_s = sum(spent.values())
    load_s = _load_s(run)
    spent[_LOAD] -= load_s
    yield _ratio(run, wall_s=wall_s, load_s=load_s)
    for stage, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        each = f"{format_s(seconds / len(run.trials))} for each of {format_counted(len(run.trials), 'trial')}"
        yield Figure(what=f"  {stage}", value=format_s(seconds), spread=each)


def _load_s(run: StoredRun) -> float:
    """Return the time of warm-ups and windows in seconds; those of a duet's block count once."""
    if run.record.scenario.is_paired:
        return len(run.record.plan.order) * estimate_load_seconds(run.record.scenario, run.record.plan)
    return sum(trial.record.windows[-1].end_ns for trial in run.trials) / NANOSECONDS


def _ratio(run: StoredRun, *, wall_s: float, load_s: float) -> Figure:
    scenario = run.record.scenario
    aim = _AIMS.get((scenario.name, scenario.quick))
    extended = sum(trial.record.warmup_extended for trial in run.trials)
    return Figure(
        what=f"{scenario.name}: wall time / (warm-ups + windows)",
        value=format_ratio(wall_s / load_s),
        spread=f"{format_s(wall_s)}, of it load {format_s(load_s)}, {format_counted(extended, 'warm-up')} extended",
        aim=f"<= {format_ratio(aim)}" if aim else "",
        met=wall_s / load_s <= aim if aim else None,
    )


def _at(line: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(line["at"])
