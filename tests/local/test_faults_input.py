"""Bad input through the real command: exit 2, every error with its location, nothing created. (The rules themselves are
tested in tests/unit/test_scenario*.py.)"""

from pathlib import Path

import pytest

from tests import command

WRONG = """\
schema_version: 9
name: <script>
titel: Mine
lod: {users: 2}
load: {users: 0, warmup: 10s, duration: 2s}
configurations:
  - {name: half, mesh: none, load: {users: 2.5}}
  - {name: huge, mesh: none, load: {users: 10000000}}
  - {name: before, mesh: none, load: {think_time: -2s}}
  - {name: nan, mesh: none, load: {think_time: nan}}
  - {name: words, mesh: none, load: {think_time: 2 minits}}
  - {name: up, mesh: istio, manifests: [../secret]}
  - {name: root, mesh: istio, manifests: [/etc]}
  - {name: linked, mesh: istio, manifests: [link]}
  - {name: =cmd(), mesh: none}
  - {name: other, mesh: linkerd}
"""
MISTAKES = {
    "12 version": ":1: schema_version: this meshbench reads version 1, not 9",
    "11 markup": ":2: name: '<script>' is not a name",
    "3 misspelt": ":3: titel: unknown key 'titel'; did you mean title?",
    "3 section": ":4: lod: unknown key 'lod'; did you mean load?",
    "7 none": ":5: load.users: must be at least 1, not 0",
    "8 short": ":5: load.duration: the window (2s) is shorter than the warm-up (10s)",
    "7 half": ":7: configurations[0].load.users: must be a whole number",
    "7 huge": ":8: configurations[1].load.users: must be at most 10000",
    "8 negative": ":9: configurations[2].load.think_time: '-2s' is not a duration",
    "8 nan": ":10: configurations[3].load.think_time: 'nan' is not a duration",
    "8 words": ":11: configurations[4].load.think_time: '2 minits' is not a duration",
    "10 up": ":12: configurations[5].manifests[0]: '../secret' is not allowed",
    "10 root": ":13: configurations[6].manifests[0]: '/etc' is not allowed",
    "10 link": ":14: configurations[7].manifests[0]: link leads out of its folder through a symbolic link",
    "11 formula": ":15: configurations[8].name: '=cmd()' is not a name",
    "12 mesh": ":16: configurations[9].mesh: unknown mesh 'linkerd' (meshes: none, istio, kuma)",
}


def test_all_scenario_errors_are_printed_with_lines(output: Path) -> None:
    """Cases 3, 7, 8, 10, 11 and 12: exit 2, all errors on standard error as file:line: path: message."""
    folder = output.parent / "away"
    folder.mkdir()
    (folder / "policy.yaml").touch()
    (output.parent / "scenarios").mkdir()
    (output.parent / "scenarios" / "link").symlink_to(folder)
    (output.parent / "scenarios" / "wrong.yaml").write_text(WRONG, "utf-8")
    finished = command.call("run", "--scenario", "scenarios/wrong.yaml", "--output", output, output=output)
    missing = [name for name, message in MISTAKES.items() if f"scenarios/wrong.yaml{message}" not in finished.err]
    assert missing == [], finished.output
    _assert_refused(output, finished)


UNREADABLE = {
    "2 syntax": ("name: mine\nload: {users: 2\nrepeats: 1\n", "wrong.yaml:3: not YAML, at column 8"),
    "4 duplicate key": ("name: mine\ntitle: Mine\nname: other\n", "wrong.yaml:3: name: duplicate key, first on line 1"),
    "5 alias flood": ("a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "wrong.yaml:1: the anchor &a is not allowed"),
    "5 too large": ("name: mine\n" + "#" * 300_000, "wrong.yaml: is larger than 256 KiB"),
    "8 no number": ("name: mine\nrepeats: .nan\n", "wrong.yaml:2: repeats: .nan is not a finite number"),
    "6 tag": ("name: !!python/object/apply:os.system [touch made]\n", "wrong.yaml:1: the tag"),
}


@pytest.mark.parametrize(("text", "message"), UNREADABLE.values(), ids=UNREADABLE)
def test_unsafe_or_invalid_yaml_is_refused(output: Path, text: str, message: str) -> None:
    """Cases 2, 4, 5, 6 and 8: exit 2 with the location and the reason, and nothing in the file is executed."""
    (output.parent / "wrong.yaml").write_text(text, "utf-8")
    finished = command.call("run", "--scenario", "./wrong.yaml", "--output", output, output=output)
    assert message in finished.err
    assert not (output.parent / "made").exists()
    _assert_refused(output, finished)


ARGUMENTS = {
    "1 missing": (["--scenario", "./gone.yaml"], "gone.yaml: no such file"),
    "1 a folder": (["--scenario", "./"], ": is a directory"),
    "1 unknown name": (["--scenario", "smok"], "did you mean smoke?"),
    "7 and 8 flags": (["--scenario", "smoke", "--users", "0", "--duration", "1"], "--duration: must be text with"),
    "8 time limit": (["--scenario", "smoke", "--timeout", "2 minits"], "'2 minits' is not a duration"),
    "resume with changes": (["--resume", "x", "--users", "3"], "--users: cannot be changed with --resume"),
}


@pytest.mark.parametrize(("arguments", "message"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_bad_arguments_are_named(output: Path, arguments: list[str], message: str) -> None:
    """Cases 1, 7 and 8 on the command line: exit 2 with the argument's name."""
    finished = command.call("run", *arguments, "--output", output, output=output)
    assert message in finished.err, finished.output
    _assert_refused(output, finished)


def _assert_refused(output: Path, finished: command.Finished) -> None:
    assert finished.code == 2, finished.output
    assert finished.out == ""
    assert "Traceback" not in finished.err
    assert not output.exists()
