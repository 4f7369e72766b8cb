"""What the objects of a cluster report about a deployment."""

from typing import Any

import pytest

from bench.envoy import admin as proxies
from bench.k8s.objects import find_restarts, is_selected
from bench.targets.cluster.probes.injection import (
    find_uninjected,
    injection_labels,
    read_mesh_state,
    read_namespace_state,
    selecting_webhooks,
)
from bench.verification.prober import State


def test_reads_identities_of_sidecar_certificates() -> None:
    """Each SPIFFE id of a sidecar's own certificates is returned once; roots have no identity."""
    chain = {"subject_alt_names": [{"uri": "spiffe://a/b"}, {"uri": "kuma://x/y"}]}
    root = {"ca_cert": [{"subject_alt_names": [{"uri": "spiffe://root"}]}]}
    assert proxies.identities({"certificates": [{**root, "cert_chain": [chain]}, {"cert_chain": [chain]}, root]}) == (
        "spiffe://a/b",
    )
    assert proxies.identities({"certificates": []}) == ()


def pod(name: str = "details-v1-x", *, labels: Any = None, **status: Any) -> dict[str, Any]:
    containers = [{"name": "details"}, *({"name": one["name"]} for one in status.get("initContainerStatuses", ()))]
    return {
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"containers": containers},
        "status": status,
    }


def namespace(**labels: str) -> dict[str, Any]:
    return {"metadata": {"name": "run-1", "labels": {"kubernetes.io/metadata.name": "run-1", **labels}}}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({}, ()),
        ({"istio-injection": "enabled"}, ("istio-injection=enabled",)),
        ({"istio-injection": "disabled"}, ()),
        ({"istio.io/rev": "canary"}, ("istio.io/rev=canary",)),
        ({"istio.io/dataplane-mode": "ambient"}, ("istio.io/dataplane-mode=ambient",)),
        ({"kuma.io/sidecar-injection": "true"}, ("kuma.io/sidecar-injection=true",)),
    ],
)
def test_finds_injection_labels_of_namespace(labels: dict[str, str], expected: tuple[str, ...]) -> None:
    """Every label by which a namespace joins a mesh counts, and one that declines does not."""
    assert injection_labels(namespace(**labels)) == expected


PODS_RULE = {"apiGroups": [""], "resources": ["pods"], "operations": ["CREATE"]}


def webhook(name: str, **rest: Any) -> dict[str, Any]:
    return {"name": name, "rules": [PODS_RULE], **rest}


def test_finds_webhooks_for_the_namespace() -> None:
    """Only webhooks of a mesh that would be called for these pods in this namespace count."""
    none = [{"key": "istio-injection", "operator": "DoesNotExist"}]
    asks = {"matchLabels": {"sidecar.istio.io/inject": "true"}}
    hooks = [
        webhook(
            "namespace.sidecar-injector.istio.io", namespaceSelector={"matchLabels": {"istio-injection": "enabled"}}
        ),
        webhook("object.sidecar-injector.istio.io", namespaceSelector={"matchExpressions": none}, objectSelector=asks),
        webhook("everyone.kuma.io"),
        webhook("everyone.example.org"),
        {"name": "services.kuma.io", "rules": [{**PODS_RULE, "resources": ["services"]}]},
    ]
    configurations = [{"webhooks": hooks}, {}]
    assert selecting_webhooks(namespace(), [pod()], configurations) == ("everyone.kuma.io",)
    wanting = pod(labels={"sidecar.istio.io/inject": "true"})
    assert "object.sidecar-injector.istio.io" in selecting_webhooks(namespace(), [wanting], configurations)
    labelled = namespace(**{"istio-injection": "enabled"})
    assert "namespace.sidecar-injector.istio.io" in selecting_webhooks(labelled, [pod()], configurations)


@pytest.mark.parametrize(
    ("operator", "values", "labels", "expected"),
    [
        ("In", ["a", "b"], {"k": "a"}, True),
        ("In", ["a"], {}, False),
        ("NotIn", ["a"], {"k": "a"}, False),
        ("NotIn", ["a"], {}, True),
        ("Exists", None, {"k": ""}, True),
        ("Exists", None, {}, False),
        ("DoesNotExist", None, {}, True),
        ("DoesNotExist", None, {"k": "a"}, False),
    ],
)
def test_selectors_match_as_in_kubernetes(
    operator: str, values: list[str] | None, labels: dict[str, str], expected: bool
) -> None:
    """A missing key is not in any list, and an empty selector matches everything."""
    expression = {"key": "k", "operator": operator, **({"values": values} if values else {})}
    assert is_selected({"matchExpressions": [expression]}, labels) is expected
    assert is_selected({}, labels)
    assert is_selected(None, labels)


READY = {"name": "istio-proxy", "ready": True, "restartCount": 0, "state": {"running": {}}}
APP = {"name": "details", "ready": True, "restartCount": 0, "state": {"running": {}}}


def test_reads_what_of_a_mesh_affects_a_namespace() -> None:
    """A label, a webhook, a sidecar and a restart are each reported."""
    clean = read_namespace_state(namespace(), [pod(containerStatuses=[APP])], [], own={"details"})
    assert clean == State(namespace="run-1")
    found = read_namespace_state(
        namespace(**{"istio-injection": "enabled"}),
        [pod(containerStatuses=[{**APP, "restartCount": 1}], initContainerStatuses=[READY])],
        [{"webhooks": [webhook("x.istio.io")]}],
        own={"details"},
    )
    assert (found.labels, found.webhooks, found.running, len(found.restarts)) == (
        ("istio-injection=enabled",),
        ("x.istio.io",),
        ("istio-proxy in details-v1-x",),
        1,
    )


@pytest.mark.parametrize("key", ["containerStatuses", "initContainerStatuses"])
def test_finds_native_and_classic_sidecars(key: str) -> None:
    """A native sidecar is an init container, a classic one is not; each pod needs a ready one."""
    good = pod("a", **{key: [READY]})
    assert read_mesh_state([good], "istio-proxy").missing == ()
    waiting, bare = pod("b", **{key: [{**READY, "ready": False}]}), pod("c", containerStatuses=[APP])
    state = read_mesh_state([good, waiting, bare], "istio-proxy")
    assert (state.pods, state.missing, state.askable) == (3, ("not ready in b", "none in c"), False)


@pytest.mark.parametrize("key", ["containers", "initContainers"])
def test_reports_pod_without_a_sidecar(key: str) -> None:
    """No sidecar is added later, whatever the status of the pod."""
    spec: dict[str, Any] = {"containers": [{"name": "details"}]}
    meshed_spec = {**spec, key: [*spec.get(key, []), {"name": "istio-proxy"}]}
    pods = [{**pod("a"), "spec": meshed_spec}, {**pod("b"), "spec": spec}]
    assert find_uninjected(pods, "istio-proxy") == ("b",)


def test_restarts_have_container_and_reason() -> None:
    """A container that ended is reported with its reason, also while it waits; a completed init container is not."""
    killed = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
    done = {"name": "istio-init", "ready": True, "state": {"terminated": {"reason": "Completed", "exitCode": 0}}}
    pods = [
        pod("a", containerStatuses=[{**APP, "restartCount": 1, "lastState": killed}], initContainerStatuses=[done]),
        pod("b", containerStatuses=[{**APP, "state": killed}]),
        pod("c", containerStatuses=[APP]),
    ]
    lines = find_restarts(pods)
    assert lines == ("details in a (OOMKilled, exit code 137) ended", "details in b (OOMKilled, exit code 137) ended")
