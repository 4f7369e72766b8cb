"""Define the expected failures of meshbench, and the exit code of each; the message has the hint.

Only `cli.main` turns them into output and an exit code; nothing below it prints or exits.
"""

import errno
import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


@dataclass(frozen=True, slots=True)
class Problem:
    """One error in the user's input: its file, line, path in the file and message.

    `line` counts from 1; 0 stands for the file as a whole. `path` is a path of keys (`load.users`); it may be empty.
    """

    file: str
    line: int
    path: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (where, self.path, self.message) if part)


class MeshbenchError(Exception):
    """Base of all expected failures; the message is printed as it is."""

    clean = True  # whether everything that was started has been removed


class InputError(MeshbenchError):
    """The scenario, a manifest or an option is invalid; nothing was changed."""

    def __init__(self, problems: Iterable[Problem] | str) -> None:
        self.problems = () if isinstance(problems, str) else tuple(problems)
        super().__init__(problems if isinstance(problems, str) else "\n".join(map(str, self.problems)))


class RefusedError(MeshbenchError):
    """A check before the run failed, or the cluster was not confirmed; nothing was started."""


class DeployError(MeshbenchError):
    """The application or a sidecar did not become ready."""


class ErrorKind(StrEnum):
    """Why a request to an API server failed. `bench.k8s.connection` decides it where the answer is read."""

    UNREACHABLE = "unreachable"  # no connection: the server has not seen the request
    INTERRUPTED = "interrupted"  # the connection broke: the server may have acted
    TIMEOUT = "timeout"
    CERTIFICATE = "certificate"  # of another server
    UNSENDABLE = "unsendable"  # an address or header is invalid
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not found"
    CONFLICT = "conflict"  # it exists already, or has been changed meanwhile
    FIELD_CONFLICT = "field conflict"  # another manager has set the fields
    UNSUPPORTED = "unsupported"  # the server does not have this verb or protocol
    REJECTED = "rejected"  # any other refusal
    TOO_MANY_REQUESTS = "too many requests"
    UNAVAILABLE = "unavailable"  # the server failed, or what it called: a webhook, a kubelet, a pod
    INVALID_ANSWER = "invalid answer"

    @property
    def is_retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return self in _RETRYABLE

    @property
    def is_unanswered(self) -> bool:
        """Whether no server answered, so that no other request to it would be."""
        return self in _UNANSWERED


_RETRYABLE: Final = frozenset(
    {
        ErrorKind.UNREACHABLE,
        ErrorKind.INTERRUPTED,
        ErrorKind.TIMEOUT,
        ErrorKind.TOO_MANY_REQUESTS,
        ErrorKind.UNAVAILABLE,
    }
)
_UNANSWERED: Final = frozenset(
    {
        ErrorKind.UNREACHABLE,
        ErrorKind.INTERRUPTED,
        ErrorKind.TIMEOUT,
        ErrorKind.CERTIFICATE,
        ErrorKind.UNSENDABLE,
    }
)


class ClusterError(MeshbenchError):
    """The API server rejected a request, or did not respond. Control flow reads `kind`, people read the message."""

    def __init__(self, message: str, *, kind: ErrorKind) -> None:
        self.kind = kind
        super().__init__(message)

    @property
    def is_retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return self.kind.is_retryable


class BadAnswerError(ClusterError):
    """A pod, a proxy or the API server sent an invalid response; a retry would return the same."""

    def __init__(self, message: str) -> None:
        super().__init__(message, kind=ErrorKind.INVALID_ANSWER)


@contextmanager
def reject_malformed(who: str) -> Iterator[None]:
    """Turn what breaks while an answer of another shape than expected is read into BadAnswerError; `who` answered.
    Only the reading belongs into the block."""
    try:
        yield
    except _MALFORMED as error:
        why = str(error) if type(error) is ValueError else type(error).__name__
        raise BadAnswerError(f"{who}: its answers are invalid ({why})") from error


_MALFORMED: Final = (
    ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError
)  # fmt: skip


class ProofError(MeshbenchError):
    """The system under test is not what the configuration's name says; no load was sent."""


class InvalidMeasurementError(MeshbenchError):
    """Samples were recorded and kept, but a trial is invalid."""


class RegressionError(MeshbenchError):
    """Two nights in a row were slower than the limit from the nights before."""


class LeftoversError(MeshbenchError):
    """A process, file or cluster object of a run could not be removed."""

    clean = False


def note_leftovers(error: BaseException, left: MeshbenchError) -> None:
    """Add the leftover objects to the failure, whose message and exit code stay."""
    error.add_note(f"not everything could be removed: {left}")
    error.clean = False  # type: ignore[attr-defined]  # also of a bug, which leaves things as well


def is_clean(error: BaseException) -> bool:
    """Check whether everything that was started has been removed in spite of this failure."""
    return bool(getattr(error, "clean", True))


def format_error(error: BaseException) -> str:
    """Format a failure with its notes, a line each."""
    return "\n".join((str(error), *getattr(error, "__notes__", ())))


class LockedError(MeshbenchError):
    """Another run holds the lock of this machine or cluster, or a killed run was never cleaned up."""


class StoreError(MeshbenchError):
    """The results folder cannot be written or read."""


class RunTimeoutError(MeshbenchError):
    """The whole run took longer than `--timeout`."""


class Interrupted(MeshbenchError):  # noqa: N818  # not an error: the user wanted it
    """A signal ended the run; complete trials are kept."""

    def __init__(self, signal_number: int) -> None:
        self.signal_number = signal_number
        super().__init__(f"ended by {signal.Signals(signal_number).name}")


_EXIT_CODES: Final[Mapping[type, int]] = {
    InputError: 2,
    RefusedError: 3,
    DeployError: 4,
    ClusterError: 4,
    ProofError: 4,
    InvalidMeasurementError: 5,
    RegressionError: 6,
    LeftoversError: 7,
    LockedError: 8,
    StoreError: 9,
    RunTimeoutError: 10,
}
_OF_SYSTEM: Final = frozenset(
    {
        errno.EACCES,
        errno.EDQUOT,
        errno.EIO,
        errno.ELOOP,
        errno.EMFILE,
        errno.ENAMETOOLONG,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
        errno.ESTALE,
    }
)
_BUG: Final = 1
_SIGNALLED: Final = 128  # as in a shell: 129, 130 or 143


def is_of_system(error: BaseException) -> bool:
    """Check whether a failure is one of the system: of a disk, a path, permissions or limits. It is no bug."""
    return isinstance(error, OSError) and error.errno in _OF_SYSTEM


def format_system_error(error: BaseException) -> str:
    """Format a failure of the system: the file, where there is one, and the system's reason."""
    file, reason = getattr(error, "filename", None), getattr(error, "strerror", None) or str(error)
    return f"{os.fsdecode(file)}: {reason}" if isinstance(file, str | bytes) else reason


def exit_code_of(end: BaseException | type[BaseException] | None) -> int:
    """Return the exit code of a command that ends with this failure, or with one of this class; 0 for None.

    No other function chooses an exit code.
    """
    if end is None:
        return 0
    if isinstance(end, Interrupted):
        return _SIGNALLED + end.signal_number
    if isinstance(end, BaseException) and is_of_system(end):
        return _EXIT_CODES[StoreError]
    kinds = end.mro() if isinstance(end, type) else type(end).mro()
    return next((_EXIT_CODES[kind] for kind in kinds if kind in _EXIT_CODES), _BUG)
