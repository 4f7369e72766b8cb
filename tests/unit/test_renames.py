"""Old names of scenario keys and options."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from bench.analysis.night import read_conditions
from bench.cli.main import cli
from bench.errors import InputError
from bench.files.folders import find_shipped
from bench.results.store import read_run
from bench.run.session import read_resumable_run
from bench.scenario import renames
from bench.scenario.loader import load_scenario
from bench.scenario.overrides import Overrides
from tests.command import BASELINE, write_scenario
from tests.factory import RunSpec, make_run


@pytest.fixture(autouse=True)
def forget_warnings() -> None:
    """Forget printed warnings: each is printed once in a process."""
    renames.warn_deprecated.cache_clear()


@pytest.fixture
def old_file(tmp_path: Path) -> Path:
    """A scenario file with the old key."""
    path = write_scenario(tmp_path, [BASELINE])
    path.write_text(path.read_text("utf-8").replace("rerun_invalid: false", "again: false"), "utf-8")
    return path


def line_of(path: Path, text: str) -> int:
    lines = path.read_text("utf-8").splitlines()
    return next(number for number, line in enumerate(lines, start=1) if line.startswith(text))


def test_reads_old_key_with_a_warning(old_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The warning has file, line, old and new name, on standard error, once however often the file is read."""
    assert [load_scenario(str(old_file)).rerun_invalid for _ in range(2)] == [False, False]
    printed = capsys.readouterr()
    warning = f"warning: {old_file}:{line_of(old_file, 'again')}: again: deprecated, use rerun_invalid\n"
    assert (printed.out, printed.err) == ("", warning)


def test_reads_new_key_without_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The current name prints nothing."""
    assert not load_scenario(str(write_scenario(tmp_path, [BASELINE]))).rerun_invalid
    assert capsys.readouterr().err == ""


def test_sets_old_key(old_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--set` takes both names, whichever the file has, and warns about the old one."""
    for name in ("again", "rerun_invalid"):
        assert load_scenario(str(old_file), Overrides(sets=(f"{name}=true",))).rerun_invalid
    assert "warning: --set again: deprecated, use rerun_invalid\n" in capsys.readouterr().err


def test_refuses_both_names_at_once(old_file: Path) -> None:
    """Two values for one key are refused at the line of the old one."""
    old_file.write_text(old_file.read_text("utf-8") + "rerun_invalid: true\n", "utf-8")
    with pytest.raises(InputError) as raised:
        load_scenario(str(old_file))
    (problem,) = raised.value.problems
    assert (problem.line, problem.path) == (line_of(old_file, "again"), "again")
    assert "is the old name of rerun_invalid, which is given, too" in problem.message


def test_reports_error_in_old_key_with_its_line(old_file: Path) -> None:
    """A refused value is reported where it is in the file."""
    old_file.write_text(old_file.read_text("utf-8").replace("again: false", "again: perhaps"), "utf-8")
    with pytest.raises(InputError) as raised:
        load_scenario(str(old_file))
    assert [problem.line for problem in raised.value.problems] == [line_of(old_file, "again")]


def test_stored_run_with_old_key_continues(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is read without a warning, has equal conditions in the gate's history, and can be resumed."""
    run = make_run(tmp_path, RunSpec(warmup_s=1.0, duration_s=2.0, repeats=1))
    before = read_conditions(run)
    path = run.path / "run.json"
    record = json.loads(path.read_text("utf-8"))
    record["scenario"]["again"] = not record["scenario"].pop("rerun_invalid")
    path.write_text(json.dumps({**record, "status": "interrupted"}), "utf-8")
    again = read_run(run.path)
    assert not again.record.scenario.rerun_invalid
    assert read_conditions(again) == before
    assert not read_resumable_run(run.path, on_cluster=False).scenario.rerun_invalid
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("section", "versions"),
    [
        ("{reviews: v1}", {"reviews": "v1"}),
        ("{reviews: [v1, v2], name: bookinfo}", {"reviews": ("v1", "v2")}),
        ("{reviews: v1, versions: {}}", {"reviews": "v1"}),
    ],
)
def test_reads_version_under_the_name_of_its_service(
    section: str, versions: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A service with several versions had a key of its own in `application`."""
    path = write_scenario(tmp_path, [BASELINE])
    path.write_text(path.read_text("utf-8") + f"application: {section}\n", "utf-8")
    assert load_scenario(str(path)).application.versions == versions
    place = f"{path}:{line_of(path, 'application')}"
    assert (
        f"warning: {place}: application.reviews: deprecated, use application.versions.reviews\n"
        in capsys.readouterr().err
    )
    path.write_text(path.read_text("utf-8").replace("v1", "v7"), "utf-8")
    with pytest.raises(InputError, match=rf"{place}: application.versions.reviews: 'v7' is not supported"):
        load_scenario(str(path))


def test_sets_version_under_the_name_of_its_service(tmp_path: Path) -> None:
    """`--set` takes both forms."""
    path = str(write_scenario(tmp_path, [BASELINE]))
    for key in ("application.reviews", "application.versions.reviews"):
        assert load_scenario(path, Overrides(sets=(f"{key}=v2",))).application.versions == {"reviews": "v2"}


def test_run_with_a_version_under_the_name_of_its_service_has_its_history() -> None:
    """The hash of a scenario's conditions is the one that earlier nights have."""
    run = read_run(Path("tests/recorded/run_of_version_1"))
    assert run.record.scenario.application.versions == {"reviews": "v3"}
    assert read_conditions(run)["scenario"] == "e4d33789ea0683fa"


def test_renames_keys_of_sections_and_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """A path with a star is every entry of a list, in data, in paths of keys and in those of `--set`."""
    monkeypatch.setattr(renames, "SCENARIO_KEYS", {"load.clients": "users", "configurations.*.kind": "mesh"})
    data: dict[str, Any] = {"load": {"clients": 1}, "configurations": [{"kind": "istio"}, {"mesh": "kuma"}], "kind": 1}
    expected = {"load": {"users": 1}, "configurations": [{"mesh": "istio"}, {"mesh": "kuma"}], "kind": 1}
    assert renames.rename_keys(data) == expected
    assert renames.rename_path(("configurations", 0, "kind")) == ("configurations", 0, "mesh")
    assert renames.rename_path(("configurations", "0", "kind")) == ("configurations", "0", "mesh")
    assert renames.rename_path(("kind",)) == ("kind",)


@pytest.mark.parametrize("given", [["--results", "elsewhere"], ["--results=elsewhere"]])
def test_reads_old_option_with_a_warning(given: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An option of any command keeps working under its old name."""
    monkeypatch.setattr(renames, "OPTIONS", {"--results": "--output"})
    monkeypatch.chdir(tmp_path)
    ran = CliRunner().invoke(cli, ["cleanup", "--list", *given])
    assert "warning: --results: deprecated, use --output\n" in ran.stderr
    assert "--output elsewhere: no such folder" in str(ran.exception)


def test_arguments_after_two_dashes_are_no_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments after `--` are names of files."""
    monkeypatch.setattr(renames, "OPTIONS", {"--results": "--output"})
    assert renames.rename_options(["validate", "--", "--results"]) == ["validate", "--", "--results"]


def test_shipped_scenarios_have_no_old_key() -> None:
    """Shipped scenarios have the current names."""
    for path in find_shipped("scenarios").glob("*.yaml"):
        data = yaml.safe_load(path.read_text("utf-8"))
        assert renames.rename_keys(data) == data, path
