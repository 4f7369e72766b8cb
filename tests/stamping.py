"""A server that stamps when it received each request and when it sent its response, on the clock of recorders, and
Locust users of several classes: the recorded times can be compared with the stamps.
"""

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.load import recorder_path
from bench.load.raw_samples import read_samples, read_start
from tests.bookinfo import ROOT

_BODY = b"x" * 1000
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(_BODY) + _BODY

_MOST_LOG = 2000  # characters: it ends with a line for each request's name

LOCUSTFILE = """
import http.client
import itertools
import json
import time
from pathlib import Path

from locust import FastHttpUser, HttpUser, User, constant, events, task

numbers = itertools.count()
began_ns, response_ms = {}, {}


@events.request.add_listener
def keep(name, response_time, **_):
    response_ms[name] = response_time


@events.quit.add_listener
def write(**_):
    Path(__file__).with_name("own.json").write_text(json.dumps([began_ns, response_ms]))


class Asking(User):
    abstract = True
    wait_time = constant(0.1)

    def on_start(self):  # not all in step
        self.client.get(self.path())
        time.sleep(next(numbers) % 10 / 100)

    def path(self):  # every request has a name of its own
        return f"/{type(self).__name__}/{next(numbers)}"

    @task
    def page(self):
        path = self.path()
        began_ns[path] = time.perf_counter_ns()
        self.ask(path)

    def ask(self, path):
        self.client.get(path)


class Http(Asking, HttpUser):
    pass


class Fast(Asking, FastHttpUser):
    pass


class Inheriting(Http):
    def on_start(self):
        super().on_start()


class Caught(Asking, FastHttpUser):
    def ask(self, path):
        with self.client.get(path, catch_response=True) as response:
            time.sleep(0.03)  # the event comes later than the answer
            response.success()


class Client:
    def __init__(self, user):
        self.user = user
        self.connection = http.client.HTTPConnection(user.host.removeprefix("http://"))

    def get(self, path):
        began = time.perf_counter()
        self.connection.request("GET", path)
        size = len(self.connection.getresponse().read())
        self.user.environment.events.request.fire(
            request_type="GET", name=path, response_time=(time.perf_counter() - began) * 1e3, response_length=size,
            exception=None, context={},
        )


class Custom(Asking):
    def __init__(self, environment):
        super().__init__(environment)
        self.client = Client(self)
"""


@dataclass
class Stamps:
    """The address of the server, and for each path when it received the request and sent the response (ns)."""

    address: str = ""
    received_ns: dict[str, int] = field(default_factory=dict)
    sent_ns: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Compared:
    """Requests of one class: columns of the recorded times and of the server's stamps, with the same zero (ns)."""

    intended: npt.NDArray[np.int64]
    started: npt.NDArray[np.int64]
    ended: npt.NDArray[np.int64]
    received: npt.NDArray[np.int64]
    sent: npt.NDArray[np.int64]


class _Stamping(asyncio.Protocol):
    """One connection: its requests have no body, and come one after the other."""

    def __init__(self, stamps: Stamps, processing_s: float) -> None:
        self.stamps = stamps
        self.processing_s = processing_s

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        path = data.split(b" ", 2)[1].decode()
        self.stamps.received_ns[path] = time.perf_counter_ns()
        asyncio.get_running_loop().call_later(self.processing_s, self.answer, path)

    def answer(self, path: str) -> None:
        self.stamps.sent_ns[path] = time.perf_counter_ns()
        self.transport.write(_ANSWER)


@contextmanager
def run_stamping_server(processing_s: float) -> Iterator[Stamps]:
    """Serve on loopback, in a thread of its own, until the block ends; each response takes `processing_s`."""
    stamps = Stamps()
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        made = loop.create_server(lambda: _Stamping(stamps, processing_s), "127.0.0.1", 0)
        server = loop.run_until_complete(made)
        host, port = server.sockets[0].getsockname()
        stamps.address = f"{host}:{port}"
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield stamps
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            server.close()


def load(
    folder: Path,
    stamps: Stamps,
    *classes: str,
    users: int,
    seconds: int,
    rate: float = 0,
) -> None:
    """Record users of these classes in `folder`, with a Locust process that ends by itself."""
    locustfile = folder / "asking.py"
    locustfile.write_text(LOCUSTFILE, "utf-8")
    options = {
        "--locustfile": f"{recorder_path()},{locustfile}",
        "--host": f"http://{stamps.address}",
        "--users": users,
        "--spawn-rate": users,
        "--run-time": f"{seconds}s",
        "--stop-timeout": 5,
        "--meshbench-arrival-rate": rate,
        "--meshbench-seed": 1,
        "--meshbench-record-to": folder,
        "--loglevel": "WARNING",
    }
    given = [str(part) for option in options.items() for part in option]
    argv = [sys.executable, "-m", "locust", "--headless", "--only-summary", *given, *classes]
    with (folder / "load.log").open("w+") as log:
        child = subprocess.run(argv, cwd=ROOT, stdout=log, stderr=log, timeout=seconds + 60)
        log.seek(0)
        assert child.returncode == 0, log.read(_MOST_LOG)


def compare_own(folder: Path) -> dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Return by class how much later than the client's own the recorded starts are, and how much longer than Locust's
    `response_time` the recorded latencies are (ns), of the requests of tasks."""
    samples, start = read_samples(folder), read_start(folder)
    assert start is not None
    began_ns, response_ms = json.loads((folder / "own.json").read_text("utf-8"))
    rows: dict[str, list[tuple[int, int]]] = {}
    for number, started_ns, latency_ns in zip(samples.name, samples.started_ns, samples.latency_ns, strict=True):
        path = samples.names[number]
        if path in began_ns:
            late_ns = int(started_ns) + start.zero_ns - began_ns[path]
            rows.setdefault(path.split("/")[1], []).append((late_ns, int(latency_ns) - round(response_ms[path] * 1e6)))
    columns = {name: np.array(found, np.int64).T for name, found in rows.items()}
    return {name: (starts, latencies) for name, (starts, latencies) in columns.items()}


def compare(folder: Path, stamps: Stamps) -> dict[str, Compared]:
    """Return the recorded times of `folder` and the stamps, by class, in the order of the starts."""
    samples, start = read_samples(folder), read_start(folder)
    assert start is not None
    paths = [samples.names[number] for number in samples.name.tolist()]
    received = np.array([stamps.received_ns[path] for path in paths]) - start.zero_ns
    sent = np.array([stamps.sent_ns[path] for path in paths]) - start.zero_ns
    classes = np.array([path.split("/")[1] for path in paths])
    columns = (samples.intended_ns, samples.started_ns, samples.completed_ns, received, sent)
    return {name: Compared(*(column[classes == name] for column in columns)) for name in np.unique(classes).tolist()}
