"""Make the DataFrames of a stored run; `bench.frames.columns` defines their columns."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import pandas as pd

from bench.analysis.resource_usage import find_inside
from bench.analysis.run_summary import summarise
from bench.analysis.validity import compute_response_ns
from bench.frames import columns
from bench.frames.columns import Column
from bench.results.records import RunRecord
from bench.results.store import StoredRun, StoredTrial
from bench.results.summary_records import RepeatSummary, SummaryRecord
from bench.units import NANOSECONDS, NS_PER_MS

_Row = Mapping[str, Any]
_PAIR: Final = ("configuration", "reference")


@dataclass(frozen=True)
class Run:
    """A stored run, whose methods return DataFrames with the columns of docs/dataframes.md."""

    stored: StoredRun

    @property
    def record(self) -> RunRecord:
        """Return `run.json`."""
        return self.stored.record

    @cached_property
    def summary(self) -> SummaryRecord:
        """Compute `summary.json` from the samples. Raises StoreError where a trial's files are incomplete."""
        return summarise(self.stored)[0]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what limits the numbers of the run as a whole."""
        return self.summary.doubts

    def samples(self) -> pd.DataFrame:
        """Return one row per request of all trials, warm-up included."""
        return self._join_trials(columns.SAMPLES, _read_samples)

    def repeats(self) -> pd.DataFrame:
        """Return one row per trial, valid or not."""
        return make_repeats(self.summary)

    def configurations(self) -> pd.DataFrame:
        """Return one row per configuration, over its valid repeats."""
        return make_configurations(self.summary)

    def contrasts(self) -> pd.DataFrame:
        """Return one row per comparison of two configurations on one metric."""
        return make_contrasts(self.summary)

    def resources(self) -> pd.DataFrame:
        """Return CPU and memory of every process over time."""
        return self._join_trials(columns.RESOURCES, _read_resources)

    def evidence(self) -> pd.DataFrame:
        """Return one row per fact that was checked before or after the load of a trial."""
        return self._join_trials(columns.EVIDENCE, _read_evidence)

    def request_names(self) -> pd.DataFrame:
        """Return one row per request name and trial, where requests have more than one name."""
        return make_request_names(self.summary)

    def proxy_costs(self) -> pd.DataFrame:
        """Return one row per estimate of what a proxy adds to a page."""
        return make_proxy_costs(self.summary)

    def _join_trials(self, frame: columns.Frame, read: Callable[[StoredTrial], _Row]) -> pd.DataFrame:
        """Return the columns that `read` makes of each trial, with those that identify it and qualify its numbers."""
        trials = {trial.record.trial: trial for trial in self.stored.trials}
        described = [row for row, _ in _describe_repeats(self.summary)]
        parts = [read(trials[row["trial"]]) for row in described]
        lengths = [len(next(iter(part.values()))) for part in parts]
        own = [column for column in frame.columns if column not in columns.TRIAL]
        joined = {c.name: np.concatenate([part[c.name] for part in parts] or [()]) for c in own}
        of_trial = _make_frame(columns.TRIAL, described, self.summary).take(np.repeat(np.arange(len(parts)), lengths))
        return pd.concat([of_trial.reset_index(drop=True), _set_types(own, joined, self.summary)], axis=1)


def make_repeats(summary: SummaryRecord) -> pd.DataFrame:
    """Return one row per trial, valid or not."""
    rows = (
        {
            **dict(repeat),
            **described,
            "users": summary.configurations[described["configuration"]].users,
            "mesh": summary.configurations[described["configuration"]].mesh,
            "reasons": "; ".join(repeat.reasons),
            "warnings": "; ".join(repeat.warnings),
        }
        for described, repeat in _describe_repeats(summary)
    )
    return _make_frame(columns.REPEATS.columns, rows, summary)


def make_configurations(summary: SummaryRecord) -> pd.DataFrame:
    """Return one row per configuration, over its valid repeats."""
    rows = (
        {
            **dict(c),
            "configuration": name,
            "measured": len(c.repeats),
            "warnings": sum(len(repeat.warnings) for repeat in c.repeats),
        }
        for name, c in summary.configurations.items()
    )
    return _make_frame(columns.CONFIGURATIONS.columns, rows, summary)


def make_contrasts(summary: SummaryRecord) -> pd.DataFrame:
    """Return one row per comparison of two configurations on one metric."""
    rows = ({**dict(c), "n": c.n[0], "n_reference": c.n[1], "standing": c.standing} for c in summary.contrasts)
    return _make_frame(columns.CONTRASTS.columns, rows, summary)


def make_request_names(summary: SummaryRecord) -> pd.DataFrame:
    """Return one row per request name and trial, where requests have more than one name."""
    rows = ({**described, **dict(named)} for described, r in _describe_repeats(summary) for named in r.by_name)
    return _make_frame(columns.REQUEST_NAMES.columns, rows, summary)


def make_proxy_costs(summary: SummaryRecord) -> pd.DataFrame:
    """Return one row per estimate of what a proxy adds to a page."""
    rows = (
        {**dict(cost), "n": cost.n[0], "n_reference": cost.n[1], "doubts": "; ".join(cost.doubts)}
        for cost in summary.hop_costs
    )
    return _make_frame(columns.PROXY_COSTS.columns, rows, summary)


def _describe_repeats(summary: SummaryRecord) -> Iterator[tuple[dict[str, Any], RepeatSummary]]:
    """Yield each trial with the columns that identify it and qualify its numbers."""
    for name, configuration in summary.configurations.items():
        for r in configuration.repeats:
            codes = dict.fromkeys(text.partition(":")[0] for text in (*r.reasons, *r.warnings))
            described = {"configuration": name, "trial": r.trial, "block": r.block, "valid": r.valid}
            yield described | {"issues": ", ".join(codes)}, r


def _read_samples(trial: StoredTrial) -> _Row:
    samples, record = trial.samples(), trial.record
    return {
        "name": np.array(samples.names, object)[samples.name],
        "status": samples.status,
        "ok": samples.ok,
        "bytes": samples.bytes,
        "intended_s": samples.intended_ns / NANOSECONDS,
        "started_s": samples.started_ns / NANOSECONDS,
        "latency_ms": samples.latency_ns / NS_PER_MS,
        "response_ms": compute_response_ns(samples, record.rate) / NS_PER_MS,
        "in_window": find_inside(samples.started_ns, record.windows),
    }


def _read_resources(trial: StoredTrial) -> _Row:
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


def _read_evidence(trial: StoredTrial) -> _Row:
    proof = trial.proof
    facts = [("before", fact) for fact in proof.before] + [("after", fact) for fact in proof.after] if proof else []
    rows = [{**dict(fact), "when": when} for when, fact in facts]
    return {
        c.name: np.array([row[c.name] for row in rows], object)
        for c in columns.EVIDENCE.columns
        if c not in columns.TRIAL
    }


def _make_frame(documented: Sequence[Column], rows: Iterable[_Row], summary: SummaryRecord) -> pd.DataFrame:
    found = list(rows)
    return _set_types(documented, {c.name: [row[c.name] for row in found] for c in documented}, summary)


def _set_types(documented: Sequence[Column], values: _Row, summary: SummaryRecord) -> pd.DataFrame:
    """Return a frame of these columns. Categories have the order of their first row, configurations that of the run."""
    made = {}
    for name, dtype, *_ in documented:
        own = values[name]
        if dtype == "category":
            own = pd.Categorical(own, list(summary.configurations if name in _PAIR else dict.fromkeys(own)))
        made[name] = pd.Series(own, dtype=dtype)
    return pd.DataFrame(made)
