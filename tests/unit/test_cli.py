"""The command line: what it imports, what it says, and that it is documented."""

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from bench.cli.main import cli
from bench.scenario.loader import shipped_scenarios

ROOT = Path(__file__).parents[2]
COMMANDS = sorted(cli.commands)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_for_itself_and_its_options(name: str) -> None:
    """A command without a sentence, or an option without one, is not done."""
    command = cli.commands[name]
    assert command.help
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    assert [option.name for option in options if not option.help] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented(name: str) -> None:
    """Each command stands in the README or in docs/."""
    texts = [path.read_text("utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))]
    assert any(f"meshbench {name}" in text for text in texts)


@pytest.mark.parametrize("name", shipped_scenarios())
def test_plan_shows_order_time_and_resolution_and_makes_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`plan` exits 0 for every shipped scenario and leaves no file."""
    monkeypatch.chdir(tmp_path)
    answer = CliRunner().invoke(cli, ["plan", "--scenario", name, "--seed", "1"])
    assert answer.exit_code == 0, answer.output
    for part in ("trials, about", "block 1:", "seed 1", "smallest difference in P95"):
        assert part in answer.output
    assert list(tmp_path.iterdir()) == []


def test_plan_as_json_says_that_nothing_was_run() -> None:
    """A program that reads a plan cannot mistake it for a result."""
    answer = CliRunner().invoke(cli, ["plan", "--scenario", "istio-policies", "--json", "--seed", "7"])
    plan = json.loads(answer.stdout)
    assert plan["dry_run"] is True
    assert plan["plan"]["seed"] == 7
    assert len(plan["plan"]["order"]) == 3


def test_shipped_scenarios_are_listed_and_shown() -> None:
    """`scenarios` lists each with its title; `scenarios show` prints the file itself."""
    listed = CliRunner().invoke(cli, ["scenarios"]).output
    assert [name for name in shipped_scenarios() if name not in listed] == []
    shown = CliRunner().invoke(cli, ["scenarios", "show", "smoke"]).output
    assert shown == (ROOT / "scenarios/smoke.yaml").read_text("utf-8")
