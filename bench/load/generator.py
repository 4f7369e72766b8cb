"""The load on one deployment, on any target: what is generated, its failures, and the samples at the end."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bench.analysis import percentiles as latency
from bench.analysis import validity as checks
from bench.analysis.pace import is_think_time, measure_pace
from bench.analysis.trial_summary import THINK_TIME
from bench.application.definition import ApplicationDefinition
from bench.errors import StoreError
from bench.files.locust_folder import LocustFolder
from bench.load.raw_samples import (
    list_raw_files,
    read_recent_rows,
    read_valid_account,
    read_valid_samples,
    read_valid_tasks,
)
from bench.load.recorded import Account
from bench.meshes.user_groups import UserGroup
from bench.results.issues import Issue, IssueCode, select_reasons
from bench.results.records import ClockRecord, GeneratorRecord, PaceRecord, Window
from bench.results.resources import ResourceTrace, Row, write_resources
from bench.results.samples import RAW_ROW, TASK_ROW, Samples, write_parquet
from bench.scenario.load_settings import EnvironmentValue, OptionValues
from bench.scenario.model import Load, Scenario
from bench.scenario.plan import estimate_load_seconds, make_plan
from bench.units import NANOSECONDS, NS_PER_MS, format_duration, format_ms

START_TIMEOUT_S = 60.0
IN_FLIGHT_TIMEOUT_S = 10  # how long requests that have started may take to end, once the load is over
SHORT_TIMEOUT_S = 1.0  # the same, when the run itself has to end: samples are on disk within 2 s
_ALL_FAILED_S = 10.0  # the load ends early when all requests of so many seconds failed
_LIVE_S = 5.0
_IN_WINDOW = "window"
_MOST_PER_S = 2000  # more than one Locust process can send
_NAMES_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSpec:
    """The load to generate. `address` is host:port, where connections to `virtual_host` and the other `names` of the
    entry are led; Locust's host is `virtual_host`. `ready` is what a valid answer is, as JSON, and `login` the name of
    logins. `helpers` are the files that travel with the locustfile, as paths relative to its folder, with `modes` other
    than their own; `options`, `env` and tags are the scenario's for it. `logged_in` are users that half of the load
    logs in as, each with the `versions` that its pages must show. `check` is the module by which the locustfile checks
    them, if it has one. A `held` load starts with users that wait for their release. `block_s` is how long the loads of
    a whole block take, where several share it. `think_time_chosen` is whether the scenario names the think time of this
    load: a locustfile without the option has waits of its own."""

    address: str
    virtual_host: str
    locustfile: Path
    helpers: tuple[str, ...] = ()
    modes: Mapping[str, int] = field(default_factory=dict, hash=False)
    options: Mapping[str, OptionValues] = field(default_factory=dict, hash=False)
    env: Mapping[str, EnvironmentValue] = field(default_factory=dict, hash=False)
    tags: tuple[str, ...] = ()
    exclude_tags: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict, hash=False)
    users: int
    think_time_s: float
    rate_per_s: float | None
    warmup_s: float
    duration_s: float
    seed: int
    workers: int = 1
    check: str = ""
    logged_in: Mapping[str, Mapping[str, str]] = field(default_factory=dict, hash=False)
    held: bool = False
    block_s: float = 0.0
    think_time_chosen: bool = False
    names: tuple[str, ...] = ()
    ready: str = ""
    login: str = ""

    @property
    def most_bytes(self) -> int:
        """Return more bytes than its recorder can write: five times the rows of busy workers, and the names."""
        rows = 5 * self.bound_s * _MOST_PER_S * self.workers
        return round(rows) * (RAW_ROW.itemsize + TASK_ROW.itemsize) + _NAMES_BYTES * self.workers

    @property
    def bound_s(self) -> float:
        """Return Locust's run time limit: a warm-up and a window that is measured a second time, or a whole block."""
        return max(self.warmup_s + 2 * self.duration_s, 2 * self.block_s) + START_TIMEOUT_S

    @property
    def secrets(self) -> tuple[str, ...]:
        """The names of the variables whose values are recorded nowhere."""
        return tuple(name for name, one in self.env.items() if one.is_secret)

    @property
    def locust(self) -> LocustFolder:
        """The Locust file with what travels with it."""
        return LocustFolder(self.locustfile, self.helpers, modes=self.modes)

    def argv(self, python: str, *, locustfile: str, recorder: str, folder: str) -> list[str]:
        """Return Locust's command line, with the paths of the files where it runs. The run time is a limit for the case
        that meshbench does not end it."""
        options = {
            "--locustfile": f"{recorder},{locustfile}",
            "--host": f"http://{self.virtual_host}",
            "--users": self.users,
            "--spawn-rate": self.users,
            "--meshbench-arrival-rate": self.rate_per_s or 0,
            "--meshbench-seed": self.seed,
            "--meshbench-record-to": folder,
            "--meshbench-lead": f"{self.address}={','.join((self.virtual_host, *self.names))}",
            **({"--meshbench-ready": self.ready} if self.ready else {}),
            "--run-time": f"{self.bound_s:.0f}s",
            "--stop-timeout": IN_FLIGHT_TIMEOUT_S,
            "--exit-code-on-error": 0,  # failed requests are a result, not a crash
            "--loglevel": "WARNING",
            **({"--processes": self.workers} if self.workers > 1 else {}),
        }
        pairs = [str(part) for option in options.items() for part in option]
        offers = [part for name, value in self._offers().items() for part in ("--meshbench-offer", f"{name}={value}")]
        words = [*pairs, *offers, *self._own_words()]
        return [python, "-P", "-m", "locust", "--headless", "--only-summary", *words]

    def _offers(self) -> dict[str, str]:
        """Return values by the name of the option; each is for locustfiles that have it."""
        users = {user: dict(versions) for user, versions in self.logged_in.items()}
        return {
            THINK_TIME: str(self.think_time_s),
            "virtual-host": self.virtual_host,
            **({"versions": json.dumps(dict(self.versions))} if self.versions else {}),
            **({"logged-in": json.dumps(users)} if users else {}),
        }

    def _own_words(self) -> Iterator[str]:
        """Yield the words of the command line that a scenario gives to its Locust file."""
        for name, tags in (("--tags", self.tags), ("--exclude-tags", self.exclude_tags)):
            if tags:
                yield name
                yield from tags
        for option, value in self.options.items():
            yield f"--{option}" if value is True else f"--{option}={value}"


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a trial, for the display: `p95_ms` and `rps` over the last seconds, `sent_per_s` with failed
    requests."""

    phase: str
    elapsed_s: float
    total_s: float
    p95_ms: float | None
    rps: float
    errors: int
    sent_per_s: float = 0.0
    in_window: bool = False


@dataclass(frozen=True, slots=True)
class LoadOutcome:
    """The result of a load: its windows, its samples, and the generator's own statistics. `zero_ns` is meshbench's
    monotonic clock at the zero of the samples' clock. `is_mixed` is whether other requests than for the application's
    page, and logins, were sent."""

    windows: tuple[Window, ...]
    warmup_extended: bool
    samples: Samples
    generator: GeneratorRecord
    clock: ClockRecord
    resources: ResourceTrace | None = None
    zero_ns: int = 0
    pace: PaceRecord | None = None
    is_mixed: bool = False
    issues: tuple[Issue, ...] = ()

    @property
    def countable(self) -> Samples | None:
        """Return the samples of a load that can be compared with the proxies' counters: it is complete, and some
        request succeeded."""
        return None if select_reasons(self.issues) or not self.samples.ok.any() else self.samples


@dataclass(frozen=True, slots=True)
class CpuUse:
    """CPU time since the start of a unit: of the run's processes, and of all CPUs, whether used or not."""

    own_ns: int
    capacity_ns: int


class Generator(Protocol):
    """A Locust on any target. Its records appear in the trial's folder, as the recorder writes them."""

    def wait_for_start(self) -> float:
        """Wait for the first user, or for the users that are held. Return the wall clock's time at the zero of the
        samples' clock, in seconds. Raises DeployError with Locust's log when it does not start."""

    def now_ns(self) -> int:
        """Return the samples' clock: nanoseconds since the load's start."""

    def zero_ns(self) -> int:
        """Return meshbench's monotonic clock at the zero of the samples' clock: it is common to all generators."""

    def tick(self) -> None:
        """Fetch the records since the last tick, and read the resources in use."""

    def trouble(self) -> str:
        """Return why Locust has ended by itself; empty while it runs."""

    def broken(self) -> bool:
        """Return whether a process or container under test has ended; its target reports which."""

    def read_cpu(self) -> CpuUse | None:
        """Return the CPU time of the run at the last tick, of all configurations of the unit; None where it is not
        known that soon."""

    def hold(self) -> None:
        """Make every user wait at its next wait; only where the load was started with users that are held."""

    def release(self) -> None:
        """Let the users go on, each as long after the others as before the hold."""

    def is_held(self) -> bool:
        """Return whether all users wait, so that no request is in flight."""

    def begin_stop(self) -> None:
        """Ask Locust to end, without waiting, where that is possible: several then end at the same time."""

    def stop(self, *, timeout_s: float) -> int | None:
        """End Locust, so that all records are in the folder. Returns its exit code, None where it is unknown."""

    def resources(self) -> Sequence[Row]:
        """Return CPU and memory of all processes, as rows of `resources.parquet`."""

    def issues(self) -> tuple[Issue, ...]:
        """Return the warnings about this load."""


@dataclass
class RunningLoad:
    """A generator that was started; `bench.load.schedule` drives it, `finish` ends it and saves its samples.

    `wall_s` is the wall clock's time at the zero of the samples' clock. `windows` is the planned window until the
    schedule sets others; there are `rounds` in the end. `active_since_ns` is when its users began, or went on after
    they were held; `is_waiting` is whether they are held now. `ended_with` is why the load of another configuration
    ended, and this one with it.
    """

    generator: Generator
    spec: LoadSpec
    folder: Path
    wall_s: float = 0.0
    windows: tuple[Window, ...] = ()
    rounds: int = 1
    active_since_ns: int = 0
    is_waiting: bool = False
    warmup_extended: bool = False
    interruption: str = ""
    ended_early: str = ""
    ended_with: str = ""
    broken: bool = False
    hopeless: str = ""
    is_ending: bool = False

    def __post_init__(self) -> None:
        start_ns = round(self.spec.warmup_s * NANOSECONDS)
        self.windows = self.windows or (Window(start_ns=start_ns, end_ns=start_ns + self.window_ns),)

    @property
    def window_ns(self) -> int:
        """Return the length of the window, in all of its parts."""
        return round(self.spec.duration_s * NANOSECONDS)

    def wait_for_start(self) -> None:
        """Wait until the load has begun. Raises DeployError with Locust's log when it does not start."""
        self.wall_s = self.generator.wait_for_start()

    @property
    def over(self) -> bool:
        """Return whether more load would give no more information."""
        return self.broken or bool(self.ended_early or self.hopeless or self.ended_with)

    def look(self) -> Progress:
        """Fetch records and resources, find out whether the load is over, and return the progress."""
        self.generator.tick()
        recent = self._read_recent(max(_LIVE_S, _ALL_FAILED_S))
        progress = self._progress(self._since(recent, _LIVE_S))
        hopeless = self._find_hopeless(self._since(recent, _ALL_FAILED_S))
        self.ended_early, self.hopeless = self.generator.trouble(), hopeless
        self.broken = self.generator.broken()
        return progress

    def begin_stop(self) -> None:
        """Ask the generator to end: no later request counts."""
        if not self.is_ending:
            self.is_ending = True
            self._cut_windows()
            self.generator.begin_stop()

    def save(self, error: BaseException) -> "LoadOutcome":
        """End the generator with a short deadline because of an error, and save the samples so far."""
        self.interruption = str(error)
        return self.finish(timeout_s=SHORT_TIMEOUT_S)

    def _cut_windows(self) -> None:
        """End interrupted windows where the load ended. A first window that had not begun stays as planned, unless all
        requests failed: then the time until now is the window."""
        now_ns, first = self.generator.now_ns(), self.windows[0]
        if self.hopeless and now_ns <= first.start_ns:
            self.windows = (Window(start_ns=0, end_ns=now_ns),)
            return
        begun = [window for window in self.windows if window.start_ns < now_ns]
        cut = (Window(start_ns=one.start_ns, end_ns=min(one.end_ns, now_ns)) for one in begun)
        self.windows = tuple(cut) or (first,)

    def _find_hopeless(self, recent: Any) -> str:
        """Return why the load is ended early: all recent requests failed. Empty while some succeed."""
        if self.is_waiting:
            return ""
        long_enough = self.generator.now_ns() - self.active_since_ns > (_ALL_FAILED_S + 1) * NANOSECONDS
        if long_enough and len(recent) and not recent["ok"].any():
            return f"all {len(recent)} requests of {_ALL_FAILED_S:.0f} seconds failed; the load was ended early"
        return ""

    def _progress(self, recent: Any) -> Progress:
        now_ns = self.generator.now_ns()
        good = recent["latency_ns"][recent["ok"] > 0]
        span_s = min(_LIVE_S, max(now_ns / NANOSECONDS, 0.5))
        phase = self._describe_phase(now_ns)
        return Progress(
            phase=phase,
            elapsed_s=now_ns / NANOSECONDS,
            total_s=self.windows[-1].end_ns / NANOSECONDS,
            p95_ms=latency.percentile_ns(good, 0.95) / NS_PER_MS if len(good) else None,
            rps=len(good) / span_s,
            errors=int((recent["ok"] == 0).sum()),
            sent_per_s=len(recent) / span_s,
            in_window=phase.startswith(_IN_WINDOW),
        )

    def _describe_phase(self, now_ns: int) -> str:
        if self.is_waiting:
            return "waits"
        if now_ns < self.windows[-1].start_ns:
            return "warm-up"
        return _IN_WINDOW if self.rounds == 1 else f"{_IN_WINDOW} {len(self.windows)} of {self.rounds}"

    def _read_recent(self, seconds: float) -> Any:
        """Read the rows of the last seconds, and perhaps earlier ones, from the ends of the files."""
        return read_recent_rows(self.folder, most=round(seconds * _MOST_PER_S))

    def _since(self, rows: Any, seconds: float) -> Any:
        """Return the rows of requests that ended in the last seconds."""
        since_ns = self.generator.now_ns() - seconds * NANOSECONDS
        return rows[rows["started_ns"] + rows["latency_ns"] >= since_ns]

    def samples(self) -> Samples:
        """Return the valid samples so far."""
        return read_valid_samples(self.folder)[0]

    def finish(self, *, timeout_s: float = IN_FLIGHT_TIMEOUT_S + 5) -> LoadOutcome:
        """End the generator, and write the trial's files from its records. Raises StoreError where these are invalid;
        with a short deadline the valid ones are kept."""
        elapsed_s, wall_s = self.generator.now_ns() / NANOSECONDS, time.time() - self.wall_s
        self.begin_stop()  # where several loads end, it was asked before
        exit_code = self.generator.stop(timeout_s=timeout_s)
        samples, invalid = read_valid_samples(self.folder)
        tasks, invalid_tasks = read_valid_tasks(self.folder)
        own, invalid_account = read_valid_account(self.folder)
        if timeout_s > SHORT_TIMEOUT_S and (invalid or invalid_tasks or invalid_account):
            raise StoreError(f"Locust's records are invalid: {invalid or invalid_tasks or invalid_account}")
        write_parquet(samples, self.folder / "samples.parquet")
        resources = write_resources(self.folder / "resources.parquet", self.generator.resources())
        for raw in list_raw_files(self.folder):
            raw.unlink()
        no_account = "" if own else f"Locust wrote no statistics: exit code {exit_code}"
        own = own or Account()
        pace = measure_pace(tasks, self.windows)
        # the recorder's account, where it wrote one, has the better reason why Locust ended early
        causes = (own.problem, self.ended_early) if own.recorded is not None else (self.ended_early, own.problem)
        # where no request succeeded, the samples show it; where some did, the load has a problem
        failed_late = self.hopeless if samples.ok.any() else ""
        return LoadOutcome(
            windows=self.windows,
            warmup_extended=self.warmup_extended,
            samples=samples,
            generator=GeneratorRecord(
                locust_requests=own.locust_requests,
                locust_failures=own.locust_failures,
                locust_p95_ms=own.locust_p95_ms,
                recorded=len(samples) if own.recorded is None else own.recorded,
                derived_starts=own.derived_starts,
                clock_step_ms=own.clock_step_ms,
                exit_code=exit_code,
                options=own.options,
            ),
            pace=pace,
            is_mixed=not {self.spec.login}.issuperset(own.unusual),
            clock=ClockRecord(monotonic_s=elapsed_s, wall_s=wall_s),
            zero_ns=self.generator.zero_ns(),
            resources=resources,
            issues=tuple(
                self._find_issues(
                    next(filter(None, (*causes, failed_late, no_account)), ""), own, samples, len(tasks), pace
                )
            ),
        )

    def _find_issues(
        self, problem: str, own: Account, samples: Samples, tasks: int, pace: PaceRecord | None
    ) -> Iterator[Issue]:
        """Yield why the load was cut short, if it was, and the generator's warnings."""
        if self.interruption:
            yield checks.make_issue(IssueCode.INTERRUPTED, self.interruption)
        elif problem:
            yield checks.make_issue(IssueCode.GENERATOR_ENDED, problem)
        elif self.ended_with:
            yield checks.make_issue(IssueCode.INTERRUPTED, self.ended_with)
        yield from self.generator.issues()
        if self.spec.think_time_chosen and own.options is not None:
            yield from self._find_own_waits(own.options, pace)
        if own.off_target:
            counts = ", ".join(f"{count} to {where}" for where, count in own.off_target.items())
            yield checks.make_issue(IssueCode.OFF_TARGET, f"connections were refused: {counts}")
        if own.user_errors:
            yield checks.judge_user_errors(own.user_errors, max(tasks, own.user_errors), own.first_error)
        if self.hopeless and not samples.ok.any():
            yield checks.make_issue(IssueCode.ENDED_EARLY, self.hopeless)

    def _find_own_waits(self, options: Sequence[str], pace: PaceRecord | None) -> Iterator[Issue]:
        """Yield that the scenario's think time is not applied: the locustfile does not take it, or waits otherwise."""
        taken, think_s = THINK_TIME in options, self.spec.think_time_s
        if not taken or (pace is not None and not is_think_time(pace, think_s)):
            mean = f", {format_ms(pace.mean_wait_s * 1e3)} ms on average" if pace else ""
            why = f"the locustfile {'does not use' if taken else 'has no option'} --{THINK_TIME}"
            detail = f"the scenario's think_time ({format_duration(think_s)}) is not applied: {why}"
            yield checks.make_issue(IssueCode.OWN_WAITS, f"{detail}, its own waits hold{mean}")


def list_entry_names(definition: ApplicationDefinition, namespaces: Iterable[str]) -> tuple[str, ...]:
    """Return the names of an application's entry, with its port, by which it may be called in a cluster: in the
    namespaces of its manifests, and in these."""
    service, _, port = (definition.entry or "").rpartition(":")
    spaces = dict.fromkeys((*(definition.namespaces or ()), definition.home, *namespaces))
    full = (f"{service}.{space}{suffix}" for space in spaces for suffix in ("", ".svc", ".svc.cluster.local"))
    return tuple(f"{name}:{port}" for name in (service, *full)) if service else ()


def make_load_spec(
    load: Load,
    definition: ApplicationDefinition,
    groups: Sequence[UserGroup],
    *,
    address: str,
    virtual_host: str,
    locust: LocustFolder,
    namespaces: Iterable[str],
    seed: int,
    scenario: Scenario,
) -> LoadSpec:
    """Return the generator's specification: the load of a configuration, for its user groups, at `host:port`, which is
    the entry of an application in these namespaces. The scenario's design decides whether it shares the time of its
    block with others."""
    ready, login = definition.ready, definition.login
    return LoadSpec(
        address=address,
        virtual_host=virtual_host,
        names=list_entry_names(definition, namespaces),
        ready=json.dumps({"path": ready.path, "status": ready.status, "contains": ready.contains}),
        login=login.requests if login else "",
        locustfile=locust.locustfile,
        helpers=locust.helpers,
        modes=locust.modes,
        options=load.options,
        env=load.env,
        tags=load.tags,
        exclude_tags=load.exclude_tags,
        versions=groups[0].versions,
        check=definition.check_module,
        logged_in={group.user: group.versions for group in groups if group.user},
        users=load.users,
        think_time_s=load.think_time_s,
        rate_per_s=load.rate_per_s,
        warmup_s=load.warmup_s,
        duration_s=load.duration_s,
        seed=seed,
        workers=load.workers,
        held=scenario.design == "interleaved",
        think_time_chosen=load.rate_per_s is None and "think_time_s" in load.model_fields_set,
        block_s=estimate_load_seconds(scenario, make_plan(scenario, 0)) if scenario.is_paired else 0.0,
    )
