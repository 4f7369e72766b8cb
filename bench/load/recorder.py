"""Record every request of a Locust run, exactly. Loaded by Locust itself, before any locustfile:

    locust -f bench/load/recorder.py,locustfiles/NAME.py --meshbench-record-to FOLDER

It needs nothing but Locust, the standard library and four modules of its folder, and the locustfile is independent of
it: all options here begin with `--meshbench-`, so that they are no locustfile's. Start and latency of a request come
from Locust's request event, of any client; when the request was due comes from the user's wait before it.

Files in FOLDER:
    samples.bin      one row of `ROW` per request, in the order of completion
    names.txt        the requests' names, one per line: a row's last field is an index into it. Beyond
                     `MOST_NAME_BYTES` further names are recorded as one, `OTHER_NAMES`
    tasks.bin        one row of `TASK` per task of a user, in the order of their beginnings
    started.json     the clock's zero: monotonic and wall
    generator.json   at the end: Locust's own statistics, and the recorder's

Where FOLDER has a file `hold` before the load starts, its users wait for its removal, and wait again whenever it is
written; `held` answers it once they all do (see `bench.load.pacing.Gate`).

With `--processes N` each worker has a `samples-I.bin`, `names-I.txt`, `tasks-I.bin`, `started-I.json` and `held-I` of
its own, on its own zero of the same clock; `started.json` and `generator.json` are the master's.
`bench.load.raw_samples` reads both forms.
"""

import argparse
import ctypes
import json
import random
import signal
import struct
import time
import traceback
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, SupportsIndex

import gevent
from gevent.event import Event
from locust import User, events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner
from locust.user.task import DefaultTaskSet, TaskSet

from bench.load.judging import Ready, is_redirected
from bench.load.leading import Leader, lead_connections
from bench.load.pacing import Gate, begin_users, pace, poisson_arrivals, take_due
from bench.load.timing import Clocks, convert_latency, convert_start

# intended_ns, started_ns, latency_ns, status, ok, bytes, name; `bench.results.samples.RAW_ROW` reads it.
ROW = struct.Struct("<qqqhBqI")
TASK = struct.Struct("<qqqq")  # previous_ns, waited_ns, began_ns, due_ns; `bench.results.samples.TASK_ROW` reads it

OTHER_NAMES = "(other names)"
MOST_NAME_BYTES = 1 << 20  # some ten thousand names: whoever has more has an id in each URL
MOST_STATUS = (1 << 15) - 1
MOST_BYTES = (1 << 62) - 1  # as `bench.load.recorded` reads sizes

_LONGEST_NAME = 8192  # characters, as `bench.load.recorded` reads them
_CONTROL = ("Cc", "Cs", "Zl", "Zp")  # control characters, halves of pairs and line ends, as Unicode classes them

FLUSH_S = 0.5

# Messages between master and workers.
_END = "meshbench-end"  # master: end your users, then report your account
_ENDED = "meshbench-ended"  # worker: its recorder's account
_PROBLEM = "meshbench-problem"  # worker: why it cannot continue
_ANSWER_S = 5.0  # how long a worker may take to reply, in addition to the requests in flight
_POLL_S = 0.05
_PR_SET_PDEATHSIG = 1
_ALL_RAISED_NS = 10_000_000_000  # how long tasks may raise exceptions until one sends a request
_LONGEST_ERROR = 300
_MOST_UNUSUAL = 100


class Recorder:
    """Writes one row per request event; buffered, flushed every `FLUSH_S` seconds and at the end.

    `part` is the suffix of the files' names where there are several recorders. `give_up` is called once with the
    problem: a load ends at once if one of its requests cannot be recorded. `ready` judges answers that the locustfile
    does not judge itself. `unusual` are the names of requests that are not the application's page, or were redirected.
    """

    def __init__(self, folder: Path, *, part: str, give_up: Callable[[str], None], ready: Ready | None = None) -> None:
        self.folder = folder
        self.ready = ready
        self.unusual: set[str] = set()
        self.user_errors = 0
        self.first_error = ""
        self.first_error_ns = 0
        self.part = part
        self.give_up = give_up
        self.rows = (folder / f"samples{part}.bin").open("wb", buffering=1 << 16)
        self.tasks = (folder / f"tasks{part}.bin").open("wb", buffering=1 << 16)
        self.names: dict[str, int] = {}
        self.name_bytes = len(OTHER_NAMES) + 1
        self.clocks = Clocks()
        self.recorded = 0
        self.derived_starts = 0
        self.problem = ""
        self.zero_ns = 0

    def start(self, **_: Any) -> None:
        """Take the start of the test, before the first user, as the clock's zero; it stays when Locust's page starts
        another test. A request that a listener of the same event sends before that is the start."""
        if not self.zero_ns:
            self.clocks.restart()
            self.zero_ns, problem = write_start(self.folder / f"started{self.part}.json")
            if problem:
                self.fail(problem)
            gevent.spawn(self._flush_regularly)

    def request(
        self,
        *,
        request_type: Any = None,
        name: Any = None,
        url: Any = None,
        response_time: Any = None,
        response_length: Any = None,
        response: Any = None,
        exception: Any = None,
        start_time: Any = None,
        **_: Any,
    ) -> None:
        """Record Locust's request event. Any exception ends the load: Locust would log it, and continue without the
        row."""
        try:
            if not self.zero_ns:
                self.start()
            now_ns, ahead_ns = self.clocks.read()
            latency_ns = convert_latency(response_time)
            started_ns = convert_start(
                start_time, latency_ns=latency_ns, now_ns=now_ns, ahead_ns=ahead_ns, zero_ns=self.zero_ns
            )
            is_derived = started_ns is None
            if started_ns is None:
                started_ns = now_ns - latency_ns
            status = getattr(response, "status_code", 0) or 0
            size = 0 if response_length in (None, -1) else response_length  # -1: the client does not know it
            if not (_fits(status, MOST_STATUS) and _fits(size, MOST_BYTES)):
                raise ValueError(_describe_misfit(status, size))
            is_page = self.ready is not None and self.ready.is_page(request_type, name, url)
            if self.ready is not None and (not is_page or is_redirected(response)):
                self._note_unusual(name, redirected=is_redirected(response))
            row = ROW.pack(
                take_due(started_ns) - self.zero_ns,
                started_ns - self.zero_ns,
                latency_ns,
                status,
                self.ready.judge(response, exception) if self.ready is not None and is_page else not exception,
                size,
                self.names[name] if name in self.names else self._add_name(name),
            )
            self.rows.write(row)
        except OSError as error:
            self.fail(f"samples cannot be written: {error.strerror}")
        except Exception as error:  # noqa: BLE001  # whatever it is, the row is lost
            self.fail(f"the request {name!r} cannot be recorded: {str(error) or type(error).__name__}")
        else:
            self.recorded += 1
            self.derived_starts += is_derived

    def _note_unusual(self, name: Any, *, redirected: bool) -> None:
        if len(self.unusual) < _MOST_UNUSUAL:
            self.unusual.add(f"{name} (redirected)" if redirected else f"{name}")

    def user_error(self, *, exception: BaseException | None = None, tb: Any = None, **_: Any) -> None:
        """Count an exception of a task or of `on_start`, which Locust logs, and keep the first one."""
        self.user_errors += 1
        if not self.first_error:
            self.first_error, self.first_error_ns = _describe_error(exception, tb), time.perf_counter_ns()

    def _find_hopeless(self) -> str:
        """Return why no request will come: tasks raise exceptions instead. Empty while that is not known."""
        if self.recorded or not self.user_errors or time.perf_counter_ns() - self.first_error_ns < _ALL_RAISED_NS:
            return ""
        return f"no request was sent, and {self.user_errors} tasks raised an exception, the first: {self.first_error}"

    def task(self, previous_ns: int, waited_ns: int, began_ns: int, due_ns: int | None) -> None:
        """Record the times of a task, see `bench.load.pacing.NoteTask`."""
        zero_ns = self.zero_ns
        due_ns = zero_ns - 1 if due_ns is None else due_ns
        try:
            self.tasks.write(
                TASK.pack(previous_ns - zero_ns, waited_ns - zero_ns, began_ns - zero_ns, due_ns - zero_ns)
            )
        except OSError as error:
            self.fail(f"tasks cannot be written: {error.strerror}")

    def account(self) -> dict[str, Any]:
        """Return what this recorder adds to `generator.json`."""
        return {
            "recorded": self.recorded,
            "derived_starts": self.derived_starts,
            "clock_step_ms": self.clocks.step_ns / 1e6,
            "problem": self.problem,
            "unusual": sorted(self.unusual),
            "user_errors": self.user_errors,
            "first_error": self.first_error,
            "off_target": dict(_leader.refused) if _leader else {},
        }

    def fail(self, problem: str) -> None:
        """Keep the first problem, and give up because of it."""
        if not self.problem:
            self.problem = problem
            self.give_up(problem)

    def _add_name(self, name: Any) -> int:
        if not isinstance(name, str):
            raise TypeError("its name is not a string")
        line = f"{_clean_name(name)}\n".encode()
        if self.name_bytes + len(line) > MOST_NAME_BYTES and name != OTHER_NAMES:
            return self.names[OTHER_NAMES] if OTHER_NAMES in self.names else self._add_name(OTHER_NAMES)
        with (self.folder / f"names{self.part}.txt").open("ab") as file:
            file.write(line)
        self.name_bytes += len(line)
        self.names[name] = number = len(self.names)
        return number

    def _flush_regularly(self) -> None:
        while not self.problem:
            gevent.sleep(FLUSH_S)
            self.flush()
            if hopeless := self._find_hopeless():
                self.fail(hopeless)

    def flush(self, **_: Any) -> None:
        """Write the buffer, and compare the clocks. A full disk ends the load at once: requests that cannot be recorded
        must not be sent."""
        self.clocks.read()
        try:
            self.rows.flush()
            self.tasks.flush()
        except OSError as error:
            self.fail(f"samples cannot be written: {error.strerror}")


def _describe_error(exception: BaseException | None, tb: Any) -> str:
    """Format an exception with the place where it was raised: `KeyError: 'id' (shop.py:12)`."""
    frames = traceback.extract_tb(tb)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(exception).__name__}: {exception}"[:_LONGEST_ERROR] + where


def _describe_misfit(status: Any, size: Any) -> str:
    """Return which of a request's fields does not fit into a row."""
    if _fits(size, MOST_BYTES):
        return f"its status_code {status!r} is not a whole number of up to {MOST_STATUS}"
    return f"its response_length {size!r} is not a whole number of up to {MOST_BYTES} bytes"


def _fits(value: Any, most: int) -> bool:
    return isinstance(value, SupportsIndex) and 0 <= value.__index__() <= most


class Master:
    """Locust's master: it sends no request; it ends the workers, and adds up what they recorded."""

    def __init__(self, environment: Environment, folder: Path, workers: int) -> None:
        self.environment = environment
        self.runner: Any = environment.runner
        self.folder = folder
        self.workers = workers
        self.accounts: dict[str, dict[str, Any]] = {}
        self.problem = ""
        self.zero_ns = 0

    def start(self, **_: Any) -> None:
        """Take the earliest zero, before the first worker starts the test."""
        if not self.zero_ns:
            self.zero_ns, problem = write_start(self.folder / "started.json")
            if problem:
                self._give_up(problem)
            gevent.spawn(self._watch_workers)

    def collect(self, **_: Any) -> None:
        """End all users and wait for the workers' last figures.

        Locust's own master waits half a second for them, and loses the requests that are still in flight then.
        """
        self.runner.send_message(_END)
        deadline = time.monotonic() + (self.environment.stop_timeout or 0) + _ANSWER_S
        while self._silent() and time.monotonic() < deadline:
            gevent.sleep(_POLL_S)
        if len(self.accounts) < self.workers:
            self.problem = self.problem or self._lost(self.workers - len(self.accounts))

    def ended(self, msg: Any, **_: Any) -> None:
        """Store the account of a worker that has ended its users; its figures came before this message."""
        self.accounts[msg.node_id] = msg.data
        self.problem = self.problem or msg.data["problem"]

    def fail(self, msg: Any, **_: Any) -> None:
        """End the load because a worker cannot record."""
        self._give_up(msg.data["problem"])

    def finish(self, **_: Any) -> None:
        """Write the account of all workers: requests added up, and the largest step of any worker's clock."""
        accounts = self.accounts.values()
        write_account(
            self.environment,
            self.folder,
            recorded=sum(one["recorded"] for one in accounts),
            derived_starts=sum(one["derived_starts"] for one in accounts),
            clock_step_ms=max((one["clock_step_ms"] for one in accounts), default=0.0),
            problem=self.problem,
            unusual=sorted({name for one in accounts for name in one["unusual"]}),
            user_errors=sum(one["user_errors"] for one in accounts),
            first_error=next((one["first_error"] for one in accounts if one["first_error"]), ""),
            off_target=dict(sum((Counter(one["off_target"]) for one in accounts), Counter[str]())),
        )

    def _watch_workers(self) -> None:
        """End the load when a worker has ended: without its users the load is smaller than specified."""
        while not self.problem and not self.accounts:
            gevent.sleep(1)
            if self.runner.worker_count < self.workers and not self.accounts:
                self._give_up(self._lost(self.workers - self.runner.worker_count))

    def _silent(self) -> list[str]:
        """Return the ids of the running workers that have not replied."""
        running = (*self.runner.clients.ready, *self.runner.clients.spawning, *self.runner.clients.running)
        return [worker.id for worker in running if worker.id not in self.accounts]

    def _lost(self, count: int) -> str:
        return f"{count} of Locust's {self.workers} workers ended during the load"

    def _give_up(self, problem: str) -> None:
        if not self.problem:
            self.problem = problem
            quit_with(self.environment)


def _clean_name(name: str) -> str:
    """Return a name as one line of the names' file: without control characters, and not too long."""
    line = " ".join(name.splitlines())[:_LONGEST_NAME]
    return "".join("?" if unicodedata.category(letter) in _CONTROL else letter for letter in line)


def write_start(path: Path) -> tuple[int, str]:
    """Write the clock's zero to a file; return it in nanoseconds, and why it could not be written."""
    zero_ns = time.perf_counter_ns()
    return zero_ns, _write(path, {"zero_ns": zero_ns, "wall_s": time.time()})


def write_account(environment: Environment, folder: Path, **recorders: Any) -> None:
    """Write Locust's own statistics and those of its recorders."""
    total = environment.stats.total
    content = {
        "locust_requests": total.num_requests,
        "locust_failures": total.num_failures,
        "locust_p95_ms": total.get_response_time_percentile(0.95) if total.num_requests else None,
        "options": sorted(_taken),
        **recorders,
    }
    _write(folder / "generator.json", content)


def quit_with(environment: Environment) -> None:
    """End Locust early, as a failure. In a separate greenlet: a user that waits for its own end never ends."""
    if environment.runner is not None:
        environment.process_exit_code = 1
        gevent.spawn(environment.runner.quit)


def _write(path: Path, content: dict[str, Any]) -> str:
    """Write a file atomically; return why it could not be written, empty on success."""
    try:
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(content), "utf-8")
        draft.replace(path)
    except OSError as error:
        return f"{path.name} cannot be written: {error.strerror}"
    return ""


@events.init_command_line_parser.add_listener
def _add_options(parser: LocustArgumentParser) -> None:
    group = parser.add_argument_group("meshbench recorder")
    for name, settings in _OPTIONS.items():
        group.add_argument(f"--meshbench-{name}", **settings)


_OPTIONS: dict[str, dict[str, Any]] = {
    "record-to": {"default": "", "help": "Folder for the exact samples (default: none are stored)"},
    "arrival-rate": {"type": float, "default": 0, "help": "Open loop: arrivals per second (default: closed)"},
    "seed": {"type": int, "default": 0, "help": "Seed of the first waits and of the arrivals"},
    "lead": {"default": "", "help": "ADDRESS=NAME,NAME...: lead connections to the entry's names, refuse all others"},
    "ready": {"default": "", "help": "JSON: path, status and contains of a valid answer"},
    "offer": {"action": "append", "default": [], "help": "NAME=VALUE: for --NAME, if the locustfile has that option"},
}


def _parse_own_options() -> argparse.Namespace:
    """Parse the recorder's options before Locust does, which only begins once all files are loaded."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name, settings in _OPTIONS.items():
        parser.add_argument(f"--meshbench-{name}", **settings)
    return parser.parse_known_args()[0]


def offer_options(parser: argparse.ArgumentParser, offers: Iterable[str]) -> Iterator[str]:
    """Make offered values (`NAME=VALUE`) the defaults of the options that a parser has; yield the names of those.

    A value on the command line precedes them.
    """
    for offer in offers:
        name, _, value = offer.partition("=")
        option = parser._option_string_actions.get(f"--{name}")  # noqa: SLF001  # argparse lists them nowhere else
        if option is not None:
            option.default, option.required = value, False
            yield name


def _offer_after_listeners(offers: list[str]) -> None:
    """Offer options once all locustfiles have added theirs: they are loaded after the recorder, which has to be there
    first."""
    hook = events.init_command_line_parser
    fire = hook.fire

    def fire_and_offer(*, parser: LocustArgumentParser, **others: Any) -> None:
        fire(parser=parser, **others)
        _taken.update(offer_options(parser, offers))

    hook.fire = fire_and_offer  # type: ignore[assignment]


def _lead(option: str) -> Leader | None:
    """Lead connections from now on, also those of a locustfile that is being loaded."""
    address, _, names = option.partition("=")
    if not address:
        return None
    leader = Leader(address, names.split(","))
    lead_connections(leader)
    return leader


_own_options = _parse_own_options()
_taken: set[str] = set()  # the names of the offered options that the locustfile has
_offer_after_listeners(_own_options.meshbench_offer)
_leader = _lead(_own_options.meshbench_lead)


@events.init.add_listener
def _attach(environment: Environment, **_: Any) -> None:
    options: Any = environment.parsed_options
    if not options.meshbench_record_to:
        return
    runner, folder = environment.runner, Path(options.meshbench_record_to)
    if environment.shape_class is not None:
        _refuse_shape(environment, folder)
    if isinstance(runner, MasterRunner):
        _attach_master(environment, Master(environment, folder, options.processes))
    elif isinstance(runner, WorkerRunner):
        _attach_worker(environment, runner, folder)
    else:
        _attach_single(environment, folder)


def _refuse_shape(environment: Environment, folder: Path) -> None:
    """End Locust before its start: a LoadTestShape decides by itself how many users there are."""
    shape = type(environment.shape_class).__name__
    problem = f"the Locust file has a LoadTestShape ({shape}); a scenario says how many users there are: remove it"
    write_account(environment, folder, recorded=0, problem=problem)
    raise SystemExit(problem)


def _attach_single(environment: Environment, folder: Path) -> None:
    options: Any = environment.parsed_options
    recorder = Recorder(folder, part="", give_up=lambda _: quit_with(environment), ready=_read_ready(options))
    _listen(environment, recorder, rate_per_s=options.meshbench_arrival_rate, seed=options.meshbench_seed)

    def finish(**_: Any) -> None:
        recorder.flush()
        write_account(environment, folder, **recorder.account())

    environment.events.quit.add_listener(finish)


def _attach_worker(environment: Environment, runner: WorkerRunner, folder: Path) -> None:
    """Set up a worker: it has its share of the arrivals, by a seed of its own."""
    options: Any = environment.parsed_options
    _die_with_parent()

    def give_up(problem: str) -> None:
        runner.send_message(_PROBLEM, {"problem": problem})

    def end(**_: Any) -> None:
        runner.stop()
        recorder.flush()
        figures: dict[str, Any] = {}
        environment.events.report_to_master.fire(client_id=runner.client_id, data=figures)
        runner.send_message("stats", figures)
        runner.send_message(_ENDED, recorder.account())

    recorder = Recorder(folder, part=f"-{runner.worker_index}", give_up=give_up, ready=_read_ready(options))
    rate_per_s = options.meshbench_arrival_rate / options.processes
    seed = options.meshbench_seed + ((runner.worker_index + 1) << 32)
    _listen(environment, recorder, rate_per_s=rate_per_s, seed=seed)
    runner.register_message(_END, end)


def _read_ready(options: Any) -> Ready | None:
    return Ready(**json.loads(options.meshbench_ready)) if options.meshbench_ready else None


def _die_with_parent() -> None:
    """End this process when its parent ends (Linux): alone it would continue its load for a minute."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _attach_master(environment: Environment, master: Master) -> None:
    master.runner.register_message(_ENDED, master.ended)
    master.runner.register_message(_PROBLEM, master.fail, concurrent=True)
    environment.events.test_start.add_listener(master.start)
    environment.events.test_stopping.add_listener(master.collect)
    environment.events.quit.add_listener(master.finish)


def _listen(environment: Environment, recorder: Recorder, *, rate_per_s: float, seed: int) -> None:
    random.seed(seed)
    gate = _make_gate(environment, recorder)
    clock = gate.now_ns if gate else time.perf_counter_ns
    arrivals = poisson_arrivals(rate_per_s, seed, clock) if rate_per_s else None
    begin_users(User, gate=gate)
    pace(arrivals, recorder.task, task_set=TaskSet, first_task_set=DefaultTaskSet, gate=gate)
    environment.events.test_start.add_listener(recorder.start)
    environment.events.request.add_listener(recorder.request)
    environment.events.user_error.add_listener(recorder.user_error)
    # `quitting` comes before the requests in flight have ended, `quit` after it
    environment.events.quitting.add_listener(recorder.flush)
    environment.events.quit.add_listener(recorder.flush)


def _make_gate(environment: Environment, recorder: Recorder) -> Gate | None:
    """Return the gate of a load that is held when it starts; None for any other, whose waits stay as they are."""
    if not (recorder.folder / "hold").exists():
        return None
    runner: Any = environment.runner
    spawned = Event()
    gate = Gate(recorder.folder, recorder.part, lambda: runner.user_count if spawned.is_set() else None)
    environment.events.spawning_complete.add_listener(lambda **_: spawned.set())

    def watch() -> None:
        try:
            gate.watch()
        except OSError as error:
            recorder.fail(f"users cannot be held: {error.strerror}")

    gevent.spawn(watch)
    return gate
