"""Telemetry that makes a mesh slower than its default is reported before a run, and in its report."""

from typing import Any

import pytest
import yaml

from bench.k8s.client import Object
from bench.targets.cluster.preflight.mesh import examine_telemetry
from bench.targets.cluster.session import target_record

QUIET = {"accessLogFile": "", "enableTracing": False, "defaultProviders": {"metrics": ["prometheus"]}}


def config(**settings: Any) -> Object:
    data = {"mesh": yaml.safe_dump({**QUIET, **settings}), "meshNetworks": "networks: {}"}
    return {"kind": "ConfigMap", "metadata": {"name": "istio", "namespace": "istio-system"}, "data": data}


def istiod(sampling: str) -> Object:
    env = [{"name": "PILOT_TRACE_SAMPLING", "value": sampling}, {"name": "POD", "valueFrom": {}}]
    template = {"spec": {"containers": [{"name": "discovery", "image": "i", "env": env}]}}
    return {"kind": "Deployment", "metadata": {"name": "istiod"}, "spec": {"template": template}}


def test_default_istio_records_no_requests() -> None:
    """Another ConfigMap of istiod records none, either."""
    assert examine_telemetry("istio", [config(), istiod("1"), {**config(), "data": {"values": "{}"}}]) == ()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"accessLogFile": "/dev/stdout"}, "log every request (/dev/stdout)"),
        ({"defaultProviders": {"accessLogging": ["otel"]}}, "log every request (otel)"),
        ({"enableTracing": True}, "trace 100 % of all requests"),
        ({"defaultProviders": {"tracing": ["zipkin"]}}, "trace 100 % of all requests"),
        ({"enableTracing": True, "defaultConfig": {"tracing": {"sampling": 10}}}, "trace 10 % of all requests"),
    ],
)
def test_warns_about_request_telemetry(settings: dict[str, Any], expected: str) -> None:
    """Access logs and tracing, as in the profile `demo`, are measured as if they were the mesh."""
    (finding,) = examine_telemetry("istio", [config(**settings), istiod("100")])
    assert (finding.status, expected in finding.detail) == ("warning", True)


def test_heading_has_telemetry_warning() -> None:
    """The warning is a caveat in the report, too."""
    record = target_record("v1.34.2", 1, placement="", isolation="shared", existing=False, remarks=["sidecars log"])
    assert "sidecars log" in record.caveats
