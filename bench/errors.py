"""Every way in which meshbench can fail: one class each, with its exit code and the next step in its text.

`cli.main` is the only place that catches these; nothing below it prints or exits.
"""

import signal
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in the user's input: where it is, and what would be right.

    `line` counts from 1; 0 stands for "the file as a whole". `path` is the place inside the file
    (`load.users`), empty where there is none.
    """

    file: str
    line: int
    path: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (place, self.path, self.message) if part)


class MeshbenchError(Exception):
    """Base of all expected failures; the text is what the user reads."""

    exit_code: ClassVar[int] = 1
    clean = True  # whether everything that was started is gone


class InputError(MeshbenchError):
    """The scenario, a manifest or a flag is wrong; nothing was touched."""

    exit_code = 2

    def __init__(self, problems: Iterable[Problem] | str) -> None:
        self.problems = () if isinstance(problems, str) else tuple(problems)
        super().__init__(problems if isinstance(problems, str) else "\n".join(map(str, self.problems)))


class RefusedError(MeshbenchError):
    """Something needed is missing, or the place is not ours; nothing was started."""

    exit_code = 3


class DeployError(MeshbenchError):
    """The application or a sidecar did not become ready."""

    exit_code = 4


class ClusterError(MeshbenchError):
    """The cluster's API server refused or did not answer; `status` is its HTTP status, 0 where there was no answer.
    `is_passing`: asking again later may help, since it was away, overloaded or failed; `lasting`: it will not, whatever
    the status."""

    exit_code = 4

    def __init__(self, message: str, *, status: int, lasting: bool = False) -> None:
        self.status = status
        self.is_passing = not lasting and (status in (0, HTTPStatus.TOO_MANY_REQUESTS) or status >= 500)
        super().__init__(message)


class BadAnswerError(ClusterError):
    """What a pod, a proxy or the API server sent makes no sense: it is not used, and a retry would bring the same."""

    def __init__(self, message: str) -> None:
        super().__init__(message, status=0, lasting=True)


class ProofError(MeshbenchError):
    """The system under test is not what the configuration's name says; no load was sent."""

    exit_code = 4


class InvalidMeasurementError(MeshbenchError):
    """Samples were taken and kept, but they cannot carry a result."""

    exit_code = 5


class RegressionError(MeshbenchError):
    """Two nights running were slower than the nights before them let expect."""

    exit_code = 6


class LeftoversError(MeshbenchError):
    """Something that a run started is still there."""

    exit_code = 7
    clean = False


def note_leftovers(error: BaseException, left: MeshbenchError) -> None:
    """The failure is what is told, and its exit code counts; that something stayed is added to it."""
    error.add_note(f"not everything could be removed: {left}")
    error.clean = False  # type: ignore[attr-defined]  # also of a bug, which leaves things as well


def is_clean(error: BaseException) -> bool:
    """Whether everything that was started is gone, although this ended it."""
    return bool(getattr(error, "clean", True))


def told_in_full(error: BaseException) -> str:
    """The failure, and what was added to it."""
    return "\n".join((str(error), *getattr(error, "__notes__", ())))


class LockedError(MeshbenchError):
    """Another run holds this machine or cluster, or a dead one was never cleaned up."""

    exit_code = 8


class StoreError(MeshbenchError):
    """The results folder cannot be written or read."""

    exit_code = 9


class RunTimeoutError(MeshbenchError):
    """The whole run took longer than `--timeout`."""

    exit_code = 10


class Interrupted(MeshbenchError):  # noqa: N818  # nobody's error: somebody wanted it
    """A signal ended the run; what was measured until then is kept."""

    def __init__(self, signal_number: int) -> None:
        self.signal_number = signal_number
        super().__init__(f"ended by {signal.Signals(signal_number).name}")

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # depends on the signal: 129, 130 or 143
        return 128 + self.signal_number
