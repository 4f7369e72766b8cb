"""Print safely: the program's output streams, and commands in messages.

A stream redacts secrets and shows control characters of others' text as `\\u001b`, which is valid in JSON, too. Where
its reader has closed it, or its disk is full, the rest is dropped: the command goes on with its own exit code.
"""

import codecs
import errno
import io
import os
import re
import shlex
import sys
from collections.abc import Iterable
from typing import IO, Any, Final, TextIO, cast

from bench.system.redaction import redact

_HUNG_UP: Final = (errno.EPIPE, errno.EIO)  # a closed pipe, a closed terminal
# What a terminal executes: control characters but for line ends and tabs, what reorders a line or ends it, and bytes of
# a path that are not UTF-8, which no stream can encode.
_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def show_controls(text: str) -> str:
    """Replace each character that a terminal would execute by its number: `\\u001b`."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def format_command(*words: object) -> str:
    """Format a command that works when it is pasted into a shell: each word is quoted where it has to be."""
    return " ".join(_quote(str(word)) for word in words)


def _quote(word: str) -> str:
    if not _CONTROL.search(word) and "\n" not in word:
        return shlex.quote(word)
    encoded = word.encode("utf-8", "surrogateescape")
    return "$'" + "".join(chr(one) if _is_plain(one) else f"\\x{one:02x}" for one in encoded) + "'"


def _is_plain(byte: int) -> bool:
    return 0x20 <= byte < 0x7F and byte not in b"'\\"


class OutputStream:
    """A text stream of this program that redacts and escapes what is written, and never raises OSError: after the first
    `failure` it drops the rest. It has no `buffer`, which would bypass the redaction. `styled` writes the program's own
    control characters."""

    def __init__(self, below: TextIO) -> None:
        self._below = below
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self.write_styled(show_controls(text))
        return len(text)

    def write_styled(self, text: str) -> None:
        """Write text with the program's own control characters."""
        if self.failure is None:
            try:
                self._below.write(redact(text))
            except OSError as error:
                self._drop(error)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if self.failure is None:
            try:
                self._below.flush()
            except OSError as error:
                self._drop(error)

    def styled(self) -> IO[str]:
        """Return the stream for text whose control characters are the program's own, such as a live display."""
        return cast("IO[str]", StyledStream(self))

    @property
    def is_hung_up(self) -> bool:
        """Whether the reader has closed the pipe or the terminal."""
        return self.failure is not None and self.failure.errno in _HUNG_UP

    def _drop(self, error: OSError) -> None:
        """Keep the failure, and lead what is still buffered to nowhere: the interpreter writes it at its end."""
        self.failure = error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._below.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":
            raise AttributeError(name)
        return getattr(self._below, name)


class StyledStream:
    """An `OutputStream` whose writer has already escaped the text of others."""

    def __init__(self, below: OutputStream) -> None:
        self._below = below

    def write(self, text: str) -> int:
        self._below.write_styled(text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._below, name)


def protect_streams() -> None:
    """Make this process's standard output and error safe from now on, uncaught exceptions included. Standard streams
    that are closed lead to nowhere: the next file that is opened would otherwise get their number, and their text."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            is_ascii = codecs.lookup(stream.encoding).name == "ascii"  # click would do the same, past this stream
            stream.reconfigure(encoding="utf-8" if is_ascii else None, errors="backslashreplace")
        if stream is not None and not isinstance(stream, OutputStream):
            setattr(sys, name, OutputStream(stream))


def find_lost_output() -> OSError | None:
    """Write what is buffered; return why the standard output is lost, None where it is written or was not wanted."""
    streams: tuple[Any, Any] = sys.stdout, sys.stderr
    for stream in streams:
        if stream is not None:
            stream.flush()
    out = streams[0]
    return out.failure if isinstance(out, OutputStream) and not out.is_hung_up else None
