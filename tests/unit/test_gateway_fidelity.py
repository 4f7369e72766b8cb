"""Gateways: configured as by real control planes, except for documented differences."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.golden import covers, find_differences, find_unexplained, normalise, read_known_differences
from tests.sidecars import PAGE
from tests.unit.test_gateway_targets import built

# Listener, routes and Bookinfo's clusters of a gateway: from an istiod of the 1.31 line with all policies, and from
# kuma-cp 2.14.3 without any (the hash in its clusters' names taken away).
RECORDED = Path(__file__).parents[1] / "recorded"
POLICIES = ("istio/policies", "istio/gateway", "istio/gateway-policies")


def known(mesh: str) -> tuple[str, ...]:
    """The differences that are documented for the gateways of a mesh."""
    return (*read_known_differences(PAGE, mesh), *read_known_differences(PAGE, f"{mesh}'s gateway"))


def own(mesh: str) -> list[str]:
    """Those that sidecars do not have."""
    sidecars = read_known_differences(PAGE, mesh)
    return [pattern for pattern in read_known_differences(PAGE, f"{mesh}'s gateway") if pattern not in sidecars]


def recorded(name: str) -> Any:
    return normalise(json.loads((RECORDED / f"{name}.json").read_text("utf-8")))


def ours(mesh: str, *folders: str) -> Any:
    """The same parts of ours; the routes stand apart, as they do when they arrive."""
    bootstrap, _ = built(mesh, *folders)
    resources = json.loads(json.dumps(bootstrap["static_resources"]))
    listeners = {listener["name"]: listener for listener in resources["listeners"]}
    manager = next(iter(listeners.values()))["filter_chains"][0]["filters"][0]["typed_config"]
    routes = manager.pop("route_config")
    clusters = {cluster["name"]: cluster for cluster in resources["clusters"]}
    return normalise({"listeners": listeners, "routes": {routes["name"]: routes}, "clusters": clusters})


@pytest.mark.parametrize(
    ("mesh", "name", "folders"),
    [("Istio", "istio-gateway-policies", POLICIES), ("Kuma", "kuma-gateway", ("kuma/gateway",))],
)
def test_gateway_equals_that_of_its_control_plane(mesh: str, name: str, folders: tuple[str, ...]) -> None:
    """Every field, except for the differences that docs/local-target.md lists."""
    found = list(find_differences(recorded(name), ours(mesh.lower(), *folders)))
    assert find_unexplained(found, known(mesh)) == []
    assert [pattern for pattern in own(mesh) if not any(covers(pattern, path) for path in found)] == []


def test_comparison_detects_missing_filter() -> None:
    """Without policies the gateway has no RBAC filter."""
    found = find_differences(recorded("istio-gateway-policies"), ours("istio", "istio/gateway"))
    assert any("envoy.filters.http.rbac" in path for path in find_unexplained(list(found), known("Istio")))
