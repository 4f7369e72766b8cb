"""The command line: help, documentation, `plan` and `scenarios`."""

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from bench.cli.main import cli
from bench.scenario.loader import list_shipped_scenarios

ROOT = Path(__file__).parents[2]
COMMANDS = sorted(cli.commands)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_help(name: str) -> None:
    """A command or option without a help text fails the test."""
    command = cli.commands[name]
    assert command.help
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    assert [option.name for option in options if not option.help] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented(name: str) -> None:
    """Each command is named in the README or in docs/."""
    texts = [path.read_text("utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))]
    assert any(f"meshbench {name}" in text for text in texts)


@pytest.mark.parametrize("name", list_shipped_scenarios())
def test_plan_prints_order_and_creates_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`plan` exits 0 for every shipped scenario, with order, time and resolution, and leaves no file."""
    monkeypatch.chdir(tmp_path)
    answer = CliRunner().invoke(cli, ["plan", "--scenario", name, "--seed", "1"])
    assert answer.exit_code == 0, answer.output
    for part in ("trials, about", "block 1:", "seed 1", "smallest difference in P95"):
        assert part in answer.output
    assert list(tmp_path.iterdir()) == []


def test_plan_json_is_marked_as_not_run() -> None:
    """A program that reads a plan cannot mistake it for a result."""
    answer = CliRunner().invoke(cli, ["plan", "--scenario", "istio-policies", "--json", "--seed", "7"])
    plan = json.loads(answer.stdout)
    assert plan["dry_run"] is True
    assert plan["plan"]["seed"] == 7
    assert len(plan["plan"]["order"]) == 3


def test_lists_and_prints_shipped_scenarios() -> None:
    """`scenarios` lists each with its title; `scenarios show` prints the file itself."""
    listed = CliRunner().invoke(cli, ["scenarios"]).output
    assert [name for name in list_shipped_scenarios() if name not in listed] == []
    shown = CliRunner().invoke(cli, ["scenarios", "show", "smoke"]).output
    assert shown == (ROOT / "scenarios/smoke.yaml").read_text("utf-8")
