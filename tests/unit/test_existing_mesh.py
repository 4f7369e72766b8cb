"""Whether an existing mesh is suitable for a run, before anything is created in it."""

from typing import Any

import pytest

from bench.k8s.client import Object
from bench.scenario.placement import Placement
from bench.targets.cluster.preflight.mesh import examine_existing_mesh, existing_versions
from bench.targets.cluster.probes.injection import WEBHOOKS
from bench.targets.cluster.session import target_record
from tests.shown_cluster import fake, options

SPACES = {name: {"kind": "Namespace", "metadata": {"name": name}} for name in ("istio-system", "kuma-system")}
IMAGES = {"istio": "docker.io/istio/pilot:1.31.0", "kuma": "docker.io/kumahq/kuma-cp:2.14.3"}
INJECTION = {"istio": {"istio-injection": "enabled"}, "kuma": {"kuma.io/sidecar-injection": "enabled"}}
RULE = {"apiGroups": [""], "operations": ["CREATE"], "resources": ["pods"]}


def plane(mesh: str, *, available: int = 1, env: tuple[tuple[str, str], ...] = (), image: str = "") -> Object:
    pairs = [{"name": name, "value": value} for name, value in env]
    containers = [{"name": "control-plane", "image": image or IMAGES[mesh], "env": pairs}]
    status = {"observedGeneration": 1, "updatedReplicas": 1, "availableReplicas": available, "replicas": 1}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "istiod" if mesh == "istio" else "kuma-control-plane", "namespace": f"{mesh}-system"},
        "spec": {"replicas": 1, "template": {"spec": {"containers": containers}}},
        "status": status,
    }


def injector(mesh: str, selector: dict[str, str]) -> Object:
    hook = {"name": f"injector.{mesh}.io", "clientConfig": {"url": "https://x"}, "rules": [RULE]}
    webhooks = [{**hook, "namespaceSelector": {"matchLabels": selector}}]
    made = {"apiVersion": WEBHOOKS[0], "kind": WEBHOOKS[1], "metadata": {"name": "injector"}}
    return {**made, "webhooks": webhooks}


def policy(kind: str, **spec: Any) -> Object:
    metadata = {"name": "default", "namespace": "istio-system"}
    return {"apiVersion": "security.istio.io/v1", "kind": kind, "metadata": metadata, "spec": spec}


def there(mesh: str, **objects: tuple[Object, ...]) -> Any:
    """A cluster with a valid mesh, except for these kinds."""
    good = {
        "Deployment": (plane(mesh),),
        "MutatingWebhookConfiguration": (injector(mesh, INJECTION[mesh]),),
    }
    return fake(objects={**good, **objects}, named=SPACES)


def examined(mesh: str, cluster: Any, **changes: Any) -> list[tuple[str, str]]:
    found = examine_existing_mesh(cluster, (mesh,), options(existing_mesh=True, **changes))
    return [(finding.status, finding.detail) for finding in found]


@pytest.mark.parametrize("mesh", ["istio", "kuma"])
def test_accepts_working_mesh(mesh: str) -> None:
    """The report says that no manifest of the run will be for the whole mesh."""
    assert examined(mesh, there(mesh)) == [
        ("ok", "policies for a whole mesh will apply to the run's own namespace alone")
    ]
    assert existing_versions(there(mesh), (mesh,)) == {mesh: IMAGES[mesh].partition(":")[2]}


@pytest.mark.parametrize(
    ("mesh", "objects", "expected"),
    [
        ("istio", {"Deployment": ()}, "no Deployment with app=istiod in istio-system"),
        ("istio", {"Deployment": (plane("istio", available=0),)}, "0 of 1 pods available"),
        ("istio", {"MutatingWebhookConfiguration": ()}, "no webhook of it would inject a sidecar into pods"),
        ("istio", {"MutatingWebhookConfiguration": (injector("istio", {"istio.io/rev": "a"}),)}, "istio-injection="),
        ("istio", {"PeerAuthentication": (policy("PeerAuthentication", mtls={"mode": "STRICT"}),)}, "mode STRICT"),
        ("istio", {"AuthorizationPolicy": (policy("AuthorizationPolicy"),)}, "allows only some requests"),
        ("kuma", {"Deployment": (plane("kuma", image="kuma-cp:2.13.1"),)}, "it runs kuma-cp:2.13.1"),
        ("kuma", {"Deployment": (plane("kuma", env=(("KUMA_MULTIZONE_ZONE_NAME", "east"),)),)}, "zone is east"),
    ],
)
def test_refuses_unsuitable_mesh(mesh: str, objects: dict[str, tuple[Object, ...]], expected: str) -> None:
    """A control plane that does not run, that would not respond, or under which the proofs could not hold."""
    ((state, found),) = examined(mesh, there(mesh, **objects))
    assert state == "error"
    assert expected in found


def test_accepts_policies_that_change_nothing() -> None:
    """The mode that is Istio's default, and policies that only forbid."""
    permissive = policy("PeerAuthentication", mtls={"mode": "PERMISSIVE"})
    objects = {"PeerAuthentication": (permissive,), "AuthorizationPolicy": (policy("x", action="DENY", rules=[{}]),)}
    assert [state for state, _ in examined("istio", there("istio", **objects))] == ["ok"]


DISCOVERY = """
discoverySelectors:
  - matchLabels: {mesh: "on"}
  - matchExpressions: [{key: team, operator: In, values: [a, b]}]
"""


def mesh_config(text: str) -> Object:
    metadata = {"name": "istio", "namespace": "istio-system"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"mesh": text}}


@pytest.mark.parametrize(
    ("config", "labels", "state"),
    [(DISCOVERY, {}, "error"), (DISCOVERY, {"team": "b"}, "ok"), ("accessLogFile: ''", {}, "ok"), ("[]", {}, "ok")],
)
def test_namespaces_of_the_run_are_those_that_istiod_watches(config: str, labels: dict[str, str], state: str) -> None:
    """Sidecars would be injected, and know none of the run's services."""
    placement = Placement.model_validate({"namespaces": {"labels": labels}})
    ((found, detail),) = examined("istio", there("istio", ConfigMap=(mesh_config(config),)), placement=placement)
    assert found == state
    assert (state == "ok") is not ("placement.namespaces.labels" in detail)


def test_webhook_may_select_namespaces_by_labels_of_the_scenario() -> None:
    """A company's mesh injects where a namespace names its team."""
    cluster = there("istio", MutatingWebhookConfiguration=(injector("istio", {"team": "a"}),))
    placement = Placement.model_validate({"namespaces": {"labels": {"team": "a"}}})
    assert [state for state, _ in examined("istio", cluster, placement=placement)] == ["ok"]
    assert [state for state, _ in examined("istio", cluster)] == ["error"]


def test_selects_revision_by_its_own_label() -> None:
    """A mesh that has only a revision injects no sidecar for a label that does not name it."""
    cluster = there("istio", MutatingWebhookConfiguration=(injector("istio", {"istio.io/rev": "canary"}),))
    assert [state for state, _ in examined("istio", cluster, revision="canary")] == ["ok"]


def test_caveats_name_policies_for_the_whole_mesh() -> None:
    """With an existing mesh they differ from the manifests, although they mean the same."""
    caveats = target_record("v1.34.2", 1, placement="", isolation="shared", existing=True).caveats
    assert any("run's own part" in caveat for caveat in caveats)
    own = target_record("v1.34.2", 1, placement="", isolation="shared", existing=False).caveats
    assert not any("run's own part" in caveat for caveat in own)
