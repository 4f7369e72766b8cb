"""Issues: everything that makes a trial invalid, or is a warning."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.analysis.validity import RULES, check_trial, format_issue, has_noise, is_retryable, is_steady
from bench.results.issues import Issue, IssueCode, select_reasons, select_warnings
from bench.results.records import ClockRecord, Evidence, GeneratorRecord, PaceRecord, ProofRecord, TrialRecord, Window
from bench.results.resources import ResourceTrace
from bench.results.samples import Samples
from tests.factory import STARTED_AT, THINK_S, ConfigSpec, RunSpec, simulate
from tests.issues import issue

S = 1_000_000_000
MS = 1_000_000
WINDOW = Window(start_ns=30 * S, end_ns=150 * S)
FACT = Evidence(name="sidecars", subject="all services", ok=True, expected="5 sidecars", seen="5 sidecars")
PROOF = ProofRecord(trial="01-istio-1", before=(FACT,), after=(FACT,))
# 20 users in a window of two minutes
PACE = PaceRecord(tasks=15_000, waiting_s=1500.0, working_s=898.0, late_p95_ms=0.4)
CLEAN = simulate(ConfigSpec("istio"), 20, RunSpec(), rng=np.random.default_rng(1))


def record_of(samples: Samples, **changes: Any) -> TrialRecord:
    generator = GeneratorRecord(locust_requests=len(samples), locust_failures=0, recorded=len(samples), exit_code=0)
    record = TrialRecord(
        trial="01-istio-1",
        number=1,
        configuration="istio",
        block=1,
        status="complete",
        started_at=STARTED_AT,
        users=20,
        think_time_s=THINK_S,
        windows=(WINDOW,),
        generator=generator,
        clock=ClockRecord(monotonic_s=150.0, wall_s=150.0),
        pace=PACE,
    )
    return record.model_copy(update=changes)


def generator_use(cores: float) -> ResourceTrace:
    at_ns = np.arange(0, 150 * S, S // 2)
    return ResourceTrace(
        at_ns=at_ns,
        process=np.zeros(len(at_ns), np.int32),
        cpu_ns=(at_ns * cores).astype(np.int64),
        rss_bytes=np.full(len(at_ns), 2**20),
        processes=("locust",),
        roles=("generator",),
    )


def check(
    samples: Samples = CLEAN, *, proof: ProofRecord | None = PROOF, cores: float = 0.1, **changes: Any
) -> tuple[Issue, ...]:
    return check_trial(record_of(samples, **changes), samples, generator_use(cores), proof)


def codes(issues: tuple[Issue, ...]) -> set[str]:
    return {str(one.code) for one in select_reasons(issues)}


def part(samples: Samples, kept: Any) -> Samples:
    columns = ("intended_ns", "started_ns", "latency_ns", "status", "ok", "bytes", "name")
    return replace(samples, **{column: getattr(samples, column)[kept] for column in columns})


def failing(share: float) -> Samples:
    ok = np.random.default_rng(2).random(len(CLEAN)) >= share
    return replace(CLEAN, ok=ok, status=np.where(ok, 200, 503).astype(np.int16))


def test_valid_trial_has_no_issues() -> None:
    """A steady closed loop without failures passes every check."""
    assert check() == ()


def test_every_issue_has_a_rule() -> None:
    """One table says whether an issue makes a trial invalid, and what to do about it."""
    assert set(RULES) == set(IssueCode)


def test_every_issue_is_documented() -> None:
    """The page on statistics names every code that a report can show."""
    page = (Path(__file__).parents[2] / "docs" / "statistics.md").read_text("utf-8")
    assert [code for code in IssueCode if f"`{code}`" not in page] == []


def test_permanent_reasons_are_documented() -> None:
    """The page on statistics names each permanent reason."""
    page = (Path(__file__).parents[2] / "docs" / "statistics.md").read_text("utf-8")
    (codes_on_page,) = re.findall(r"permanent reasons: ([^|.]+)\.", page)
    lasting = {code for code, rule in RULES.items() if rule.invalidates and not rule.retryable}
    assert {*re.findall("`([a-z-]+)`", codes_on_page)} == lasting


def test_formats_issue_with_code_detail_and_advice() -> None:
    """The text of an issue has its code, what was seen, and the next step; a detail without advice stands alone."""
    restart = issue("restart", "reviews-sidecar ended during the trial")
    assert format_issue(restart) == f"restart: {restart.detail}; {RULES[IssueCode.RESTART].advice}"
    assert format_issue(issue("api-outage", "the API server was away")) == "the API server was away"


def test_keeps_what_the_load_and_its_end_reported() -> None:
    """A trial has the issues that it was stored with, and then those of its data."""
    restart, outage = issue("restart"), issue("api-outage")
    assert check(issues=(restart, outage)) == (restart, outage)
    assert (restart.severity, outage.severity) == ("reason", "warning")
    assert is_retryable([restart])


def test_two_percent_errors_invalidate() -> None:
    """More than 1 % of failures make a trial invalid, with their statuses, whatever its P95; fewer do not."""
    (reason,) = check(failing(0.02))
    assert reason.code == "errors"
    assert "status 503" in reason.detail
    assert check(failing(0.002)) == ()


def test_reports_total_failure_once() -> None:
    """A policy that is too strict is one reason, not ten."""
    assert codes(check(failing(1.0))) == {"all-failed"}


def test_empty_window_is_invalid() -> None:
    """An empty window, or no window, makes a trial invalid and raises nothing."""
    nothing = part(CLEAN, slice(0))
    assert codes(check(nothing)) == {"empty"}
    assert codes(check(windows=())) == {"empty"}


def test_tasks_without_requests_are_named() -> None:
    """A file whose tasks fire no request event is another case than one whose users do nothing."""
    (reason,) = check(part(CLEAN, slice(0)), pace=paced(tasks=240))
    assert "users began 240 tasks: none of them fires Locust's request event" in reason.detail
    (reason,) = check(part(CLEAN, slice(0)), pace=None)
    assert reason.detail == "no request started inside the window"


def test_few_requests_warn_then_invalidate() -> None:
    """Under 200 successful requests are a warning; under 20 there is no P95."""
    window = Window(start_ns=30 * S, end_ns=30 * S + 900 * MS)
    assert {str(one.code) for one in select_warnings(check(windows=(window,)))} == {"scarce-requests"}
    window = Window(start_ns=30 * S, end_ns=30 * S + 80 * MS)
    assert "few-requests" in codes(check(windows=(window,)))


@pytest.mark.parametrize("wrong", [-5, 0])
def test_reports_impossible_latencies(wrong: int) -> None:
    """Latencies that no clock can have measured make the trial invalid."""
    latency_ns = CLEAN.latency_ns.copy()
    latency_ns[len(latency_ns) // 2] = wrong
    assert codes(check(replace(CLEAN, latency_ns=latency_ns))) == {"impossible-samples"}


def test_reports_lost_rows() -> None:
    """There must be as many rows as Locust counted, and as many as the recorder wrote."""
    for counts in ((len(CLEAN) + 1, len(CLEAN)), (len(CLEAN), len(CLEAN) - 1), (len(CLEAN) - 1,) * 2):
        locust, recorded = counts
        account = GeneratorRecord(locust_requests=locust, locust_failures=0, recorded=recorded, exit_code=0)
        assert codes(check(generator=account)) == {"lost-rows"}


def test_reports_missing_page_once() -> None:
    """Where all requests failed, failed proofs of responses to users are the same fact; any other one is reported,
    and so is a page that failed only after the load."""
    page = FACT.model_copy(update={"about": "responses", "ok": False})
    proof = PROOF.model_copy(update={"before": (FACT, page)})
    assert codes(check(failing(1.0), proof=proof)) == {"all-failed"}
    assert codes(check(proof=proof)) == {"proof"}
    policy = FACT.model_copy(update={"ok": False})
    both = proof.model_copy(update={"after": (policy,)})
    assert codes(check(failing(1.0), proof=both)) == {"all-failed", "proof"}


def test_total_failure_is_permanent() -> None:
    """Policies that refuse every request would refuse them in a rerun, too."""
    assert not is_retryable(check(failing(1.0)))


def test_reports_generator_that_died() -> None:
    """A generator that ended early, crashed or left no account makes the trial invalid; exit code 1 does not."""
    rows = len(CLEAN)

    def reasons(**account: Any) -> set[str]:
        account = {"exit_code": 0} | account
        generator = GeneratorRecord(locust_requests=rows, locust_failures=0, recorded=rows, **account)
        return codes(check(generator=generator))

    assert reasons(exit_code=-9) == {"generator-ended"}
    assert reasons(exit_code=1) == reasons(exit_code=None) == set()
    assert codes(check(generator=None)) == {"generator-ended"}


def test_reports_busy_generator() -> None:
    """Locust at 80 % of its core measures itself; at 60 % it does not."""
    assert codes(check(cores=0.85)) == {"generator-cpu"}
    assert check(cores=0.6) == ()


def test_judges_cpu_per_worker() -> None:
    """Four workers at 60 % of a core each are fine; at 85 % each they measure themselves."""
    assert check(cores=2.4, workers=4) == ()
    (reason,) = check(cores=3.4, workers=4)
    assert reason == issue("generator-cpu", "Locust used 85 % of a core in each of 4 workers, allowed is 80 %")


def late(samples: Samples, milliseconds: float, share: float) -> Samples:
    """Some starts are late, as those of a busy client are; the latencies are as they were."""
    hit = np.random.default_rng(3).random(len(samples)) < share
    return replace(samples, intended_ns=samples.started_ns - np.where(hit, round(milliseconds * MS), 0))


def paced(**changes: Any) -> PaceRecord:
    return PACE.model_copy(update=changes)


def test_reports_late_requests() -> None:
    """A client whose waits end 20 ms late is too busy; one that is 4 ms late is not. What a task does before its first
    request is the locustfile's own."""
    assert codes(check(pace=paced(late_p95_ms=20.0))) == {"late-requests"}
    assert check(pace=paced(late_p95_ms=4.0)) == ()
    assert check(late(CLEAN, 20, 0.1)) == ()


def test_lateness_is_judged_by_the_waits_that_happened() -> None:
    """A tenth of the mean wait may be late, whatever the scenario's think time is."""
    waits_s = {"tasks": 2_000, "waiting_s": 2_000.0, "working_s": 400.0}
    assert check(pace=paced(late_p95_ms=90.0, **waits_s)) == ()
    assert codes(check(pace=paced(late_p95_ms=110.0, **waits_s))) == {"late-requests"}


def test_open_loop_lateness_is_latency() -> None:
    """In an open loop a late start is part of the latency, so it is no reason."""
    window_rate = len(CLEAN.started_in(WINDOW.start_ns, WINDOW.end_ns)) / 120
    assert check(late(CLEAN, 20, 0.1), rate=window_rate, pace=None) == ()


def test_reports_missed_arrivals() -> None:
    """An open loop that sent 80 % of its planned requests did not measure its rate."""
    sent = len(CLEAN.started_in(WINDOW.start_ns, WINDOW.end_ns)) / 120
    assert codes(check(rate=sent / 0.8, pace=None)) == {"missed-arrivals"}


def test_arrivals_are_tasks() -> None:
    """A task with several requests is one arrival: requests do not hide tasks that were not started."""
    assert codes(check(rate=PACE.tasks / 120)) == set()
    assert codes(check(rate=PACE.tasks / 120 / 0.9)) == {"missed-arrivals"}


def test_idle_users_break_the_closed_loop() -> None:
    """Each user is in a wait or in a task all the time: one of 20 that ended, or hangs, is detected."""
    (reason,) = check(pace=paced(waiting_s=1425.0, working_s=853.0))
    assert reason == issue("closed-loop", "waits and tasks that ended differ from the users' time by 5.1 %")
    assert codes(check(pace=paced(waiting_s=1600.0))) == {"closed-loop"}


def test_last_task_of_each_user_may_be_missing() -> None:
    """Users with long tasks may have one that did not end within the load."""
    slow = {"tasks": 200, "working_s": 1000.0}
    assert check(pace=paced(waiting_s=1200.0, **slow)) == ()
    assert codes(check(pace=paced(waiting_s=1000.0, **slow))) == {"closed-loop"}


def test_load_without_tasks_has_no_pace() -> None:
    """Users without waits between tasks, such as those of pytest, are not judged by theirs."""
    assert check(pace=None) == ()


def test_reports_stall() -> None:
    """Seconds without a response make a trial invalid, whatever its P95."""
    ended = CLEAN.completed_ns
    stalled = part(CLEAN, (ended < 60 * S) | (ended > 63 * S))
    assert issue("stall", "in 3 s of the window no request ended") in check(stalled)


def test_low_rates_have_no_stalls() -> None:
    """A load of some requests per second has seconds without one by chance."""
    quiet = part(CLEAN, slice(None, None, 60))
    assert "stall" not in codes(check(quiet))


def test_reports_unsteady_window() -> None:
    """A system that still warms up inside the window makes the trial invalid, and `is_steady` reports it."""
    factor = 1 + 3 * np.exp(-np.maximum(CLEAN.started_ns - 30 * S, 0) / (20 * S))
    warming = replace(CLEAN, latency_ns=(CLEAN.latency_ns * factor).astype(np.int64))
    assert "unsteady" in codes(check(warming))
    assert not is_steady(warming, WINDOW)
    assert is_steady(CLEAN, WINDOW)


def test_growing_queue_is_unsteady_in_an_open_loop() -> None:
    """With arrivals faster than responses only the latency from the intended start grows."""
    waited = ((CLEAN.started_ns - 30 * S).clip(0) * 0.01).astype(np.int64)
    growing = replace(CLEAN, intended_ns=CLEAN.started_ns - waited)
    assert not is_steady(growing, WINDOW, rate=150.0)
    assert is_steady(growing, WINDOW)


def test_reports_machine_sleep() -> None:
    """Wall clock and monotonic clock more than 2 s apart make the trial invalid."""
    assert codes(check(clock=ClockRecord(monotonic_s=150.0, wall_s=153.0))) == {"clock"}
    assert check(clock=ClockRecord(monotonic_s=150.0, wall_s=151.0)) == ()


def generator(**own: Any) -> GeneratorRecord:
    account = {"locust_requests": len(CLEAN), "locust_failures": 0, "recorded": len(CLEAN), "exit_code": 0}
    return GeneratorRecord(**{**account, **own})


def test_reports_clock_step_of_generator() -> None:
    """A wall clock of the load generator that was set makes the trial invalid and is retryable."""
    (reason,) = check(generator=generator(clock_step_ms=12.5))
    assert reason.code == "clock"
    assert "12.5 ms" in reason.detail
    assert is_retryable([reason])
    assert check(generator=generator(clock_step_ms=0.0)) == ()


def test_reports_clock_step_with_early_end() -> None:
    """A generator that ended early does not hide that its clock was set."""
    stepped, ended = generator(clock_step_ms=3600e3, recorded=5), issue("generator-ended", "the disk is full")
    assert codes(check(generator=stepped, issues=(ended,))) == {"generator-ended", "clock"}


def test_derived_starts_are_a_warning() -> None:
    """Requests whose client gives no start are counted in a warning, which does not make the trial invalid."""
    (warning,) = check(generator=generator(derived_starts=37))
    assert (warning.code, warning.severity) == ("derived-starts", "warning")
    assert warning.detail.startswith(f"37 of {len(CLEAN)} requests came without a valid start")


def test_many_names_are_a_warning() -> None:
    """Requests with an id in each URL are measured, and the issue says how to give them one name."""
    names = tuple(f"/item/{number}" for number in range(100))
    assert check(replace(CLEAN, names=names[:99])) == ()
    (warning,) = select_warnings(check(replace(CLEAN, names=names)))
    assert warning.code == "many-names"
    assert "100 names" in warning.detail
    assert "name='/item'" in format_issue(warning)


def test_older_record_has_no_clock_issues() -> None:
    """Stored runs lack the newer fields of the generator's account: no step, and no derived start."""
    account = {"locust_requests": 5, "locust_failures": 0, "recorded": 5, "exit_code": 0}
    found = GeneratorRecord.model_validate(account)
    assert (found.derived_starts, found.clock_step_ms) == (0, 0.0)


def test_reports_failed_proof() -> None:
    """A proof that fails after the load makes the trial invalid, with the expected and the actual answer."""
    failed = Evidence(name="denied request", subject="ratings", ok=False, expected="403", seen="200")
    (reason,) = check(proof=ProofRecord(trial="01-istio-1", before=(FACT,), after=(failed,)))
    assert "denied request of ratings: expected 403, seen 200" in reason.detail


def test_requires_both_proofs() -> None:
    """A trial without a proof before and after its load is invalid."""
    for proof in (None, PROOF.model_copy(update={"after": ()}), PROOF.model_copy(update={"before": ()})):
        assert codes(check(proof=proof)) == {"unproven"}


def test_checks_trial_without_resources() -> None:
    """A target that cannot measure its processes is checked without them."""
    assert check_trial(record_of(CLEAN), CLEAN, None, PROOF) == ()


def test_checks_all_windows_together() -> None:
    """A trial with two windows is checked over both."""
    halves = (Window(start_ns=30 * S, end_ns=80 * S), Window(start_ns=90 * S, end_ns=150 * S))
    both = paced(waiting_s=1375.0, working_s=823.0)
    assert check(windows=halves, pace=both) == ()


@pytest.mark.parametrize(
    ("counter", "share", "detail"),
    [
        ("others", 0.34, "other processes used 34 % of the CPUs, allowed are 10 %"),
        ("others", 0.09, ""),
        ("steal", 0.05, "the hypervisor gave 5.0 % of the CPUs to others, allowed are 3.0 %"),
        ("throttled", 0.5, "a limit stopped processes in 100 % of the time, allowed are 2.0 %"),
        ("pressure", 0.5, ""),
    ],
)
def test_names_noise(counter: str, share: float, detail: str) -> None:
    """A warning that is worth a rerun of the block; waiting for a CPU is what the run's own processes do, too."""
    at_ns = np.arange(0, 150 * S, S // 2)
    capacity = 2 * at_ns
    used = (capacity * share).astype(np.int64)
    trace = ResourceTrace(
        at_ns=np.concatenate([at_ns, at_ns]),
        process=np.repeat(np.arange(2, dtype=np.int32), len(at_ns)),
        cpu_ns=np.concatenate([capacity, used]),
        rss_bytes=np.zeros(2 * len(at_ns), np.int64),
        processes=("capacity", counter),
        roles=("noise", "noise"),
    )
    issues = check_trial(record_of(CLEAN), CLEAN, trace, PROOF)
    assert [one.detail for one in issues if one.code == IssueCode.NOISE] == ([detail] if detail else [])
    assert has_noise(issues) == bool(detail)
    assert not select_reasons(issues)
