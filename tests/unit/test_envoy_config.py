"""Istio's sidecars: configured as by a real istiod, except for documented differences."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from bench.application.model import Application
from bench.files.folders import find_shipped
from bench.meshes.istio.policy_model import IstioPolicies
from tests.golden import (
    GOLDEN,
    MISSING,
    covers,
    find_differences,
    find_unexplained,
    normalise_built,
    normalise_recorded,
    read_known_differences,
)
from tests.policies import read_istio
from tests.sidecars import PAGE, SIDECARS, application_of, application_with, workload_of
from tests.sidecars import bootstrap_of as bootstrap_in

MANIFESTS = find_shipped("manifests") / "istio"
ROUTED = "istio/istio-canary"
CONFIGURATIONS = {
    "istio/istio": (),
    "istio/istio-mtls": (MANIFESTS / "policies/peer-authentication.yaml",),
    "istio/istio-policies": tuple((MANIFESTS / "policies").iterdir()),
    ROUTED: tuple((MANIFESTS / "deployment-strategy").iterdir()),
}
KNOWN = read_known_differences(PAGE, "Istio")


def known_in(configuration: str) -> list[str]:
    """The documented differences; where several versions are deployed, none that is about the Services of versions."""
    return [p for p in KNOWN if configuration != ROUTED or not any(part in p for part in ("reviews", "operation"))]


needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason=MISSING)


def policies_of(files: tuple[Path, ...], application: Application, folder: Path) -> IstioPolicies:
    """Some of the shipped manifests, read from `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        (folder / file.name).write_text(file.read_text("utf-8"), "utf-8")
    return read_istio([folder] if files else [], application)


def bootstrap_of(name: str, application: Application, policies: IstioPolicies) -> dict[str, Any]:
    return bootstrap_in("istio", name, application, policies)


def ours(sidecar: str, configuration: str, folder: Path) -> dict[str, Any]:
    application = application_of(sidecar, routed=configuration == ROUTED)
    policies = policies_of(CONFIGURATIONS[configuration], application, folder)
    return bootstrap_of(workload_of(sidecar, application), application, policies)


@needs_golden
@pytest.mark.parametrize("sidecar", SIDECARS)
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_every_difference_from_istiod_is_documented(configuration: str, sidecar: str, tmp_path: Path) -> None:
    """A local sidecar differs from one that istiod configured only where docs/local-target.md says so."""
    found = find_differences(
        normalise_recorded(configuration, sidecar),
        normalise_built(ours(sidecar, configuration, tmp_path / configuration)),
    )
    assert find_unexplained(list(found), known_in(configuration)) == []


@needs_golden
def test_every_documented_difference_exists(tmp_path: Path) -> None:
    """The table of differences has no outdated row."""
    found: list[str] = []
    for configuration, sidecar in product(CONFIGURATIONS, SIDECARS):
        bootstrap = ours(sidecar, configuration, tmp_path / configuration)
        found += find_differences(normalise_recorded(configuration, sidecar), normalise_built(bootstrap))
    stale = [pattern for pattern in KNOWN if not any(covers(pattern, path) for path in found)]
    assert stale == []


@needs_golden
def test_comparison_detects_changed_filter(tmp_path: Path) -> None:
    """An additional filter, another retry policy and another cipher are each detected."""
    golden = normalise_recorded("istio/istio-mtls", "details-v1")
    bootstrap = ours("details-v1", "istio/istio-mtls", tmp_path)
    chain = bootstrap["static_resources"]["listeners"][1]["filter_chains"][0]
    chain["filters"][0]["typed_config"]["http_filters"].reverse()
    chain["transport_socket"]["typed_config"]["common_tls_context"]["tls_params"]["cipher_suites"].pop()
    names = ("http_filters/(order)", "tls_params/cipher_suites")
    found = find_unexplained(list(find_differences(golden, normalise_built(bootstrap))), KNOWN)
    assert [path for path in found if not path.endswith(names)] == []
    assert len(found) == len(names)


@pytest.mark.parametrize(
    ("mode", "transports"),
    [("STRICT", ["tls"]), ("PERMISSIVE", ["tls", "raw_buffer"]), ("DISABLE", ["raw_buffer"])],
)
def test_peer_authentication_sets_filter_chains(mode: str, transports: list[str], tmp_path: Path) -> None:
    """STRICT has a TLS chain, PERMISSIVE both, DISABLE a plaintext one, whose callers use no TLS."""
    application = application_with("v3")
    manifest = (
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n"
        f"metadata: {{name: default}}\nspec: {{mtls: {{mode: {mode}}}}}\n"
    )
    (tmp_path / "mode.yaml").write_text(manifest, "utf-8")
    bootstrap = bootstrap_of("reviews", application, read_istio([tmp_path], application))
    inbound = bootstrap["static_resources"]["listeners"][1]
    clusters = {cluster["name"]: cluster for cluster in bootstrap["static_resources"]["clusters"]}
    ratings = clusters["outbound|9080||ratings.bookinfo.svc.cluster.local"]
    endpoint = ratings["load_assignment"]["endpoints"][0]["lb_endpoints"][0]
    assert [chain["filter_chain_match"]["transport_protocol"] for chain in inbound["filter_chains"]] == transports
    assert ("metadata" in endpoint) == (mode != "DISABLE")


def test_client_sidecar_has_no_inbound_listener() -> None:
    """The load generator serves no requests."""
    listeners = bootstrap_of("locust", application_with("v3"), IstioPolicies("bookinfo"))["static_resources"][
        "listeners"
    ]
    assert [listener["traffic_direction"] for listener in listeners] == ["OUTBOUND"]


def test_sidecars_listen_on_loopback_only() -> None:
    """Every socket of a sidecar is on 127.0.0.1, and its admin interface is a Unix socket for the owner."""
    application = application_with("v3")
    for workload in application.everyone:
        bootstrap = bootstrap_of(workload.name, application, IstioPolicies("bookinfo"))
        addresses = [one["address"]["socket_address"] for one in bootstrap["static_resources"]["listeners"]]
        assert {address["address"] for address in addresses} == {"127.0.0.1"}
        assert bootstrap["admin"]["address"]["pipe"] == {
            "path": f"/sockets/{workload.name}.sock",
            "mode": 0o600,
        }
