"""Summarise one trial: its numbers, its time series, its quantile curve, latency by request name."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from bench.analysis import percentiles as latency
from bench.analysis.noise import LONGEST_SERIES_S, NoiseSeries, NoiseShares, make_noise_series, measure_noise
from bench.analysis.pace import is_think_time
from bench.analysis.percentiles import BySecond, Ns
from bench.analysis.resource_usage import measure_generator_cores, measure_processes
from bench.analysis.stats import Mean, geometric_mean
from bench.analysis.validity import MANY_NAMES, compute_response_ns, count_stalls, make_issue
from bench.results.issues import IssueCode
from bench.results.records import TrialRecord
from bench.results.resources import ResourceTrace
from bench.results.samples import Samples
from bench.results.store import StoredTrial
from bench.results.summary_records import NamedLatency, NamedRepeat, RepeatSummary
from bench.units import NANOSECONDS, NS_PER_MS

Floats = npt.NDArray[np.float64]

SLIDING_S: Final = 5
SHOWN_NAMES: Final = 20  # of `MANY_NAMES` or more
THINK_TIME: Final = "think-time"  # the option of locustfiles whose users wait as the scenario says
OTHER_NAMES: Final = "(other names)"  # as the recorder names those that it does not tell apart
_SHARES: Final = {
    "p50_ms": 0.5,
    "p75_ms": 0.75,
    "p90_ms": 0.9,
    "p95_ms": 0.95,
    "p99_ms": 0.99,
    "p999_ms": 0.999,
    "max_ms": 1.0,
}
_CURVE: Final = (*np.arange(0.01, 0.9899, 0.01), *np.arange(0.99, 0.99905, 0.001))
_NONE: Final = np.array([], np.int64)
_NO_MEAN: Final = Mean(0.0, None, None, "no successful request of this name")


def summarise_by_name(counted: Samples, response_ns: Ns) -> tuple[NamedRepeat, ...]:
    """Return the requests of a window by request name, in the order of the names; empty where all have the same.

    Of `MANY_NAMES` or more the most frequent ones have a row each, and all others one together.
    """
    counts = np.bincount(counted.name, minlength=len(counted.names))
    used = np.flatnonzero(counts)
    if len(used) < 2:
        return ()
    kept = used if len(used) < MANY_NAMES else used[np.argsort(-counts[used], kind="stable")[:SHOWN_NAMES]]
    found = [
        _summarise_name(counted.names[index], counted, response_ns, counted.name == index) for index in kept.tolist()
    ]
    if len(kept) < len(used):
        found.append(_summarise_name(OTHER_NAMES, counted, response_ns, ~np.isin(counted.name, kept)))
    return tuple(sorted(found, key=lambda named: named.name))


def average_by_name(repeats: Sequence[RepeatSummary]) -> tuple[NamedLatency, ...]:
    """Return the latencies of each request name over the valid repeats that have it."""
    found: dict[str, list[NamedRepeat]] = {}
    for repeat in repeats:
        for named in repeat.by_name if repeat.valid else ():
            found.setdefault(named.name, []).append(named)
    return tuple(_average_name(name, found[name]) for name in sorted(_select_frequent(found)))


def _select_frequent(found: Mapping[str, Sequence[NamedRepeat]]) -> Iterable[str]:
    """Return all names, or the most frequent ones where repeats had too many: each may show others. The rest of each
    repeat is one row there, too."""
    if OTHER_NAMES not in found:
        return found
    named = sorted(found.keys() - {OTHER_NAMES}, key=lambda name: (-sum(one.requests for one in found[name]), name))
    return (*named[:SHOWN_NAMES], OTHER_NAMES)


def _summarise_name(name: str, counted: Samples, response_ns: Ns, mine: npt.NDArray[np.bool_]) -> NamedRepeat:
    good_ns = response_ns[mine & counted.ok]
    p50_ns, p95_ns = latency.percentiles_ns(good_ns, (0.5, 0.95)) if len(good_ns) else (None, None)
    return NamedRepeat(
        name=name,
        requests=int(mine.sum()),
        errors=int(mine.sum()) - len(good_ns),
        p50_ms=None if p50_ns is None else p50_ns / NS_PER_MS,
        p95_ms=None if p95_ns is None else p95_ns / NS_PER_MS,
    )


def _average_name(name: str, repeats: Sequence[NamedRepeat]) -> NamedLatency:
    p50, p95 = _compute_mean(repeats, "p50_ms"), _compute_mean(repeats, "p95_ms")
    known = p95 is not _NO_MEAN
    return NamedLatency(
        name=name,
        n=sum(bool(repeat.p95_ms) for repeat in repeats),
        requests=sum(repeat.requests for repeat in repeats),
        errors=sum(repeat.errors for repeat in repeats),
        p50_ms=p50.value if known else None,
        p50_low_ms=p50.interval[0] if p50.interval else None,
        p50_high_ms=p50.interval[1] if p50.interval else None,
        p95_ms=p95.value if known else None,
        p95_low_ms=p95.interval[0] if p95.interval else None,
        p95_high_ms=p95.interval[1] if p95.interval else None,
        no_interval=p95.reason,
    )


def _compute_mean(repeats: Sequence[NamedRepeat], percentile: Literal["p50_ms", "p95_ms"]) -> Mean:
    values = [value for repeat in repeats if (value := getattr(repeat, percentile))]
    return geometric_mean(values) if values else _NO_MEAN


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """A trial second by second, warm-up included; `at_s` is the end of each second.

    p95_ms: of the successful requests that ended in the 5 s before; NaN where there were none
    rps, errors: successful and failed requests that ended in the second before
    """

    at_s: Floats
    p95_ms: Floats
    rps: Floats
    errors: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Digest:
    """The data of one trial for a report. `windows` in seconds, and `window` from the start of the first to the end of
    the last; `quantiles`: shares, and latencies in ms; `noise`: None where it is unknown."""

    trial: str
    configuration: str
    block: int
    repeat: RepeatSummary
    window: tuple[float, float]
    series: Series
    quantiles: tuple[Floats, Floats]
    windows: tuple[tuple[float, float], ...] = ()
    noise: NoiseSeries | None = None


@dataclass(frozen=True, slots=True)
class Headline:
    """The figures shown of a trial as soon as it is stored: P95 of its successful requests (ms; None where they are too
    few), and their number per second."""

    p95_ms: float | None
    rps: float


def make_headline(record: TrialRecord, samples: Samples) -> Headline:
    """Return two figures of a trial's samples, equal to those of its summary."""
    found = _split_by_window(record, samples)
    return Headline(_percentile_ms(found, 0.95), _compute_rps(record, found) or 0.0)


def digest(trial: StoredTrial) -> Digest:
    """Read a trial's samples once and summarise them. Raises StoreError where they are incomplete."""
    record, samples = trial.record, trial.samples()
    counted, windows = samples.counted(record.windows), _split_by_window(record, samples)
    resources = _read_resources(trial)
    edges = [edge for window in record.windows for edge in (window.start_ns, window.end_ns)] or [0]
    return Digest(
        trial=record.trial,
        configuration=record.configuration,
        block=record.block,
        repeat=_summarise_repeat(record, samples, counted=counted, windows=windows, resources=resources),
        window=(edges[0] / NANOSECONDS, edges[-1] / NANOSECONDS),
        series=_make_series(record, samples),
        quantiles=_make_curve(np.sort(np.concatenate(windows)) if windows else _NONE),
        windows=tuple((one.start_ns / NANOSECONDS, one.end_ns / NANOSECONDS) for one in record.windows),
        noise=make_noise_series(resources) if resources else None,
    )


def _read_resources(trial: StoredTrial) -> ResourceTrace | None:
    """Read the resources of a trial; a target that cannot observe its processes writes none."""
    return trial.resources() if (trial.path / "resources.parquet").exists() else None


def _split_by_window(record: TrialRecord, samples: Samples) -> list[Ns]:
    """Return the latencies of the successful requests of each window, in ascending order."""
    found = []
    for window in record.windows:
        counted = samples.counted([window])
        found.append(np.sort(compute_response_ns(counted, record.rate)[counted.ok]))
    return found


def _compute_rps(record: TrialRecord, windows: Sequence[Ns]) -> float | None:
    """Return the mean of the windows' successful requests per second; None without a window."""
    lengths_s = [window.seconds for window in record.windows]
    if not sum(lengths_s):
        return None
    return fmean(len(own) / length_s for own, length_s in zip(windows, lengths_s, strict=True) if length_s)


def _summarise_repeat(
    record: TrialRecord, samples: Samples, *, counted: Samples, windows: Sequence[Ns], resources: ResourceTrace | None
) -> RepeatSummary:
    """Summarise a trial. An interleaved one has several windows, whose statistics are averaged."""
    requests, succeeded = len(counted), sum(map(len, windows))
    # The study's statistic is of a load without interruption, on one configuration alone.
    is_sequential = not record.is_paired
    noise = measure_noise(resources, record.windows) if resources else NoiseShares()
    percentiles = {name: _percentile_ms(windows, share) for name, share in _SHARES.items()}
    usable = (percentiles["p95_ms"] or 0) > 0
    unusable = (
        () if usable or record.reasons else (make_issue(IssueCode.EMPTY, "the window has no latency above zero"),)
    )
    return RepeatSummary(
        trial=record.trial,
        block=record.block,
        valid=record.status == "complete" and not record.reasons and usable,
        issues=(*record.issues, *unusable),
        requests=requests,
        errors=requests - succeeded,
        window_s=sum(window.seconds for window in record.windows),
        rps=_compute_rps(record, windows),
        mean_ms=fmean(float(own.mean()) for own in windows if len(own)) / NS_PER_MS if succeeded else None,
        **percentiles,
        thesis_p95_ms=latency.study_p95_ms(samples.started_ns, samples.latency_ns) if is_sequential else None,
        corrected_p95_ms=_corrected_ms(record, windows),
        stall_s=count_stalls(samples, record.windows),
        lateness_p95_ms=_lateness_ms(counted),
        own_wait_ms=_own_wait_ms(record),
        **asdict(noise),
        generator_cpu=measure_generator_cores(resources, record.windows) if resources else None,
        resources=measure_processes(resources, record.windows, requests) if resources and record.windows else (),
        by_name=summarise_by_name(counted, compute_response_ns(counted, record.rate)),
    )


def _percentile_ms(windows: Sequence[Ns], share: float) -> float | None:
    """Return the geometric mean of the windows' nearest-rank percentiles, or the largest maximum.

    None where the requests are too few: in all windows together as for a single one, and in each for one request
    beyond the percentile. The maximum needs one request only.
    """
    counts = [len(own) for own in windows]
    if not sum(counts):
        return None
    if share == 1:
        return max(int(own[-1]) for own in windows if len(own)) / NS_PER_MS
    if not latency.is_enough(share, sum(counts)) or not min(counts):
        return None
    if len(windows) > 1 and share > latency.ALWAYS_SHOWN and round(min(counts) * (1 - share), 6) < 1:
        return None
    return _average_ms([int(own[latency.rank(share, len(own)) - 1]) for own in windows])


def _average_ms(windows_ns: Sequence[int]) -> float:
    """Return the geometric mean in ms: the value itself for one window, and 0 where one is not above zero."""
    if len(windows_ns) == 1 or min(windows_ns) <= 0:
        return min(windows_ns) / NS_PER_MS
    return geometric_mean([value / NS_PER_MS for value in windows_ns]).value


def _corrected_ms(record: TrialRecord, windows: Sequence[Ns]) -> float | None:
    """Return P95 counted from the intended start. An open loop's latency is already counted from there."""
    if record.rate is not None:
        return _percentile_ms(windows, 0.95)
    return _average_ms([_correct_ns(record, own) for own in windows]) if windows and all(map(len, windows)) else None


def _correct_ns(record: TrialRecord, ordered: Ns) -> int:
    median_ns = int(ordered[latency.rank(0.5, len(ordered)) - 1])
    wait_s = record.pace.mean_wait_s if record.pace else record.think_time_s
    return latency.corrected_p95_ns(ordered, round(wait_s * NANOSECONDS) + median_ns)


def _lateness_ms(counted: Samples) -> float | None:
    lateness = counted.started_ns - counted.intended_ns
    return latency.percentile_ns(lateness, 0.95) / NS_PER_MS if len(lateness) else None


def _own_wait_ms(record: TrialRecord) -> float | None:
    """Return the mean wait of a user, where the locustfile does not take the scenario's think time, or wait so long."""
    generator, pace = record.generator, record.pace
    if record.rate is not None or generator is None or generator.options is None or pace is None:
        return None
    as_given = THINK_TIME in generator.options and is_think_time(pace, record.think_time_s)
    return None if as_given else pace.mean_wait_s * 1e3


def _make_series(record: TrialRecord, samples: Samples) -> Series:
    ends_ns = [*samples.started_ns[-1:].tolist(), *(window.end_ns for window in record.windows)]
    seconds = min(-(-max(ends_ns, default=0) // NANOSECONDS), LONGEST_SERIES_S)
    good, ended_ns = samples.ok, samples.completed_ns
    succeeded = latency.group_by_second(ended_ns[good], compute_response_ns(samples, record.rate)[good], seconds)
    failed = latency.group_by_second(ended_ns[~good], samples.latency_ns[~good], seconds)
    return Series(
        at_s=np.arange(1, seconds + 1, dtype=np.float64),
        p95_ms=np.array([_sliding_p95_ms(succeeded, second) for second in range(1, seconds + 1)], np.float64),
        rps=np.diff(succeeded.edges).astype(np.float64),
        errors=np.diff(failed.edges).astype(np.float64),
    )


def _sliding_p95_ms(succeeded: BySecond, second: int) -> float:
    recent = succeeded.between(second - SLIDING_S, second)
    return latency.percentile_ns(recent, 0.95) / NS_PER_MS if len(recent) else float("nan")


def _make_curve(ordered: Ns) -> tuple[Floats, Floats]:
    """Return the latency at each share, as far out as the count allows."""
    shares = [share for share in _CURVE if latency.is_enough(share, len(ordered))]
    indexes = [latency.rank(share, len(ordered)) - 1 for share in shares]
    return np.array(shares, np.float64), ordered[indexes].astype(np.float64) / NS_PER_MS
