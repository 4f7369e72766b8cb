"""The real command with output that is closed or full, and with paths of odd names."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests import command

ODD = "a, b;$(x) 'é\udcff"


def _close(*numbers: int) -> None:
    for number in numbers:
        os.close(number)


@pytest.mark.parametrize(
    ("arguments", "code"), [(["scenarios"], 0), (["validate", "nothing.yaml"], 2)], ids=["success", "failure"]
)
@pytest.mark.parametrize("closed", [[1], [2], [0, 1, 2]], ids=str)
def test_closed_streams_keep_the_exit_code(output: Path, arguments: list[str], code: int, closed: list[int]) -> None:
    """`meshbench ... >&-` ends as without it, and no file gets the text that was for a closed stream."""
    finished = command.call(*arguments, output=output, prepare=lambda: _close(*closed))
    assert finished.code == code, finished.output
    assert "Traceback" not in finished.err


def test_closed_pipe_keeps_the_exit_code(output: Path) -> None:
    """`meshbench scenarios | head -0` succeeds, and the pipe's error is not printed by the interpreter either."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        finished = command.call("scenarios", output=output, stdout=writer)
    finally:
        os.close(writer)
    assert (finished.code, finished.err) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "code"), [(["scenarios"], 9), (["validate", "nothing.yaml"], 2)], ids=["success", "failure"]
)
def test_full_output_is_a_failure_of_a_success(output: Path, arguments: list[str], code: int) -> None:
    """What a full disk lost is one message; a command that fails anyway keeps its exit code."""
    with Path("/dev/full").open("w") as full:
        finished = command.call(*arguments, output=output, stdout=full)
    assert finished.code == code, finished.output
    assert "Traceback" not in finished.err
    assert ("standard output cannot be written: No space left on device" in finished.err) == (code == 9)


def test_run_in_folders_with_odd_names(tmp_path: Path) -> None:
    """Commas, spaces, what a shell would execute and bytes that are not UTF-8, in the folders of the results, of the
    scenario, of its Locust file and of temporary files; the command that is printed for it works when it is pasted."""
    folder = tmp_path / ODD
    (folder / "tmp").mkdir(parents=True)
    load = {"locustfile": command.write_locustfile(folder, "@task\ndef page(self): self.ask()"), "duration": "1s"}
    scenario = command.write_scenario(folder, [command.BASELINE], load=load)
    output = folder / "results"
    finished = command.run(
        "run", "--scenario", scenario, *command.ONCE, output=output, env={"TMPDIR": str(folder / "tmp")}
    )
    run = command.find_only_run(output)
    assert command.read_record(run)["trials"], finished.output
    resumed = command.call("run", "--resume", run, output=output)
    assert resumed.code == 2, resumed.output
    again = command.call("cleanup", "--run", run, output=output)
    assert again.code == 0, again.output


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_printed_command_is_read_by_a_shell(shell: str) -> None:
    """A shell reads the words of a command that is printed as they were; bash also those with control characters."""
    from bench.system.output import format_command

    words = [ODD.removesuffix("\udcff"), "-x", "a\\b", '"', *(["\x1b\n\udcff"] if shell == "bash" else [])]
    program = "import os, sys; sys.stdout.buffer.write(b'\\0'.join(map(os.fsencode, sys.argv[1:])))"
    printed = f"{shlex.quote(sys.executable)} -c {shlex.quote(program)} {format_command(*words)}"
    ran = subprocess.run([shell, "-c", printed], capture_output=True, check=True)
    assert [os.fsdecode(word) for word in ran.stdout.split(b"\0")] == words
