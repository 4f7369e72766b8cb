"""Make the DataFrames of a stored run; `bench.frames.columns` defines their columns."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from bench.analysis.resource_usage import find_inside
from bench.analysis.run_summary import summarise
from bench.analysis.trial_summary import Digest
from bench.analysis.validity import compute_response_ns, format_issue, format_issues
from bench.frames import columns
from bench.frames.columns import TRIAL, Column, Frame
from bench.results.issues import Issue
from bench.results.records import RunRecord
from bench.results.store import StoredRun, StoredTrial
from bench.results.summary_records import RepeatSummary, SummaryRecord
from bench.system.processes import Role
from bench.units import NANOSECONDS, NS_PER_MS

_Values = Mapping[str, Sequence[Any] | Any]  # of each column


@dataclass(frozen=True)
class Run:
    """A stored run, whose methods return DataFrames with the columns of docs/dataframes.md."""

    stored: StoredRun

    @property
    def record(self) -> RunRecord:
        """Return `run.json`."""
        return self.stored.record

    @cached_property
    def _summarised(self) -> tuple[SummaryRecord, dict[str, Digest]]:
        return summarise(self.stored)

    @property
    def summary(self) -> SummaryRecord:
        """Return `summary.json`, computed from the samples. Raises StoreError where a trial's files are incomplete."""
        return self._summarised[0]

    @property
    def digests(self) -> Mapping[str, Digest]:
        """Return the curves of each trial, by its folder."""
        return self._summarised[1]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return why the run ended early, if it did, and what limits its numbers as a whole."""
        return tuple(map(format_issue, (*self.record.issues, *self.summary.issues)))

    def samples(self) -> pd.DataFrame:
        """Return one row per request of all trials, warm-up included."""
        return self._join_trials(columns.SAMPLES, _read_samples)

    def repeats(self) -> pd.DataFrame:
        """Return one row per trial, valid or not."""
        configurations = self.summary.configurations
        rows = (
            {
                **dict(repeat),
                **described,
                "users": configurations[described["configuration"]].users,
                "mesh": configurations[described["configuration"]].mesh,
                "reasons": format_issues(repeat.reasons),
                "warnings": format_issues(repeat.warnings),
            }
            for described, repeat in self._describe_repeats()
        )
        return self._make_frame(columns.REPEATS.columns, rows)

    def configurations(self) -> pd.DataFrame:
        """Return one row per configuration, over its valid repeats."""
        rows = (
            {
                **dict(c),
                "configuration": name,
                "measured": len(c.repeats),
                "warnings": sum(len(repeat.warnings) for repeat in c.repeats),
            }
            for name, c in self.summary.configurations.items()
        )
        return self._make_frame(columns.CONFIGURATIONS.columns, rows)

    def contrasts(self) -> pd.DataFrame:
        """Return one row per comparison of two configurations on one metric."""
        rows = (
            {
                **dict(c),
                "n": c.n[0],
                "n_reference": c.n[1],
                "standing": c.standing,
                "reason": format_issues(c.issues),
                "issues": _list_codes(c.issues),
            }
            for c in self.summary.contrasts
        )
        return self._make_frame(columns.CONTRASTS.columns, rows)

    def resources(self) -> pd.DataFrame:
        """Return one row per process and reading of its CPU and memory."""
        return self._join_trials(columns.RESOURCES, _read_resources)

    def processes(self) -> pd.DataFrame:
        """Return one row per process and trial: what it used inside the window."""
        rows = (
            {
                **described,
                **dict(use),
                "cpu_cores": use.cpu_s / use.seen_s if use.cpu_s is not None and use.seen_s else None,
            }
            for described, repeat in self._describe_repeats()
            for use in repeat.resources
        )
        return self._make_frame(columns.PROCESSES.columns, rows)

    def evidence(self) -> pd.DataFrame:
        """Return one row per fact that was checked before or after the load of a trial."""
        return self._join_trials(columns.EVIDENCE, _read_evidence)

    def request_names(self) -> pd.DataFrame:
        """Return one row per request name and trial, where requests have more than one name."""
        rows = ({**described, **dict(named)} for described, r in self._describe_repeats() for named in r.by_name)
        return self._make_frame(columns.REQUEST_NAMES.columns, rows)

    def proxy_costs(self) -> pd.DataFrame:
        """Return one row per estimate of what a proxy adds to a page."""
        rows = (
            {
                **dict(cost),
                "n": cost.n[0],
                "n_reference": cost.n[1],
                "doubts": format_issues(cost.issues),
                "issues": _list_codes(cost.issues),
            }
            for cost in self.summary.hop_costs
        )
        return self._make_frame(columns.PROXY_COSTS.columns, rows)

    def _describe_repeats(self) -> Iterator[tuple[dict[str, Any], RepeatSummary]]:
        """Yield each trial with the columns that identify it and qualify its numbers."""
        for name, configuration in self.summary.configurations.items():
            for r in configuration.repeats:
                codes = _list_codes((*r.reasons, *r.warnings))
                yield {"configuration": name, "trial": r.trial, "block": r.block, "valid": r.valid, "issues": codes}, r

    def _join_trials(self, frame: Frame, read: Callable[[StoredTrial], _Values]) -> pd.DataFrame:
        """Return the columns that `read` makes of each trial, with those that identify it and qualify its numbers."""
        trials = {trial.record.trial: trial for trial in self.stored.trials}
        described = [row for row, _ in self._describe_repeats()]
        parts = [read(trials[row["trial"]]) for row in described]
        lengths = [len(next(iter(part.values()))) for part in parts]
        own = [column for column in frame.columns if column not in TRIAL]
        joined = {c.name: _concatenate([part[c.name] for part in parts]) for c in own}
        of_trial = self._make_frame(TRIAL, described).take(np.repeat(np.arange(len(parts)), lengths))
        return pd.concat([of_trial.reset_index(drop=True), self._set_types(own, joined)], axis=1)

    def _make_frame(self, documented: Sequence[Column], rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
        found = list(rows)
        return self._set_types(documented, {c.name: [row[c.name] for row in found] for c in documented})

    def _set_types(self, documented: Sequence[Column], values: _Values) -> pd.DataFrame:
        """Return a frame of these columns. Configurations have the order of the scenario, roles their own."""
        names = tuple(self.summary.configurations)
        orders = {"configuration": names, "reference": names, "role": get_args(Role)}
        made = {}
        for name, dtype, *_ in documented:
            own = values[name]
            made[name] = pd.Series(pd.Categorical(own, orders.get(name)) if dtype == "category" else own, dtype=dtype)
        frame = pd.DataFrame(made)
        frame.attrs = {"run_id": self.record.run_id, "warnings": list(self.warnings)}
        return frame


def _list_codes(issues: Iterable[Issue]) -> str:
    return ", ".join(dict.fromkeys(issue.code for issue in issues))


def _concatenate(parts: list[Any]) -> Any:
    if parts and all(isinstance(part, pd.Categorical) for part in parts):
        return union_categoricals(parts)
    return np.concatenate(parts or [()])


def _read_samples(trial: StoredTrial) -> _Values:
    samples, record = trial.samples(), trial.record
    return {
        "name": pd.Categorical.from_codes(samples.name, pd.Index(samples.names, dtype="str")),
        "status": samples.status,
        "ok": samples.ok,
        "bytes": samples.bytes,
        "intended_s": samples.intended_ns / NANOSECONDS,
        "started_s": samples.started_ns / NANOSECONDS,
        "latency_ms": samples.latency_ns / NS_PER_MS,
        "response_ms": compute_response_ns(samples, record.rate) / NS_PER_MS,
        "in_window": find_inside(samples.started_ns, record.windows),
    }


def _read_resources(trial: StoredTrial) -> _Values:
    """Read the trace of a trial; a target that cannot observe its processes writes none."""
    if not (trial.path / "resources.parquet").exists():
        return {column.name: () for column in columns.RESOURCES.columns}
    trace = trial.resources()
    read = pd.DataFrame(
        {"process": trace.process, "at_s": trace.at_ns / NANOSECONDS, "cpu_s": trace.cpu_ns / NANOSECONDS}
    )
    steps = read.groupby("process").diff()
    cores = steps["cpu_s"] / steps["at_s"]
    return {
        "process": np.array(trace.processes, object)[trace.process],
        "role": np.array(trace.roles, object)[trace.process],
        "at_s": read["at_s"],
        "cpu_s": read["cpu_s"],
        "cpu_cores": cores.where(cores >= 0),  # a container that was restarted counts from 0 again
        "rss_bytes": trace.rss_bytes,
        "in_window": find_inside(trace.at_ns, trial.record.windows),
    }


def _read_evidence(trial: StoredTrial) -> _Values:
    proof = trial.proof
    facts = [("before", fact) for fact in proof.before] + [("after", fact) for fact in proof.after] if proof else []
    rows = [{**dict(fact), "when": when} for when, fact in facts]
    return {c.name: np.array([row[c.name] for row in rows], object) for c in columns.EVIDENCE.columns if c not in TRIAL}
