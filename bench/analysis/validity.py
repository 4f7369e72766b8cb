"""Everything that can make a measurement doubtful, in one place: how it is noticed, and what to do about it.

A reason makes a trial invalid: its numbers are shown, marked, and carry no result. A warning is shown beside
the number.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from bench.analysis import percentiles as latency
from bench.analysis.percentiles import Ns, Steadiness
from bench.analysis.resource_usage import generator_cores
from bench.results.records import ProofRecord, TrialRecord, Window
from bench.results.resources import ResourceTrace
from bench.results.samples import Samples
from bench.units import NANOSECONDS, NS_PER_MS, format_change, format_duration, format_ms, format_percent
from bench.verification.evidence import is_of_pages

MOST_ERRORS: Final = 0.01  # quick failures lower the percentiles of the rest
FEWEST_REQUESTS: Final = 20  # fewer, and no request lies beyond P95
SCARCE_REQUESTS: Final = 200  # fewer, and under ten lie beyond it
MOST_GENERATOR_CPU: Final = 0.80  # cores of one Locust process, which runs on one
MOST_LATENESS_MS: Final = 5.0  # or a share of what it disturbs, whichever is more:
MOST_LATENESS_SHARE: Final = 0.10  # of the think time, and of P95
MOST_IDENTITY_GAP: Final = 0.02
FEWEST_ARRIVALS: Final = 0.95
BUSY_RATE: Final = 10.0  # requests per second from which a second without one is no chance (e^-10)
MOST_CLOCK_GAP_S: Final = 2.0
FEWEST_CPUS: Final = 4
_LOCUST_FINE: Final = (0, 1)  # 1 says that some request failed, which is counted here anyway


class Doubt(StrEnum):
    """What can be doubtful. The value is the code that stands before the sentence in every record."""

    EMPTY = "empty"
    ALL_FAILED = "all-failed"
    ERRORS = "errors"
    FEW_REQUESTS = "few-requests"
    SCARCE_REQUESTS = "scarce-requests"
    IMPOSSIBLE = "impossible-samples"
    LOST_ROWS = "lost-rows"
    GENERATOR_ENDED = "generator-ended"
    GENERATOR_CPU = "generator-cpu"
    LATE = "late-requests"
    IDENTITY = "closed-loop"
    MISSED_ARRIVALS = "missed-arrivals"
    STALL = "stall"
    UNSTEADY = "unsteady"
    RESTART = "restart"
    CLOCK = "clock"
    DERIVED_STARTS = "derived-starts"
    PROOF = "proof"
    UNPROVEN = "unproven"
    FEW_CPUS = "few-cpus"
    QUICK = "quick"
    UNFINISHED = "unfinished"
    INVALID_TRIAL = "invalid-trial"
    MEASURED_AGAIN = "measured-again"
    DAMAGED_TRIAL = "damaged-trial"
    RESOLUTION = "resolution"


@dataclass(frozen=True, slots=True)
class Rule:
    """Whether a doubt makes a trial invalid, what the reader can do about it, and whether it may pass by itself, so
    that it is worth measuring once more."""

    invalidates: bool
    advice: str
    passes: bool = False


RULES: Final[dict[Doubt, Rule]] = {
    Doubt.EMPTY: Rule(True, "look into load.log for what the generator says"),
    Doubt.ALL_FAILED: Rule(True, "see what proof.json says of the page and the policies; then the services' logs"),
    Doubt.ERRORS: Rule(True, "failures are often quicker than answers; find their cause before comparing"),
    Doubt.FEW_REQUESTS: Rule(True, "measure longer (--duration) or with more users"),
    Doubt.SCARCE_REQUESTS: Rule(False, "fewer than ten lie beyond P95; measure longer (--duration)"),
    Doubt.IMPOSSIBLE: Rule(True, "the clock or the samples file is damaged; run the trial again", passes=True),
    Doubt.LOST_ROWS: Rule(True, "the recorder lost requests; look into load.log", passes=True),
    Doubt.GENERATOR_ENDED: Rule(True, "look into load.log, and run again", passes=True),
    Doubt.GENERATOR_CPU: Rule(True, "the client is part of the latency; use fewer users or a larger machine"),
    Doubt.LATE: Rule(
        True, "the client is busy, and so part of the latency; use fewer users or more cores", passes=True
    ),
    Doubt.IDENTITY: Rule(True, "requests were lost or users stood still; look into load.log", passes=True),
    Doubt.MISSED_ARRIVALS: Rule(True, "all users were waiting; raise --users or lower --rate"),
    Doubt.STALL: Rule(True, "something froze; look for what else the machine did, and run again", passes=True),
    Doubt.UNSTEADY: Rule(True, "warm up longer (--warmup), and keep the machine to itself", passes=True),
    Doubt.RESTART: Rule(
        True, "look into its log below proxies/ or in the services' logs, at a node by kubectl describe", passes=True
    ),
    Doubt.CLOCK: Rule(True, "the machine slept or was paused, or its clock was set; run again", passes=True),
    Doubt.DERIVED_STARTS: Rule(
        False, "let the client give start_time to Locust's request event, as its measure() does"
    ),
    Doubt.PROOF: Rule(True, "the trial did not measure what its name says; see proof.json"),
    Doubt.UNPROVEN: Rule(True, "nothing shows that the trial measured what its name says; run again", passes=True),
    Doubt.FEW_CPUS: Rule(False, "services, sidecars and load share them: not comparable with other machines"),
    Doubt.QUICK: Rule(False, "for trying out, not for results: run without --quick"),
    Doubt.UNFINISHED: Rule(False, "go on with --resume"),
    Doubt.INVALID_TRIAL: Rule(False, "it is listed and left out of every mean"),
    Doubt.MEASURED_AGAIN: Rule(False, "the first time is listed and left out of every mean"),
    Doubt.DAMAGED_TRIAL: Rule(False, "its numbers are missing from every mean"),
    Doubt.RESOLUTION: Rule(False, "no difference found is not the same as no difference"),
}


@dataclass(frozen=True, slots=True)
class Doubts:
    """What a trial's checks found; each text is `code: what was seen; what to do`."""

    reasons: tuple[str, ...]
    warnings: tuple[str, ...]


Found = Iterator[tuple[Doubt, str]]


def text(doubt: Doubt, seen: str) -> str:
    """The one form in which a doubt is told."""
    return f"{doubt}: {seen}; {RULES[doubt].advice}"


def may_pass(reasons: Iterable[str]) -> bool:
    """Whether what made a trial invalid may be gone when it is measured once more. One accident explains what stands
    beside it, such as the errors after a restart; a proof that failed would fail again."""
    codes = {Doubt(reason.partition(":")[0]) for reason in reasons}
    return Doubt.PROOF not in codes and any(RULES[code].passes for code in codes)


def check_trial(
    record: TrialRecord, samples: Samples, resources: ResourceTrace | None, proof: ProofRecord | None
) -> Doubts:
    """Finds all doubts about a trial, from what it left behind. `resources` None: they were not recorded."""
    counted = samples.counted(record.windows)
    found = [
        *_requests(counted),
        *_generator(record, samples),
        *_generator_cpu(record, resources),
        *_circumstances(record),
        *_proofs(proof, served=bool(counted.ok.any())),
    ]
    if counted.ok.any():
        found += [*_pace(record, samples, counted), *_unsteady(record, samples)]
    return Doubts(_told(found, invalidates=True), _told(found, invalidates=False))


def is_steady(samples: Samples, window: Window, *, rate: float | None = None) -> bool:
    """Whether P95 holds still over the window, as far as its requests can tell; `rate`: of an open loop."""
    found = window_steadiness(samples, window, rate=rate)
    return found is None or found.steady


def window_steadiness(samples: Samples, window: Window, *, rate: float | None) -> Steadiness | None:
    """First against last third of a window, over good requests; None where there are too few to tell."""
    counted = samples.counted([window])
    good = counted.ok
    return latency.steadiness(
        counted.started_ns[good], response_ns(counted, rate)[good], window.start_ns, window.end_ns
    )


def response_ns(samples: Samples, rate: float | None) -> Ns:
    """What a latency is: from the start in a closed loop, from the intended start in an open one."""
    return samples.latency_ns if rate is None else samples.completed_ns - samples.intended_ns


def _told(found: Iterable[tuple[Doubt, str]], *, invalidates: bool) -> tuple[str, ...]:
    return tuple(text(doubt, seen) for doubt, seen in found if RULES[doubt].invalidates is invalidates)


def _requests(counted: Samples) -> Found:
    count, good = len(counted), int(counted.ok.sum())
    if not count:
        yield Doubt.EMPTY, "no request started inside the window"
        return
    if (counted.latency_ns <= 0).any() or (counted.started_ns < 0).any():
        wrong = int(((counted.latency_ns <= 0) | (counted.started_ns < 0)).sum())
        yield Doubt.IMPOSSIBLE, f"{wrong} of {count} requests have a start or a latency below zero"
    if not good:
        yield Doubt.ALL_FAILED, f"all {count} requests failed ({_statuses(counted)})"
        return
    if (count - good) / count > MOST_ERRORS:
        share, allowed = format_percent((count - good) / count), format_percent(MOST_ERRORS)
        yield Doubt.ERRORS, f"{share} of {count} requests failed ({_statuses(counted)}), allowed is {allowed}"
    if good < SCARCE_REQUESTS:
        doubt = Doubt.FEW_REQUESTS if good < FEWEST_REQUESTS else Doubt.SCARCE_REQUESTS
        yield doubt, f"only {good} good requests in the window"


def _statuses(counted: Samples) -> str:
    """The statuses of the failed requests, most frequent first: `status 503: 12, status 200: 3`."""
    statuses, counts = np.unique(counted.status[~counted.ok], return_counts=True)
    ordered = sorted(zip(counts.tolist(), statuses.tolist(), strict=True), reverse=True)
    return ", ".join(f"status {status}: {count}" for count, status in ordered[:5])


def _generator(record: TrialRecord, samples: Samples) -> Found:
    generator = record.generator
    if generator is None:
        yield Doubt.GENERATOR_ENDED, "the load generator left no account of itself"
        return
    if generator.problem or generator.exit_code not in (*_LOCUST_FINE, None):
        yield Doubt.GENERATOR_ENDED, generator.problem or f"Locust ended with exit code {generator.exit_code}"
        return  # its counts, if it left any, are of another moment than the rows
    if generator.derived_starts:
        seen = f"{generator.derived_starts} of {generator.recorded} requests came without a valid start"
        yield Doubt.DERIVED_STARTS, f"{seen}; it was taken to be the end less the latency"
    if not generator.locust_requests == generator.recorded == len(samples):
        wrote = f"the recorder wrote {generator.recorded}, {len(samples)} are stored"
        yield Doubt.LOST_ROWS, f"Locust counted {generator.locust_requests} requests, {wrote}"


def _generator_cpu(record: TrialRecord, resources: ResourceTrace | None) -> Found:
    """Each of Locust's processes that send requests has one core, at most."""
    cores = generator_cores(resources, record.windows) if resources and record.windows else None
    if cores is not None and cores / record.workers >= MOST_GENERATOR_CPU:
        used, allowed = format_percent(cores / record.workers), format_percent(MOST_GENERATOR_CPU)
        each = f" in each of {record.workers} workers" if record.workers > 1 else ""
        yield Doubt.GENERATOR_CPU, f"Locust used {used} of a core{each}, allowed is {allowed}"


def _circumstances(record: TrialRecord) -> Found:
    for told in record.restarts:
        yield Doubt.RESTART, f"{told} during the trial"
    if record.clock is not None and record.clock.gap_s > MOST_CLOCK_GAP_S:
        gap, allowed = format_duration(record.clock.gap_s), format_duration(MOST_CLOCK_GAP_S)
        yield Doubt.CLOCK, f"wall clock and monotonic clock moved {gap} apart, allowed is {allowed}"
    if record.generator is not None and record.generator.clock_step_ms:
        step = format_ms(record.generator.clock_step_ms)
        yield (
            Doubt.CLOCK,
            f"the load generator's wall clock, which requests' starts are from, moved by {step} ms at once",
        )


def _proofs(proof: ProofRecord | None, *, served: bool) -> Found:
    """`served`: whether anybody got a page; if not, that proofs saw none either is no news."""
    if proof is None or not proof.before or not proof.after:
        when = "at all" if proof is None or not (proof.before or proof.after) else "on both sides of the load"
        yield Doubt.UNPROVEN, f"there is no evidence {when}"
    for evidence in proof.failures if proof else ():
        if is_of_pages(evidence) and not served:
            continue
        seen = f"expected {evidence.expected}, seen {evidence.seen}"
        yield Doubt.PROOF, f"{evidence.name} of {evidence.subject}: {seen}"


def _pace(record: TrialRecord, samples: Samples, counted: Samples) -> Found:
    """Whether the client kept up, and the system answered all the time."""
    yield from _stalls(record, samples, counted)
    yield from _missed_arrivals(record, samples) if record.rate is not None else _closed_loop(record, counted)


def _closed_loop(record: TrialRecord, counted: Samples) -> Found:
    lateness = counted.started_ns - counted.intended_ns
    late_ms = latency.percentile_ns(lateness, 0.95) / NS_PER_MS
    p95_ms = latency.percentile_ns(counted.latency_ns, 0.95) / NS_PER_MS
    allowed_ms = max(MOST_LATENESS_MS, MOST_LATENESS_SHARE * max(record.think_time_s * 1e3, p95_ms))
    if late_ms > allowed_ms:
        late, allowed = format_ms(late_ms), format_ms(allowed_ms)
        yield Doubt.LATE, f"one request in 20 started {late} ms late or more, allowed are {allowed} ms"
    gap = latency.identity_gap(
        users=record.users,
        requests=len(counted),
        window_s=sum(window.seconds for window in record.windows),
        think_s=record.think_time_s,
        response_s=float(counted.latency_ns.mean()) / NANOSECONDS,
        lateness_s=float(lateness.mean()) / NANOSECONDS,
    )
    # One request per user more or less, at the window's edges, proves nothing.
    if abs(gap) > MOST_IDENTITY_GAP + record.users / len(counted):
        share = format_percent(abs(gap))
        yield Doubt.IDENTITY, f"think time + latency + lateness and users / throughput are {share} apart"


def _missed_arrivals(record: TrialRecord, samples: Samples) -> Found:
    """In an open loop lateness is part of the latency; what must not happen is that arrivals go missing."""
    expected = (record.rate or 0) * sum(window.seconds for window in record.windows)
    arrived = sum(_arrivals(samples, window) for window in record.windows)
    if arrived < FEWEST_ARRIVALS * expected - 3 * expected**0.5:  # arrivals are random: 3 standard deviations
        yield Doubt.MISSED_ARRIVALS, f"{arrived} of {expected:.0f} planned requests were sent"


def _arrivals(samples: Samples, window: Window) -> int:
    return int(((samples.intended_ns >= window.start_ns) & (samples.intended_ns < window.end_ns)).sum())


def _stalls(record: TrialRecord, samples: Samples, counted: Samples) -> Found:
    stalled = stalls(samples, record.windows)
    busy_s = sum(window.seconds for window in record.windows) - stalled
    if stalled and len(counted) >= BUSY_RATE * busy_s:
        yield Doubt.STALL, f"in {stalled} s of the window no request was answered"


def stalls(samples: Samples, windows: Iterable[Window]) -> int:
    """Whole seconds of the windows in which no request ended."""
    ended_ns = samples.completed_ns
    return sum(latency.stall_seconds(ended_ns, window.start_ns, window.end_ns) for window in windows)


def _unsteady(record: TrialRecord, samples: Samples) -> Found:
    for window in record.windows:
        found = window_steadiness(samples, window, rate=record.rate)
        if found is not None and not found.steady:
            change, limit = format_change(found.ratio), format_change(1 + found.limit)
            yield Doubt.UNSTEADY, f"P95 of the last third is {change} off the first's, allowed is {limit}"
