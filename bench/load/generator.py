"""The load generator: Locust as a process of its own, told what to do and watched from outside."""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import checks
from bench.errors import DeployError
from bench.load import recorder_path
from bench.processes import Launcher, Process
from bench.records import ClockRecord, GeneratorRecord, Window
from bench.resources import TICK_S
from bench.resources import Recorder as ResourceRecorder
from bench.samples import RAW_ROW, Samples, read_raw, write_parquet
from bench.units import NANOSECONDS
from bench.waiting import Watch, wait_until

START_TIMEOUT_S = 60.0
IN_FLIGHT_TIMEOUT_S = 10  # how long requests that have started may take to end, once the load is over
HASTE_S = 1.0  # the same, when the run itself has to end: samples are on disk within 2 s
_HOPELESS_S = 10.0  # all requests of so many seconds failed: more of them tell nothing new
_LIVE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOrder:
    """What the generator has to do. `address` is host:port; `virtual_host` the Host header to send there."""

    address: str
    virtual_host: str
    locustfile: Path
    reviews: str
    users: int
    think_time_s: float
    rate_per_s: float | None
    warmup_s: float
    duration_s: float
    seed: int

    def argv(self, folder: Path) -> list[str]:
        """Locust's command line. The run time is a bound for the case that nobody ends it."""
        bound_s = self.warmup_s + 2 * self.duration_s + START_TIMEOUT_S
        options = {
            "--locustfile": f"{self.locustfile.resolve()},{recorder_path()}",
            "--host": f"http://{self.address}",
            "--virtual-host": self.virtual_host,
            "--reviews": self.reviews,
            "--users": self.users,
            "--spawn-rate": self.users,
            "--think-time": self.think_time_s,
            "--arrival-rate": self.rate_per_s or 0,
            "--seed": self.seed,
            "--record-to": folder,
            "--run-time": f"{bound_s:.0f}s",
            "--stop-timeout": IN_FLIGHT_TIMEOUT_S,
            "--exit-code-on-error": 0,  # failed requests are a finding, not a crash
            "--loglevel": "WARNING",
        }
        pairs = [str(part) for option in options.items() for part in option]
        return [sys.executable, "-P", "-m", "locust", "--headless", "--only-summary", *pairs]


@dataclass(frozen=True, slots=True)
class Progress:
    """How a trial goes, for the display: `p95_ms` and `rps` over the last seconds."""

    phase: str
    elapsed_s: float
    total_s: float
    p95_ms: float | None
    rps: float
    errors: int


@dataclass(frozen=True, slots=True)
class LoadOutcome:
    """What the load left: its window, its samples, and what the generator says of itself."""

    window: Window
    warmup_extended: bool
    samples: Samples
    generator: GeneratorRecord
    clock: ClockRecord


@dataclass
class Load:
    """One generator at work; `drive` leads it through warm-up and window, `finish` ends it and saves its samples."""

    process: Process
    order: LoadOrder
    folder: Path
    zero_ns: int
    wall_s: float
    window: Window
    resources: ResourceRecorder
    warmup_extended: bool = False
    problem: str = ""
    broken: bool = False  # something under test ended: its target tells what

    @classmethod
    def start(cls, launcher: Launcher, order: LoadOrder, folder: Path, *, watch: Watch, log: Path) -> "Load":
        """Starts Locust and waits for its first user. Raises DeployError with its log when it does not come up."""
        process = launcher.start(
            "locust", order.argv(folder.resolve()), role="generator", log=log, env=_without_settings(), cwd=folder
        )
        try:
            started = wait_until(
                lambda: _read_json(folder / "started.json") or _ended(process),
                timeout_s=START_TIMEOUT_S,
                watch=watch,
            )
            if not started or "zero_ns" not in started:
                raise DeployError(f"Locust did not start: {process.ended()}\n{process.log_tail()}")
        except BaseException:
            process.stop(timeout_s=HASTE_S)
            raise
        start_ns = round(order.warmup_s * NANOSECONDS)
        window = Window(start_ns=start_ns, end_ns=start_ns + round(order.duration_s * NANOSECONDS))
        zero_ns = started["zero_ns"]
        return cls(process, order, folder, zero_ns, started["wall_s"], window, ResourceRecorder(zero_ns))

    def now_ns(self) -> int:
        """The samples' clock: the generator is on this machine, so its monotonic clock is ours."""
        return time.perf_counter_ns() - self.zero_ns

    def drive(self, *, watch: Watch, processes: tuple[Process, ...], show: Callable[[Progress], None]) -> None:
        """Waits for the window to pass; extends the warm-up once when the window was not steady."""
        self._pass_window(watch=watch, processes=processes, show=show)
        if not self.over and not checks.is_steady(self.samples(), self.window, rate=self.order.rate_per_s):
            self.warmup_extended = True
            start_ns, length_ns = self.now_ns(), self.window.end_ns - self.window.start_ns
            self.window = Window(start_ns=start_ns, end_ns=start_ns + length_ns)
            self._pass_window(watch=watch, processes=processes, show=show)

    @property
    def over(self) -> bool:
        """More load would tell nothing new."""
        return self.broken or bool(self.problem)

    def _pass_window(self, *, watch: Watch, processes: tuple[Process, ...], show: Callable[[Progress], None]) -> None:
        while self.now_ns() < self.window.end_ns and not self.over:
            self.resources.tick((*processes, self.process))
            show(self._progress())
            self.problem = self._trouble()
            self.broken = not all(process.running for process in processes)
            tick_end = min(self.now_ns() + round(TICK_S * NANOSECONDS), self.window.end_ns)
            wait_until(lambda end=tick_end: self.now_ns() >= end, timeout_s=TICK_S, watch=watch)  # type: ignore[misc]
        self.resources.tick((*processes, self.process))

    def _cut_window(self) -> None:
        """A window that was cut short ends where the load ended; one that had not begun stays as it was planned."""
        now_ns = self.now_ns()
        if self.window.start_ns < now_ns < self.window.end_ns:
            self.window = Window(start_ns=self.window.start_ns, end_ns=now_ns)

    def _trouble(self) -> str:
        if not self.process.running:
            return f"Locust ended during the load ({self.process.last_words()})"
        recent = self._recent(_HOPELESS_S)
        long_enough = self.now_ns() > (_HOPELESS_S + 1) * NANOSECONDS
        if long_enough and len(recent) and not recent["ok"].any():
            return f"all {len(recent)} requests of {_HOPELESS_S:.0f} seconds failed; the load was ended early"
        return ""

    def _progress(self) -> Progress:
        now_ns = self.now_ns()
        recent = self._recent(_LIVE_S)
        good = recent["latency_ns"][recent["ok"] > 0]
        span_s = min(_LIVE_S, max(now_ns / NANOSECONDS, 0.5))
        return Progress(
            phase="warm-up" if now_ns < self.window.start_ns else "window",
            elapsed_s=now_ns / NANOSECONDS,
            total_s=self.window.end_ns / NANOSECONDS,
            p95_ms=float(np.quantile(good, 0.95)) / 1e6 if len(good) else None,
            rps=len(good) / span_s,
            errors=int((recent["ok"] == 0).sum()),
        )

    def _recent(self, seconds: float) -> Any:
        """The rows of the last seconds: read from the end of the file, whose rows are in order of completion."""
        path = self.folder / "samples.bin"
        rows = path.stat().st_size // RAW_ROW.itemsize if path.exists() else 0
        wanted = min(rows, round(seconds * 2000))
        tail = np.fromfile(path, RAW_ROW, count=wanted, offset=(rows - wanted) * RAW_ROW.itemsize) if wanted else None
        if tail is None:
            return np.empty(0, RAW_ROW)
        since_ns = self.now_ns() - seconds * NANOSECONDS
        return tail[tail["started_ns"] + tail["latency_ns"] >= since_ns]

    def samples(self) -> Samples:
        """What has been recorded so far."""
        names = self.folder / "names.txt"
        return read_raw(
            self.folder / "samples.bin", tuple(names.read_text("utf-8").splitlines()) if names.exists() else ()
        )

    def finish(self, *, timeout_s: float = IN_FLIGHT_TIMEOUT_S + 5) -> LoadOutcome:
        """Ends the generator, and makes what it wrote into the trial's files."""
        elapsed_s, wall_s = self.now_ns() / NANOSECONDS, time.time() - self.wall_s
        self._cut_window()
        exit_code = self.process.stop(timeout_s=timeout_s)
        samples = self.samples()
        write_parquet(samples, self.folder / "samples.parquet")
        self.resources.write(self.folder / "resources.parquet")
        own = _read_json(self.folder / "generator.json") or {}
        for raw in ("samples.bin", "names.txt", "started.json", "generator.json"):
            (self.folder / raw).unlink(missing_ok=True)
        problem = (
            self.problem or own.get("problem") or ("" if own else f"Locust left no account: {self.process.ended()}")
        )
        return LoadOutcome(
            window=self.window,
            warmup_extended=self.warmup_extended,
            samples=samples,
            generator=GeneratorRecord(
                locust_requests=own.get("locust_requests", 0),
                locust_failures=own.get("locust_failures", 0),
                locust_p95_ms=own.get("locust_p95_ms"),
                recorded=own.get("recorded", len(samples)),
                exit_code=exit_code,
                problem=problem,
            ),
            clock=ClockRecord(monotonic_s=elapsed_s, wall_s=wall_s),
        )


def _without_settings() -> dict[str, str | None]:
    """Locust reads settings from its environment and from the folder that it works in; here only ours count."""
    return {name: None for name in os.environ if name.startswith("LOCUST_")}


def _ended(process: Process) -> dict[str, Any] | None:
    return None if process.running else {"ended": True}


def _read_json(path: Path) -> dict[str, Any] | None:
    """The file's content, or None while it is not there or not whole."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return content if isinstance(content, dict) else None
