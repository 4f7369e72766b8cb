"""Transfer what Locust's recorder wrote in a pod into a folder here, and verify it when the load ends.

Nothing that the pod answers chooses a path or a size here: only files that were asked for are written, each up to a
limit. What the files contain is checked where it is read, in `bench.load.raw_samples`.
"""

import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.errors import BadAnswerError, ClusterError, ErrorKind
from bench.k8s.client import Cluster, Object, Ref
from bench.k8s.exec import ExecResult
from bench.k8s.retry import is_retryable, retry, wait_policy
from bench.load.raw_samples import (
    ACCOUNT,
    HOLD,
    list_held_files,
    list_raw_files,
    read_valid_account,
    read_valid_samples,
    read_valid_tasks,
)
from bench.results.samples import RAW_ROW
from bench.system.cancellation import CancelToken, wait_until
from bench.targets.cluster.load.pod import FOLDER, KEEPER, NAME, find_load_problem, find_termination
from bench.units import NANOSECONDS

MOST_OF_A_LOAD: Final = 2 * 1024**3  # all files of one load together: 65 million requests
_TIMEOUT_S: Final = 20.0
_EXIT_TIMEOUT_S: Final = 5.0  # until the API server knows that a container has ended
_POLL_S: Final = 0.25
_PAUSE_S: Final = 2.0  # between two requests to an API server that is away
_MOST_BYTES: Final = 8 * 1024 * 1024  # of one file at a time
_MOST_TEXT: Final = 4 * 1024 * 1024  # of a file that is not rows: it has to come whole
_LONGEST_HEAD: Final = 200
_HEAD: Final = re.compile(rb"([!-~]{1,100}) ([0-9]{1,15})")
_CHECKSUM: Final = re.compile(rb"([0-9a-f]{64})  ([!-~]{1,100})")

# For each file and how much of it is here already: its name, how much follows, and that.
_NEW_PARTS: Final = """
while [ $# -gt 0 ]; do
  if [ -f "$1" ]; then
    size=$(wc -c < "$1"); new=$((size - $2))
    [ "$new" -lt 0 ] && new=0
    [ "$new" -gt MOST ] && new=MOST
    echo "$1 $new"; tail -c "+$(($2 + 1))" "$1" | head -c "$new"
  fi
  shift 2
done
""".replace("MOST", str(_MOST_BYTES))
_READERS: Final[tuple[Callable[[Path], tuple[object, str]], ...]] = (
    read_valid_samples,
    read_valid_tasks,
    read_valid_account,
)
_CHECKSUMS: Final = 'for file; do [ -f "$file" ] && sha256sum "$file"; done; true'


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes that follow on what is here of a file."""

    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class PodFiles:
    """The recorder's files in the load pod, and where their copies go. `most_bytes` is the limit for all of them."""

    cluster: Cluster
    namespace: str
    folder: Path
    workers: int
    most_bytes: int = MOST_OF_A_LOAD

    def pods(self) -> tuple[Object, ...]:
        """Return the pods of its namespace, with its own. Raises ClusterError."""
        return self.cluster.list("v1", "Pod", namespace=self.namespace)

    def fetch(self) -> int:
        """Fetch what is new; return how many bytes came. All of it is added, or nothing. Raises ClusterError."""
        sizes = {name: self._size(name) for name in self._names()}
        known = [word for name, size in sizes.items() for word in (name, str(size))]
        ran = self._run([_NEW_PARTS, "fetch", *known], most_bytes=len(sizes) * (_MOST_BYTES + _LONGEST_HEAD))
        parts = tuple(parse_parts(ran.stdout, limits={name: bytes_allowed(name, size) for name, size in sizes.items()}))
        came = sum(len(part.content) for part in parts)
        if sum(sizes.values()) + came > self.most_bytes:
            text = f"the load pod's files: together they are larger than the {self.most_bytes} bytes of one load"
            raise BadAnswerError(f"{text}; hint: make the load shorter, or its rate lower")
        for part in parts:
            with (self.folder / part.name).open("ab") as file:
                file.write(part.content)
        return came

    def fetch_all(self) -> None:
        """Fetch everything, also in several rounds; the limit for a load bounds them."""
        while self.fetch() >= _MOST_BYTES:
            pass

    def is_complete(self) -> bool:
        """Return whether Locust has written its account: nothing is written after it."""
        return (self.folder / ACCOUNT).exists()

    def check(self) -> None:
        """Raise BadAnswerError where the files' content is invalid."""
        odd = next(filter(None, (read(self.folder)[1] for read in _READERS)), "")
        if odd:
            raise BadAnswerError(f"what the load pod recorded is invalid: {odd}")

    def differences(self) -> str:
        """Describe which copies differ from the pod's files; empty when all are equal. Raises ClusterError."""
        names = self._names()
        ran = self._run([_CHECKSUMS, "verify", *names], most_bytes=len(names) * _LONGEST_HEAD)
        there = parse_checksums(ran.stdout, requested=names)
        here = {path.name: _checksum(path) for path in list_raw_files(self.folder)}
        wrong = sorted(name for name in {*there, *here} if there.get(name) != here.get(name))
        return ", ".join(f"{name} ({self._describe_copy(name)})" for name in wrong)

    def hold(self, number: int) -> None:
        """Make all users wait; see `bench.load.raw_samples.write_hold`. Raises ClusterError."""
        self._run([f"printf %s {number} > {HOLD}.draft && mv {HOLD}.draft {HOLD}"], most_bytes=_LONGEST_HEAD)

    def release(self) -> None:
        """Let the users go on. Raises ClusterError."""
        self._run([f"rm -f {HOLD}"], most_bytes=_LONGEST_HEAD)

    def is_held(self, number: int) -> bool:
        """Return whether every recorder has answered the hold of this number. Raises ClusterError."""
        answers = [f"printf '%s ' \"$(cat {name} 2>/dev/null)\"" for name in list_held_files(self.workers)]
        ran = self._run(["; ".join(answers)], most_bytes=_LONGEST_HEAD * self.workers)
        return ran.stdout.split() == [str(number).encode()] * self.workers

    def forget(self) -> None:
        """Remove the copies, so that they are fetched anew."""
        for path in list_raw_files(self.folder):
            path.unlink()

    def _describe_copy(self, name: str) -> str:
        size = self._size(name)
        return f"{size // RAW_ROW.itemsize} rows here" if name.startswith("samples") else f"{size} bytes here"

    def _names(self) -> tuple[str, ...]:
        """Return starts first, names after the rows that use them, the account last: a fetch never lacks what it
        needs."""
        parts = ("",) if self.workers == 1 else tuple(f"-{worker}" for worker in range(self.workers))
        starts = dict.fromkeys(("started.json", *(f"started{part}.json" for part in parts)))
        rows = (f"samples{part}.bin" for part in parts)
        names = (f"names{part}.txt" for part in parts)
        tasks = (f"tasks{part}.bin" for part in parts)
        return (*starts, *rows, *names, *tasks, ACCOUNT)

    def _size(self, name: str) -> int:
        path = self.folder / name
        return path.stat().st_size if path.exists() else 0

    def _run(self, words: Sequence[str], *, most_bytes: int) -> ExecResult:
        script, *rest = words
        argv = ["sh", "-c", f"cd {FOLDER} && {{ {script}\n}}", *rest]
        ran = self.cluster.exec(
            NAME, argv, namespace=self.namespace, container=KEEPER, timeout_s=_TIMEOUT_S, most_bytes=most_bytes
        )
        if ran.exit_code != 0:
            text = f"reading {FOLDER} in the load pod: {ran.stderr.strip()[-300:]}"
            raise ClusterError(text, kind=ErrorKind.UNAVAILABLE)
        return ran


def bytes_allowed(name: str, size: int) -> int:
    """Return how many bytes may follow on the `size` bytes of a file that are here."""
    return _MOST_BYTES if name.endswith(".bin") else max(0, _MOST_TEXT - size)


def parse_parts(output: bytes, *, limits: Mapping[str, int]) -> Iterator[Part]:
    """Parse the script's output into parts. `limits` are the files that were requested, with the most bytes that each
    may bring. Raises ClusterError where the output is cut, and BadAnswerError for what was not requested."""
    at, done = 0, set[str]()
    while at < len(output):
        end = output.find(b"\n", at, at + _LONGEST_HEAD)
        if end < 0 and len(output) - at < _LONGEST_HEAD:
            raise _make_cut_error()
        name, size = _parse_head(output[at : end if end >= 0 else at + _LONGEST_HEAD])
        if name not in limits or name in done:
            what = "came twice" if name in done else "was not requested"
            raise BadAnswerError(f"reading the load pod's files: {name!r} {what}")
        if size > limits[name]:
            raise BadAnswerError(f"reading the load pod's files: {name} has {size} more bytes, {limits[name]} may come")
        at = end + 1 + size
        if len(output) < at:
            raise _make_cut_error()
        done.add(name)
        if size:
            yield Part(name, output[at - size : at])


def parse_checksums(output: bytes, *, requested: Collection[str]) -> dict[str, str]:
    """Parse what `sha256sum` prints: file -> SHA-256. Raises BadAnswerError for anything else."""
    checksums: dict[str, str] = {}
    for line in output.removesuffix(b"\n").split(b"\n") if output else ():
        match = _CHECKSUM.fullmatch(line)
        name = match[2].decode() if match else ""
        if match is None or name not in requested or name in checksums:
            raise BadAnswerError(
                f"verifying the load pod's files: {line[:80]!r} is not the checksum of a requested file"
            )
        checksums[name] = match[1].decode()
    return checksums


def _parse_head(head: bytes) -> tuple[str, int]:
    match = _HEAD.fullmatch(head)
    if match is None:
        raise BadAnswerError(f"reading the load pod's files: {head[:80]!r} is not a file's name and size")
    return match[1].decode(), int(match[2])


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _make_cut_error() -> ClusterError:
    return ClusterError("reading the load pod's files: the answer is cut", kind=ErrorKind.INTERRUPTED)


@dataclass(frozen=True, slots=True)
class LoadEnd:
    """Ends one load. `watch` lets it go on after a first signal: samples are worth some seconds."""

    files: PodFiles
    watch: CancelToken

    def begin(self) -> bool:
        """Ask Locust to end, without waiting; return whether that was possible."""
        return self.attempt(lambda: not self._terminate())

    def fetch_quickly(self, *, timeout_s: float) -> None:
        """Fetch what is available within that time; no wait goes beyond it."""
        self.attempt(self._terminate)
        self._wait_for_account(timeout_s)

    def fetch_fully(self, *, timeout_s: float) -> str:
        """Fetch everything; return what is missing, or empty. Waits for an API server that is away. Raises
        BadAnswerError where what the pod sends is invalid."""
        if problem := self._retry(self._terminate):
            return problem
        self._wait_for_account(timeout_s)
        return self._retry(self._verify)

    def exit_code(self) -> int | None:
        """Return Locust's exit code; None where it still runs, its pod is deleted, or the API server does not
        answer."""
        if self.attempt(lambda: self._pod() is None):
            return None
        ended = wait_until(self._find_end, timeout_s=_EXIT_TIMEOUT_S, watch=self.watch, poll_s=_POLL_S)
        code = ended.get("exitCode") if ended else None
        return code if isinstance(code, int) else None

    def _terminate(self) -> str:
        pod = self._pod()
        if pod is not None and find_termination(pod, NAME) is None:
            argv = ["sh", "-c", "kill -TERM 1"]
            self.files.cluster.exec(NAME, argv, namespace=self.files.namespace, container=NAME, timeout_s=10)
        return ""

    def _wait_for_account(self, timeout_s: float) -> None:
        """Wait until Locust will write nothing more."""
        wait_until(lambda: self.attempt(self._settled), timeout_s=timeout_s, watch=self.watch, poll_s=_POLL_S)

    def _settled(self) -> bool:
        pod = self._pod()
        if pod is None:
            return True  # its files were deleted with it
        try:
            self.files.fetch_all()
        except BadAnswerError:
            return True  # a retry would not help; `_verify` reports it
        return self.files.is_complete() or bool(find_load_problem(pod))

    def _verify(self) -> str:
        """Compare the copies; one that differs is fetched again, from its beginning."""
        self.files.fetch_all()
        if self.files.differences():
            self.files.forget()
            self.files.fetch_all()
        wrong = self.files.differences()
        return f"not all samples were fetched as the pod has them: {wrong}" if wrong else ""

    def _retry(self, act: Callable[[], str]) -> str:
        """Return the result of `act`, as soon as the API server answers; else what is missing without it."""
        policy = wait_policy(_PAUSE_S, self.files.cluster.timing.away_s)
        try:
            return retry(act, policy, watch=self.watch, may_retry=self._may_retry)
        except BadAnswerError:
            raise
        except ClusterError as error:
            return f"samples may be missing after second {self._last_s():.0f}: {error}"

    def _may_retry(self, error: Exception) -> bool:
        """Return whether another request may help: nothing can be read from a pod without its keeper."""
        return is_retryable(error) and not self.attempt(self._is_unreadable)

    def _is_unreadable(self) -> bool:
        pod = self._pod()
        return pod is None or find_termination(pod, KEEPER) is not None

    def attempt(self, act: Callable[[], object]) -> bool:
        """Return whether `act` was true just now; an API server that does not answer makes it false."""
        try:
            return bool(act())
        except ClusterError:
            return False

    def _find_end(self) -> Object | None:
        found: list[Object | None] = []
        self.attempt(lambda: found.append(find_termination(self._pod() or {}, NAME)))
        return found[0] if found else None

    def _pod(self) -> Object | None:
        return self.files.cluster.get(Ref("v1", "Pod", NAME, self.files.namespace))

    def _last_s(self) -> float:
        return float(read_valid_samples(self.files.folder)[0].completed_ns.max(initial=0)) / NANOSECONDS
