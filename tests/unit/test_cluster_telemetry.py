"""What makes a mesh dearer than it comes is told before a run, and in its report."""

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


def test_istio_as_we_install_it_writes_nothing_down() -> None:
    """Nor does another ConfigMap of it."""
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
def test_what_is_written_down_about_requests_is_a_doubt(settings: dict[str, Any], expected: str) -> None:
    """As the profile `demo` and many people's values have it: it is measured as if it were the mesh."""
    (finding,) = examine_telemetry("istio", [config(**settings), istiod("100")])
    assert (finding.status, expected in finding.detail) == ("warning", True)


def test_the_reports_heading_has_it() -> None:
    """Whoever reads only the report has to know."""
    record = target_record("v1.34.2", 1, placement="", isolation="shared", existing=False, remarks=["sidecars log"])
    assert "sidecars log" in record.caveats
