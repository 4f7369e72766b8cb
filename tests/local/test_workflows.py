"""The nightly jobs for GitHub and GitLab: every line that they run is run, in an empty folder with an empty HOME."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests import command, go_modules

pytestmark = pytest.mark.slow

WORKFLOW: Final = command.ROOT / ".github" / "workflows" / "nightly.yml"
ACTION: Final = command.ROOT / ".github" / "actions" / "night" / "action.yml"
GITLAB: Final = command.ROOT / "docs" / "gitlab-nightly.yml"
_INPUT: Final = re.compile(r"\$\{\{ inputs\.(\w+) \}\}")
_GIT: Final = ("git", "-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "init.defaultBranch=main")

_ACTIONLINT: Final = "github.com/rhysd/actionlint@v1.7.12"
_ACTIONLINT_SUM: Final = "h1:vQ4GeJN86C0QH+gTUQcs8McmK62OLT3kmakPMtEWYnY="


@pytest.mark.skipif(bool(go_modules.missing()), reason=go_modules.missing())
def test_github_workflow_and_action_pass_actionlint(tmp_path: Path) -> None:
    """Keys, expressions, permissions, and what the workflow gives to its own action."""
    go_modules.build(go_modules.fetch(_ACTIONLINT, _ACTIONLINT_SUM), tmp_path, "./cmd/actionlint")
    checked = subprocess.run([tmp_path / "actionlint", WORKFLOW], cwd=command.ROOT, capture_output=True, text=True)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An empty folder with a short scenario, and a history in a repository that it can be pushed to."""
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    kept = tmp_path / "kept.git"
    _run([*_GIT, "init", "--quiet", "--bare", str(kept)], work)
    _run([*_GIT, "clone", "--quiet", str(kept), "history"], work)
    _run([*_GIT, "switch", "--quiet", "--orphan", "meshbench-history"], work / "history")
    _run([*_GIT, "commit", "--quiet", "--allow-empty", "--message", "No night yet"], work / "history")
    _run(["git", "push", "--quiet", "--set-upstream", "origin", "meshbench-history"], work / "history")
    command.write_scenario(work, [command.BASELINE, command.ISTIO], reference="baseline")
    return work


def _run(argv: list[str], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, cwd=folder, env=_environment(folder, **variables), capture_output=True, text=True)


def _environment(folder: Path, **variables: str) -> dict[str, str]:
    """The variables of a runner, and nothing else of this machine."""
    home = folder.parent / "home" if folder.name == "work" else folder.parent.parent / "home"
    lock = {key: value for key, value in os.environ.items() if key.startswith("MESHBENCH_")}
    return {"PATH": os.environ["PATH"], "HOME": str(home), **lock, **variables}


def _read_commits(place: Path) -> list[str]:
    """The files of the history's repository."""
    listed = _run(["git", "-C", str(place.parent / "kept.git"), "ls-tree", "--name-only", "meshbench-history"], place)
    return listed.stdout.split()


def _run_step(step: dict[str, Any], folder: Path, inputs: dict[str, str], **variables: str) -> int:
    """Run one step as a runner does: bash, which ends with the first command that fails."""
    own = {name: _INPUT.sub(lambda found: inputs[found[1]], str(value)) for name, value in step.get("env", {}).items()}
    own = {name: value for name, value in own.items() if "${{" not in value}
    where = folder / step.get("working-directory", ".")
    argv = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    ran = _run(argv, where, **variables, **own)
    print(step.get("name", step["run"]), ran.stdout, ran.stderr, sep="\n")  # noqa: T201  # shown where the test fails
    return ran.returncode


def test_every_line_of_the_github_workflow_runs(place: Path) -> None:
    """A night on a machine of one's own: it is measured, judged, published and pushed."""
    steps = yaml.safe_load(WORKFLOW.read_text("utf-8"))["jobs"]["night"]["steps"]
    night = yaml.safe_load(ACTION.read_text("utf-8"))["runs"]["steps"]
    inputs = {"scenario": "fault.yaml", "history": "history/fault.jsonl", "options": ""}
    runner = {
        "MESHBENCH": str(command.ROOT),
        "RESULTS": str(place.parent / "temp" / "meshbench"),
        "GITHUB_OUTPUT": str(place / "output"),
        "GITHUB_STEP_SUMMARY": str(place / "summary.md"),
    }
    own = [step for step in steps if "kind" not in str(step.get("if"))]
    nested = [night if step.get("uses") == "./.github/actions/night" else [step] for step in own]
    codes = [_run_step(step, place, inputs, **runner) for some in nested for step in some if "run" in step]
    installed, measured, kept = codes
    assert (installed, kept) == (0, 0)
    assert measured in command.MEASURED
    assert _read_commits(place) == ["fault.jsonl"]
    assert "| istio" in (place / "summary.md").read_text("utf-8")
    results = Path(runner["RESULTS"])
    assert (place / "output").read_text("utf-8") == f"results={results}\n"
    assert {"index.html", "latest.html"} <= {path.name for path in (results / "pages").iterdir()}
    assert (results / "gate.xml").is_file()


def test_script_of_the_gitlab_job_runs(place: Path) -> None:
    """It measures with the checkout that it has cloned before, and pushes the history whatever the night was."""
    job = yaml.safe_load(GITLAB.read_text("utf-8"))["nightly"]
    (place / "meshbench").symlink_to(command.ROOT)
    (script,) = job["script"]
    measured = _run_step(
        {"run": script.replace('--scenario "$SCENARIO"', "--scenario fault.yaml")}, place, {}, SCENARIO="fault"
    )
    assert measured in command.MEASURED
    (after,) = job["after_script"]
    assert _run_step({"run": after}, place, {}) == 0
    assert _read_commits(place) == ["fault.jsonl"]
    assert job["artifacts"]["reports"]["junit"] == "night/gate.xml"
    assert (place / "night" / "gate.xml").is_file()
