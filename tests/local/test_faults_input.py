"""Bad input through the real command: exit 2, one clear message, nothing made."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import command

GOOD = """\
schema_version: 1
name: mine
title: Mine
load: {users: 2, warmup: 1s, duration: 2s}
configurations:
  - {name: baseline, mesh: none}
"""


def with_line(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


LOAD = "load: {users: 2, warmup: 1s, duration: 2s}"
BAD_FILES = {
    "2 syntax": (with_line(LOAD, "load: {users: 2"), "mine.yaml:"),
    "3 misspelt keys": (with_line(LOAD, "lod: {users: 2}\nrepeat: 2"), "did you mean load?|did you mean repeats?"),
    "4 duplicate key": (GOOD + "name: other\n", "name|line 2"),
    "5 alias flood": ("a: &a [x]\nb: [*a, *a]\n" + GOOD, "alias"),
    "5 too large": (GOOD + "#" * 300_000, "256 KiB"),
    "6 python tag": (with_line("title: Mine", "title: !!python/object/apply:os.system [touch made]"), "python"),
    "7 no users": (with_line("users: 2", "users: 0"), "load.users|1"),
    "7 half a user": (with_line("users: 2", "users: 2.5"), "load.users"),
    "7 too many users": (with_line("users: 2", "users: 10000000"), "load.users|10"),
    "8 negative": (with_line("duration: 2s", "duration: -2s"), "load.duration"),
    "8 not a number": (with_line("duration: 2s", "duration: .nan"), "load.duration|unit"),
    "8 words": (with_line("duration: 2s", "duration: 2 minits"), "load.duration|2 minits"),
    "8 shorter than warm-up": (with_line("warmup: 1s", "warmup: 10s"), "shorter than the warm-up"),
    "10 outside": (with_line("mesh: none", "mesh: istio, manifests: [../secret]"), "../secret"),
    "10 absolute": (with_line("mesh: none", "mesh: istio, manifests: [/etc]"), "/etc"),
    "11 markup in a name": (with_line("name: mine", "name: <script>"), "name|a-z, 0-9 and -"),
    "11 formula in a name": (with_line("name: baseline", "name: =cmd()"), "a-z, 0-9 and -"),
    "12 unknown mesh": (with_line("mesh: none", "mesh: linkerd"), "linkerd|istio"),
    "12 other version": (with_line("schema_version: 1", "schema_version: 9"), "schema_version|version 1, not 9"),
}


@pytest.mark.parametrize(("text", "said"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_scenario_is_refused_with_its_place_and_nothing_is_made(output: Path, text: str, said: str) -> None:
    """Cases 2 to 8 and 10 to 12: exit 2, the mistake and its line on standard error, no folder."""
    (output.parent / "mine.yaml").write_text(text, "utf-8")
    finished = command.call("run", "--scenario", "./mine.yaml", "--output", output, output=output)
    assert finished.code == 2, finished.told
    assert "mine.yaml" in finished.err
    assert [part for part in said.split("|") if part not in finished.err] == []
    _assert_nothing_made(output, finished)


def _symlink(folder: Path) -> None:
    (folder / "elsewhere").symlink_to("/etc")


ARGUMENTS: dict[str, tuple[list[str], str, Callable[[Path], object]]] = {
    "1 missing": (["--scenario", "./gone.yaml"], "gone.yaml: no such file", lambda _: None),
    "1 a folder": (["--scenario", "./dir.yaml"], "dir.yaml", lambda folder: (folder / "dir.yaml").mkdir()),
    "1 unknown name": (["--scenario", "smok"], "did you mean smoke?", lambda _: None),
    "3 unknown flag": (["--scenario", "smoke", "--user", "3"], "--user", lambda _: None),
    "7 flag": (["--scenario", "smoke", "--users", "0"], "--users", lambda _: None),
    "8 time limit": (["--scenario", "smoke", "--timeout", "2 minits"], "2 minits", lambda _: None),
    "8 several": (["--scenario", "smoke", "--users", "0", "--duration", "1"], "--duration", lambda _: None),
    "both": (["--scenario", "smoke", "--resume", "x"], "either", lambda _: None),
    "neither": ([], "--scenario", lambda _: None),
    "resume with changes": (["--resume", "x", "--users", "3"], "--users", lambda _: None),
    "10 link": (["--scenario", "smoke", "--set", "configurations.1.manifests=elsewhere"], "elsewhere", _symlink),
}


@pytest.mark.parametrize(("arguments", "said", "prepare"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_bad_arguments_are_refused_by_name(
    output: Path, arguments: list[str], said: str, prepare: Callable[[Path], object]
) -> None:
    """Cases 1, 3, 7, 8 and 10 on the command line: exit 2, the argument named, no folder."""
    prepare(output.parent)
    finished = command.call("run", *arguments, "--output", output, output=output)
    assert finished.code == 2, finished.told
    assert said in finished.err
    _assert_nothing_made(output, finished)


def _assert_nothing_made(output: Path, finished: command.Finished) -> None:
    assert not output.exists()
    assert not (output.parent / "made").exists()
    assert finished.out == ""
    assert "Traceback" not in finished.err
