"""Istio on a cluster, without one: what is rendered, where policies go, and what istiod's answers mean."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml

from bench.errors import InputError, MeshbenchError, RefusedError
from bench.files.folders import shipped
from bench.files.yaml_source import read_documents
from bench.k8s.client import Object, Ref, ref_of
from bench.k8s.connection import KindInfo
from bench.meshes.istio import control_plane as istio
from bench.meshes.istio import install as istio_install
from bench.meshes.istio.envoy.listeners import stats_config
from bench.meshes.istio.istiod import told_unsynced, unread
from bench.meshes.protocols import InstallOptions
from tests.golden import GOLDEN, MISSING

POLICIES = shipped("manifests") / "istio/policies"
ANNOTATION = "sidecar.istio.io/statsInclusion"


def shipped_policies() -> list[Object]:
    return [document.value for file in sorted(POLICIES.glob("*.yaml")) for document in read_documents(file)]


def thing(kind: str, name: str, spec: Any = None, *, namespace: str = "") -> Object:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **({"spec": spec} if spec else {})}


# --- placing -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=MISSING)
def test_placed_policies_are_those_that_a_real_istiod_took() -> None:
    """In the namespace `bookinfo` the shipped policies are the ones that a real control plane was given."""
    text = (GOLDEN / "istio/applied/istio-policies.yaml").read_text("utf-8")
    applied = {ref_of(one): one for one in yaml.safe_load_all(text)}
    assert {ref_of(one): one for one in istio.mesh_objects(shipped_policies(), "bookinfo")} == applied


def test_policies_move_into_the_runs_namespace_with_the_identities_in_them() -> None:
    """Nothing of a moved policy speaks of the namespace in which it was written, except what is the whole mesh's."""
    moved = istio.mesh_objects(shipped_policies(), "bookinfo-7f3a")
    spaces = {(one["kind"], one["metadata"]["namespace"]) for one in moved}
    assert spaces == {("PeerAuthentication", "istio-system"), ("AuthorizationPolicy", "bookinfo-7f3a")}
    text = yaml.safe_dump_all(moved)
    assert "cluster.local/ns/bookinfo-7f3a/sa/bookinfo-productpage" in text
    assert "/ns/bookinfo/" not in text


def test_a_policy_that_names_the_applications_namespace_moves_too() -> None:
    """Whether a manifest says `bookinfo` or nothing, it is meant for the application."""
    moved = istio.mesh_objects([thing("AuthorizationPolicy", "one", namespace="bookinfo")], "n")
    assert moved[0]["metadata"]["namespace"] == "n"


def test_a_guest_has_no_say_in_the_mesh_of_others() -> None:
    """With a mesh that was there before, what is for the whole mesh is for the run's namespace alone."""
    moved = istio.mesh_objects(shipped_policies(), "bookinfo-7f3a", "bookinfo-7f3a")
    assert {one["metadata"]["namespace"] for one in moved} == {"bookinfo-7f3a"}
    (mode,) = [one["spec"] for one in moved if one["kind"] == "PeerAuthentication"]
    assert mode == {"mtls": {"mode": "STRICT"}}


def test_a_guests_namespace_comes_before_the_mesh_as_it_would_anyway() -> None:
    """Where both have a PeerAuthentication the namespace's own counts; other policies add up, under names of their
    own."""
    everywhere, here = {"mtls": {"mode": "STRICT"}}, {"mtls": {"mode": "PERMISSIVE"}}
    given = [
        thing("PeerAuthentication", "default", everywhere, namespace="istio-system"),
        thing("PeerAuthentication", "default", here, namespace="bookinfo"),
        thing("AuthorizationPolicy", "viewer", {"action": "DENY"}, namespace="istio-system"),
        thing("AuthorizationPolicy", "viewer", {"action": "ALLOW"}),
    ]
    moved = {(one["kind"], one["metadata"]["name"]): one["spec"] for one in istio.mesh_objects(given, "n", "n")}
    assert moved == {
        ("PeerAuthentication", "default"): here,
        ("AuthorizationPolicy", "viewer-mesh-wide"): {"action": "DENY"},
        ("AuthorizationPolicy", "viewer"): {"action": "ALLOW"},
    }


def test_the_manifests_themselves_stay_as_they_are() -> None:
    """Moving makes new objects: a run places the same policies again for each trial."""
    policies = shipped_policies()
    istio.mesh_objects(policies, "elsewhere")
    assert policies == shipped_policies()


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"hosts": ["reviews.bookinfo.svc.cluster.local"]}, {"hosts": ["reviews.n.svc.cluster.local"]}),
        ({"host": "reviews.bookinfo"}, {"host": "reviews.n"}),
        ({"notHosts": ["*.bookinfo.svc.cluster.local:9080"]}, {"notHosts": ["*.n.svc.cluster.local:9080"]}),
        ({"host": "reviews.bookinfo.example.org"}, {"host": "reviews.bookinfo.example.org"}),
        ({"host": "bookinfo"}, {"host": "bookinfo"}),
        ({"source": {"namespaces": ["bookinfo", "bookinfo-2"]}}, {"source": {"namespaces": ["n", "bookinfo-2"]}}),
        ({"gateways": ["bookinfo/front", "mesh"]}, {"gateways": ["n/front", "mesh"]}),
        ({"principals": ["*/ns/bookinfo/*"]}, {"principals": ["*/ns/n/*"]}),
        ({"exact": "bookinfo", "port": 9080}, {"exact": "bookinfo", "port": 9080}),
    ],
)
def test_only_what_means_the_namespace_is_renamed(written: Object, expected: Object) -> None:
    """Hosts, identities and namespaces follow; a label or header value of the same name does not."""
    (moved,) = istio.mesh_objects([thing("VirtualService", "one", written)], "n")
    assert moved["spec"] == expected


def test_subsets_are_there_before_the_routes_to_them() -> None:
    """A route to a subset that is not there yet would answer 503."""
    kinds = ["VirtualService", "DestinationRule", "AuthorizationPolicy", "PeerAuthentication"]
    moved = istio.mesh_objects([thing(kind, "one") for kind in kinds], "n")
    assert [one["kind"] for one in moved] == kinds[::-1]


def test_a_revision_asks_its_own_control_plane_for_sidecars() -> None:
    """Istio answers `istio-injection` with the default revision only."""
    assert istio.namespace_labels() == {"istio-injection": "enabled"}
    assert istio.namespace_labels("canary") == {"istio.io/rev": "canary"}


def test_sidecars_keep_the_statistics_that_local_sidecars_keep() -> None:
    """Every counter costs CPU: on a cluster and locally there are the same ones besides Istio's."""
    asked = istio.pod_annotations()
    local = stats_config()["stats_matcher"]["inclusion_list"]["patterns"]
    for suffix in asked[f"{ANNOTATION}Suffixes"].split(","):
        assert {"suffix": suffix} in local
    for regex in asked[f"{ANNOTATION}Regexps"].split(","):
        assert {"safe_regex": {"regex": regex}} in local


# --- what istiod says ----------------------------------------------------------------------------------------


def status(proxy: str, *, sent: str = "b", acked: str = "b", error: str = "") -> Object:
    """An entry of /debug/syncz: everything acknowledged, except perhaps the listeners."""
    kinds = {"cluster_sent": "a", "cluster_acked": "a", "listener_sent": sent, "listener_acked": acked}
    listener = {"sent": sent, "acked": acked, **({"lastError": error} if error else {})}
    return {"proxy": proxy, "proxy_type": "sidecar", **kinds, "resources": {"Listener": listener}}


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([status("one.n")], ""),
        ([], "one is connected to no istiod"),
        ([status("one.other")], "one is connected to no istiod"),
        ([status("one.n", sent="c")], "one has not acknowledged listener"),
        ([status("one.n", sent="")], "one has not acknowledged listener"),
        ([status("one.n"), status("one.n", sent="c")], "one has not acknowledged listener"),
        ([status("one.n", sent="c", error="no such filter")], "one has refused its configuration: no such filter"),
    ],
)
def test_a_sidecar_counts_as_synced_only_with_everything_acknowledged(entries: list[Object], said: str) -> None:
    """Not connected, not told, not answered and refused are told apart, and none of them passes."""
    assert told_unsynced(entries, "n", ["one"]) == said


def test_a_kind_of_configuration_that_was_never_sent_needs_no_answer() -> None:
    """A sidecar without routes is as synced as one with them."""
    assert told_unsynced([{**status("one.n"), "route_sent": "", "route_acked": ""}], "n", ["one"]) == ""


def test_every_sidecar_that_is_behind_is_named() -> None:
    """One line tells of all of them."""
    said = told_unsynced([status("one.n", acked="a")], "n", ["one", "two"])
    assert said == "one has not acknowledged listener; two is connected to no istiod"


def test_a_policy_is_read_when_istiod_has_its_newest_generation() -> None:
    """A change counts as arrived only in the form that the cluster has now, whatever its API version."""
    ref = Ref("security.istio.io/v1", "AuthorizationPolicy", "one", "n")
    known = {"apiVersion": "security.istio.io/v1beta1", "kind": ref.kind}
    page = [{**known, "metadata": {"name": "one", "namespace": "n", "generation": 2}}]
    assert list(unread(page, {ref: 2})) == []
    assert list(unread(page, {ref: 3})) == ["istiod has not read AuthorizationPolicy n/one"]
    assert list(unread([], {ref: 1})) == ["istiod has not read AuthorizationPolicy n/one"]


# --- installing ----------------------------------------------------------------------------------------------


Run = Callable[..., "CompletedProcess[str]"]


def tool(monkeypatch: pytest.MonkeyPatch, *, output: str = "", code: int = 0, said: str = "") -> list[list[str]]:
    """Puts an istioctl in place that answers so; the command lines that it is given are in the returned list."""
    calls: list[list[str]] = []

    def run(argv: Sequence[str], *, timeout_s: float) -> "CompletedProcess[str]":
        calls.append(list(argv))
        return CompletedProcess(argv, code, output, said)

    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(istio_install, "run_tool", run)
    return calls


def rendered(*things: Object) -> str:
    return yaml.safe_dump_all([*things, None])


ISTIOD = thing("Deployment", "istiod", namespace="istio-system")


def test_what_was_rendered_comes_in_an_order_that_can_be_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    """The namespace, which istioctl takes for granted, and definitions first; webhooks last, since they would refuse
    what they select until istiod answers."""
    kinds = ["ValidatingWebhookConfiguration", "ClusterRole", "HorizontalPodAutoscaler", "CustomResourceDefinition"]
    tool(monkeypatch, output=rendered(*(thing(kind, "one") for kind in kinds), ISTIOD))
    objects = istio.render(InstallOptions())
    assert [one["kind"] for one in objects] == [
        "Namespace",
        "CustomResourceDefinition",
        "ClusterRole",
        "HorizontalPodAutoscaler",
        "Deployment",
        "ValidatingWebhookConfiguration",
    ]
    assert objects[0]["metadata"]["name"] == "istio-system"


def test_the_users_values_come_after_ours_and_options_after_both(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is said later wins: `--mesh-values` over our file, images and revision over every file."""
    values = tmp_path / "mine.yaml"
    values.write_text("apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec: {}\n", "utf-8")
    calls = tool(monkeypatch, output=rendered(ISTIOD))
    istio.render(InstallOptions(values=(values,), hub="example.org/istio", tag="1.30.3", revision="canary"))
    own = str(shipped("manifests") / "istio/install.yaml")
    assert calls == [
        [
            *("/bin/istioctl", "manifest", "generate", "-f", own, "-f", str(values)),
            *("--set", "hub=example.org/istio", "--set", "tag=1.30.3"),
            *("--revision", "canary", "--set", "values.defaultRevision=canary"),
        ]
    ]


def test_without_options_istioctl_chooses_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """A release's istioctl knows the hub and tag that belong to it."""
    calls = tool(monkeypatch, output=rendered(ISTIOD))
    istio.render(InstallOptions())
    assert calls[0][3:] == ["-f", str(shipped("manifests") / "istio/install.yaml")]


@pytest.mark.parametrize(
    "text", ["pilot: {}\n", "apiVersion: v1\nkind: Pod\n", "- one\n", "kind: IstioOperator\napiVersion: v2\n"]
)
def test_values_that_istioctl_would_pass_over_are_refused(tmp_path: Path, text: str) -> None:
    """Istioctl ignores a file of another kind without a word; then something else than meant would be measured."""
    values = tmp_path / "mine.yaml"
    values.write_text(text, "utf-8")
    with pytest.raises(InputError, match=r"mine.yaml:1: is no IstioOperator; Helm values stand in one"):
        istio.render(InstallOptions(values=(values,)))


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        (InstallOptions(), RefusedError, r"istio/install.yaml; is it too old or too new\? no such thing"),
        (InstallOptions(tag="x y"), InputError, r"does not take these values \(tag x y\): no such thing"),
    ],
)
def test_whose_mistake_a_refusal_is_decides_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, options: InstallOptions, kind: type[MeshbenchError], said: str
) -> None:
    """Values of the user's are wrong input; our own that istioctl does not know mean another version of it."""
    tool(monkeypatch, code=1, said="! a warning\nError: no such thing\n")
    with pytest.raises(kind, match=said):
        istio.render(options)


def test_a_missing_istioctl_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the tool nothing is started, and the message says which one, and where it is from."""
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(RefusedError, match=r"^istioctl is not on PATH.*https://istio\.io"):
        istio.render(InstallOptions())


def test_an_istiod_in_another_namespace_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Policies for the whole mesh go into istio-system, so that there the mesh has to be."""
    tool(monkeypatch, output=rendered(thing("Deployment", "istiod", namespace="mesh")))
    with pytest.raises(InputError, match="the values put istiod into mesh; it must be istio-system"):
        istio.render(InstallOptions())


# --- what is there -------------------------------------------------------------------------------------------


class Listing:
    """A cluster that can be listed, and nothing else."""

    def __init__(self, *things: Object) -> None:
        self.things = things

    def kinds(self) -> tuple[KindInfo, ...]:
        found = dict.fromkeys((one["apiVersion"], one["kind"]) for one in self.things)
        return tuple(KindInfo(version, kind, kind.lower(), True, frozenset({"list"})) for version, kind in found)

    def get(self, ref: Ref) -> Object | None:
        return next((one for one in self.things if ref_of(one) == ref), None)

    def list(self, api_version: str, kind: str, *, namespace: str = "", labels: str = "") -> tuple[Object, ...]:
        wanted = dict([labels.split("=")]) if labels else {}
        return tuple(
            one
            for one in self.things
            if (one["apiVersion"], one["kind"]) == (api_version, kind)
            and namespace in ("", one["metadata"].get("namespace"))
            and wanted.items() <= one["metadata"].get("labels", {}).items()
        )


def labelled(one: Object, **labels: str) -> Object:
    return {**one, "metadata": {**one["metadata"], "labels": labels}}


def test_what_istiod_leaves_is_found_and_nothing_else() -> None:
    """The certificates' roots in every namespace, and the classes of gateways; not those of other controllers."""
    root = thing("ConfigMap", "istio-ca-root-cert", namespace="default")
    gateway = {**thing("GatewayClass", "istio"), "apiVersion": "gateway.networking.k8s.io/v1"}
    things = (
        {**root, "metadata": {**root["metadata"], "labels": {"istio.io/config": "true"}}},
        thing("ConfigMap", "kube-root-ca.crt", namespace="default"),
        {**gateway, "spec": {"controllerName": "istio.io/gateway-controller"}},
        {**gateway, "metadata": {"name": "other"}, "spec": {"controllerName": "example.org/controller"}},
    )
    left = istio.own_leftovers(Listing(*things))  # type: ignore[arg-type]  # a cluster as far as it is asked
    assert [str(ref) for ref in left] == ["ConfigMap default/istio-ca-root-cert", "GatewayClass istio"]


def test_an_istio_that_is_there_is_described() -> None:
    """An istiod in any namespace, its webhooks and its definitions are told; without any of them there is no Istio."""
    istiod = labelled({**thing("Deployment", "istiod-old", namespace="mesh"), "apiVersion": "apps/v1"}, app="istiod")
    hook = {**thing("MutatingWebhookConfiguration", "injector"), "apiVersion": "admissionregistration.k8s.io/v1"}
    hook["webhooks"] = [{"clientConfig": {"service": {"name": "istiod-old", "namespace": "mesh"}}}]
    other = {**hook, "metadata": {"name": "other"}, "webhooks": [{"clientConfig": {"url": "https://example.org"}}]}
    policy = {**thing("AuthorizationPolicy", "one", namespace="n"), "apiVersion": "security.istio.io/v1"}
    said = istio.present(Listing(istiod, hook, other, policy))  # type: ignore[arg-type]  # see above
    assert said == (
        "Deployment mesh/istiod-old, MutatingWebhookConfiguration injector, custom resources of security.istio.io"
    )
    assert istio.present(Listing(other)) == ""  # type: ignore[arg-type]  # see above
