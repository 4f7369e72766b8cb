"""The real command as a child process, for tests that watch it and inject faults."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil
import yaml

from bench.results.samples import RAW_ROW
from bench.system.journal import read_journal
from bench.system.lock import find_lock_file
from bench.system.processes import RUN_ID_VARIABLE

T = TypeVar("T")

ROOT = Path(__file__).parents[1]
DEADLINE_S = 120.0
OTHERS_S = 240.0  # how long another run on this machine may take
# A window of seconds is seldom steady, and a rerun makes it no steadier.
ONCE = ("--set", "rerun_invalid=false")
_SIGNALS = (signal.SIGINT, signal.SIGHUP)  # what a shell's background job or `nohup` would have ignored


@dataclass(frozen=True)
class Finished:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def output(self) -> str:
        """All of it, for failed assertions."""
        return f"exit code {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


@dataclass
class Command:
    """A running `meshbench ...`."""

    popen: "subprocess.Popen[str]"
    output: Path
    deadline: float = field(default_factory=lambda: time.monotonic() + DEADLINE_S)

    def wait(self, timeout_s: float = DEADLINE_S) -> Finished:
        """Wait until it ends."""
        out, err = self.popen.communicate(timeout=timeout_s)
        return Finished(self.popen.returncode, out or "", err or "")

    def send(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def until(self, check: Callable[[], T | None], what: str) -> T:
        """Return the first true result of `check`; fail the test if the command ends before, or takes too long."""
        while True:
            ended = self.popen.poll() is not None
            answer = check()
            if answer:
                return answer
            assert not ended, f"ended before {what}: {self.wait().output}"
            assert time.monotonic() < self.deadline, f"not in time: {what}"
            time.sleep(0.01)

    def folder(self) -> Path:
        """Wait for the run's journal, and return its folder."""
        return self.until(lambda: next((path.parent for path in self.output.glob("*/journal.jsonl")), None), "a run")

    def record(self) -> dict[str, Any]:
        """Wait for the begin of the run, and read `run.json`."""
        self.line("begin")
        return read_record(self.folder())

    def line(self, step: str, **facts: Any) -> dict[str, Any]:
        """Wait for a line of the journal with this step and these facts, and return the last one."""
        wanted = {"step": step, **facts}
        journal = self.folder() / "journal.jsonl"
        return self.until(
            lambda: next((line for line in reversed(read_journal(journal)) if wanted.items() <= line.items()), None),
            f"{wanted} in the journal",
        )

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to the run's process of this name, the last one that was started."""
        os.kill(self.line("start-process-done", name=name)["pid"], number)

    def loading(self, trial: str, rows: int = 20) -> Path:
        """Wait until a trial has this many requests on disk, and return its draft."""
        draft = self.folder() / "trials" / f"{trial}.partial"
        samples = draft / "samples.bin"
        self.until(
            lambda: samples.exists() and samples.stat().st_size >= rows * RAW_ROW.itemsize,
            f"{rows} requests in {trial}",
        )
        return draft


def environment(**changes: str) -> dict[str, str]:
    """Return this process's environment, with changes."""
    return {**os.environ, **changes}


def start(
    *arguments: str | Path,
    output: Path,
    driver: str = "",
    timing: Mapping[str, float] | None = None,
    env: Mapping[str, str] | None = None,
    prepare: Callable[[], None] | None = None,
    **streams: Any,
) -> Command:
    """Start the command in its own session, in the folder above `output`.

    `driver` is Python code that runs before it in its process; `timing` are changes to the `Timing` of clusters;
    `prepare` is called before Python starts. Signals act as in a terminal's foreground, wherever the tests run.
    """

    def begin() -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        if prepare:
            prepare()

    program = [sys.executable, "-c", f"{driver}\n{_launcher(timing)}"]
    if not driver and not timing:
        program = [sys.executable, "-m", "bench.cli.main"]
    popen = subprocess.Popen(
        [*program, *map(str, arguments)],
        cwd=output.parent,
        env=environment(PYTHONPATH=str(ROOT), **(env or {})),
        preexec_fn=begin,
        start_new_session=True,
        text=True,
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},
    )
    return Command(popen, output)


def _launcher(timing: Mapping[str, float] | None) -> str:
    """Return Python code that calls the command."""
    if not timing:
        return "from bench.cli.main import main\nmain()"
    values = ", ".join(f"{name}={value!r}" for name, value in timing.items())
    imports = "from bench.cli.main import main\nfrom bench.system.timing import Timing"
    return f"{imports}\nmain(timing=Timing({values}))"


@contextmanager
def run_in_background(*arguments: str | Path, output: Path, **options: Any) -> Iterator[Command]:
    """A run on a machine without other runs; when the test fails it is ended, and what it left is removed."""
    wait_for_machine()
    command = start(*arguments, "--output", output, output=output, **options)
    try:
        yield command
    finally:
        if command.popen.poll() is None:
            command.popen.kill()
            command.popen.communicate()
            clean_up(output)


def run(*arguments: str | Path, output: Path, **options: Any) -> Finished:
    """Run to the end; retry if another run got the lock first."""
    while True:
        with run_in_background(*arguments, output=output, **options) as command:
            finished = command.wait(DEADLINE_S * 2)
        if not (finished.code == 8 and "is running" in finished.err):
            return finished


def call(*arguments: str | Path, output: Path, **options: Any) -> Finished:
    """Call a command that measures nothing, to its end."""
    return start(*arguments, output=output, **options).wait()


def clean_up(output: Path) -> Finished:
    return call("cleanup", "--output", output, output=output)


def wait_for_machine() -> None:
    """Wait until no other run has the host lock."""
    deadline = time.monotonic() + OTHERS_S
    while _is_held():
        assert time.monotonic() < deadline, f"another run has the host lock: {find_lock_file().read_text()}"
        time.sleep(0.2)


def _is_held() -> bool:
    return find_lock_file().exists() and bool(find_lock_file().read_text("utf-8"))


def write_scenario(folder: Path, configurations: Sequence[Mapping[str, Any]], **changes: Any) -> Path:
    """Write a scenario for a run of some seconds, with enough think time for the client of a busy machine."""
    load = {"users": 24, "think_time": "1s", "warmup": "0s", "duration": "2s", **changes.pop("load", {})}
    content = {
        "schema_version": 1,
        "name": "fault",
        "title": "A run that something happens to",
        "seed": 1,
        "repeats": 1,
        "rerun_invalid": False,
        "load": load,
        "configurations": [dict(configuration) for configuration in configurations],
        **changes,
    }
    path = folder / "fault.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
    return path


MEASURED = (0, 5)  # 5: it measured, and this machine was too busy for a valid result
BASELINE: Mapping[str, Any] = {"name": "baseline", "mesh": "none"}
ISTIO: Mapping[str, Any] = {"name": "istio", "mesh": "istio"}


def write_locustfile(folder: Path, body: str) -> str:
    """Write a locustfile next to the scenario: a user of Bookinfo whose task is `body`."""
    text = LOCUSTFILE + "".join(f"    {line}\n" for line in body.strip().splitlines())
    (folder / "faulty.py").write_text(text, "utf-8")
    return "faulty"


LOCUSTFILE = '''\
import time
from typing import Any

import gevent
from locust import FastHttpUser, events, task


@events.init_command_line_parser.add_listener
def options(parser) -> None:
    parser.add_argument("--think-time", type=float, default=0.1)
    parser.add_argument("--versions", default="any")
    parser.add_argument("--virtual-host", default="")


class Faulty(FastHttpUser):
    def wait_time(self) -> float:
        return self.environment.parsed_options.think_time

    def context(self) -> dict[str, Any]:
        return {}

    def ask(self, path: str = "/productpage") -> None:
        self.client.get(path, headers={"Host": self.environment.parsed_options.virtual_host})

    def ask_slowly(self, seconds: float, path: str = "/productpage") -> None:
        """Send a request that takes, and is recorded with, this many seconds."""
        began = time.perf_counter()
        headers = {"Host": self.environment.parsed_options.virtual_host}
        with self.client.get(path, headers=headers, catch_response=True) as response:
            gevent.sleep(max(0, seconds - (time.perf_counter() - began)))
            response.request_meta["response_time"] = seconds * 1000

'''


def read_record(folder: Path) -> dict[str, Any]:
    """Read `run.json` of a run's folder."""
    return dict(json.loads((folder / "run.json").read_text("utf-8")))


def read_trial_record(folder: Path, trial: str) -> dict[str, Any]:
    """Read `trial.json` of a run's trial."""
    return dict(json.loads((folder / "trials" / trial / "trial.json").read_text("utf-8")))


def find_only_run(output: Path) -> Path:
    """Return the folder of the only run below `output`."""
    [journal] = output.glob("*/journal.jsonl")
    return journal.parent


def find_leftovers(run: Path) -> list[str]:
    """List the leftovers of a run: processes that carry its id, and its working folders."""
    marked = [f"process {process.pid}" for process in psutil.process_iter() if _carries(process, run.name)]
    folders = [line["path"] for line in read_journal(run / "journal.jsonl") if line["step"] == "make-folder"]
    return [*marked, *(path for path in folders if Path(path).exists())]


def _carries(process: psutil.Process, run_id: str) -> bool:
    try:
        is_there = process.status() != psutil.STATUS_ZOMBIE
        return is_there and process.environ().get(RUN_ID_VARIABLE) == run_id
    except psutil.Error:
        return False
