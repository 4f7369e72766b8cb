"""The permissions of a run, the roles that grant them, and the required tools."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from bench.errors import RefusedError
from bench.files.folders import find_shipped
from bench.files.yaml_source import read_documents
from bench.meshes import MESHES
from bench.meshes.control_planes import CONTROL_PLANES
from bench.meshes.istio.policies import KINDS as ISTIO_KINDS
from bench.meshes.kuma.manifests import KINDS as KUMA_KINDS
from bench.meshes.rights import Need
from bench.targets.cluster.preflight.examination import require_permissions
from bench.targets.cluster.preflight.mesh import examine_tools, judge_version
from bench.targets.cluster.preflight.permissions import (
    PROMETHEUS,
    adapt_to_server,
    examine_permissions,
    install_needs,
    needs_of,
    plugin_needs,
)
from bench.targets.cluster.prometheus import prometheus_needs
from tests.shown_cluster import fake

TOOLS = {plane.TOOL.name: plane.TOOL for plane in CONTROL_PLANES.values()}
Triple = tuple[str, str, str, str]


def flat(rules: "list[dict[str, Any]]") -> set[Triple]:
    return {
        (group, resource, verb, name)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    }


def role(name: str) -> "list[dict[str, Any]]":
    documents = read_documents(find_shipped("manifests") / "rbac" / name)
    (found_role,) = [one.value for one in documents if one.value and one.value["kind"] == "ClusterRole"]
    return cast("list[dict[str, Any]]", found_role["rules"])


def asked_for(needs: tuple[Need, ...]) -> set[Triple]:
    return {(n.group, n.resource, verb, name) for n in needs for verb in n.verbs for name in n.names or ("",)}


@pytest.mark.parametrize(
    ("file", "table"),
    [
        ("run.yaml", needs_of(MESHES, install=False)),
        ("install-mesh.yaml", install_needs(MESHES)),
        ("install-cni.yaml", plugin_needs(MESHES)),
        ("prometheus.yaml", PROMETHEUS),
    ],
)
def test_shipped_roles_equal_the_required_permissions(file: str, table: tuple[Need, ...]) -> None:
    """Each ClusterRole and the table that the questions come from have the same permissions."""
    assert flat(role(file)) == asked_for(table)


@pytest.mark.parametrize("file", ["run.yaml", "install-mesh.yaml", "install-cni.yaml"])
def test_shipped_roles_have_no_wildcard_and_no_impersonation(file: str) -> None:
    """Roles are bound and escalated by name only, and never by the role that only runs."""
    rights = flat(role(file))
    assert not any("*" in (group, resource, verb) for group, resource, verb, _ in rights)
    assert not any(verb == "impersonate" for _, _, verb, _ in rights)
    giving = [(verb, name) for _, _, verb, name in rights if verb in ("escalate", "bind")]
    assert all(name for _, name in giving)
    assert not giving or file.startswith("install-")


@pytest.mark.parametrize(("mesh", "kinds"), [("istio", ISTIO_KINDS), ("kuma", KUMA_KINDS)])
def test_roles_allow_every_kind_of_policy(mesh: str, kinds: Mapping[str, Any]) -> None:
    """A valid scenario is not stopped by the shipped role."""
    run = CONTROL_PLANES[mesh].rights().run
    kept = {need.resource for need in run if {"create", "patch", "delete"} <= set(need.verbs)}
    plurals = {
        kind: (kind[:-1] + "ies" if kind.endswith("y") else kind + ("es" if kind.endswith("sh") else "s"))
        for kind in kinds
    }
    assert {plural.lower() for plural in plurals.values()} <= kept


def test_requires_only_what_the_scenario_needs() -> None:
    """A run without a mesh needs no permissions on meshes, one on an existing mesh none to install it."""
    plain = {need.group for need in needs_of((), install=True)}
    assert not any(group.endswith(("istio.io", "kuma.io")) for group in plain)
    existing, installing = needs_of(("istio",), install=False), needs_of(("istio",), install=True)
    assert "rbac.authorization.k8s.io" not in {need.group for need in existing}
    assert "rbac.authorization.k8s.io" in {need.group for need in installing}
    assert not any(need.group == "kuma.io" for need in installing)


def test_istio_roles_have_the_revision_in_their_names() -> None:
    """The required permissions are on the roles that istioctl renders for the revision."""
    names = {name for need in needs_of(("istio",), install=True, revision="abc") for name in need.names}
    assert {"istiod-clusterrole-abc-istio-system", "istiod-abc"} <= names
    assert "istiod-clusterrole-istio-system" not in names


def test_reports_permission_with_verb_resource_and_purpose() -> None:
    """The message has everything that an administrator needs."""
    cluster = fake(refuse=frozenset({("create", "deployments"), ("delete", "deployments")}))
    (finding,) = examine_permissions(cluster, needs_of((), install=False))
    assert finding.status == "error"
    assert finding.detail.startswith("not allowed: create, delete deployments.apps")
    assert "run.yaml" in finding.hint
    with pytest.raises(RefusedError, match=r"create, delete deployments\.apps"):
        require_permissions(cluster, needs_of((), install=False))


@pytest.mark.parametrize(
    ("version", "verbs"),
    [("v1.34.2", ("get",)), ("v1.35.0", ("get", "create")), ("v1.36.1-eks-0", ("get", "create"))],
)
def test_streams_need_the_verbs_of_the_servers_version(version: str, verbs: tuple[str, ...]) -> None:
    """From Kubernetes 1.35 on a WebSocket needs `create` in addition to `get`."""
    asked = {need.resource: need.verbs for need in adapt_to_server(needs_of((), install=False), version)}
    assert asked["pods/exec"] == asked["pods/portforward"] == verbs
    assert asked["deployments"] == ("get", "list", "create", "patch", "delete")


def test_prometheus_needs_its_own_permission() -> None:
    """Only with the option, only for its service and in its namespace; the message names the role."""
    assert "services/proxy" not in {need.resource for need in needs_of(("istio", "kuma"), install=True)}
    assert prometheus_needs("") == prometheus_needs("https://prometheus.example") == ()
    cluster = fake(refuse=frozenset({("get", "services/proxy")}))
    (finding,) = examine_permissions(cluster, prometheus_needs("monitoring/prometheus:9090"))
    assert "get services/proxy named prometheus:9090 in namespace monitoring" in finding.detail
    assert finding.hint.endswith("rbac/prometheus.yaml")


def test_all_permissions_are_one_line() -> None:
    """Granted permissions are not listed."""
    (finding,) = examine_permissions(fake(), needs_of(("istio",), install=True))
    assert finding.status == "ok"


@pytest.mark.parametrize(
    ("name", "output", "state", "expected"),
    [
        ("istioctl", "client version: 1.31-eed52ebb66ad-lab\n", "ok", "1.31-eed52ebb66ad-lab"),
        ("istioctl", "client version: 1.20.3\n", "error", "1.20.3"),
        ("istioctl", "client version: unknown\n", "warning", "prints no version"),
        ("kumactl", "Client: Kuma 2.14.3\nUnable to connect: http://127.0.0.1:5681\n", "ok", "2.14.3"),
        ("kumactl", "Client: Kuma unknown\nUnable to connect: http://127.0.0.1:5681\n", "warning", "prints no version"),
        ("kumactl", "Client: Kuma 3.0.1\n", "error", "too new"),
        ("istioctl", "", "warning", "nothing"),
    ],
)
def test_reads_version_of_a_tool(name: str, output: str, state: str, expected: str) -> None:
    """Found and required version are reported; an address in an error is not read as a version."""
    finding = judge_version(TOOLS[name], f"/opt/{name}", output)
    assert finding.status == state
    assert expected in finding.detail
    assert state == "ok" or TOOLS[name].wanted in finding.hint


def test_reports_missing_tool_with_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint says where to get it, in the required version."""
    monkeypatch.setenv("PATH", str(tmp_path))
    (finding,) = examine_tools([TOOLS["istioctl"]])
    assert (finding.status, finding.detail) == ("error", "not on PATH")
    assert "istioctl 1.22 or later: https://" in finding.hint
