"""Export a history as metrics: text that OpenMetrics and Prometheus's older format both accept, to a file or a gateway.

All metrics are gauges of the newest night. A night without a valid ratio has an outcome, and no ratio.
"""

import math
from collections.abc import Iterable, Iterator
from http.client import HTTPException
from typing import Final, NamedTuple, get_args
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

from bench.analysis.history import History, HistoryLine, find_last_success
from bench.analysis.regression import Outcome
from bench.errors import InputError, StoreError
from bench.report.nights import Night, make_series
from bench.system.redaction import format_basic_authorization, split_credentials

JOB: Final = "meshbench"
_TIMEOUT_S: Final = 10.0
_LONGEST_ANSWER: Final = 300
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})

METRICS: Final = {
    "meshbench_p95_ratio": "P95 of a configuration divided by that of the reference of the same night.",
    "meshbench_p95_ratio_low": "Lower end of its 95 % interval, from the repeats or blocks of that night.",
    "meshbench_p95_ratio_high": "Upper end of its 95 % interval.",
    "meshbench_p95_ratio_usual": "Geometric mean of the ratio over the nights that this one is judged by.",
    "meshbench_p95_ratio_limit": "How high the ratio of one more night may come out by chance.",
    "meshbench_baseline_nights": "Nights that this one is judged by.",
    "meshbench_p95_seconds": "P95 of a configuration: geometric mean over repeats or blocks.",
    "meshbench_outcome": "1 for the gate's outcome of the night, 0 for each other one.",
    "meshbench_last_night_timestamp_seconds": "When the newest night began, valid or not.",
    "meshbench_last_success_timestamp_seconds": "When the last night began that measured what it should.",
}


class Sample(NamedTuple):
    """One value of a metric; `at_s` is the time of its night."""

    metric: str
    labels: tuple[tuple[str, str], ...]
    value: float
    at_s: float


def format_openmetrics(history: History, *, every_night: bool = False) -> str:
    """Return the metrics of the newest night of each contrast; with `every_night` those of all, each with its time."""
    samples = dict.fromkeys(_list_samples(history, every_night=every_night))  # contrasts share their reference's P95
    return "".join((*_format_families(samples, with_times=every_night), "# EOF\n"))


def push(history: History, url: str) -> None:
    """Replace what a pushgateway has of each scenario of the history. Raises InputError for an invalid URL, StoreError
    where the gateway does not take it."""
    try:
        clean, pair = split_credentials(url)
    except ValueError as error:
        raise InputError(f"--pushgateway: {error}; write it as http://HOST:9091") from None
    if not clean.startswith(("http://", "https://")):
        raise InputError("--pushgateway: is no URL of a server; write it as http://HOST:9091")
    for scenario, own in history.by_scenario().items():
        address = f"{clean.rstrip('/')}/metrics/job/{JOB}/scenario/{quote(scenario, safe='')}"
        _put(address, format_openmetrics(own), format_basic_authorization(pair) if pair else "")


def _put(address: str, text: str, authorization: str) -> None:
    request = Request(address, data=text.encode(), method="PUT")  # noqa: S310  # http(s) only
    request.add_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
    if authorization:
        request.add_unredirected_header("Authorization", authorization)  # for this server alone
    try:
        with urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310  # the same
            answer.read(_LONGEST_ANSWER)
    except HTTPError as error:
        said = error.read(_LONGEST_ANSWER).decode("utf-8", "replace").strip()
        raise StoreError(f"pushing to {address}: {error.code} {error.reason}: {said}") from error
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise StoreError(f"pushing to {address}: {reason}; hint: 'curl {address}' from here") from error


def _list_samples(history: History, *, every_night: bool) -> Iterator[Sample]:
    for lines in history.all_series():
        nights = make_series(lines).nights
        for night in nights if every_night else nights[-1:]:
            yield from _list_night(night)
            yield from _list_times(night.line, [line for line in lines if line.at <= night.line.at])


def _list_night(night: Night) -> Iterator[Sample]:
    """Yield what one night has, without the values that it lacks."""
    line, decision = night.line, night.decision
    low, high = night.interval or (None, None)
    values = {
        "meshbench_p95_ratio": decision.ratio if line.is_success else None,
        "meshbench_p95_ratio_low": low,
        "meshbench_p95_ratio_high": high,
        "meshbench_p95_ratio_usual": decision.usual,
        "meshbench_baseline_nights": decision.nights if line.is_success else None,
    }
    yield from (_sample(metric, line, value) for metric, value in values.items() if value is not None)
    for confidence, limit in (("0.95", decision.limit_95), ("0.99", decision.limit_99)):
        if limit is not None:
            yield _sample("meshbench_p95_ratio_limit", line, limit, confidence=confidence)
    for outcome in get_args(Outcome):
        yield _sample("meshbench_outcome", line, float(outcome == decision.outcome), outcome=outcome)
    if line.is_success:
        sides = ((line.configuration, line.ln_p95_ms), (line.reference, line.ln_reference_p95_ms))
        for name, values_ms in sides:
            if values_ms:
                labels = (("scenario", line.scenario), ("configuration", name))
                seconds = math.exp(sum(values_ms) / len(values_ms)) / 1e3
                yield Sample("meshbench_p95_seconds", labels, seconds, line.at.timestamp())


def _list_times(line: HistoryLine, known: Iterable[HistoryLine]) -> Iterator[Sample]:
    yield _sample("meshbench_last_night_timestamp_seconds", line, line.at.timestamp())
    if last := find_last_success(known):
        yield _sample("meshbench_last_success_timestamp_seconds", line, last.timestamp())


def _sample(metric: str, line: HistoryLine, value: float, **labels: str) -> Sample:
    pair = {"scenario": line.scenario, "configuration": line.configuration, "reference": line.reference}
    return Sample(metric, tuple((pair | labels).items()), value, line.at.timestamp())


def _format_families(samples: Iterable[Sample], *, with_times: bool) -> Iterator[str]:
    """Yield the lines of each metric that has samples; those of one set of labels are neighbours, oldest first."""
    families: dict[str, dict[tuple[tuple[str, str], ...], list[Sample]]] = {}
    for sample in samples:
        families.setdefault(sample.metric, {}).setdefault(sample.labels, []).append(sample)
    for metric, meaning in METRICS.items():
        if metric in families:
            yield f"# HELP {metric} {meaning}\n# TYPE {metric} gauge\n"
            for one in (one for own in families[metric].values() for one in own):
                labels = ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in one.labels)
                yield f"{metric}{{{labels}}} {one.value!r}{f' {one.at_s!r}' if with_times else ''}\n"
