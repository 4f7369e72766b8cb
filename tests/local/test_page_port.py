"""The port of Locust's page is checked before a run on a cluster."""

import socket
from collections.abc import Callable
from typing import Any

import pytest

from bench.check_result import CheckResult
from bench.k8s.client import Object
from bench.scenario.loader import find_inputs, load_scenario
from bench.scenario.overrides import Overrides
from bench.targets.cluster.preflight import examination as preflight
from bench.targets.cluster.preflight.examination import Examination, examine_cluster
from tests.shown_cluster import fake, node, options

Examine = Callable[..., Examination]


@pytest.fixture
def examine(monkeypatch: pytest.MonkeyPatch) -> Examine:
    """Check nodes `a` and `b` with these pods of others, for the smallest scenario."""
    monkeypatch.setattr(preflight, "find_dangling", lambda _cluster: ())
    monkeypatch.setattr(preflight, "examine_earlier_runs", lambda _cluster: ())
    smoke = load_scenario("smoke", Overrides())

    def patched(*pods: Object, **chosen: Any) -> Examination:
        cluster = fake(objects={"Node": (node("a"), node("b")), "Pod": pods})
        return examine_cluster(cluster, smoke, options(**chosen), find_inputs(smoke, "smoke"))

    return patched


def find_results(what: str, examined: Examination) -> list[CheckResult]:
    return [finding for finding in examined.findings if finding.name == what]


def test_port_in_use_refuses_the_run(examine: Examine) -> None:
    """The pre-flight ends with exit code 3 and a hint, before a mesh is installed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (finding,) = find_results("Locust's page", examine(locust_ui=port))
    assert (finding.status, finding.error.exit_code) == ("error", 3)
    assert finding.detail == f"port {port} of this machine: Address already in use"
    assert finding.hint.startswith("give another --locust-ui PORT, or end what has this one: ")


def test_free_port_is_reported_only_for_a_page(examine: Examine) -> None:
    """The check closes the port again, so that the first load can use it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert [finding.status for finding in find_results("Locust's page", examine(locust_ui=port))] == ["ok"]
    assert [finding.status for finding in find_results("Locust's page", examine(locust_ui=port))] == ["ok"]
    assert find_results("Locust's page", examine()) == []
