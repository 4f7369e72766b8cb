"""What the recorder does inside Locust, printed as JSON: Locust patches the process that imports it, so tests run it
in a process of its own.

    python -m tests.recording FACT FOLDER
"""

import json
import math
import random
import sys
import time
from collections.abc import Callable
from http import HTTPStatus
from itertools import islice, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import gevent
from locust import SequentialTaskSet, TaskSet, User, between, constant, constant_pacing, events, task
from locust.env import Environment

from bench.load import pacing, recorder
from bench.load.timing import Clocks

STEP_NS = 1_000_000_000


def packed_rows(folder: Path) -> None:
    """Three rows, out of order, and a torn one."""
    rows = [recorder.ROW.pack(10 * n, 11 * n, 1_000_000 * n, 200 + n, n != 2, 15_000 + n, n % 2) for n in (3, 1, 2)]
    (folder / "samples.bin").write_bytes(b"".join(rows) + rows[0][:20])


def closed_loop(folder: Path) -> dict[str, Any]:
    """Two seconds of a user that sends two requests in each task, and one before its first task."""
    environment = _recorded(folder, [Pairs])
    _run(environment, seconds=2.0, users=1)
    [user] = Pairs.users
    return {"context": user.context(), "attributes": [user.intended_ns, user.started_ns]}


def open_loop(folder: Path) -> dict[str, Any]:
    """Arrivals of 40/s for users of several classes, and the expected schedule."""
    environment = _recorded(folder, [Parent, Child, Nested, Paced, Spawning], rate=40.0)
    _run(environment, seconds=3.0, users=15)
    schedule = islice(pacing.poisson_arrivals(40.0, 1, clock=lambda: 0), 200)
    return {"schedule_ns": list(schedule)}


def busy_open_loop(folder: Path) -> dict[str, Any]:
    """One user whose requests take 60 ms, with 50 arrivals per second."""
    environment = _recorded(folder, [Busy], rate=50.0)
    _run(environment, seconds=2.0, users=1)
    return {}


def any_waits(folder: Path) -> dict[str, Any]:
    """Four seconds of five users whose file has waits, pauses and tasks of its own."""
    environment = _recorded(folder, [Mixed])
    _run(environment, seconds=4.0, users=5)
    return {}


def hanging_user(folder: Path) -> dict[str, Any]:
    """Three seconds of five users, of which one hangs."""
    environment = _recorded(folder, [Hanging])
    environment.stop_timeout = 1
    _run(environment, seconds=3.0, users=5)
    return {}


def held_closed_loop(folder: Path) -> dict[str, Any]:
    """Users of several classes that are held at their start, and once more after a second."""
    return _run_held(folder, [Asking, Parent, Nested, Paced, Regular], rate=0.0, users=15)


def held_open_loop(folder: Path) -> dict[str, Any]:
    """The same with arrivals of 60/s."""
    return _run_held(folder, [Asking], rate=60.0, users=15)


def _run_held(folder: Path, user_classes: Any, *, rate: float, users: int) -> dict[str, Any]:
    """The times (ns since the start) at which all users were held, and at which they were released."""
    hold, answer = folder / "hold", folder / "held"
    hold.write_text("0")
    environment = _recorded(folder, user_classes, rate=rate)
    runner: Any = environment.runner
    runner.start(users, spawn_rate=users)
    held_ns, released_ns = [], []
    with gevent.Timeout(20):
        for number in ("0", "1"):
            hold.write_text(number)
            while not answer.exists() or answer.read_text() != number:
                gevent.sleep(0.01)
            held_ns.append(time.perf_counter_ns())
            gevent.sleep(0.7)
            released_ns.append(time.perf_counter_ns())
            hold.unlink()
            gevent.sleep(1.0)
    runner.quit()
    events.quit.fire(exit_code=0)  # type: ignore[no-untyped-call]  # Locust's own
    zero_ns = json.loads((folder / "started.json").read_text("utf-8"))["zero_ns"]
    return {"held": [at - zero_ns for at in held_ns], "released": [at - zero_ns for at in released_ns]}


def ended_in_waits(folder: Path) -> dict[str, float]:
    """How long it takes to stop waiting users: in a closed loop, and before the first arrival of an open loop."""
    found = {}
    for name, rate in (("closed", 0.0), ("open", 0.001)):
        environment = _recorded(folder, [Waiting], rate=rate)
        runner: Any = environment.runner
        environment.stop_timeout = 20
        runner.start(3, spawn_rate=3)
        with gevent.Timeout(5):
            while [user.args[0]._state for user in runner.user_greenlets] != ["waiting"] * 3:
                gevent.sleep(0.05)
        began = time.monotonic()
        runner.quit()
        found[name] = time.monotonic() - began
    return found


def odd_events(folder: Path) -> dict[str, Any]:
    """The result of each of `ODD_EVENTS`: its row, the number of derived starts, and why the recorder ended."""
    return {name: _event(folder / name, event) for name, event in ODD_EVENTS.items()}


def too_many_names(folder: Path) -> dict[str, Any]:
    """More request names than the names' file may have bytes; one of them comes twice."""
    made = _recorder(folder)
    for number in (*range(70_000), 7):
        made.request(name=f"/item/{number:020}", response_time=1.0, response_length=1)
    made.flush()
    return made.account()


def odd_names(folder: Path) -> dict[str, Any]:
    """Requests whose names do not fit on one line of a file."""
    made = _recorder(folder)
    for name in ("two\nlines", "\x1b[31mred", "half a pair \udcff", "\0", "", "long" * 9999, "plain ü\t"):
        made.request(name=name, response_time=1.0, response_length=1)
    made.flush()
    return {"recorded": made.recorded, "problem": made.problem}


def before_the_start(folder: Path) -> dict[str, Any]:
    """A request that a listener of the locustfile sends at the start of the test, before the recorder's own."""
    made = _recorder(folder, started=False)
    made.request(name="token", response_time=20.0, response_length=1, start_time=time.time() - 0.02)
    zero_ns = made.zero_ns
    made.start()
    made.flush()
    return {"same_zero": made.zero_ns == zero_ns > 0, "derived": made.derived_starts, "problem": made.problem}


def stepped_clock(folder: Path) -> dict[str, Any]:
    """The accounts of two recorders whose wall clock is set: between two requests, and before a flush."""
    ahead_ns = [1_795_000_000 * STEP_NS]
    found = {}
    for seen_by in ("request", "flush"):
        made = _recorder(folder / seen_by)
        made.clocks = Clocks(wall=lambda: time.perf_counter_ns() + ahead_ns[0])
        made.request(name="page", response_time=1.0, response_length=1)
        ahead_ns[0] -= 30_000_000
        if seen_by == "flush":
            made.flush()
        else:
            made.request(name="page", response_time=1.0, response_length=1)
        found[seen_by] = made.account()
    return found


def workers(folder: Path) -> None:
    """The account of a master whose two workers report."""
    runner = SimpleNamespace(worker_count=2)
    total = SimpleNamespace(num_requests=7, num_failures=0, get_response_time_percentile=lambda _: 5)
    environment: Any = SimpleNamespace(runner=runner, stats=SimpleNamespace(total=total))
    master = recorder.Master(environment, folder, 2)
    for node, recorded, derived, step_ms in (("a", 4, 1, 12.5), ("b", 3, 2, 0.0)):
        account: dict[str, Any] = {
            "recorded": recorded,
            "derived_starts": derived,
            "clock_step_ms": step_ms,
            "problem": "",
        }
        account |= {"unusual": [], "user_errors": 0, "first_error": "", "off_target": {}}
        master.ended(SimpleNamespace(node_id=node, data=account))
    master.finish()


def arrivals(_: Path) -> dict[str, Any]:
    """The first arrival after the clock's reading, and the later gaps, of two equal seeds and another one."""
    first, again, other = (
        list(islice(pacing.poisson_arrivals(50.0, seed, clock=lambda: STEP_NS), 20_001)) for seed in (1, 1, 2)
    )
    gaps = [(later - earlier) / 1e9 for earlier, later in pairwise(first)]
    return {"first_s": (first[0] - STEP_NS) / 1e9, "gaps_s": gaps, "same": first == again, "other": first != other}


def load(folder: Path) -> dict[str, Any]:
    """A second of load from three users, every third request a failure, and Locust's own counts."""
    environment = _recorded(folder)
    _run(environment, seconds=1.0)
    return {"requests": environment.stats.total.num_requests, "failures": environment.stats.total.num_failures}


def two_starts(folder: Path) -> dict[str, Any]:
    """The zero after a first and a second start of the test, as from Locust's page."""
    made = recorder.Recorder(folder, part="", give_up=lambda _: None)
    zeros = []
    for _ in range(2):
        made.start()
        zeros.append(made.zero_ns)
    return {"zeros": zeros, "stored": json.loads((folder / "started.json").read_text("utf-8"))["zero_ns"]}


def full_disk(folder: Path) -> dict[str, Any]:
    """A longer load that cannot write its rows."""
    (folder / "samples.bin").symlink_to("/dev/full")
    return _until_it_gives_up(_recorded(folder))


def refused_row(folder: Path) -> dict[str, Any]:
    """A load with a request without a response time, after 20 that have one."""
    return _until_it_gives_up(_recorded(folder, [Untimed]))


def no_start(folder: Path) -> dict[str, Any]:
    """A load whose start cannot be written."""
    (folder / "started.draft").mkdir()
    return _until_it_gives_up(_recorded(folder))


def _until_it_gives_up(environment: Environment) -> dict[str, Any]:
    began = time.monotonic()
    _run(environment, seconds=30.0)
    return {"exit_code": environment.process_exit_code, "seconds": time.monotonic() - began}


class Client(User):
    """A client that sends nothing, and fires Locust's request event."""

    abstract = True
    wait_time = constant(0.02)

    def ask(self, name: str, *, seconds: float = 0.001, **event: Any) -> None:
        """A request of this duration."""
        started, began = time.time(), time.perf_counter()
        gevent.sleep(seconds)
        sent = {"request_type": "GET", "name": name, "response_length": 1, "exception": None, "start_time": started}
        timed = {"response_time": (time.perf_counter() - began) * 1e3}
        self.environment.events.request.fire(**(sent | timed | event))


class Mixed(Client):
    """Tasks with several requests, own pauses and waits of any kind, and one that is longer than the rest."""

    wait_time = between(0.01, 0.05)

    def on_start(self) -> None:
        self.ask("login", seconds=0.1)

    @task(8)
    def several(self) -> None:
        for name in ("one", "two"):
            self.ask(name, seconds=0.01)
        gevent.sleep(0.02)

    @task(1)
    class Ordered(SequentialTaskSet):
        wait_time = constant_pacing(0.05)

        @task
        def first(self) -> None:
            _ask(self, "ordered 1")

        @task
        def second(self) -> None:
            _ask(self, "ordered 2")
            self.interrupt()  # type: ignore[no-untyped-call]  # Locust's own


class Hanging(Mixed):
    """One of its users never ends its second task."""

    turns = 0

    @task(8)
    def several(self) -> None:
        Hanging.turns += 1
        gevent.sleep(600 if Hanging.turns == 6 else 0.01)
        self.ask("one")


class Asking(Client):
    """Every third request is a failure."""

    asked = 0

    @task
    def page(self) -> None:
        Asking.asked += 1
        failure = ValueError("not the page") if Asking.asked % 3 == 0 else None
        name = f"page {Asking.asked % 2}\n"
        self.ask(name, response_time=1.25, response_length=100, response=None, exception=failure, context={})


class Untimed(Client):
    """The 21st request has no response time, as Locust allows it."""

    asked = 0

    @task
    def page(self) -> None:
        Untimed.asked += 1
        untimed: dict[str, Any] = {"response_time": None} if Untimed.asked == 21 else {}
        self.ask("page", **untimed)


class Pairs(Client):
    """Two requests in each task; a context and attributes that have our fields' names."""

    intended_ns = started_ns = "own"
    users: ClassVar[list[Any]] = []

    def context(self) -> dict[str, Any]:
        return {"started_ns": 1, "intended_ns": "never"}

    def on_start(self) -> None:
        self.users.append(self)
        self.ask("login", context=self.context())

    @task
    def both(self) -> None:
        self.ask("first", context=self.context())
        self.ask("second", context=self.context())


class Parent(Client):
    """A class that another one inherits from, and that has users of its own."""

    greeted = 0

    def on_start(self) -> None:
        self.greeted += 1
        self.ask("login")

    @task
    def page(self) -> None:
        self.ask(f"{type(self).__name__} page")
        assert self.greeted == 1


class Spawning(Client):
    """A user that sends from its own greenlets, and whose wait needs a value from a task."""

    def wait_time(self) -> float:
        return float(self.last)

    last: Any = None

    @task
    def page(self) -> None:
        gevent.joinall([gevent.spawn(self.ask, "Spawned page")])


class Child(Parent):
    """Its `on_start` calls its parent's."""

    def on_start(self) -> None:
        super().on_start()


class Nested(Client):
    """Waits that are defined on a task set, and on one within it."""

    @task
    class Browsing(TaskSet):
        wait_time = between(0.01, 0.02)

        @task(3)
        def page(self) -> None:
            _ask(self, "Nested page")

        @task(1)
        class Detail(TaskSet):
            wait_time = constant(0.01)

            @task
            def page(self) -> None:
                _ask(self, "Nested detail")
                self.interrupt(reschedule=False)  # type: ignore[no-untyped-call]  # Locust's own


def _ask(task_set: TaskSet, name: str) -> None:
    user: Any = task_set.user
    user.ask(name)


class Paced(Client):
    """Locust's own pacing, which keeps times on the user."""

    wait_time = constant_pacing(0.1)

    @task
    def page(self) -> None:
        self.ask("Paced page")


class Busy(Client):
    """One request at a time, slower than they arrive."""

    @task
    def page(self) -> None:
        self.ask("page", seconds=0.06)


class Regular(Client):
    """Waits as long as the users of a study."""

    wait_time = constant(0.3)

    def on_start(self) -> None:
        gevent.sleep(random.uniform(0, 0.3))

    @task
    def page(self) -> None:
        self.ask("Regular page", seconds=0.02)


class Waiting(Client):
    """A user that waits for long after each task."""

    wait_time = constant(600)

    @task
    def page(self) -> None:
        self.ask("page")


PLAIN: dict[str, Any] = {"name": "page", "response_time": 20.0, "response_length": 5, "exception": None}
ODD_EVENTS: dict[str, dict[str, Any]] = {
    "plain": {"start_time": "now"},
    "no-start": {},
    "start-none": {"start_time": None},
    "start-monotonic": {"start_time": time.perf_counter()},
    "start-future": {"start_time": time.time() + 100},
    "context": {"start_time": "now", "context": {"started_ns": 1, "intended_ns": 2}},
    "no-length": {"start_time": "now", "response_length": None},
    "status": {"start_time": "now", "response": SimpleNamespace(status_code=HTTPStatus.NOT_FOUND)},
    "status-none": {"start_time": "now", "response": SimpleNamespace(status_code=None)},
    "no-status": {"start_time": "now", "response": object()},
    "length-large": {"start_time": "now", "response_length": 3_000_000_000},
    "length-unknown": {"start_time": "now", "response_length": -1},
    "failure": {"start_time": "now", "exception": "a text"},
    "no-failure": {"start_time": "now", "exception": ""},
    "time-none": {"response_time": None},
    "time-nan": {"response_time": math.nan},
    "time-negative": {"response_time": -1.0},
    "time-text": {"response_time": "12"},
    "time-huge": {"response_time": 1e15},
    "status-text": {"response": SimpleNamespace(status_code="OK")},
    "status-negative": {"response": SimpleNamespace(status_code=-1)},
    "length-negative": {"response_length": -2},
    "status-huge": {"response": SimpleNamespace(status_code=70_000)},
    "length-huge": {"response_length": 1 << 63},
    "length-float": {"response_length": 1.5},
    "name-none": {"name": None},
    "name-list": {"name": ["page"]},
}


def _event(folder: Path, event: dict[str, Any]) -> dict[str, Any]:
    """Record one event that is fired 50 ms after its response; times are since the event."""
    made = _recorder(folder)
    given_up: list[str] = []
    made.give_up = given_up.append
    if event.get("start_time") == "now":
        event = event | {"start_time": time.time() - 0.07}
    fired_ns = time.perf_counter_ns() - made.zero_ns
    made.request(**(PLAIN | event))
    made.request(**(PLAIN | event))
    made.flush()
    row = recorder.ROW.unpack((folder / "samples.bin").read_bytes()[: recorder.ROW.size]) if made.recorded else None
    since = (row[0] - fired_ns, row[1] - fired_ns) if row else ()
    return {"row": [*since, *row[2:]] if row else None, **made.account(), "given_up": given_up}


def _recorder(folder: Path, *, started: bool = True) -> recorder.Recorder:
    folder.mkdir(exist_ok=True)
    made = recorder.Recorder(folder, part="", give_up=lambda _: None)
    if started:
        made.start()
        made.zero_ns -= STEP_NS  # the load goes on for a while
    return made


def _recorded(folder: Path, user_classes: Any = (Asking,), *, rate: float = 0.0) -> Environment:
    """Locust with the recorder attached, as its own command line would have it."""
    environment = Environment(events=events, user_classes=[*user_classes])
    environment.create_local_runner()
    options = {"meshbench_record_to": str(folder), "meshbench_arrival_rate": rate, "meshbench_seed": 1}
    options["meshbench_ready"] = ""
    environment.parsed_options = type("Options", (), options)()
    events.init.fire(environment=environment)  # type: ignore[no-untyped-call]  # Locust's own
    return environment


def _run(environment: Environment, *, seconds: float, users: int = 3) -> None:
    runner = environment.runner
    assert runner is not None
    runner.start(users, spawn_rate=users)
    with gevent.Timeout(seconds, False):
        runner.greenlet.join()
    runner.quit()
    events.quit.fire(exit_code=0)  # type: ignore[no-untyped-call]  # Locust's own


FACTS: dict[str, Callable[[Path], Any]] = {
    fact.__name__: fact
    for fact in (
        packed_rows,
        closed_loop,
        open_loop,
        busy_open_loop,
        any_waits,
        hanging_user,
        held_closed_loop,
        held_open_loop,
        ended_in_waits,
        odd_events,
        too_many_names,
        odd_names,
        before_the_start,
        stepped_clock,
        workers,
        arrivals,
        load,
        two_starts,
        full_disk,
        refused_row,
        no_start,
    )
}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(FACTS[sys.argv[1]](Path(sys.argv[2]))))
