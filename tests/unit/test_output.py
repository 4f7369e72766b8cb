"""What the program prints: escaped, redacted, and without an effect on its exit code where it is not read."""

import errno
import io
import json
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import click
import pytest

from bench.analysis.validity import make_issue
from bench.cli import main as command_line
from bench.errors import RegressionError
from bench.results.issues import Issue, IssueCode
from bench.system.output import (
    OutputStream,
    find_lost_output,
    format_command,
    protect_streams,
    show_controls,
)
from bench.system.redaction import REPLACEMENT, register_secret

ESCAPES = "\x1b]0;owned\x07\x1b[2J\r\x9b1A\x7f\u202egpj\u2066\u2028\udcff"
SHOWN = r"\u001b]0;owned\u0007\u001b[2J\u000d\u009b1A\u007f\u202egpj\u2066\u2028\udcff"


class Failing(io.StringIO):
    """A stream whose writes fail with this error; `file` is what its file number leads to."""

    def __init__(self, file: IO[str], number: int) -> None:
        super().__init__()
        self.number = number
        self.file = file

    def fileno(self) -> int:
        return self.file.fileno()

    def write(self, _text: str) -> int:
        raise OSError(self.number, os.strerror(self.number))


@pytest.fixture
def file(tmp_path: Path) -> Iterator[IO[str]]:
    with (tmp_path / "below").open("w") as below:
        yield below


def test_control_characters_are_shown() -> None:
    """Escape sequences, carriage returns and characters that reorder a line are printed as numbers; text is kept."""
    assert show_controls(f"a\t±12 %\n{ESCAPES}") == f"a\t±12 %\n{SHOWN}"


def test_issue_of_others_can_be_recorded() -> None:
    """Messages of pods and paths that are not UTF-8 are in records as they are shown."""
    issue = make_issue(IssueCode.FAILED, f"{ESCAPES}: no such file")
    assert Issue.model_validate_json(issue.model_dump_json()).detail == f"{SHOWN}: no such file"


def test_escaped_json_stays_json() -> None:
    """Characters that JSON does not escape have the same value after it."""
    texts = ["\x7f", "\x9b1A", "\u202e"]
    assert json.loads(show_controls(json.dumps(texts, ensure_ascii=False))) == texts


def test_stream_is_escaped_and_redacted() -> None:
    """There is no binary stream that bypasses it; a live display writes its own control characters."""
    below = io.TextIOWrapper(io.BytesIO(), "utf-8")
    stream = OutputStream(below)
    register_secret("hunter2-hunter2")
    print("a hunter2-hunter2 \x1b[2J", file=stream)
    stream.writelines(["b hunter2-hunter2\n"])
    stream.styled().write("\x1b[2J hunter2-hunter2\n")
    stream.flush()
    below.seek(0)
    assert below.read() == f"a {REPLACEMENT} \\u001b[2J\nb {REPLACEMENT}\n\x1b[2J {REPLACEMENT}\n"
    assert not hasattr(stream, "buffer")
    assert stream.encoding == "utf-8"
    assert not stream.isatty()
    with pytest.raises(TypeError, match="must be str"):
        stream.write(b"")  # type: ignore[arg-type]


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "latin-1"])
def test_no_character_ends_a_command(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    """Neither a missing locale, nor a path that is not UTF-8."""
    below = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", below)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    protect_streams()
    sys.stdout.write("±12 % → \udcff\n")
    sys.stdout.flush()
    below.seek(0)
    assert below.read() == ("±12 % \\u2192 \\udcff\n" if encoding == "latin-1" else "±12 % → \\udcff\n")


def test_replaces_streams_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed stream stays closed."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    protect_streams()
    first = sys.stderr
    protect_streams()
    assert sys.stdout is None
    assert sys.stderr is first
    assert isinstance(first, OutputStream)


@pytest.mark.parametrize(("number", "is_lost"), [(errno.EPIPE, False), (errno.EIO, False), (errno.ENOSPC, True)])
def test_failed_output_is_dropped(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    file: IO[str],
    number: int,
    is_lost: bool,
) -> None:
    """Output without a reader is no error; output that a full disk loses is."""
    monkeypatch.setattr(sys, "stdout", Failing(file, number))
    protect_streams()
    sys.stdout.write("a\n")
    sys.stdout.write("b\n")
    lost = find_lost_output()
    assert (lost is not None) == is_lost
    assert isinstance(sys.stdout, OutputStream)
    assert sys.stdout.is_hung_up is not is_lost
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("number", "code"), [(errno.EPIPE, 0), (errno.ENOSPC, 9)])
@pytest.mark.parametrize("own", [0, 6])
def test_exit_code_is_the_commands_own(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    file: IO[str],
    number: int,
    code: int,
    own: int,
) -> None:
    """`meshbench gate | head -0` ends as the gate decides; only a success whose output is lost becomes a failure."""

    def print_and_end(*_: Any, **__: Any) -> None:
        click.echo("a line")
        if own:
            raise RegressionError("slower")

    monkeypatch.setattr(sys, "stdout", Failing(file, number))
    monkeypatch.setattr(command_line.cli, "main", print_and_end)
    ended = 0
    try:
        command_line.main(["gate"])
    except SystemExit as end:
        ended = int(str(end.code))
    assert ended == (own or code)
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    assert ("No space left" in printed) == (code == 9 and not own)


@pytest.mark.parametrize("number", [errno.ENAMETOOLONG, errno.ENOSPC, errno.EMFILE, errno.EACCES])
def test_failure_of_the_system_is_a_message(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A disk, a limit or a path that no module expects is no bug of this program."""

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number), "/a/file")

    monkeypatch.setattr(command_line.cli, "main", fail)
    with pytest.raises(SystemExit) as end:
        command_line.main([])
    assert end.value.code == 9
    assert capsys.readouterr().err == f"meshbench: /a/file: {os.strerror(number)}\n"


@pytest.mark.parametrize("arguments", [["report"], ["gate", "--history", "h"], ["history"], ["validate"]])
@pytest.mark.parametrize("kind", ["long", "loop"])
def test_impossible_path_is_an_invalid_argument(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], kind: str
) -> None:
    """A name that is too long, or a link to itself, is named, with exit code 2."""
    path = tmp_path / ("a" * 300 if kind == "long" else "loop")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(SystemExit) as end:
        command_line.main([*arguments, str(path)])
    assert end.value.code == 2
    assert ("File name too long" if kind == "long" else "Too many levels of symbolic links") in capsys.readouterr().err


def test_deleted_working_folder_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every command says so at once, with exit code 3; a relative path would mean nothing."""
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    with pytest.raises(SystemExit) as end:
        command_line.main(["cleanup"])
    assert end.value.code == 3
    assert "the working folder: No such file or directory; hint: " in capsys.readouterr().err


@pytest.mark.parametrize("word", ["plain", "a b", "it's", "$(touch x)", "-x", "", "a;b", "é"])
def test_command_is_quoted_for_a_shell(word: str) -> None:
    """A shell reads each word back as it was."""
    assert shlex.split(format_command("meshbench", "report", word)) == ["meshbench", "report", word]


def test_command_with_control_characters_can_be_pasted() -> None:
    """They are written as numbers that bash and zsh read, since a stream would show and not print them."""
    command = format_command("cat", "a\x1b'\\\n\udcff")
    assert command == r"cat $'a\x1b\x27\x5c\x0a\xff'"
    assert show_controls(command) == command
