"""The port of Locust's page is looked at before a run on a cluster."""

import socket
from collections.abc import Callable
from typing import Any

import pytest

from bench.check_result import CheckResult
from bench.k8s.client import Object
from bench.scenario.loader import inputs_of, load_scenario
from bench.scenario.overrides import Overrides
from bench.targets.cluster.preflight import examination as preflight
from bench.targets.cluster.preflight.examination import Examined, examine_cluster
from tests.shown_cluster import fake, node, options

Examine = Callable[..., Examined]


@pytest.fixture
def examine(monkeypatch: pytest.MonkeyPatch) -> Examine:
    """Looks at nodes `a` and `b` with these pods of others, for the smallest scenario."""
    monkeypatch.setattr(preflight, "find_residue", lambda _cluster: ())
    monkeypatch.setattr(preflight, "examine_earlier_runs", lambda _cluster: ())
    smoke = load_scenario("smoke", Overrides())

    def look(*pods: Object, **chosen: Any) -> Examined:
        cluster = fake(objects={"Node": (node("a"), node("b")), "Pod": pods})
        return examine_cluster(cluster, smoke, options(**chosen), inputs_of(smoke, "smoke"))

    return look


def of(what: str, examined: Examined) -> list[CheckResult]:
    return [finding for finding in examined.findings if finding.name == what]


def test_a_port_in_use_ends_a_run_before_it_begins(examine: Examine) -> None:
    """With exit code 3, and what would be right; not in the first load, when a mesh is there already."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (finding,) = of("Locust's page", examine(locust_ui=port))
    assert (finding.status, finding.error.exit_code) == ("error", 3)
    assert finding.detail == f"port {port} of this machine: Address already in use"
    assert finding.hint.startswith("another --locust-ui PORT, or end what has this one: ")


def test_a_port_that_is_free_is_told_only_to_who_wants_the_page(examine: Examine) -> None:
    """And it is given back: the first load is to have it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert [finding.status for finding in of("Locust's page", examine(locust_ui=port))] == ["ok"]
    assert [finding.status for finding in of("Locust's page", examine(locust_ui=port))] == ["ok"]
    assert of("Locust's page", examine()) == []
