"""What makes a mesh dearer than it comes is told before a run, and in its report."""

from typing import Any

import pytest
import yaml

from bench.targets.kubernetes import istio
from bench.targets.kubernetes.client import Object
from bench.targets.kubernetes.planned import Planned, with_mesh
from bench.targets.kubernetes.surroundings import target_record
from bench.targets.kubernetes.telemetry import examine_telemetry
from tests.shown_cluster import fake, options

QUIET = {"accessLogFile": "", "enableTracing": False, "defaultProviders": {"metrics": ["prometheus"]}}


def config(**settings: Any) -> Object:
    data = {"mesh": yaml.safe_dump({**QUIET, **settings}), "meshNetworks": "networks: {}"}
    return {"kind": "ConfigMap", "metadata": {"name": "istio", "namespace": "istio-system"}, "data": data}


def istiod(sampling: str) -> Object:
    env = [{"name": "PILOT_TRACE_SAMPLING", "value": sampling}, {"name": "POD", "valueFrom": {}}]
    template = {"spec": {"containers": [{"name": "discovery", "image": "i", "env": env}]}}
    return {"kind": "Deployment", "metadata": {"name": "istiod"}, "spec": {"template": template}}


def test_istio_as_we_install_it_writes_nothing_down() -> None:
    """Nor does another ConfigMap of it."""
    assert examine_telemetry("istio", [config(), istiod("1"), {**config(), "data": {"values": "{}"}}]) == ()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"accessLogFile": "/dev/stdout"}, "log every request (/dev/stdout)"),
        ({"defaultProviders": {"accessLogging": ["otel"]}}, "log every request (otel)"),
        ({"enableTracing": True}, "trace 100 % of all requests"),
        ({"defaultProviders": {"tracing": ["zipkin"]}}, "trace 100 % of all requests"),
        ({"enableTracing": True, "defaultConfig": {"tracing": {"sampling": 10}}}, "trace 10 % of all requests"),
    ],
)
def test_what_is_written_down_about_requests_is_a_doubt(settings: dict[str, Any], told: str) -> None:
    """As the profile `demo` and many people's values have it: it is measured as if it were the mesh."""
    (finding,) = examine_telemetry("istio", [config(**settings), istiod("100")])
    assert (finding.state, told in finding.found) == ("doubt", True)


def test_the_reports_heading_has_it() -> None:
    """Whoever reads only the report has to know."""
    record = target_record("v1.34.2", 1, placement="", isolation="shared", existing=False, remarks=["sidecars log"])
    assert "sidecars log" in record.caveats


@pytest.mark.parametrize(("refuse", "state"), [(frozenset(), "doubt"), ({("create", "daemonsets")}, "missing")])
def test_a_cni_plug_in_is_noticed_before_it_is_installed(
    refuse: Any, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing waits for it, and no shipped role allows it: without the right the run would end in the middle."""
    daemon = {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "istio-cni-node"}, "spec": {}}
    monkeypatch.setattr(istio, "render", lambda _options: (daemon, config(accessLogFile="/dev/stdout")))
    planned = with_mesh(Planned(((),)), "istio", cluster=fake(refuse=refuse), options=options())
    assert [finding.state for finding in planned.remarks] == ["doubt", state]
    assert "istio-cni-node" in planned.remarks[1].found
