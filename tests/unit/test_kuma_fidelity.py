"""Kuma's sidecars: configured as by a real control plane, except for documented differences."""

from collections.abc import Mapping
from typing import Any

import pytest

from bench.application.model import Application
from bench.files.folders import find_shipped
from bench.meshes.kuma.policy_model import KumaPolicies
from tests.golden import (
    GOLDEN,
    MISSING,
    covers,
    find_differences,
    find_unexplained,
    normalise_built_kuma,
    normalise_recorded_kuma,
    read_known_differences,
)
from tests.policies import read_kuma
from tests.sidecars import PAGE, SIDECARS, application_of, application_with, bootstrap_of, workload_of

ROUTED = "kuma/kuma-canary"
CONFIGURATIONS: Mapping[str, tuple[str, ...]] = {
    "kuma/kuma": (),
    "kuma/kuma-mtls": ("kuma/mtls",),
    "kuma/kuma-policies": ("kuma/policies",),
    "kuma/kuma-policies-legacy": ("kuma/policies-legacy",),
    ROUTED: ("kuma/mtls", "kuma/deployment-strategy"),
}
KNOWN = read_known_differences(PAGE, "Kuma")
_OF_VERSIONS = ("reviews", "(again)", "inbound:*/route_config/name", "service-name", "kuma.io/service")


def known_in(configuration: str) -> list[str]:
    """The documented differences; where several versions are deployed, none that is about the Services of versions."""
    return [p for p in KNOWN if configuration != ROUTED or not any(part in p for part in _OF_VERSIONS)]


needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason=MISSING)


def policies_of(configuration: str, application: Application) -> KumaPolicies:
    """The shipped manifests of a configuration."""
    folders = [find_shipped("manifests") / folder for folder in CONFIGURATIONS[configuration]]
    return read_kuma(folders, application)


def ours(sidecar: str, configuration: str) -> dict[str, Any]:
    application = application_of(sidecar, routed=configuration == ROUTED)
    policies = policies_of(configuration, application)
    return bootstrap_of("kuma", workload_of(sidecar, application), application, policies)


def found_in(configuration: str, sidecar: str) -> list[str]:
    """Where a local sidecar differs."""
    return list(
        find_differences(
            normalise_recorded_kuma(configuration, sidecar), normalise_built_kuma(ours(sidecar, configuration))
        )
    )


@needs_golden
@pytest.mark.parametrize("sidecar", SIDECARS)
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_every_difference_from_kuma_cp_is_documented(configuration: str, sidecar: str) -> None:
    """A local sidecar differs from one that kuma-cp configured only where docs/local-target.md says so."""
    assert find_unexplained(found_in(configuration, sidecar), known_in(configuration)) == []


@needs_golden
def test_every_documented_difference_exists() -> None:
    """The table of differences has no outdated row."""
    found = [path for configuration in CONFIGURATIONS for name in SIDECARS for path in found_in(configuration, name)]
    assert [pattern for pattern in KNOWN if not any(covers(pattern, path) for path in found)] == []


def changed(configuration: str, bootstrap: dict[str, Any]) -> set[str]:
    """What the comparison says of a changed configuration of details: the last parts of the paths."""
    found = find_differences(normalise_recorded_kuma(configuration, "details-v1"), normalise_built_kuma(bootstrap))
    return {path.rpartition("/")[2] for path in find_unexplained(list(found), KNOWN)}


@needs_golden
def test_comparison_detects_changes_that_cost_latency() -> None:
    """Another protocol, retry, timeout, limit, TLS version and order of filters are each detected."""
    bootstrap = ours("details-v1", "kuma/kuma-policies")
    listeners, clusters = (bootstrap["static_resources"][part] for part in ("listeners", "clusters"))
    options = clusters[0]["typed_extension_protocol_options"]
    next(iter(options.values()))["explicit_http_config"] = {"http_protocol_options": {}}
    clusters[1]["circuit_breakers"]["thresholds"][0] = {"max_requests": 1}
    clusters[2]["lb_policy"] = "LEAST_REQUEST"
    tls = listeners[-1]["filter_chains"][0]["transport_socket"]["typed_config"]["common_tls_context"]
    tls["tls_params"] = {"tls_maximum_protocol_version": "TLSv1_3"}
    listeners[-1]["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"].reverse()
    manager = listeners[0]["filter_chains"][0]["filters"][0]["typed_config"]
    manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"] |= {"timeout": "0s", "retry_policy": {}}
    assert changed("kuma/kuma-policies", bootstrap) >= {
        "http_protocol_options",
        "http2_protocol_options",
        "lb_policy",
        "tls_params",
        "(order)",
        "timeout",
        "num_retries",
    }


@needs_golden
def test_comparison_detects_additional_principal() -> None:
    """In a permission of either form."""
    for configuration in ("kuma/kuma-policies", "kuma/kuma-policies-legacy"):
        bootstrap = ours("details-v1", configuration)
        text = str(bootstrap["static_resources"]["listeners"][-1])
        assert "productpage" in text
        inbound = bootstrap["static_resources"]["listeners"][-1]["filter_chains"][0]
        rbac = inbound["filters"][0]["typed_config"]
        if "rules" in rbac:
            rbac["rules"]["policies"]["details-viewer"]["principals"] = [{"any": True}]
        else:
            rbac["http_filters"][0]["typed_config"]["matcher"]["matcher_list"]["matchers"].clear()
        assert changed(configuration, bootstrap)


def test_mutual_tls_has_the_form_of_the_manifests() -> None:
    """Without policies there is no TLS; a MeshIdentity brings a SPIFFE validator, the older form a root."""
    seen = {}
    for configuration in CONFIGURATIONS:
        bootstrap = ours("reviews-v2", configuration)
        chain = bootstrap["static_resources"]["listeners"][-1]["filter_chains"][0]
        context = chain.get("transport_socket", {}).get("typed_config", {}).get("common_tls_context", {})
        seen[configuration] = sorted(context.get("validation_context", {}))
    names = "match_typed_subject_alt_names"
    assert seen == {
        "kuma/kuma": [],
        "kuma/kuma-mtls": ["custom_validator_config", names],
        "kuma/kuma-policies": ["custom_validator_config", names],
        "kuma/kuma-policies-legacy": [names, "trusted_ca"],
        ROUTED: ["custom_validator_config", names],
    }


def test_sidecars_use_http2_with_all_policies() -> None:
    """Between sidecars it is HTTP/2, with and without mutual TLS; to the application HTTP/1.1."""
    for configuration in CONFIGURATIONS:
        clusters = ours("reviews-v2", configuration)["static_resources"]["clusters"]
        spoken = {
            cluster["name"]: next(iter(cluster["typed_extension_protocol_options"].values()))["explicit_http_config"]
            for cluster in clusters
        }
        assert spoken.pop("localhost:9080") == {"http_protocol_options": {}}
        assert len(spoken) == (7 if configuration == ROUTED else 4)
        assert all(protocol == {"http2_protocol_options": {}} for protocol in spoken.values())


def test_every_destination_has_its_own_listener() -> None:
    """The load generator's sidecar has a listener for each service and none inbound, all on 127.0.0.1."""
    application = application_with("v3")
    bootstrap = bootstrap_of("kuma", "locust", application, policies_of("kuma/kuma", application))
    listeners = bootstrap["static_resources"]["listeners"]
    assert [listener["traffic_direction"] for listener in listeners] == ["OUTBOUND"] * 4
    addresses = [listener["address"]["socket_address"] for listener in listeners]
    assert {address["address"] for address in addresses} == {"127.0.0.1"}
    assert len({address["port_value"] for address in addresses}) == len(listeners)
    assert bootstrap["admin"]["address"]["pipe"] == {"path": "/sockets/locust.sock", "mode": 0o600}
