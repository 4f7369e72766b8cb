"""Check trials: every issue that a trial or run can have, how it is detected, and what to do about it.

A reason makes a trial invalid: its numbers are shown and marked, but no mean includes them. A warning is shown
with the number.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from bench.analysis import percentiles as latency
from bench.analysis.noise import NoiseShares, measure_noise
from bench.analysis.percentiles import Ns, Steadiness
from bench.analysis.resource_usage import measure_generator_cores
from bench.results.issues import Issue, IssueCode, Severity
from bench.results.records import PaceRecord, ProofRecord, TrialRecord, Window
from bench.results.resources import ResourceTrace
from bench.results.samples import Samples
from bench.system.output import show_controls
from bench.units import NS_PER_MS, format_change, format_duration, format_ms, format_percent
from bench.verification.overlap import OVERLAP

MOST_ERRORS: Final = 0.01  # quick failures lower the percentiles of the rest
FEWEST_REQUESTS: Final = 20  # fewer, and no request lies beyond P95
SCARCE_REQUESTS: Final = 200  # fewer, and under ten lie beyond it
MOST_GENERATOR_CPU: Final = 0.80  # cores of one Locust process, which runs on one
MOST_LATENESS_MS: Final = 5.0  # or a share, whichever is more:
MOST_LATENESS_SHARE: Final = 0.10  # of the mean wait, and of P95
MOST_IDENTITY_GAP: Final = 0.02
MANY_NAMES: Final = 100
FEWEST_ARRIVALS: Final = 0.95
BUSY_RATE: Final = 10.0  # requests per second at which a second without one is not chance (e^-10)
MOST_CLOCK_GAP_S: Final = 2.0
FEWEST_CPUS: Final = 4
# Of all CPUs, or of the time, in the windows: `python -m tests.benchmarks noise` shows those of a quiet machine.
MOST_OTHER_CPU: Final = 0.10
MOST_STEAL: Final = 0.03
MOST_THROTTLED: Final = 0.02
MOST_DUET_CPU: Final = 0.75  # beyond it configurations wait for one another, and their ratio is pulled towards 1
_SEEN_IN_LATENCIES: Final = (IssueCode.UNSTEADY, IssueCode.STALL)
_CUT_SHORT: Final = (IssueCode.GENERATOR_ENDED, IssueCode.INTERRUPTED)
_LOCUST_EXIT_CODES: Final = (0, 1)  # 1 means that some request failed, which is counted here anyway


@dataclass(frozen=True, slots=True)
class Rule:
    """Whether an issue makes a trial invalid, what the user can do about it (empty where its detail is enough), and
    whether a rerun may be without it."""

    invalidates: bool
    advice: str = ""
    retryable: bool = False


RULES: Final[dict[IssueCode, Rule]] = {
    IssueCode.EMPTY: Rule(True, "read the load generator's messages in load.log"),
    IssueCode.ALL_FAILED: Rule(
        True, "read the evidence of the page and the policies in proof.json; then the services' logs"
    ),
    IssueCode.ERRORS: Rule(
        True, "failed requests are often faster than successful ones; find their cause before comparing"
    ),
    IssueCode.FEW_REQUESTS: Rule(True, "measure longer (--duration) or with more users"),
    IssueCode.SCARCE_REQUESTS: Rule(False, "fewer than ten lie beyond P95; measure longer (--duration)"),
    IssueCode.IMPOSSIBLE: Rule(True, "the clock or the samples file is damaged; run the trial again", retryable=True),
    IssueCode.LOST_ROWS: Rule(True, "the recorder lost requests; read load.log", retryable=True),
    IssueCode.GENERATOR_ENDED: Rule(True, "read load.log, and run again", retryable=True),
    IssueCode.GENERATOR_CPU: Rule(True, "the client is part of the latency; use fewer users or a larger machine"),
    IssueCode.LATE: Rule(
        True, "the client is busy, and so part of the latency; use fewer users or more cores", retryable=True
    ),
    IssueCode.IDENTITY: Rule(True, "users ended, or hang in a task; read load.log", retryable=True),
    IssueCode.MISSED_ARRIVALS: Rule(True, "all users were waiting; raise --users or lower --rate"),
    IssueCode.STALL: Rule(
        True, "a process was blocked; check what else the machine ran, and run again", retryable=True
    ),
    IssueCode.UNSTEADY: Rule(True, "warm up longer (--warmup), and run nothing else on the machine", retryable=True),
    IssueCode.RESTART: Rule(
        True,
        "read its log below proxies/ or in the services' logs; for a node, 'kubectl describe node'",
        retryable=True,
    ),
    IssueCode.CLOCK: Rule(True, "the machine was suspended or paused, or its clock was set; run again", retryable=True),
    IssueCode.DERIVED_STARTS: Rule(
        False, "the client should pass start_time to Locust's request event, as its measure() does"
    ),
    IssueCode.MANY_NAMES: Rule(
        False, "give requests that differ only in their URL a common name: self.client.get(url, name='/item')"
    ),
    IssueCode.OWN_WAITS: Rule(False),
    IssueCode.OFF_TARGET: Rule(
        True, "a load may only reach the entry of the application: name it by its Service, or request a path"
    ),
    IssueCode.USER_ERRORS: Rule(True, "tasks that raise an exception do not send what they should; read load.log"),
    IssueCode.PROOF: Rule(True, "the trial did not measure its configuration; see proof.json"),
    IssueCode.UNPROVEN: Rule(
        True, "there is no proof that the trial measured its configuration; run again", retryable=True
    ),
    IssueCode.ENDED_EARLY: Rule(False),
    IssueCode.UNREAD_STATE: Rule(False),
    IssueCode.API_OUTAGE: Rule(False),
    IssueCode.CLOCK_SKEW: Rule(False),
    IssueCode.NO_RESOURCES: Rule(False),
    IssueCode.NO_PROMETHEUS: Rule(False),
    IssueCode.INTERRUPTED: Rule(True, retryable=True),
    IssueCode.TIMEOUT: Rule(True, retryable=True),
    IssueCode.KILLED: Rule(True, retryable=True),
    IssueCode.FAILED: Rule(True, retryable=True),
    IssueCode.INTERNAL_ERROR: Rule(True, retryable=True),
    IssueCode.DESIGN: Rule(False),
    IssueCode.NO_EFFECT: Rule(False),
    IssueCode.UNPROBED: Rule(False, "add `probes` to the scenario"),
    IssueCode.LEFT_OUT: Rule(False),
    IssueCode.NOISE: Rule(False, "end what else runs on the machine, or measure more blocks", retryable=True),
    IssueCode.NO_OVERLAP: Rule(True, "the configurations did not share the noise of their block", retryable=True),
    IssueCode.CORRELATED: Rule(False, "the interval counts fewer blocks than there are"),
    IssueCode.OTHER_MACHINE: Rule(False, "machines differ more than nights do: one that stays has narrower limits"),
    IssueCode.IMAGE_CHANGED: Rule(False, "name the image by its digest (@sha256:...), and run again"),
    IssueCode.OTHER: Rule(False),
    IssueCode.NO_VALID_REPEAT: Rule(False),
    IssueCode.EXCLUDED_REPEATS: Rule(False),
    IssueCode.NO_PERCENTILE: Rule(False),
    IssueCode.NO_INTERVAL: Rule(False),
    IssueCode.BELOW_REFERENCE: Rule(False),
    IssueCode.MAYBE_ZERO: Rule(False),
    IssueCode.BUSY_CPUS: Rule(False),
    IssueCode.FEW_CPUS: Rule(False, "services, sidecars and load share them: not comparable with other machines"),
    IssueCode.QUICK: Rule(False, "for trying out, not for results: run without --quick"),
    IssueCode.UNFINISHED: Rule(False, "continue with --resume"),
    IssueCode.INVALID_TRIAL: Rule(False, "it is listed and excluded from every mean"),
    IssueCode.MEASURED_AGAIN: Rule(False, "the first measurement is listed and excluded from every mean"),
    IssueCode.DAMAGED_TRIAL: Rule(False, "its numbers are missing from every mean"),
    IssueCode.RESOLUTION: Rule(False, "a difference below the MDE may exist undetected"),
}


def make_issue(code: IssueCode, detail: str) -> Issue:
    """Return an issue, which is a reason where it invalidates a trial. Its text may be of others: it is shown as in a
    terminal, and can be written as UTF-8."""
    severity: Severity = "reason" if RULES[code].invalidates else "warning"
    return Issue(code=code, severity=severity, detail=show_controls(detail))


def judge_user_errors(errors: int, tasks: int, first: str) -> Issue:
    """Return the issue of tasks that raised an exception: few of them leave a trial valid."""
    found = make_issue(IssueCode.USER_ERRORS, f"{errors} of {tasks} tasks raised an exception, the first: {first}")
    return found if errors > MOST_ERRORS * tasks else found.model_copy(update={"severity": "warning"})


def format_issue(issue: Issue) -> str:
    """Format an issue for people: `code: detail; advice`. A detail that needs no advice stands alone."""
    advice = RULES[issue.code].advice
    return f"{issue.code}: {issue.detail}; {advice}" if advice else issue.detail


def format_issues(issues: Iterable[Issue]) -> str:
    """Format issues as one text."""
    return "; ".join(map(format_issue, issues))


def is_retryable(reasons: Iterable[Issue]) -> bool:
    """Return whether a rerun of an invalid trial may be valid. One retryable reason explains the others, such as the
    errors after a restart; a failed proof would fail again."""
    codes = {reason.code for reason in reasons}
    return IssueCode.PROOF not in codes and any(RULES[code].retryable for code in codes)


def has_noise(issues: Iterable[Issue]) -> bool:
    """Return whether something else took CPU time from a trial: its block is worth a rerun, whatever its latencies."""
    return any(issue.code == IssueCode.NOISE for issue in issues)


def check_trial(
    record: TrialRecord, samples: Samples, resources: ResourceTrace | None, proof: ProofRecord | None
) -> tuple[Issue, ...]:
    """Return the record's own issues, which its load and its end reported, and all that its data show. `resources`
    None: they were not recorded."""
    counted = samples.counted(record.windows)
    found = [
        *_check_requests(counted, record.pace),
        *_check_names(samples),
        *_check_generator(record, samples),
        *_check_generator_cpu(record, resources),
        *_check_noise(record, resources),
        *_check_clocks(record),
        *_check_proofs(proof, served=bool(counted.ok.any())),
    ]
    if counted.ok.any():
        found += [*_check_pace(record, samples, counted), *_check_steadiness(record, samples)]
    return (*record.issues, *(_judge_in_block(issue, record) for issue in found))


def _judge_in_block(issue: Issue, record: TrialRecord) -> Issue:
    """Return the issue as it counts in the trial's design: what is seen in latencies invalidates no trial whose block
    is compared as a whole, or blocks would be chosen by their result."""
    if record.is_paired and issue.code in _SEEN_IN_LATENCIES:
        return issue.model_copy(update={"severity": "warning"})
    return issue


def is_steady(samples: Samples, window: Window, *, rate: float | None = None) -> bool:
    """Return whether P95 is steady over the window, or has too few requests to decide; `rate`: of an open loop."""
    found = window_steadiness(samples, window, rate=rate)
    return found is None or found.steady


def window_steadiness(samples: Samples, window: Window, *, rate: float | None) -> Steadiness | None:
    """Compare first and last third of a window, over successful requests; None where they are too few."""
    counted = samples.counted([window])
    good = counted.ok
    return latency.measure_steadiness(
        counted.started_ns[good], compute_response_ns(counted, rate)[good], window.start_ns, window.end_ns
    )


def compute_response_ns(samples: Samples, rate: float | None) -> Ns:
    """Return the latencies: from the start in a closed loop, from the intended start in an open one."""
    return samples.latency_ns if rate is None else samples.completed_ns - samples.intended_ns


def _check_requests(counted: Samples, pace: PaceRecord | None) -> Iterator[Issue]:
    count, good = len(counted), int(counted.ok.sum())
    if not count:
        idle = f", though users began {pace.tasks} tasks: none of them fires Locust's request event" if pace else ""
        yield make_issue(IssueCode.EMPTY, f"no request started inside the window{idle}")
        return
    if (counted.latency_ns <= 0).any() or (counted.started_ns < 0).any():
        wrong = int(((counted.latency_ns <= 0) | (counted.started_ns < 0)).sum())
        yield make_issue(IssueCode.IMPOSSIBLE, f"{wrong} of {count} requests have a start or a latency below zero")
    if not good:
        yield make_issue(IssueCode.ALL_FAILED, f"all {count} requests failed ({_format_statuses(counted)})")
        return
    if (count - good) / count > MOST_ERRORS:
        share, allowed = format_percent((count - good) / count), format_percent(MOST_ERRORS)
        yield make_issue(
            IssueCode.ERRORS, f"{share} of {count} requests failed ({_format_statuses(counted)}), allowed is {allowed}"
        )
    if good < SCARCE_REQUESTS:
        code = IssueCode.FEW_REQUESTS if good < FEWEST_REQUESTS else IssueCode.SCARCE_REQUESTS
        yield make_issue(code, f"only {good} successful requests in the window")


def _check_names(samples: Samples) -> Iterator[Issue]:
    if len(samples.names) >= MANY_NAMES:
        yield make_issue(
            IssueCode.MANY_NAMES, f"requests have {len(samples.names)} names; tables show the most frequent"
        )


def _format_statuses(counted: Samples) -> str:
    """Format the statuses of the failed requests, most frequent first: `status 503: 12, status 200: 3`."""
    statuses, counts = np.unique(counted.status[~counted.ok], return_counts=True)
    ordered = sorted(zip(counts.tolist(), statuses.tolist(), strict=True), reverse=True)
    return ", ".join(f"status {status}: {count}" for count, status in ordered[:5])


def _check_generator(record: TrialRecord, samples: Samples) -> Iterator[Issue]:
    generator = record.generator
    if generator is None:
        yield make_issue(IssueCode.GENERATOR_ENDED, "the load generator wrote no statistics")
        return
    if any(issue.code in _CUT_SHORT for issue in record.issues):
        return  # its counts, if it wrote any, are from another moment than the rows
    if generator.exit_code not in (*_LOCUST_EXIT_CODES, None):
        yield make_issue(IssueCode.GENERATOR_ENDED, f"Locust ended with exit code {generator.exit_code}")
        return
    if generator.derived_starts:
        missing = f"{generator.derived_starts} of {generator.recorded} requests came without a valid start"
        yield make_issue(IssueCode.DERIVED_STARTS, f"{missing}; it was computed as the end less the latency")
    if not generator.locust_requests == generator.recorded == len(samples):
        wrote = f"the recorder wrote {generator.recorded}, {len(samples)} are stored"
        yield make_issue(IssueCode.LOST_ROWS, f"Locust counted {generator.locust_requests} requests, {wrote}")


def _check_generator_cpu(record: TrialRecord, resources: ResourceTrace | None) -> Iterator[Issue]:
    """Check the load generator's CPU. Each Locust process that sends requests uses one core at most."""
    cores = measure_generator_cores(resources, record.windows) if resources and record.windows else None
    if cores is not None and cores / record.workers >= MOST_GENERATOR_CPU:
        used, allowed = format_percent(cores / record.workers), format_percent(MOST_GENERATOR_CPU)
        each = f" in each of {record.workers} workers" if record.workers > 1 else ""
        yield make_issue(IssueCode.GENERATOR_CPU, f"Locust used {used} of a core{each}, allowed is {allowed}")


def _check_noise(record: TrialRecord, resources: ResourceTrace | None) -> Iterator[Issue]:
    """Check what took CPU time from the trial. Waiting for a CPU is not judged: the run's own processes wait for one
    another, too, and those of a mesh more than others."""
    noise = measure_noise(resources, record.windows) if resources else NoiseShares()
    for share, most, taken in (
        (noise.other_cpu, MOST_OTHER_CPU, "other processes used {} of the CPUs"),
        (noise.steal, MOST_STEAL, "the hypervisor gave {} of the CPUs to others"),
        (noise.throttled, MOST_THROTTLED, "a limit stopped processes in {} of the time"),
    ):
        if share is not None and share > most:
            detail = taken.format(format_percent(share))
            yield make_issue(IssueCode.NOISE, f"{detail}, allowed are {format_percent(most)}")


def _check_clocks(record: TrialRecord) -> Iterator[Issue]:
    if record.clock is not None and record.clock.gap_s > MOST_CLOCK_GAP_S:
        gap, allowed = format_duration(record.clock.gap_s), format_duration(MOST_CLOCK_GAP_S)
        yield make_issue(IssueCode.CLOCK, f"wall clock and monotonic clock diverged by {gap}, allowed is {allowed}")
    if record.generator is not None and record.generator.clock_step_ms:
        step = format_ms(record.generator.clock_step_ms)
        yield make_issue(
            IssueCode.CLOCK,
            f"the load generator's wall clock, which dates the starts of requests, stepped by {step} ms",
        )


def _check_proofs(proof: ProofRecord | None, *, served: bool) -> Iterator[Issue]:
    """Check the proofs. `served`: whether any user got a page; if not, failed proofs of pages add no information."""
    if proof is None or not proof.before or not proof.after:
        when = "at all" if proof is None or not (proof.before or proof.after) else "on both sides of the load"
        yield make_issue(IssueCode.UNPROVEN, f"there is no evidence {when}")
    for evidence in proof.failures if proof else ():
        if evidence.about == "responses" and not served:
            continue
        difference = f"expected {evidence.expected}, seen {evidence.seen}"
        if evidence.name == OVERLAP:
            yield make_issue(IssueCode.NO_OVERLAP, difference)
            continue
        yield make_issue(IssueCode.PROOF, f"{evidence.name} of {evidence.subject}: {difference}")


def _check_pace(record: TrialRecord, samples: Samples, counted: Samples) -> Iterator[Issue]:
    """Check that the client kept to its schedule, and that the system responded throughout the windows."""
    yield from _check_stalls(record, samples, counted)
    if record.pace is not None and record.rate is None:
        yield from _check_closed_loop(record, record.pace, counted)
    if record.rate is not None:
        yield from _check_arrivals(record, samples)


def _check_closed_loop(record: TrialRecord, pace: PaceRecord, counted: Samples) -> Iterator[Issue]:
    """Check that waits ended in time, and that each user was in a wait or in a task all the time."""
    p95_ms = latency.percentile_ns(counted.latency_ns, 0.95) / NS_PER_MS
    allowed_ms = max(MOST_LATENESS_MS, MOST_LATENESS_SHARE * max(pace.mean_wait_s * 1e3, p95_ms))
    if pace.late_p95_ms > allowed_ms:
        late, allowed = format_ms(pace.late_p95_ms), format_ms(allowed_ms)
        yield make_issue(IssueCode.LATE, f"one task in 20 started {late} ms late or more, allowed are {allowed} ms")
    users_s = record.users * sum(window.seconds for window in record.windows)
    gap = 1 - (pace.waiting_s + pace.working_s) / users_s
    # The last task or wait of each user may not have ended: one more or less is expected.
    if abs(gap) > MOST_IDENTITY_GAP + record.users / pace.tasks:
        share = format_percent(abs(gap))
        yield make_issue(IssueCode.IDENTITY, f"waits and tasks that ended differ from the users' time by {share}")


def _check_arrivals(record: TrialRecord, samples: Samples) -> Iterator[Issue]:
    """Check an open loop for missing arrivals; lateness is part of its latency."""
    expected = (record.rate or 0) * sum(window.seconds for window in record.windows)
    arrived = sum(_count_arrivals(samples, window) for window in record.windows)
    if record.pace is not None:  # a task may send several requests, of which the first has the arrival
        arrived = record.pace.tasks
    if arrived < FEWEST_ARRIVALS * expected - 3 * expected**0.5:  # arrivals are random: 3 standard deviations
        yield make_issue(IssueCode.MISSED_ARRIVALS, f"{arrived} of {expected:.0f} planned tasks were started")


def _count_arrivals(samples: Samples, window: Window) -> int:
    return int(((samples.intended_ns >= window.start_ns) & (samples.intended_ns < window.end_ns)).sum())


def _check_stalls(record: TrialRecord, samples: Samples, counted: Samples) -> Iterator[Issue]:
    stalled = count_stalls(samples, record.windows)
    busy_s = sum(window.seconds for window in record.windows) - stalled
    if stalled and len(counted) >= BUSY_RATE * busy_s:
        yield make_issue(IssueCode.STALL, f"in {stalled} s of the window no request ended")


def count_stalls(samples: Samples, windows: Iterable[Window]) -> int:
    """Count the whole seconds of the windows in which no request ended."""
    ended_ns = samples.completed_ns
    return sum(latency.count_stall_seconds(ended_ns, window.start_ns, window.end_ns) for window in windows)


def _check_steadiness(record: TrialRecord, samples: Samples) -> Iterator[Issue]:
    for window in record.windows:
        found = window_steadiness(samples, window, rate=record.rate)
        if found is not None and not found.steady:
            change, limit = format_change(found.ratio), format_change(1 + found.limit)
            yield make_issue(
                IssueCode.UNSTEADY, f"P95 of the last third differs from the first's by {change}, allowed is {limit}"
            )
