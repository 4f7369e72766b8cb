"""Run Locust as a process of this machine: it shares the monotonic clock, and writes into the trial's folder."""

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.envoy.addresses import HOST, free_ports
from bench.errors import DeployError, StoreError
from bench.load import recorder_path
from bench.load.environment import make_load_environment
from bench.load.generator import SHORT_TIMEOUT_S, START_TIMEOUT_S, CpuUse, LoadSpec, RunningLoad
from bench.load.raw_samples import HOLD, LOG, is_held, read_start, read_valid_account, write_hold
from bench.load.recorded import Start
from bench.results.issues import Issue
from bench.results.noise import CAPACITY, OWN, NoiseRecorder
from bench.results.resources import Recorder, Row
from bench.scenario.load_settings import read_environment
from bench.system.cancellation import CancelToken, wait_until
from bench.system.private_files import Content, PrivateFolder
from bench.system.processes import Launcher, Process
from bench.system.redaction import redact

_NOT_YET = Start(0, 0.0)


@dataclass
class LocalGenerator:
    """See `bench.load.generator.Generator`. Resources are recorded of Locust and of the processes `under_test`; `noise`
    is recorded once for all loads of a unit."""

    process: Process
    under_test: tuple[Process, ...]
    spec: LoadSpec
    folder: Path
    watch: CancelToken
    noise: NoiseRecorder
    _holds: int = 0
    _start: Start = _NOT_YET
    _recorder: Recorder = field(default_factory=lambda: Recorder(0))
    _is_ending: bool = False

    def wait_for_start(self) -> float:
        process = self.process
        wait_until(lambda: _read_start(self.folder) or not process.running, timeout_s=START_TIMEOUT_S, watch=self.watch)
        start = _read_start(self.folder)
        if start is None:
            raise DeployError(f"Locust did not start: {self._explain_missing_start()}")
        self._start, self._recorder = start, Recorder(start.zero_ns)
        return start.wall_s

    def _explain_missing_start(self) -> str:
        own, _ = read_valid_account(self.folder)
        if own is not None and own.problem:
            return own.problem
        late = f"no first user within {START_TIMEOUT_S:.0f} s"
        return f"{late if self.process.running else self.process.describe_end()}\n{self.process.log_tail()}"

    def now_ns(self) -> int:
        return time.perf_counter_ns() - self._start.zero_ns

    def zero_ns(self) -> int:
        return self._start.zero_ns

    def tick(self) -> None:
        self._recorder.tick((*self.under_test, self.process))
        self.noise.tick()

    def trouble(self) -> str:
        return "" if self.process.running else f"Locust ended during the load ({self.process.describe_failure()})"

    def broken(self) -> bool:
        return not all(process.running for process in self.under_test)

    def read_cpu(self) -> CpuUse | None:
        last = self.noise.read_last()
        return CpuUse(last[OWN], last[CAPACITY]) if OWN in last and CAPACITY in last else None

    def hold(self) -> None:
        self._holds += 1
        write_hold(self.folder, self._holds)

    def release(self) -> None:
        (self.folder / HOLD).unlink(missing_ok=True)

    def is_held(self) -> bool:
        return is_held(self.folder, self._holds, workers=self.spec.workers)

    def begin_stop(self) -> None:
        self._is_ending = True
        if self.process.running:
            self.process.popen.terminate()

    def stop(self, *, timeout_s: float) -> int:
        return self.process.stop(timeout_s=timeout_s, asked=self._is_ending)

    def resources(self) -> Sequence[Row]:
        return [*self._recorder.rows, *self.noise.rows(self.zero_ns())]

    def issues(self) -> tuple[Issue, ...]:
        return ()


@contextmanager
def start_load(
    launcher: Launcher,
    spec: LoadSpec,
    folder: Path,
    *,
    watch: CancelToken,
    under_test: tuple[Process, ...],
    noise: NoiseRecorder,
    home: Path,
) -> Iterator[RunningLoad]:
    """Start Locust, and end it with the block where it still runs. `home` is an empty folder that Locust uses as its
    home. Its working folder is a copy of the Locust file's: what it writes there is of this load alone. Its log is
    private, since it has what the Locust file prints. Where the load is `held`, its users wait for their release."""
    private = PrivateFolder.of_trial(folder, launcher.run_id)
    if spec.held:
        write_hold(folder, 0)
    with tempfile.TemporaryDirectory(dir=home.parent, ignore_cleanup_errors=True) as work:
        fill_work(spec, Path(work))
        process = launcher.start(
            "locust",
            make_local_argv(spec, folder.resolve()),
            role="generator",
            log=private.create(LOG),
            env={**make_load_environment(home), **read_environment(spec.env)},
            cwd=Path(work),
        )
        noise.add([process])
        try:
            yield RunningLoad(LocalGenerator(process, under_test, spec, folder, watch, noise), spec, folder)
        finally:
            if process.running:
                process.stop(timeout_s=SHORT_TIMEOUT_S)
            with suppress(OSError):  # a full disk ends the run elsewhere; without its log a trial is a trial
                private.keep([Content(LOG, redact(process.log.read_text("utf-8", "replace")).encode())])


def _read_start(folder: Path) -> Start | None:
    try:
        return read_start(folder)
    except StoreError as error:
        raise DeployError(f"Locust did not start correctly: {error}") from error


def fill_work(spec: LoadSpec, work: Path) -> None:
    """Fill Locust's working folder: a copy of the Locust file and of what travels with it, and a link to the recorder,
    whose name no file of a load has."""
    spec.locust.copy_to(work)
    (work / recorder_path().name).symlink_to(recorder_path())


def make_local_argv(spec: LoadSpec, folder: Path) -> list[str]:
    """Return Locust's command line for its working folder, see `fill_work`: Locust would read a path with a comma as
    two. The master gets a free port: another process may use the default one."""
    argv = spec.argv(
        sys.executable,
        locustfile=spec.locustfile.name,
        recorder=recorder_path().name,
        folder=str(folder),
    )
    if spec.workers == 1:
        return argv
    port = str(free_ports(["master"])["master"])
    bound = ["--master-bind-host", HOST, "--master-bind-port", port]
    return [*argv, *bound, "--master-host", HOST, "--master-port", port]
