"""Requests that are scaled, so that several configurations fit on small nodes at once."""

import json
from typing import Any

import pytest

from bench.errors import InputError
from bench.k8s.client import Object
from bench.meshes.istio import control_plane as istio
from bench.meshes.kuma import control_plane as kuma
from bench.meshes.resolved import resolve_scenario
from bench.scenario.overrides import Overrides
from bench.targets.cluster.options import read_options
from bench.targets.cluster.preflight.capacity import (
    NO_RESOURCES,
    PodPlan,
    Resources,
    build_manifests,
    list_trial_pods,
)
from bench.targets.cluster.scaling import scale_quantities, scale_requests
from bench.targets.cluster.session import target_record
from tests.shown_cluster import container, options

LIMITS = {"cpu": "2", "memory": "1Gi"}


def quarter(requests: Any) -> dict[str, str]:
    return scale_quantities(requests, 0.25)


def test_scales_cpu_and_memory_alone() -> None:
    """Rounded up: no request becomes zero. A device cannot be divided."""
    requests = {"cpu": "0.1", "memory": "128Mi", "example.com/gpu": 1}
    assert quarter(requests) == {"cpu": "25m", "memory": str(32 * 2**20), "example.com/gpu": "1"}
    assert scale_quantities({"cpu": "10m", "memory": 3}, 0.01) == {"cpu": "1m", "memory": "1"}


def test_limits_stay() -> None:
    """A sidecar runs as many worker threads as its limit has CPUs."""
    pod = {
        "containers": [container("100m", "64Mi")],
        "initContainers": [{"name": "i", "resources": {"limits": LIMITS}}],
    }
    thing = {"kind": "Deployment", "spec": {"template": {"spec": pod}}}
    scaled = scale_requests(thing, 0.25)["spec"]["template"]["spec"]
    assert scaled["containers"][0]["resources"]["requests"] == {"cpu": "25m", "memory": str(16 * 2**20)}
    # a container without requests has those of its limits
    assert scaled["initContainers"][0]["resources"] == {
        "limits": LIMITS,
        "requests": {"cpu": "500m", "memory": str(2**28)},
    }
    assert scale_requests(thing, 1.0) is thing


@pytest.mark.parametrize("name", ["istio-policies", "gateway"])
def test_pods_of_every_configuration_are_scaled(name: str) -> None:
    """Application, probes, load and gateways, and nothing else of the objects."""
    resolved = resolve_scenario(name, Overrides())

    def total(share: float) -> list[Resources]:
        pods = list_trial_pods(build_manifests(resolved, options(scale_requests=share)).values())
        return [sum((one.resources for one in PodPlan((trial,)).requests), NO_RESOURCES) for trial in pods]

    for whole, scaled in zip(total(1.0), total(0.25), strict=True):
        assert scaled.cpu == pytest.approx(whole.cpu / 4, rel=0.05)
        assert scaled.memory == pytest.approx(whole.memory / 4, rel=0.01)


def test_istios_sidecars_are_scaled_where_istiod_reads_them() -> None:
    proxy = {"resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": LIMITS}}
    values = {"global": {"hub": "h", "tag": "t", "proxy": proxy}}
    config = {
        "kind": "ConfigMap",
        "metadata": {"name": "istio-sidecar-injector"},
        "data": {"values": json.dumps(values)},
    }
    other = {"kind": "ConfigMap", "metadata": {"name": "istio"}, "data": {}}
    scaled = istio.scale_sidecars([other, config], quarter)
    assert scaled[0] is other
    assert istio.read_sidecar(scaled).requests == {"cpu": "25m", "memory": str(32 * 2**20)}
    assert json.loads(scaled[1]["data"]["values"])["global"]["proxy"]["resources"]["limits"] == LIMITS


def test_kumas_sidecars_are_scaled_where_its_control_plane_reads_them() -> None:
    prefix = "KUMA_INJECTOR_SIDECAR_CONTAINER_RESOURCES"
    env = [
        {"name": f"{prefix}_REQUESTS_CPU", "value": "50m"},
        {"name": f"{prefix}_REQUESTS_MEMORY", "value": "64Mi"},
        {"name": f"{prefix}_LIMITS_MEMORY", "value": "512Mi"},
    ]
    spec: Object = {"template": {"spec": {"containers": [container(env=env)]}}}
    plane = {"kind": "Deployment", "metadata": {"name": "kuma-control-plane"}, "spec": spec}
    (scaled,) = kuma.scale_sidecars([plane], quarter)
    assert kuma.read_sidecar([scaled]).requests == {"cpu": "13m", "memory": str(16 * 2**20)}
    assert scaled["spec"]["template"]["spec"]["containers"][0]["env"][2] == env[2]


@pytest.mark.parametrize(("text", "share"), [("", 1.0), ("25%", 0.25), ("100%", 1.0)])
def test_option_is_a_share(text: str, share: float) -> None:
    given = {"context": "lab", **({"scale_requests": text} if text else {})}
    assert read_options(given, resolve_scenario("smoke", Overrides()).scenario).scale_requests == share


@pytest.mark.parametrize("text", ["0%", "101%", "0.25", "much"])
def test_option_refuses_what_is_no_share(text: str) -> None:
    """Requests above the manifests' could exceed their limits."""
    with pytest.raises(InputError, match="--scale-requests"):
        read_options({"context": "lab", "scale_requests": text}, resolve_scenario("smoke", Overrides()).scenario)


def test_heading_names_the_share() -> None:
    scaled = target_record("v1.34.2", 1, placement="", isolation="", existing=False, scale_requests=0.25)
    assert scaled.caveats == (
        "pods requested 25% of the CPU and memory that their manifests request (--scale-requests)",
    )
