"""What travels with a Locust file: its folder, without what has another purpose, up to a limit."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.cli.plan_text import format_locust, format_plan_json
from bench.errors import InputError
from bench.files import locust_folder
from bench.files.locust_folder import LeftOut, find_locust_folder
from bench.load.locustfile_check import Inspection
from bench.meshes.resolved import resolve_file, resolve_scenario
from bench.scenario.loader import NO_OVERRIDES, find_inputs, find_stored_inputs, load_scenario
from bench.scenario.plan import make_plan

USERS = "from locust import HttpUser\n"
POLICY = '{"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"name": "a"}, "spec": {}}'


def write(folder: Path, files: Mapping[str, str]) -> Path:
    """Write files below a folder, a Locust file among them, and return its path."""
    for name, text in {"readers.py": USERS, **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    return folder / "readers.py"


def test_modules_and_data_of_any_depth_travel(tmp_path: Path) -> None:
    """The order is that of the paths, whatever a file is called."""
    locustfile = write(tmp_path, {"users.csv": "", "lib/__init__.py": "", "lib/deep/names.bin": "", "entry.yaml": ""})
    found = find_locust_folder(locustfile)
    assert found.helpers == ("entry.yaml", "lib/__init__.py", "lib/deep/names.bin", "users.csv")
    assert found.left_out == ()


def test_what_does_not_belong_is_left_out_with_its_reason(tmp_path: Path) -> None:
    """Nothing is left out silently, and no folder that is left out is read."""
    files = {
        ".env": "TOKEN=x",
        ".git/config": "",
        "__pycache__/readers.pyc": "",
        "results/20261123T031500Z-mine-7f3a/run.json": "{}",
        "one-run/run.json": "{}",
        "venv/pyvenv.cfg": "",
        "venv/lib/locust.py": "",
        "policies/strict.yaml": "",
        "token.txt": "x",
        "locust.conf": "users = 1",
        "pyproject.toml": "",
        "mine.yaml": "title: Mine\nconfigurations: []\n",
        "nights.jsonl": '{"ln_reference_p95_ms": []}\n',
        "names.jsonl": '{"name": "jane"}\n',
    }
    locustfile = write(tmp_path, files)
    found = find_locust_folder(locustfile, (tmp_path / "policies", tmp_path / "token.txt"))
    assert found.helpers == ("names.jsonl",)
    assert set(found.left_out) == {
        LeftOut(".env", "hidden"),
        LeftOut(".git", "hidden"),
        LeftOut("__pycache__", "compiled"),
        LeftOut("results", "results of runs"),
        LeftOut("one-run", "results of runs"),
        LeftOut("venv", "virtual environment"),
        LeftOut("policies", "named elsewhere in the scenario"),
        LeftOut("token.txt", "named elsewhere in the scenario"),
        LeftOut("locust.conf", "settings of Locust, which the scenario has"),
        LeftOut("pyproject.toml", "settings of Locust, which the scenario has"),
        LeftOut("mine.yaml", "scenario"),
        LeftOut("nights.jsonl", "history of a gate"),
    }


def test_link_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    """A file elsewhere would be copied into results and pods under another name."""
    locustfile = write(tmp_path / "mine", {"names.csv": ""})
    (tmp_path / "mine" / "inside.csv").symlink_to("names.csv")
    assert find_locust_folder(locustfile).helpers == ("inside.csv", "names.csv")
    (tmp_path / "outside.csv").write_text("x")
    (tmp_path / "mine" / "more.csv").symlink_to(tmp_path / "outside.csv")
    with pytest.raises(ValueError, match=r"^more\.csv leads out of the Locust file's folder through a symbolic link"):
        find_locust_folder(locustfile)


def test_links_to_folders_and_to_nothing_are_left_out(tmp_path: Path) -> None:
    """A link to a folder could be a loop."""
    locustfile = write(tmp_path, {"lib/a.py": ""})
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "nothing").symlink_to("missing")
    found = find_locust_folder(locustfile)
    assert found.helpers == ("lib/a.py",)
    assert [one.name for one in found.left_out] == ["loop", "nothing"]


@pytest.mark.parametrize(("most", "value"), [("MOST_FILES", 3), ("MOST_BYTES", 100)])
def test_too_large_folder_names_its_largest_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: str, value: int
) -> None:
    """One limit is of files, the other of bytes."""
    locustfile = write(tmp_path, {"a.csv": "x" * 2000, "b.csv": "x" * 20, "c.csv": ""})
    find_locust_folder(locustfile)
    monkeypatch.setattr(locust_folder, most, value)
    with pytest.raises(ValueError, match=r"has 4 files of 2 KiB .* the largest: a\.csv \(1\.95 KiB\), readers\.py"):
        find_locust_folder(locustfile)


def write_scenario(folder: Path, locustfile: str, **load: Any) -> str:
    """Write a scenario beside its Locust file, with a folder of policies and a file for a variable."""
    content = {
        "name": "mine",
        "title": "Mine",
        "load": {"locustfile": locustfile, "env": {"TOKEN": {"file": "token.txt"}}, **load},
        "configurations": [{"name": "istio", "mesh": "istio", "manifests": ["policies"]}],
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
    return str(folder / "mine.yaml")


def test_run_keeps_what_travels(tmp_path: Path) -> None:
    """A run keeps the files with their modes, so that a resumed run measures the same; policies and the file of a
    variable are no part of them."""
    write(tmp_path, {"shop.py": "", "data/run.sh": "", "policies/a.json": "{}", "token.txt": "x"})
    (tmp_path / "data" / "run.sh").chmod(0o750)
    path = write_scenario(tmp_path, "readers")
    scenario = load_scenario(path)
    find_inputs(scenario, path).copy_to(tmp_path / "run")
    stored = find_stored_inputs(scenario, tmp_path / "run").locust
    assert stored.helpers == ("data/run.sh", "shop.py")
    assert stored.mode_of("data/run.sh") == 0o750
    copy = stored.copy_to(tmp_path / "copy")
    assert copy == tmp_path / "copy" / "readers.py"
    assert (tmp_path / "copy" / "data" / "run.sh").stat().st_mode & 0o777 == 0o750
    published = sorted(path.name for path in (tmp_path / "run" / "locust").iterdir())
    assert published == ["readers.py", "shop.py"]


def test_plan_lists_what_the_locustfile_gets(tmp_path: Path) -> None:
    """`plan` and `validate` list what travels, what is left out and why, and what the scenario gives; the source of an
    unrecorded value, not the value."""
    write(tmp_path, {"shop.py": "", "policies/a.json": POLICY, "token.txt": "s3cret"})
    (tmp_path / "results" / "one").mkdir(parents=True)
    (tmp_path / "results" / "one" / "run.json").write_text("{}")
    path = write_scenario(tmp_path, "readers", options={"region": "eu", "quiet": True}, tags=["read", "buy"])
    resolved = resolve_file(Path(path))
    variable = f"  variables: TOKEN from the file {tmp_path}/token.txt"
    given = ["  options: --region=eu, --quiet", variable, "  tags: read, buy"]
    elsewhere = "named elsewhere in the scenario"
    left_out = f"mine.yaml (scenario), policies ({elsewhere}), results (results of runs), token.txt ({elsewhere})"
    files = ["  files that travel with it: shop.py", f"  left out: {left_out}"]
    assert [*format_locust(resolved)] == ["readers.py:", *given, *files]
    found = Inspection(users=("Reader",), options=("quiet", "region"))
    has = ["  user classes: Reader", "  options that it declares: quiet, region"]
    assert [*format_locust(resolved, found)] == ["readers.py:", *has, *given, *files]
    plan = json.loads(format_plan_json(resolved, make_plan(resolved.scenario, 1)))
    assert plan["locust"]["files"] == ["readers.py", "shop.py"]
    assert {"name": "results", "why": "results of runs"} in plan["locust"]["left_out"]


def test_shipped_locustfile_has_nothing_to_list() -> None:
    """A plan of a shipped scenario is as short as it was."""
    assert [*format_locust(resolve_scenario("smoke", NO_OVERRIDES))] == []


def test_only_the_locustfiles_own_folder_travels(tmp_path: Path) -> None:
    """A Locust file below the scenario's folder brings what is beside itself."""
    write(tmp_path / "load", {"shop.py": ""})
    write(tmp_path, {"policies/a.json": "{}", "other.csv": ""})
    path = write_scenario(tmp_path, "load/readers")
    assert find_inputs(load_scenario(path), path).locust.helpers == ("shop.py",)


def test_locustfile_of_an_older_run_is_alone(tmp_path: Path) -> None:
    """Runs of older versions have `locustfile.py`, and nothing beside it belongs to it."""
    write(tmp_path, {"policies/a.json": "{}", "token.txt": "x"})
    scenario = load_scenario(write_scenario(tmp_path, "readers"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "locustfile.py").write_text(USERS)
    (tmp_path / "run" / "run.json").write_text("{}")
    stored = find_stored_inputs(scenario, tmp_path / "run").locust
    assert stored.files == (("locustfile.py", tmp_path / "run" / "locustfile.py"),)


def test_problem_of_the_folder_has_the_line_of_the_key(tmp_path: Path) -> None:
    """The message is that of the scenario's key, as for any other."""
    write(tmp_path, {"policies/a.json": "{}", "token.txt": "x"})
    (tmp_path / "out").symlink_to("/etc/hostname")
    path = write_scenario(tmp_path, "readers")
    with pytest.raises(InputError, match=r"mine\.yaml:\d+: load\.locustfile: out leads out of"):
        find_inputs(load_scenario(path), path)
