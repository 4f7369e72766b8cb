"""A run with a Locust file of one's own: what is beside it, its options, variables and tags."""

import json
from pathlib import Path

import pytest

from bench.results.store import read_run
from tests import command

pytestmark = pytest.mark.measures

USERS = """
import os
import sys
from pathlib import Path

from locust import FastHttpUser, constant, events, tag, task

from shop import names

print("the token is", os.environ["TOKEN"], file=sys.stderr)
assert os.environ["TOWN"] == "Graz"
assert not Path("written").exists()
Path("written").write_text("by this load alone")


@events.init_command_line_parser.add_listener
def options(parser):
    parser.add_argument("--region", required=True)


class Reader(FastHttpUser):
    wait_time = constant(1)

    @tag("read")
    @task
    def page(self):
        region = self.environment.parsed_options.region
        self.client.get(f"/productpage?u={names.first()}", name=f"{names.first()} in {region}")

    @task
    def never(self):
        self.client.get("/nowhere")
"""
NAMES = """
from pathlib import Path


def first():
    return (Path(__file__).parent / "names.csv").read_text().split()[0]
"""


@pytest.mark.slow
def test_run_with_what_belongs_to_the_locustfile(output: Path) -> None:
    """Two trials find the same files, each in a copy of its own; the value of a variable is recorded nowhere."""
    folder = output.parent / "load"
    for name, text in {"readers.py": USERS, "shop/names.py": NAMES, "shop/names.csv": "jane\njoe\n"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    load = {
        "locustfile": "load/readers",
        "options": {"region": "eu-1"},
        "env": {"TOWN": "Graz", "TOKEN": {"env": "SHOP_TOKEN"}},
        "tags": ["read"],
    }
    configurations = [command.BASELINE, {**command.BASELINE, "name": "again"}]
    scenario = command.write_scenario(output.parent, configurations, load=load)
    finished = command.run("run", "--scenario", scenario, output=output, env={"SHOP_TOKEN": "s3cret-of-the-shop"})
    assert finished.code == 0, finished.output
    run = command.find_only_run(output)
    assert sorted(path.relative_to(run).as_posix() for path in (run / "locust").rglob("*")) == [
        "locust/readers.py",
        "locust/shop",
        "locust/shop/names.py",
    ]
    private = run.parent / ".private" / run.name
    assert (private / "locust" / "shop" / "names.csv").stat().st_mode & 0o777 == 0o600
    logs = [(trial / "load.log").read_text("utf-8") for trial in sorted((private / "trials").iterdir())]
    assert len(logs) == 2
    assert all("the token is REDACTED" in log for log in logs)
    record = json.loads((run / "run.json").read_text("utf-8"))
    assert record["scenario"]["load"]["env"] == {"TOWN": "Graz", "TOKEN": {"env": "SHOP_TOKEN"}}
    texts = (path.read_bytes() for path in run.rglob("*") if path.is_file())
    assert not any(b"s3cret-of-the-shop" in text for text in texts)
    samples = [trial.samples() for trial in read_run(run).trials]
    assert [one.names for one in samples] == [("jane in eu-1",)] * 2


def test_missing_variable_ends_a_run_before_it_starts(output: Path) -> None:
    """The message has the key's line and how to set it, and nothing is created."""
    folder = output.parent
    (folder / "readers.py").write_text(USERS, "utf-8")
    load = {"locustfile": "readers", "env": {"TOKEN": {"env": "SHOP_TOKEN"}}}
    scenario = command.write_scenario(folder, [command.BASELINE], load=load)
    finished = command.call("run", "--scenario", scenario, "--output", output, output=output)
    assert finished.code == 2, finished.output
    assert "load.env.TOKEN: the variable SHOP_TOKEN is not set; hint: export SHOP_TOKEN=..." in finished.err
    assert "fault.yaml:" in finished.err
    assert not output.exists()
