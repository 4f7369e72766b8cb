"""Locust in a pod: started, watched and read through the API server, and ended.

The load goes on while the API server is away; what was recorded meanwhile is fetched afterwards.
"""

import json
import time
from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final, Protocol

from bench.analysis.validity import make_issue
from bench.errors import BadAnswerError, ClusterError, DeployError, StoreError
from bench.k8s.client import Cluster
from bench.k8s.objects import find_restarts
from bench.k8s.ownership import COMPONENT, labels_of
from bench.k8s.retry import LOAD, Outage
from bench.load.generator import SHORT_TIMEOUT_S, START_TIMEOUT_S, LoadSpec, RunningLoad
from bench.load.raw_samples import ACCOUNT, LOG, read_account, read_start, read_valid_account
from bench.load.recorded import Account, Start, clean_text
from bench.results.issues import Issue, IssueCode
from bench.results.resources import Row
from bench.system.cancellation import CancelToken, Shield, wait_until
from bench.system.private_files import Content, PrivateFolder
from bench.system.redaction import redact
from bench.targets.cluster.load.clock import Offset, read_offset
from bench.targets.cluster.load.pod import (
    FOLDER,
    GO,
    KEEPER,
    NAME,
    UI_PORT,
    find_load_pod,
    find_load_problem,
    find_missing,
)
from bench.targets.cluster.load.transfer import LoadEnd, PodFiles
from bench.units import NANOSECONDS

TICK_S: Final = 2.0  # each tick costs the load's node a process
_POLL_S: Final = 0.25
_LOG_LINES: Final = 500
_LONGEST_PROBLEM: Final = 2000
_NOT_YET: Final = Start(0, 0.0)
_CLOCKS_APART_S: Final = 60.0  # how far off the pod's clock, and its reading, can be


class Meter(Protocol):
    """Reads what the containers and nodes of a run use. What cannot be read leaves its figures out, and is reported in
    `issues`: it is no reason to end a load."""

    def tick(self) -> None:
        """Read, unless that was just done."""

    def read(self) -> None:
        """Read now."""

    def rows(self, start: Start) -> list[Row]:
        """Return what was read, on the clock of the load that began at `start`."""

    def issues(self) -> tuple[Issue, ...]:
        """Return what a reader should know before using it."""


@dataclass
class PodGenerator:
    """See `bench.load.generator.Generator`. `pods` are the names of those that have to stay; `private` gets the log."""

    files: PodFiles
    start: Start | None
    offset: Offset
    meter: Meter
    pods: Collection[str]
    watch: CancelToken
    private: PrivateFolder
    outage: Outage = field(default_factory=Outage)
    _trouble: str = ""
    _broken: bool = False
    _is_ending: bool = False
    _holds: int = 0
    _next_s: float = 0.0

    def wait_for_start(self) -> float:
        self.start = _wait_for_start(self.files, self.watch)
        if not -_CLOCKS_APART_S <= self.now_ns() / NANOSECONDS <= START_TIMEOUT_S + _CLOCKS_APART_S:
            raise BadAnswerError("what the load pod recorded is invalid: started.json is not of a load that began now")
        return time.time() - self.now_ns() / NANOSECONDS

    def now_ns(self) -> int:
        return time.perf_counter_ns() - self.zero_ns()

    def zero_ns(self) -> int:
        return (self.start or _NOT_YET).zero_ns + self.offset.offset_ns

    def tick(self) -> None:
        """Look at most every `TICK_S`, and less often while the API server does not answer. Raises BadAnswerError where
        what the pod sends is invalid: then nothing of it can be used."""
        now_s = time.monotonic()
        if now_s < self._next_s or not self.outage.is_due(now_s):
            return
        try:
            self._check_pods()
            self.files.fetch()
        except BadAnswerError:
            raise
        except ClusterError as error:
            self._note_failure(error)
        else:
            self.outage.record_answer(time.monotonic())
            self.meter.tick()
        self._next_s = now_s + TICK_S

    def trouble(self) -> str:
        return self._trouble or self.outage.give_up_reason(time.monotonic())

    def broken(self) -> bool:
        return self._broken

    def read_cpu(self) -> None:
        """Return nothing: the kubelet's figures come too late to decide about a window."""

    def hold(self) -> None:
        self._holds += 1
        self.files.hold(self._holds)

    def release(self) -> None:
        self.files.release()

    def is_held(self) -> bool:
        return self.files.is_held(self._holds)

    def begin_stop(self) -> None:
        """Ask Locust to end, unless the API server is away or there is little time: `stop` does it then."""
        if self.outage.since_s is not None or self.watch.signals:
            return
        self.meter.read()  # while the load goes on: what it uses after its end is not of the window
        self._is_ending = LoadEnd(self.files, Shield(self.watch)).begin()

    def stop(self, *, timeout_s: float) -> int | None:
        """Stop the load and return Locust's exit code. Samples that were not fetched, or not as the pod has them, are
        reported in the generator's own account. Raises BadAnswerError for invalid samples, but not with a short
        deadline."""
        end = LoadEnd(self.files, Shield(self.watch))
        if timeout_s <= SHORT_TIMEOUT_S:
            end.fetch_quickly(timeout_s=timeout_s)
            return None
        if not self._is_ending:
            self.meter.read()
        problem = end.fetch_fully(timeout_s=timeout_s)
        self.files.check()
        if problem:
            _add_problem(self.files.folder, problem)
        elif self.outage.since_s is not None:
            self.outage.record_answer(time.monotonic())
        exit_code = end.exit_code()
        self.private.keep([Content(LOG, redact(self._log()).encode("utf-8", "backslashreplace"))])
        return exit_code

    def resources(self) -> list[Row]:
        return self.meter.rows(self.start or _NOT_YET)

    def issues(self) -> tuple[Issue, ...]:
        """Return what a reader should know of this load, in addition to its numbers."""
        own = {
            IssueCode.API_OUTAGE: self.outage.format_outages(),
            IssueCode.CLOCK_SKEW: self.offset.format_warning(),
        }
        return (*(make_issue(code, detail) for code, detail in own.items() if detail), *self.meter.issues())

    def _note_failure(self, error: ClusterError) -> None:
        if error.is_retryable:
            self.outage.record_failure(error, time.monotonic())
        else:
            self._trouble = self._trouble or f"the load can no longer be watched: {error}"

    def _check_pods(self) -> None:
        pods = self.files.pods()
        pod = find_load_pod(pods)
        trouble = find_load_problem(pod)
        if trouble and not self._trouble:  # a pod that is deleted has no log
            self._trouble = (
                f"{trouble}, log: {_format_last_lines(self.files, lines=3, line_end=' / ')}" if pod else trouble
            )
        self._trouble = self._trouble or find_missing(self.pods, pods)
        self._broken = bool(find_restarts([pod for pod in pods if labels_of(pod).get(COMPONENT) == "application"]))

    def _log(self) -> str:
        lines = (self.offset.format_summary(), *(issue.detail for issue in self.issues()))
        return "".join(f"meshbench: {line}\n" for line in lines) + _read_log(self.files, lines=_LOG_LINES)


def start_load(
    cluster: Cluster,
    order: LoadSpec,
    folder: Path,
    *,
    namespace: str,
    meter: Meter,
    watch: CancelToken,
    private: PrivateFolder,
) -> RunningLoad:
    """Start Locust in the pod that waits for it."""
    files = PodFiles(cluster, namespace, folder, order.workers, most_bytes=order.most_bytes)
    names = frozenset(pod["metadata"]["name"] for pod in files.pods())
    offset = read_offset(cluster, namespace)
    if order.held:
        files.hold(0)
    cluster.exec(NAME, ["touch", f"{FOLDER}/{GO}"], namespace=namespace, container=KEEPER)
    outage = Outage(replace(LOAD, patience_s=cluster.timing.away_s))
    return RunningLoad(PodGenerator(files, None, offset, meter, names, watch, private, outage=outage), order, folder)


def locust_page(cluster: Cluster, *, namespace: str, port: int) -> AbstractContextManager[int]:
    """Serve Locust's own web page on 127.0.0.1:`port` while the block lasts; the pod must have been made with it."""
    return cluster.forward(NAME, UI_PORT, namespace=namespace, local_port=port)


def _wait_for_start(files: PodFiles, watch: CancelToken) -> Start:
    trouble: list[str] = []

    def look() -> Start | bool:
        files.fetch()
        trouble.append(find_load_problem(find_load_pod(files.pods())))
        return _read_start(files.folder) or bool(trouble[-1])

    start = wait_until(look, timeout_s=START_TIMEOUT_S, watch=watch, poll_s=_POLL_S)
    if not isinstance(start, Start):
        own, _ = read_valid_account(files.folder)
        if own is not None and own.problem:
            raise DeployError(f"Locust did not start: {own.problem}")
        why = trouble[-1] or f"no first user within {START_TIMEOUT_S:.0f} s"
        raise DeployError(f"Locust did not start: {why}\n{_format_last_lines(files, lines=12)}")
    return start


def _read_log(files: PodFiles, *, lines: int, line_end: str = "\n") -> str:
    """Return the end of Locust's log."""
    try:
        log = files.cluster.logs(NAME, namespace=files.namespace, container=NAME, lines=lines)
    except ClusterError as error:
        return f"the log could not be read ({error})"
    return line_end.join(log.strip().splitlines()) or "nothing"


def _format_last_lines(files: PodFiles, *, lines: int, line_end: str = "\n") -> str:
    """Return the end of Locust's log for a message, cut where it is long."""
    text = redact(_read_log(files, lines=lines, line_end=line_end))
    return text if len(text) <= _LONGEST_PROBLEM else f"...{text[-_LONGEST_PROBLEM:]}"


def _read_start(folder: Path) -> Start | None:
    try:
        return read_start(folder)
    except StoreError as error:
        raise BadAnswerError(f"what the load pod recorded is invalid: {error}") from error


def _add_problem(folder: Path, problem: str) -> None:
    """Add a problem to Locust's account, or make an account of it where there is none."""
    own = read_account(folder) or Account()
    content = {**asdict(own), "problem": own.problem or clean_text(problem, _LONGEST_PROBLEM)}
    known = {key: value for key, value in content.items() if value is not None}
    (folder / ACCOUNT).write_text(json.dumps(known), "utf-8")
