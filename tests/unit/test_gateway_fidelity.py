"""Istio's gateway: configured as a real istiod does it, but for documented differences."""

import json
from pathlib import Path
from typing import Any

from tests.golden import covers, differences, known_differences, normalised, unexplained
from tests.sidecars import PAGE
from tests.unit.test_gateway_targets import built

# Listener, routes and Bookinfo's clusters of a gateway, from an istiod of the 1.31 line, with all policies.
RECORDED = Path(__file__).parents[1] / "recorded" / "istio-gateway-policies.json"
SIDECARS = known_differences(PAGE, "Istio")
OWN = [pattern for pattern in known_differences(PAGE, "Istio's gateway") if pattern not in SIDECARS]
KNOWN = (*SIDECARS, *OWN)


def recorded() -> Any:
    return normalised(json.loads(RECORDED.read_text("utf-8")))


def ours(*folders: str) -> Any:
    """The same parts of ours; the routes stand apart, as they do when they arrive."""
    bootstrap, _ = built("istio", *folders)
    resources = json.loads(json.dumps(bootstrap["static_resources"]))
    listeners = {listener["name"]: listener for listener in resources["listeners"]}
    manager = listeners["0.0.0.0_8080"]["filter_chains"][0]["filters"][0]["typed_config"]
    routes = manager.pop("route_config")
    clusters = {cluster["name"]: cluster for cluster in resources["clusters"]}
    return normalised({"listeners": listeners, "routes": {routes["name"]: routes}, "clusters": clusters})


def test_a_gateway_is_configured_as_istiod_does_it() -> None:
    """To the last field, but for what docs/local-target.md lists."""
    found = list(differences(recorded(), ours("istio/policies", "istio/gateway", "istio/gateway-policies")))
    assert unexplained(found, KNOWN) == []
    assert [pattern for pattern in OWN if not any(covers(pattern, path) for path in found)] == []


def test_the_comparison_sees_a_filter_that_is_not_there() -> None:
    """Without policies the gateway has no RBAC filter, and that would be found."""
    found = unexplained(list(differences(recorded(), ours("istio/gateway"))), KNOWN)
    assert any("envoy.filters.http.rbac" in path for path in found)
