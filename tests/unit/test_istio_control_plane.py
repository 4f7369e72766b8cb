"""Istio on a cluster, without one: rendered objects, placed policies, and istiod's answers."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml

from bench.errors import InputError, MeshbenchError, RefusedError
from bench.files.folders import find_shipped
from bench.files.yaml_source import read_documents
from bench.k8s.client import Object, Ref, ref_of
from bench.k8s.connection import KindInfo
from bench.meshes.cluster_protocol import InstallOptions
from bench.meshes.istio import control_plane as istio
from bench.meshes.istio import install as istio_install
from bench.meshes.istio.envoy.listeners import stats_config
from bench.meshes.istio.istiod import format_unread, format_unsynced
from tests.golden import GOLDEN, MISSING
from tests.moving import move_objects

POLICIES = find_shipped("manifests") / "istio/policies"
ANNOTATION = "sidecar.istio.io/statsInclusion"


def shipped_policies() -> list[Object]:
    return [document.value for file in sorted(POLICIES.glob("*.yaml")) for document in read_documents(file)]


def thing(kind: str, name: str, spec: Any = None, *, namespace: str = "") -> Object:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **({"spec": spec} if spec else {})}


# --- placing -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=MISSING)
def test_placed_policies_equal_those_of_real_istiod() -> None:
    """In the namespace `bookinfo` the shipped policies are those that a real control plane was given."""
    text = (GOLDEN / "istio/applied/istio-policies.yaml").read_text("utf-8")
    applied = {ref_of(one): one for one in yaml.safe_load_all(text)}
    assert {ref_of(one): one for one in move_objects("istio", shipped_policies(), "bookinfo")} == applied


def test_moves_policies_and_their_identities() -> None:
    """A moved policy names its old namespace only where it is for the whole mesh."""
    moved = move_objects("istio", shipped_policies(), "bookinfo-7f3a")
    spaces = {(one["kind"], one["metadata"]["namespace"]) for one in moved}
    assert spaces == {("PeerAuthentication", "istio-system"), ("AuthorizationPolicy", "bookinfo-7f3a")}
    text = yaml.safe_dump_all(moved)
    assert "cluster.local/ns/bookinfo-7f3a/sa/bookinfo-productpage" in text
    assert "/ns/bookinfo/" not in text


def test_moves_policy_that_names_the_namespace() -> None:
    """A manifest for `bookinfo` and one without a namespace are both for the application."""
    moved = move_objects("istio", [thing("AuthorizationPolicy", "one", namespace="bookinfo")], "n")
    assert moved[0]["metadata"]["namespace"] == "n"


def test_policies_in_existing_mesh_stay_in_the_runs_namespace() -> None:
    """With an existing mesh, policies for the whole mesh apply to the run's namespace only."""
    moved = move_objects("istio", shipped_policies(), "bookinfo-7f3a", "bookinfo-7f3a")
    assert {one["metadata"]["namespace"] for one in moved} == {"bookinfo-7f3a"}
    (mode,) = [one["spec"] for one in moved if one["kind"] == "PeerAuthentication"]
    assert mode == {"mtls": {"mode": "STRICT"}}


def test_namespace_policy_replaces_mesh_policy() -> None:
    """Of two PeerAuthentications the namespace's own takes precedence; other policies add up, under their own names."""
    everywhere, here = {"mtls": {"mode": "STRICT"}}, {"mtls": {"mode": "PERMISSIVE"}}
    given = [
        thing("PeerAuthentication", "default", everywhere, namespace="istio-system"),
        thing("PeerAuthentication", "default", here, namespace="bookinfo"),
        thing("AuthorizationPolicy", "viewer", {"action": "DENY"}, namespace="istio-system"),
        thing("AuthorizationPolicy", "viewer", {"action": "ALLOW"}),
    ]
    moved = {(one["kind"], one["metadata"]["name"]): one["spec"] for one in move_objects("istio", given, "n", "n")}
    assert moved == {
        ("PeerAuthentication", "default"): here,
        ("AuthorizationPolicy", "viewer-mesh-wide"): {"action": "DENY"},
        ("AuthorizationPolicy", "viewer"): {"action": "ALLOW"},
    }


def test_does_not_change_the_manifests() -> None:
    """Moving makes new objects: a run places the same policies again for each trial."""
    policies = shipped_policies()
    move_objects("istio", policies, "elsewhere")
    assert policies == shipped_policies()


@pytest.mark.parametrize(
    ("kind", "path", "written", "expected"),
    [
        ("VirtualService", "hosts", ["reviews.bookinfo.svc.cluster.local"], ["reviews.n.svc.cluster.local"]),
        ("DestinationRule", "host", "reviews.bookinfo", "reviews.n"),
        ("DestinationRule", "host", "reviews.bookinfo.example.org", "reviews.bookinfo.example.org"),
        ("DestinationRule", "host", "bookinfo", "bookinfo"),
        ("DestinationRule", "subsets", [{"labels": {"host": "a.bookinfo"}}], [{"labels": {"host": "a.bookinfo"}}]),
        ("AuthorizationPolicy", "to.operation.notHosts", ["*.bookinfo.svc:9080"], ["*.n.svc:9080"]),
        ("AuthorizationPolicy", "from.source.namespaces", ["bookinfo", "bookinfo-2"], ["n", "bookinfo-2"]),
        ("AuthorizationPolicy", "from.source.principals", ["*/ns/bookinfo/*"], ["*/ns/n/*"]),
        ("AuthorizationPolicy", "to.operation.paths", ["/ns/bookinfo/x"], ["/ns/bookinfo/x"]),
        ("VirtualService", "gateways", ["bookinfo/front", "mesh"], ["n/front", "mesh"]),
        ("Gateway", "servers", [{"hosts": ["bookinfo/a.bookinfo"]}], [{"hosts": ["n/a.n"]}]),
        ("Gateway", "selector", {"namespace": "bookinfo"}, {"namespace": "bookinfo"}),
    ],
)
def test_changes_only_places_that_name_the_namespace(kind: str, path: str, written: Any, expected: Any) -> None:
    """Hosts, identities and namespaces change; a label, a path or a header value of the same name does not."""

    def spec(value: Any) -> Any:
        outer, _, inner = path.partition(".")
        if not inner:
            return {path: value}
        part, name = inner.split(".")
        return {"rules": [{outer: [{part: {name: value}}]}]}

    (moved,) = move_objects("istio", [thing(kind, "one", spec(written))], "n")
    assert moved["spec"] == spec(expected)


def test_applies_subsets_before_routes() -> None:
    """A route to a missing subset would return 503."""
    kinds = ["VirtualService", "DestinationRule", "AuthorizationPolicy", "PeerAuthentication"]
    moved = move_objects("istio", [thing(kind, "one") for kind in kinds], "n")
    assert [one["kind"] for one in moved] == kinds[::-1]


def test_revision_has_its_own_injection_label() -> None:
    """Istio handles `istio-injection` with the default revision only."""
    assert istio.namespace_labels() == {"istio-injection": "enabled"}
    assert istio.namespace_labels("canary") == {"istio.io/rev": "canary"}


def test_sidecars_keep_the_statistics_of_local_sidecars() -> None:
    """Every counter costs CPU: on a cluster and locally there are the same ones, in addition to Istio's."""
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
    ("entries", "message"),
    [
        ([status("one.n")], ""),
        ([], "one is connected to no istiod"),
        ([status("one.other")], "one is connected to no istiod"),
        ([status("one.n", sent="c")], "one has not acknowledged listener"),
        ([status("one.n", sent="")], "one has not acknowledged listener"),
        ([status("one.n"), status("one.n", sent="c")], "one has not acknowledged listener"),
        ([status("one.n", sent="c", error="no such filter")], "one has rejected its configuration: no such filter"),
    ],
)
def test_sidecar_is_synced_after_all_acknowledgements(entries: list[Object], message: str) -> None:
    """Not connected, not sent, not acknowledged and rejected have messages of their own."""
    assert format_unsynced(entries, "n", ["one"]) == message


def test_accepts_types_that_were_never_sent() -> None:
    """A sidecar without routes is as synced as one with them."""
    assert format_unsynced([{**status("one.n"), "route_sent": "", "route_acked": ""}], "n", ["one"]) == ""


def test_reports_every_unsynced_sidecar() -> None:
    """One line names all of them."""
    message = format_unsynced([status("one.n", acked="a")], "n", ["one", "two"])
    assert message == "one has not acknowledged listener; two is connected to no istiod"


def test_policy_is_synced_with_its_newest_generation() -> None:
    """A change counts as arrived only in the cluster's current form, whatever its API version."""
    ref = Ref("security.istio.io/v1", "AuthorizationPolicy", "one", "n")
    known = {"apiVersion": "security.istio.io/v1beta1", "kind": ref.kind}
    page = [{**known, "metadata": {"name": "one", "namespace": "n", "generation": 2}}]
    assert list(format_unread(page, {ref: 2})) == []
    assert list(format_unread(page, {ref: 3})) == ["istiod has not read AuthorizationPolicy n/one"]
    assert list(format_unread([], {ref: 1})) == ["istiod has not read AuthorizationPolicy n/one"]


# --- installing ----------------------------------------------------------------------------------------------


Run = Callable[..., "CompletedProcess[str]"]


def tool(monkeypatch: pytest.MonkeyPatch, *, output: str = "", code: int = 0, message: str = "") -> list[list[str]]:
    """Puts an istioctl in place that returns this; the returned list collects its command lines."""
    calls: list[list[str]] = []

    def run(argv: Sequence[str], *, timeout_s: float) -> "CompletedProcess[str]":
        calls.append(list(argv))
        return CompletedProcess(argv, code, output, message)

    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(istio_install, "run_tool", run)
    return calls


def rendered(*things: Object) -> str:
    return yaml.safe_dump_all([*things, None])


ISTIOD = thing("Deployment", "istiod", namespace="istio-system")


def test_sorts_rendered_objects_for_apply(monkeypatch: pytest.MonkeyPatch) -> None:
    """The namespace, which istioctl omits, and definitions first; webhooks last, since they would refuse what they
    select until istiod responds."""
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


def test_later_values_take_precedence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`--mesh-values` over meshbench's file, images and revision over every file."""
    values = tmp_path / "mine.yaml"
    values.write_text("apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec: {}\n", "utf-8")
    calls = tool(monkeypatch, output=rendered(ISTIOD))
    istio.render(InstallOptions(values=(values,), hub="example.org/istio", tag="1.30.3", revision="canary"))
    own = str(find_shipped("manifests") / "istio/install.yaml")
    assert calls == [
        [
            *("/bin/istioctl", "manifest", "generate", "-f", own, "-f", str(values)),
            *("--set", "hub=example.org/istio", "--set", "tag=1.30.3"),
            *("--revision", "canary", "--set", "values.defaultRevision=canary"),
        ]
    ]


def test_istioctl_chooses_the_images_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """A release's istioctl knows its hub and tag."""
    calls = tool(monkeypatch, output=rendered(ISTIOD))
    istio.render(InstallOptions())
    assert calls[0][3:] == ["-f", str(find_shipped("manifests") / "istio/install.yaml")]


@pytest.mark.parametrize(
    "text", ["pilot: {}\n", "apiVersion: v1\nkind: Pod\n", "- one\n", "kind: IstioOperator\napiVersion: v2\n"]
)
def test_refuses_values_that_istioctl_ignores(tmp_path: Path, text: str) -> None:
    """Istioctl silently ignores a file of another kind, and something else than intended would be measured."""
    values = tmp_path / "mine.yaml"
    values.write_text(text, "utf-8")
    with pytest.raises(InputError, match=r"mine.yaml:1: is no IstioOperator; Helm values stand in one"):
        istio.render(InstallOptions(values=(values,)))


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (InstallOptions(), RefusedError, r"istio/install.yaml: no such thing; hint: use another istioctl"),
        (InstallOptions(tag="x y"), InputError, r"rejects these values \(tag x y\): no such thing"),
    ],
)
def test_exit_code_depends_on_whose_values_are_refused(
    monkeypatch: pytest.MonkeyPatch, options: InstallOptions, kind: type[MeshbenchError], message: str
) -> None:
    """The user's values are an input error; meshbench's own values mean another version of istioctl."""
    tool(monkeypatch, code=1, message="! a warning\nError: no such thing\n")
    with pytest.raises(kind, match=message):
        istio.render(options)


def test_reports_missing_istioctl(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is started, and the message has the tool and where to get it."""
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(RefusedError, match=r"^istioctl is not on PATH.*https://istio\.io"):
        istio.render(InstallOptions())


def test_refuses_istiod_in_another_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Policies for the whole mesh are in istio-system, so the mesh has to be there."""
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


def test_finds_objects_that_istiod_leaves() -> None:
    """The certificates' roots in every namespace, and the gateway classes, by the names that istiod gives them; not
    those that others made for it, for other controllers, or before."""
    root = thing("ConfigMap", "istio-ca-root-cert", namespace="default")
    gateway = {**thing("GatewayClass", "istio"), "apiVersion": "gateway.networking.k8s.io/v1"}
    things = (
        {**root, "metadata": {**root["metadata"], "labels": {"istio.io/config": "true"}}},
        thing("ConfigMap", "kube-root-ca.crt", namespace="default"),
        {**gateway, "spec": {"controllerName": "istio.io/gateway-controller"}},
        {**gateway, "metadata": {"name": "other"}, "spec": {"controllerName": "example.org/controller"}},
        {**gateway, "metadata": {"name": "team"}, "spec": {"controllerName": "istio.io/gateway-controller"}},
        labelled(thing("ConfigMap", "rules", namespace="team"), **{"istio.io/config": "true"}),
        {
            **root,
            "metadata": {
                "name": "istio-ca-root-cert",
                "namespace": "old",
                "labels": {"istio.io/config": "true"},
                "creationTimestamp": "2026-11-23T03:14:59Z",
            },
        },
    )
    cluster = Listing(*things)
    left = istio.find_leftovers(cluster, since="2026-11-23T03:15:00Z")  # type: ignore[arg-type]  # as far as it is asked
    assert [str(ref_of(one)) for one in left] == ["ConfigMap default/istio-ca-root-cert", "GatewayClass istio"]


def test_describes_existing_istio() -> None:
    """An istiod in any namespace, its webhooks and its definitions; without any of them there is no Istio."""
    istiod = labelled({**thing("Deployment", "istiod-old", namespace="mesh"), "apiVersion": "apps/v1"}, app="istiod")
    hook = {**thing("MutatingWebhookConfiguration", "injector"), "apiVersion": "admissionregistration.k8s.io/v1"}
    hook["webhooks"] = [{"clientConfig": {"service": {"name": "istiod-old", "namespace": "mesh"}}}]
    other = {**hook, "metadata": {"name": "other"}, "webhooks": [{"clientConfig": {"url": "https://example.org"}}]}
    policy = {**thing("AuthorizationPolicy", "one", namespace="n"), "apiVersion": "security.istio.io/v1"}
    message = istio.find_installed(Listing(istiod, hook, other, policy))  # type: ignore[arg-type]  # see above
    assert message == (
        "Deployment mesh/istiod-old, MutatingWebhookConfiguration injector, custom resources of security.istio.io"
    )
    assert istio.find_installed(Listing(other)) == ""  # type: ignore[arg-type]  # see above
