"""Gateways of both targets: Envoy's configuration on one machine, pods on a cluster."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bench.application.model import Application
from bench.envoy.addresses import Placement, assign_ports
from bench.envoy.certificates import Certificates
from bench.envoy.static_gateway import front_bootstrap
from bench.files.folders import find_shipped
from bench.files.yaml_source import read_documents
from bench.k8s.ownership import add_run_labels
from bench.meshes.protocols import ProxyInputs
from bench.targets.cluster.application_manifests import (
    gateway_objects,
    label_outside_pods,
    makes_pods,
    pods_in_mesh,
    pods_with_sidecar,
)
from bench.targets.cluster.kubelet import parts_of
from tests.applications import read_bookinfo
from tests.policies import read_gateway, read_policies
from tests.sidecars import ENVOYS

MANIFESTS = find_shipped("manifests")
NOW = datetime(2026, 11, 23, tzinfo=UTC)
ADMIN = Path("/sockets/gateway.sock")


def entered(mesh: str, *folders: str) -> Application:
    application = read_bookinfo("v3")
    gateway = read_gateway(mesh, [MANIFESTS / folder for folder in folders], application)
    assert gateway is not None
    return application.entered_by(gateway)


def number_ports(names: Sequence[str]) -> dict[str, int]:
    """Give each listener a port without a look at this machine."""
    return {name: 10_000 + number for number, name in enumerate(names)}


def built(mesh: str, *folders: str) -> tuple[dict[str, Any], Placement]:
    """The gateway's whole configuration, and who listens where."""
    application = entered(mesh, *folders)
    assert application.gateway is not None
    policies = read_policies(mesh, [MANIFESTS / folder for folder in folders], application)
    names = policies.identities(application)
    placement = assign_ports(application, capture=ENVOYS[mesh].outbound_capture, choose_ports=number_ports)
    certificates = Certificates(Path("/identities"), NOW, names, ENVOYS[mesh].wire)
    inputs = ProxyInputs(placement, policies, certificates)
    return ENVOYS[mesh].gateway_bootstrap(application.gateway, **ENVOYS[mesh].given(inputs, ADMIN)), placement


def manager_of(bootstrap: dict[str, Any]) -> dict[str, Any]:
    (listener,) = bootstrap["static_resources"]["listeners"]
    manager: dict[str, Any] = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return manager


def matches_of(bootstrap: dict[str, Any]) -> list[dict[str, Any]]:
    (host,) = manager_of(bootstrap)["route_config"]["virtual_hosts"]
    assert host["domains"] == ["*"]
    return [route["match"] for route in host["routes"]]


# --- on one machine ------------------------------------------------------------------------------------------


def test_istio_gateway_keeps_route_order() -> None:
    """One route for each match, and no other: an unmatched path is 404."""
    bootstrap, _ = built("istio", "istio/gateway")
    assert [
        {key: value for key, value in match.items() if key != "case_sensitive"} for match in matches_of(bootstrap)
    ] == [
        {"path": "/productpage"},
        {"prefix": "/static"},
        {"path": "/login"},
        {"path": "/logout"},
        {"prefix": "/api/v1/products"},
    ]


def test_istio_gateway_accepts_plaintext_and_calls_with_a_certificate() -> None:
    """Also with STRICT and allow-nothing inside the mesh."""
    bootstrap, placement = built("istio", "istio/policies", "istio/gateway", "istio/gateway-policies")
    (listener,) = bootstrap["static_resources"]["listeners"]
    assert "transport_socket" not in listener["filter_chains"][0]
    assert listener["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": placement.gateway}
    calls = json.dumps([one for one in bootstrap["static_resources"]["clusters"] if "productpage" in one["name"]])
    assert "/identities/bookinfo-gateway.key" in calls
    assert f'"port_value": {placement.inbound["productpage"]}' in calls
    filters = [one["name"] for one in manager_of(bootstrap)["http_filters"]]
    assert filters[0] == "envoy.filters.http.rbac"


def test_istio_gateway_without_policies_has_no_rbac_filter() -> None:
    """The cost of a gateway excludes the cost of a policy."""
    bootstrap, _ = built("istio", "istio/gateway")
    assert "envoy.filters.http.rbac" not in [one["name"] for one in manager_of(bootstrap)["http_filters"]]


def test_kuma_gateway_compresses_and_calls_with_http1() -> None:
    """Unlike its sidecars and Istio's gateway; exact paths come first, a prefix matches whole segments."""
    bootstrap, _ = built("kuma", "kuma/gateway")
    assert [one["name"] for one in manager_of(bootstrap)["http_filters"]] == [
        "envoy.filters.http.local_ratelimit",
        "gzip-compress",
        "envoy.filters.http.router",
    ]
    (cluster,) = bootstrap["static_resources"]["clusters"]
    (options,) = cluster["typed_extension_protocol_options"].values()
    assert options["explicit_http_config"] == {"http_protocol_options": {}}
    assert [next(iter(match.items())) for match in matches_of(bootstrap)] == [
        ("path", "/api/v1/products"),
        ("path", "/productpage"),
        ("path", "/static"),
        ("path", "/logout"),
        ("path", "/login"),
        ("prefix", "/api/v1/products/"),
        ("prefix", "/static/"),
    ]


def test_delegated_proxy_keeps_its_configuration() -> None:
    """Only the addresses are those of this machine, and its calls go to its sidecar."""
    application = entered("kuma", "kuma/gateway-delegated")
    gateway = application.gateway
    assert gateway is not None
    assert gateway.proxy is not None
    placement = assign_ports(application, capture=ENVOYS["kuma"].outbound_capture, choose_ports=number_ports)
    ours = front_bootstrap(gateway, placement=placement, admin=ADMIN)
    text = json.dumps(ours)
    for old, new in (
        (f'"port_value": {placement.gateway}', '"port_value": 8080'),
        (
            f'"address": "127.0.0.1", "port_value": {placement.outbound["gateway", "productpage"]}',
            '"address": "productpage", "port_value": 9080',
        ),
        ('"address": "127.0.0.1", "port_value": 8080', '"address": "0.0.0.0", "port_value": 8080'),
        ('"traffic_direction": "INBOUND", ', ""),
        ('"type": "STATIC"', '"type": "STRICT_DNS"'),
    ):
        assert old in text
        text = text.replace(old, new)
    assert {**json.loads(text), "admin": None} == {**gateway.proxy, "admin": None}
    assert ours["admin"]["address"]["pipe"]["path"] == str(ADMIN)


# --- on a cluster --------------------------------------------------------------------------------------------


def written(folder: str) -> list[dict[str, Any]]:
    files = sorted((MANIFESTS / folder).glob("*.yaml"))
    return [document.value for file in files for document in read_documents(file)]


@pytest.mark.parametrize(
    ("folder", "made", "others"),
    [
        ("istio/gateway", ["ServiceAccount", "Service", "Deployment"], {"Gateway", "VirtualService"}),
        ("kuma/gateway", ["ServiceAccount", "MeshGatewayInstance"], {"MeshGateway", "MeshGatewayRoute"}),
        ("kuma/gateway-delegated", ["ServiceAccount", "ConfigMap", "Service", "Deployment"], set()),
    ],
)
def test_gateway_objects_are_applied_before_its_pods(folder: str, made: list[str], others: set[str]) -> None:
    """No gateway runs without its routes, and an account exists before its pods."""
    things = written(folder)
    first = gateway_objects(filter(makes_pods, things), images={}, registry="", annotations={"a": "b"})
    assert [thing["kind"] for thing in first] == made
    assert {thing["kind"] for thing in things if not makes_pods(thing)} == others
    for deployment in (thing for thing in first if thing["kind"] == "Deployment"):
        template = deployment["spec"]["template"]
        assert template["metadata"]["annotations"]["a"] == "b"


@pytest.mark.parametrize(
    ("folder", "images", "registry", "image"),
    [
        ("istio/gateway", {"gateway": "mine:1"}, "mirror.example", "auto"),
        ("kuma/gateway-delegated", {}, "", "docker.io/envoyproxy/envoy:v1.38.2"),
        ("kuma/gateway-delegated", {}, "mirror.example", "mirror.example/envoyproxy/envoy:v1.38.2"),
        ("kuma/gateway-delegated", {"gateway": "mine:1"}, "mirror.example", "mine:1"),
    ],
)
def test_replaces_image_of_delegated_gateway(folder: str, images: dict[str, str], registry: str, image: str) -> None:
    """Istio's own gateway has the image of the installation."""
    things = filter(makes_pods, written(folder))
    made = gateway_objects(things, images=images, registry=registry, annotations={})
    assert made[-1]["spec"]["template"]["spec"]["containers"][0]["image"] == image


def pod(name: str, *containers: str, **labels: str) -> dict[str, Any]:
    spec = {"containers": [{"name": one} for one in containers], "nodeName": "one"}
    metadata = {"name": name, "namespace": "bookinfo-7f3a", "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def test_load_and_its_probe_have_no_sidecar_with_a_gateway() -> None:
    """Without a gateway they have sidecars."""
    things = (pod("locust", "locust"), pod("probe-locust", "probe-agent"), pod("probe-gateway", "probe-agent"))
    without = {"sidecar.istio.io/inject": "false"}
    out = label_outside_pods(things, entered("istio", "istio/gateway"), without)
    assert [one["metadata"]["labels"] for one in out] == [without, without, {}]
    assert label_outside_pods(things, read_bookinfo("v3"), without) == things
    assert [one["metadata"]["name"] for one in pods_in_mesh(out, entered("istio", "istio/gateway"))] == [
        "probe-gateway"
    ]


def test_kuma_gateway_needs_no_sidecar() -> None:
    """Its pod is itself a proxy of the mesh; a delegated gateway needs a sidecar."""
    builtin, delegated = pod("gateway-1", "kuma-gateway"), pod("gateway-2", "gateway")
    assert pods_with_sidecar((builtin, delegated)) == (delegated,)


def test_generated_pods_have_the_runs_labels() -> None:
    """Pods that a control plane creates are found, waited for and probed by these labels."""
    (instance,) = (thing for thing in written("kuma/gateway") if thing["kind"] == "MeshGatewayInstance")
    labels = add_run_labels(instance, "application", run_id="r-1", now=NOW)["spec"]["podTemplate"]["metadata"]["labels"]
    assert labels["meshbench.dev/component"] == "application"
    assert labels["meshbench.dev/run-id"] == "r-1"
    assert labels["app"] == "gateway"


def test_gateway_use_counts_with_the_sidecars() -> None:
    """Both for the mesh's own proxy and for a proxy with a sidecar."""
    pods = [
        pod("gateway-1", "istio-proxy", app="gateway"),
        pod("productpage-1", "productpage", "istio-proxy", app="productpage"),
    ]
    parts = parts_of(pods, namespaces=["bookinfo-7f3a"], sidecars=["istio-proxy", "kuma-sidecar"])
    roles = {part.process: part.role for part in parts.values()}
    assert roles["gateway"] == roles["productpage-sidecar"] == "sidecar"
    delegated = [pod("gateway-1", "gateway", "kuma-sidecar", app="gateway")]
    parts = parts_of(delegated, namespaces=["bookinfo-7f3a"], sidecars=["istio-proxy", "kuma-sidecar"])
    assert {part.process: part.role for part in parts.values() if part.role != "node"} == {
        "gateway": "sidecar",
        "gateway-sidecar": "sidecar",
    }
