"""Policies that meshbench does not understand on a real Istio: refused in a dry run, or applied and not judged."""

import secrets
from collections.abc import Iterator

import pytest

from bench.errors import ClusterError
from bench.files.yaml_source import parse_documents
from bench.k8s.client import Cluster, Ref
from bench.meshes import MESHES
from bench.meshes.rewriting import Moved, Namespaces
from bench.targets.cluster.refusals import format_refused_field
from tests.cluster.job import delete_named

CUSTOM = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ext-authz, namespace: bookinfo}
spec:
  selector: {matchLabels: {app: productpage}}
  action: CUSTOM
  provider: {name: sample-ext-authz-http}
  rules: [{to: [{operation: {paths: ["/productpage*"]}}]}]
"""
EVERY = {
    "CUSTOM": CUSTOM,
    "Telemetry": """\
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: logs, namespace: istio-system}
spec: {accessLogging: [{providers: [{name: envoy}]}]}
""",
    "ServiceEntry": """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside}
spec:
  hosts: [a.example]
  ports: [{number: 443, name: tls, protocol: TLS}]
  resolution: DNS
  location: MESH_EXTERNAL
""",
    "Sidecar": """\
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default}
spec: {egress: [{hosts: ["bookinfo/*", "istio-system/*"]}]}
""",
}


@pytest.fixture
def namespace(cluster: Cluster, existing_istio: None) -> Iterator[str]:
    """A namespace of the test's own."""
    name = f"t-own-{secrets.token_hex(3)}"
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    try:
        yield name
    finally:
        delete_named(cluster, Ref("v1", "Namespace", name))


def move(text: str, namespace: str) -> tuple[Moved, ...]:
    """The objects of a text as a run in an existing mesh applies them."""
    names = Namespaces({"bookinfo": namespace}, namespace)
    return MESHES["istio"].policies.mesh_objects(parse_documents(text, file="own.yaml"), names)


@pytest.mark.parametrize("text", EVERY.values(), ids=EVERY)
def test_object_is_accepted_in_the_namespace_of_a_run(cluster: Cluster, namespace: str, text: str) -> None:
    """Whatever namespace it names: nothing is created elsewhere, and the dry run refuses no field."""
    (moved,) = move(text, namespace)
    assert moved.value["metadata"]["namespace"] == namespace
    cluster.apply(moved.value, dry_run=True)


def test_unknown_field_is_refused_with_its_line(cluster: Cluster, namespace: str) -> None:
    """The API server names the field, and the message has its line in the file."""
    (moved,) = move(CUSTOM.replace("  provider: {", "  providers: {"), namespace)
    with pytest.raises(ClusterError) as raised:
        cluster.apply(moved.value, dry_run=True)
    assert format_refused_field(moved.document, str(raised.value)).startswith("own.yaml:7: spec.providers: ")


def test_unknown_version_is_refused(cluster: Cluster, namespace: str) -> None:
    """A version that the API server does not serve has no definition."""
    (moved,) = move(CUSTOM.replace("/v1", "/v7"), namespace)
    with pytest.raises(ClusterError, match=r"the cluster has no kind AuthorizationPolicy in security\.istio\.io/v7"):
        cluster.apply(moved.value, dry_run=True)
