"""Metrics of a history in a real pushgateway and Prometheus, and what the dashboard and the alerts ask of them."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml
from aiohttp import web

from bench.analysis.history import History
from bench.envoy.addresses import free_ports
from bench.errors import StoreError
from bench.files.folders import find_shipped
from bench.report.openmetrics import format_openmetrics, push
from tests.nights import make_history
from tests.web_server import serve_answers

TOOLS = ("prometheus", "promtool", "prometheus-pushgateway")
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]
needs_prometheus = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (Debian has them)")
READY_S = 30.0


def read(address: str, **query: Any) -> Any:
    """The answer of a server, as JSON where it is that."""
    with urlopen(f"http://{address}{'?' + urlencode(query) if query else ''}", timeout=10) as answer:
        content = answer.read()
    return json.loads(content) if content[:1] == b"{" else content.decode()


def await_answer(ask: Any, *, seconds: float = READY_S) -> Any:
    """The first answer that is not empty."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(OSError):  # it has not begun to listen
            if found := ask():
                return found
        assert time.monotonic() < deadline, "no answer in time"
        time.sleep(0.1)


@contextmanager
def served(tool: str, *options: str, folder: Path) -> Iterator[str]:
    """A server of Debian's on a free port of this machine, ended with the test."""
    address = f"127.0.0.1:{free_ports([tool])[tool]}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{tool}.log").open("wb") as log:
        command = [tool, f"--web.listen-address={address}", *options]
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        await_answer(lambda: read(f"{address}/-/ready"))
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)


@dataclass(frozen=True)
class Servers:
    """Both servers, and the history that was pushed to one and imported into the other."""

    gateway: str
    prometheus: str
    history: History

    def query(self, expression: str, **more: Any) -> list[Any]:
        """The result of an instant query, or of a range with `start`, `end` and `step`."""
        kind = "query_range" if "start" in more else "query"
        found = read(f"{self.prometheus}/api/v1/{kind}", query=expression, **more)
        assert found["status"] == "success"
        result = found["data"]["result"]
        assert isinstance(result, list)
        return result

    def value(self, expression: str) -> float:
        """The only value of a query."""
        (one,) = self.query(expression)
        return float(one["value"][1])


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A Prometheus that scrapes a pushgateway, with all nights imported; the newest one is pushed."""
    folder = tmp_path_factory.mktemp("prometheus")
    history = make_history(nights=12, last=datetime.now(UTC) - timedelta(hours=5))
    (folder / "all.txt").write_text(format_openmetrics(history, every_night=True))
    subprocess.run(["promtool", "tsdb", "create-blocks-from", "openmetrics", "all.txt", "data"], cwd=folder, check=True)
    with served("prometheus-pushgateway", folder=folder) as gateway:
        push(history, f"http://{gateway}")
        scrape = {
            "job_name": "gateway",
            "scrape_interval": "1s",
            "honor_labels": True,
            "static_configs": [{"targets": [gateway]}],
        }
        rules = str(find_shipped("manifests") / "prometheus" / "rules.yaml")
        settings = {"scrape_configs": [scrape], "rule_files": [rules], "global": {"evaluation_interval": "1s"}}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
        options = ("--config.file=prometheus.yml", "--storage.tsdb.path=data", "--storage.tsdb.retention.time=10y")
        with served("prometheus", *options, folder=folder) as prometheus:
            both = Servers(gateway, prometheus, history)
            await_answer(lambda: both.query("meshbench_outcome"))
            yield both


@needs_prometheus
def test_promtool_finds_no_fault(tmp_path: Path) -> None:
    """The text is valid for Prometheus, and its metrics are named as its conventions ask."""
    text = format_openmetrics(make_history(nights=3))
    found = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


@needs_prometheus
def test_prometheus_has_what_was_pushed(servers: Servers) -> None:
    """The newest night's ratio and time are those of the history, to the last digit."""
    newest = servers.history.lines[-1]
    pair = f'scenario="nightly", configuration="{newest.configuration}", reference="baseline"'
    assert newest.ln_ratio is not None
    assert servers.value(f"ln(meshbench_p95_ratio{{{pair}}})") == pytest.approx(newest.ln_ratio)
    last = servers.value(f"meshbench_last_success_timestamp_seconds{{{pair}}}")
    assert last == pytest.approx(newest.at.timestamp())


@needs_prometheus
def test_pushing_replaces_what_a_scenario_had(servers: Servers) -> None:
    """A second push of the same scenario leaves no series of the first, and none of another scenario changes."""
    older = make_history(nights=1, scenario="other")
    push(older, f"http://{servers.gateway}/")
    before = read(f"{servers.gateway}/metrics")
    push(servers.history, f"http://{servers.gateway}")
    after = read(f"{servers.gateway}/metrics")
    lines = [[line for line in text.splitlines() if line.startswith("meshbench_")] for text in (before, after)]
    assert lines[0] == lines[1]
    assert {re.findall('scenario="([^"]*)"', line)[0] for line in lines[1]} == {"nightly", "other"}


@needs_prometheus
def test_every_night_can_be_imported(servers: Servers) -> None:
    """Promtool makes blocks of all nights, so that a dashboard has them from the first day on."""
    newest = servers.history.lines[-1].at
    times = {"start": (newest - timedelta(days=12)).timestamp(), "end": newest.timestamp(), "step": "1h"}
    found = servers.query('meshbench_p95_ratio{configuration="istio", scenario="nightly"}', **times)
    values = {value for series in found for _, value in series["values"]}
    assert len(values) == 12


@needs_prometheus
def test_dashboard_asks_for_what_is_there(servers: Servers) -> None:
    """Each query of the dashboard has a result."""
    dashboard = json.loads((find_shipped("manifests") / "grafana" / "dashboard.json").read_text("utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(queries) >= 6
    assert [query for query in queries if not servers.query(query.replace("$scenario", ".*"))] == []


@needs_prometheus
def test_alerts_are_loaded(servers: Servers) -> None:
    """Prometheus evaluates each rule without an error."""

    def evaluated() -> set[str]:
        groups = read(f"{servers.prometheus}/api/v1/rules")["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        return {rule["name"] for rule in rules if all(one["health"] == "ok" for one in rules)}

    assert await_answer(evaluated) == {"MeshbenchNightMissing", "MeshbenchNoMetrics", "MeshbenchRegression"}


PAIR = {"scenario": "s", "configuration": "c", "reference": "r"}


@needs_prometheus
@pytest.mark.parametrize(
    ("hours", "regression", "firing"),
    [
        (30, 0, {}),
        (40, 0, {"MeshbenchNightMissing": {"scenario": "s", "severity": "warning"}}),
        (30, 1, {"MeshbenchRegression": {**PAIR, "severity": "critical"}}),
        (None, 0, {"MeshbenchNoMetrics": {"severity": "warning"}}),
    ],
)
def test_alerts_fire_when_they_should(
    tmp_path: Path, hours: int | None, regression: int, firing: dict[str, dict[str, str]]
) -> None:
    """A missing night, a regression and lost metrics each have their alert, a night of 30 hours ago has none."""
    rules = yaml.safe_load((find_shipped("manifests") / "prometheus" / "rules.yaml").read_text("utf-8"))
    for rule in rules["groups"][0]["rules"]:
        rule["annotations"] = {}  # promtool would compare them, too
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    labels = ", ".join(f'{name}="{value}"' for name, value in PAIR.items())
    values = {
        f"meshbench_last_success_timestamp_seconds{{{labels}}}": "0x100",
        f'meshbench_outcome{{{labels}, outcome="regression"}}': f"{regression}x100",
    }
    case = {
        "interval": "1h",
        "input_series": [{"series": name, "values": value} for name, value in values.items() if hours is not None],
        "alert_rule_test": [
            {
                "eval_time": f"{hours or 3}h",
                "alertname": rule["alert"],
                "exp_alerts": [{"exp_labels": firing[rule["alert"]]}] if rule["alert"] in firing else [],
            }
            for rule in rules["groups"][0]["rules"]
        ],
    }
    tested = {"rule_files": ["rules.yaml"], "evaluation_interval": "1h", "tests": [case]}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(tested))
    found = subprocess.run(["promtool", "test", "rules", "tests.yaml"], cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


def test_refused_push_is_one_message_without_the_password() -> None:
    """The answer of the gateway is in the message, the password only in the request."""
    seen = []

    async def refuse(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.Response(status=400, text="pushed metrics are invalid")

    with serve_answers(refuse) as port, pytest.raises(StoreError, match="400 Bad Request: pushed metrics") as caught:
        push(make_history(nights=1), f"http://me:pa55word@127.0.0.1:{port}")
    assert seen == ["Basic bWU6cGE1NXdvcmQ="]
    assert "pa55" not in str(caught.value)


def test_unreachable_gateway_names_the_address() -> None:
    """A gateway that is not there is an error with its address, the reason and a hint."""
    with pytest.raises(
        StoreError, match=r"pushing to http://127.0.0.1:9/metrics/job/meshbench/scenario/nightly: .*hint"
    ):
        push(make_history(nights=1), "http://127.0.0.1:9")
