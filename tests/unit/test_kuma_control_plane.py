"""Kuma on a cluster, without one: rendered objects, placed policies, and the control plane's answers."""

import base64
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, cast

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bench.application.model import MESH
from bench.envoy import admin as proxies
from bench.errors import DeployError, InputError, MeshbenchError, RefusedError
from bench.files.folders import find_shipped
from bench.files.yaml_source import read_documents
from bench.k8s.client import Cluster, Object, Ref, ref_of
from bench.meshes.cluster_protocol import InstallOptions
from bench.meshes.kuma import control_plane as kuma
from bench.meshes.kuma import install as kuma_install
from bench.meshes.kuma.kuma_cp import explain_unready, format_unsynced, read_certificates, select_stats
from bench.meshes.rewriting import Namespaces
from tests.golden import GOLDEN, MISSING
from tests.kuma_cluster import KumaCluster, control_plane_pod
from tests.moving import move_objects
from tests.sidecars import configuration_with

MANIFESTS = find_shipped("manifests") / "kuma"
OURS = {"app.kubernetes.io/managed-by": "meshbench", "meshbench.dev/run-id": "one"}


def written(form: str) -> list[Object]:
    files = sorted((MANIFESTS / form).glob("*.yaml"))
    return [document.value for file in files for document in read_documents(file)]


def thing(kind: str, name: str, spec: Any = None, **metadata: Any) -> Object:
    return {"apiVersion": "kuma.io/v1alpha1", "kind": kind, "metadata": {"name": name, **metadata}, "spec": spec or {}}


# --- placing -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=MISSING)
@pytest.mark.parametrize("form", ["policies", "policies-legacy"])
def test_placed_policies_equal_those_of_a_real_control_plane(form: str) -> None:
    """In the namespace `bookinfo` the shipped policies are those that a real control plane was given."""
    text = (GOLDEN / f"kuma/applied/kuma-{form}.yaml").read_text("utf-8")
    applied = {ref_of(one): one for one in yaml.safe_load_all(text)}
    assert {ref_of(one): one for one in move_objects("kuma", written(form), "bookinfo")} == applied


def test_moves_policies_and_their_identities() -> None:
    """A moved policy does not name its old namespace; policies for the whole mesh stay."""
    moved = move_objects("kuma", written("policies"), "bookinfo-7f3a")
    spaces = {(one["kind"], one["metadata"].get("namespace", "")) for one in moved}
    assert spaces == {("Mesh", ""), ("MeshIdentity", "kuma-system"), ("MeshTrafficPermission", "bookinfo-7f3a")}
    text = yaml.safe_dump_all(moved)
    assert "spiffe://default.default.mesh.local/ns/bookinfo-7f3a/sa/bookinfo-productpage" in text
    assert "/ns/bookinfo/" not in text


def test_older_permissions_name_moved_services() -> None:
    """A service tag has the namespace; objects of that form are cluster-scoped."""
    moved = move_objects("kuma", written("policies-legacy"), "bookinfo-7f3a")
    assert all("namespace" not in one["metadata"] for one in moved)
    text = yaml.safe_dump_all(moved)
    assert "details_bookinfo-7f3a_svc_9080" in text
    assert "_bookinfo_svc" not in text


def test_does_not_change_the_manifests() -> None:
    """Moving makes new objects: a run places the same policies again for each trial."""
    policies = written("policies")
    move_objects("kuma", policies, "elsewhere")
    assert policies == written("policies")


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        ("MeshTrafficPermission", "spiffe://d/ns/bookinfo/sa/bookinfo-ratings", "spiffe://d/ns/n/sa/bookinfo-ratings"),
        ("MeshTrafficPermission", "spiffe://d/ns/bookinfo", "spiffe://d/ns/n"),
        ("MeshTrafficPermission", "spiffe://d/ns/bookinfo-2/sa/one", "spiffe://d/ns/bookinfo-2/sa/one"),
        ("TrafficPermission", "reviews_bookinfo_svc_9080", "reviews_n_svc_9080"),
        ("TrafficPermission", "locust_bookinfo_svc", "locust_n_svc"),
        ("TrafficPermission", "reviews_bookinfo_2_svc_9080", "reviews_bookinfo_2_svc_9080"),
        ("TrafficPermission", "*", "*"),
        ("MeshHTTPRoute", "bookinfo", "n"),
    ],
)
def test_changes_only_places_that_name_the_namespace(kind: str, given: str, expected: str) -> None:
    """Identities, tags and namespaces change; a header, label or name of the same letters does not."""

    def spec(text: str) -> Object:
        specs: dict[str, Object] = {
            "MeshTrafficPermission": {"rules": [{"default": {"allow": [{"spiffeID": {"value": text}}]}}]},
            "TrafficPermission": {"sources": [{"match": {"kuma.io/service": text, "name": "bookinfo"}}]},
            "MeshHTTPRoute": {
                "targetRef": {"labels": {"app": "bookinfo", "k8s.kuma.io/namespace": text}},
                "to": [
                    {
                        "targetRef": {"name": "bookinfo", "namespace": text},
                        "rules": [
                            {
                                "matches": [{"headers": [{"name": "namespace", "value": "bookinfo"}]}],
                                "default": {"backendRefs": [{"name": "bookinfo", "namespace": text}]},
                            }
                        ],
                    }
                ],
            },
        }
        return specs[kind]

    (moved,) = move_objects("kuma", [thing(kind, "one", spec(given))], "n")
    assert moved["spec"] == spec(expected)


def test_applies_mesh_and_identity_first() -> None:
    """A permission in a missing mesh would be refused."""
    kinds = ["MeshTrafficPermission", "MeshIdentity", "Mesh"]
    moved = move_objects("kuma", [thing(kind, "one") for kind in kinds], "n")
    assert [one["kind"] for one in moved] == kinds[::-1]


def test_mesh_without_policies_is_the_default_mesh() -> None:
    """No mutual TLS and nothing else, like a local configuration without manifests."""
    assert [(ref_of(one), one["spec"]) for one in kuma.base_objects()] == [
        (Ref("kuma.io/v1alpha1", "Mesh", MESH), {}),
    ]


def test_knows_trust_that_an_identity_leaves() -> None:
    """The trust in an identity's authority has to be removed in addition to the identity."""
    assert kuma.list_generated(written("policies")) == (
        Ref("kuma.io/v1alpha1", "MeshTrust", "identity", "kuma-system"),
    )
    assert kuma.list_generated(written("policies-legacy")) == ()


@pytest.mark.parametrize("form", ["policies", "policies-legacy", "mtls"])
def test_existing_mesh_objects_stay_unchanged(form: str) -> None:
    """With an existing mesh every object is in a mesh of the run's own, under unique names."""
    moved = move_objects("kuma", written(form), "bookinfo-7f3a", "bookinfo-7f3a")
    assert all("7f3a" in one["metadata"].get("namespace", "") or "7f3a" in one["metadata"]["name"] for one in moved)
    meshes = {one["metadata"].get("labels", {}).get("kuma.io/mesh") or one.get("mesh") for one in moved[1:]}
    assert (moved[0]["kind"], moved[0]["metadata"]["name"], meshes) == ("Mesh", "bookinfo-7f3a", {"bookinfo-7f3a"})
    assert "spiffe://default." not in yaml.safe_dump_all(moved)
    assert [one["metadata"]["name"] for one in kuma.base_objects("bookinfo-7f3a")] == ["bookinfo-7f3a"]
    assert kuma.namespace_labels(run_mesh="bookinfo-7f3a")["kuma.io/mesh"] == "bookinfo-7f3a"
    assert move_objects("kuma", written(form), "bookinfo")[0]["metadata"]["name"] == MESH


def test_identities_name_the_runs_own_mesh() -> None:
    """The proofs expect the names that certificates will have, and policies allow the same ones."""
    names = Namespaces({"bookinfo": "n"}, run_mesh="n")
    expected = configuration_with("kuma", "kuma/policies").in_namespaces(names).ids["reviews"]
    assert expected == "spiffe://n.default.mesh.local/ns/n/sa/bookinfo-reviews"
    assert expected in yaml.safe_dump_all(move_objects("kuma", written("policies"), "n", "n"))
    older = configuration_with("kuma", "kuma/policies-legacy").in_namespaces(names).ids["reviews"]
    assert older == "spiffe://n/reviews_n_svc_9080"


# --- what the control plane says -----------------------------------------------------------------------------


def insight(name: str, *, certificate: bool = False, ended: bool = False, **counts: Mapping[str, str]) -> Object:
    """A DataplaneInsight: everything acknowledged, except for the `counts`, as they are written in one."""
    done = {"responsesSent": "2", "responsesAcknowledged": "2"}
    status = {"cds": done, "eds": done, "lds": done, "rds": {}, "total": done, **counts}
    subscription = {"connectTime": "t", "status": status, **({"disconnectTime": "t"} if ended else {})}
    old = {"connectTime": "t", "disconnectTime": "t", "status": {}}
    state: Object = {"subscriptions": [old, subscription], **({"mTLS": {"issuedBackend": "b"}} if certificate else {})}
    return {**thing("DataplaneInsight", name), "status": state}


def service(name: str, tls: str, *, pods: int = 1) -> Object:
    return {**thing("MeshService", name), "status": {"dataplaneProxies": {"total": pods}, "tls": {"status": tls}}}


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([insight("one")], ""),
        ([], "one is not connected to the control plane"),
        ([thing("DataplaneInsight", "one")], "one is not connected to the control plane"),
        ([insight("one", ended=True)], "one is not connected to the control plane"),
        ([insight("one", lds={}, cds={}, eds={})], "one has no configuration"),
        ([insight("one", eds={"responsesSent": "3", "responsesAcknowledged": "2"})], "one has not acknowledged eds"),
        ([insight("one", cds={"responsesSent": "1"})], "one has not acknowledged cds"),
        ([insight("one", eds={"responsesSent": "3", "responsesAcknowledged": "8"})], ""),
        ([insight("one", total={"responsesRejected": "1"})], "one has rejected its configuration"),
    ],
)
def test_sidecar_is_synced_after_all_acknowledgements(found: list[Object], message: str) -> None:
    """Not connected, not sent, not acknowledged and rejected have messages of their own."""
    assert format_unsynced(found, (), ["one"], identified=False) == message


def test_sidecar_without_certificate_is_unsynced() -> None:
    """A certificate comes after the first configuration; without mutual TLS there is none to wait for."""
    assert format_unsynced([insight("one")], (), ["one"], identified=True) == "one has no certificate"
    assert format_unsynced([insight("one", certificate=True)], (), ["one"], identified=True) == ""


def test_service_called_in_plaintext_is_unsynced() -> None:
    """Callers begin with mutual TLS when every pod of a Service can; a Service without pods has no callers."""
    services = [service("a", "Ready"), service("b", "NotReady"), service("c", "NotReady", pods=0)]
    assert format_unsynced((), services, (), identified=True) == "b is called in plaintext"


def test_reports_every_unsynced_sidecar() -> None:
    """One line names all of them."""
    message = format_unsynced([insight("one", ended=True)], (), ["one", "two"], identified=False)
    assert message == "one is not connected to the control plane; two is not connected to the control plane"


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([], "not yet processed by the control plane"),
        ([("Ready", "True", "")], ""),
        (
            [("Ready", "False", "One failed"), ("DependenciesReady", "False", "set mode Exclusive")],
            "set mode Exclusive",
        ),
    ],
)
def test_identity_is_accepted_when_it_can_issue(conditions: Sequence[tuple[str, str, str]], expected: str) -> None:
    """The reason is the failed condition's, not that of the summary."""
    rows = [{"type": kind, "status": status, "message": message} for kind, status, message in conditions]
    assert explain_unready({"status": {"conditions": rows}}) == expected


def test_selects_statistics_like_envoy() -> None:
    """The control plane returns all of them; histograms and the listener of its own requests are left out."""
    names = [
        "listener.10.0.0.1_9080.ssl.handshake",
        "listener.10.0.0.1_9901.ssl.handshake",
        "cluster.a.upstream_rq_retry",
    ]
    stats = {"stats": [*({"name": name, "value": 1} for name in names), {"histograms": {}}]}
    assert [one["name"] for one in select_stats(stats, "ssl")["stats"]] == [names[0]]
    assert [one["name"] for one in select_stats(stats, "upstream_rq_retry$")["stats"]] == [names[2]]
    assert [one["name"] for one in select_stats(stats, "")["stats"]] == [names[0], names[2]]


def pem(*uris: str) -> str:
    """A certificate for these URIs as it stands in a configuration dump."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        subject_name=x509.Name([]), issuer_name=x509.Name([]), public_key=key.public_key()
    )
    dated = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(hours=1))
    made = (dated.add_extension(names, critical=True) if uris else dated).sign(key, hashes.SHA256())
    return base64.b64encode(made.public_bytes(serialization.Encoding.PEM)).decode()


def dump(*chains: str) -> Object:
    secrets = [{"secret": {"tls_certificate": {"certificate_chain": {"inline_bytes": chain}}}} for chain in chains]
    trust: Object = {"secret": {"validation_context": {}}}
    return {"configs": [{"bootstrap": {}}, {"dynamic_active_secrets": [*secrets, trust]}]}


def test_reads_sidecar_identities_from_configuration() -> None:
    """The format is that of Envoy; tags that the older form writes next to the SPIFFE id are no ids."""
    rows = read_certificates(dump(pem("spiffe://default/a", "kuma://app/a"), pem()))
    assert proxies.identities(rows) == ("spiffe://default/a",)


# --- asking --------------------------------------------------------------------------------------------------


def test_control_plane_needs_a_running_pod() -> None:
    """A pod that is not ready, or is terminating, is not used."""
    with pytest.raises(DeployError, match="no control plane of Kuma runs in kuma-system"):
        kuma.admin(
            cast("Cluster", KumaCluster([control_plane_pod("one", ready=False)])), "one", "/certs", namespace="n"
        )


class Definitions(KumaCluster):
    """A cluster with the kind Zone and one object of it; `labels` are those of the kind's definition."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        super().__init__(())
        self.labels = labels

    def list(self, *kind: str, **_: str) -> Sequence[Object]:
        if kind[-1] == "Zone":
            return [thing("Zone", "default")]
        return [thing(kind[-1], "zones.kuma.io", {"names": {"kind": "Zone"}}, labels=self.labels)]


def test_never_removes_objects_of_foreign_kuma() -> None:
    """An object whose kind was not created by a run belongs to another owner."""
    assert kuma.find_leftovers(cast("Cluster", Definitions({})), since="") == ()
    (zone,) = kuma.find_leftovers(cast("Cluster", Definitions(OURS)), since="")
    assert ref_of(zone) == Ref("kuma.io/v1alpha1", "Zone", "default")


# --- installing ----------------------------------------------------------------------------------------------


def tool(monkeypatch: pytest.MonkeyPatch, *outputs: str, code: int = 0, message: str = "") -> list[list[str]]:
    """Puts a kumactl in place that returns these outputs in turn; the returned list collects its command lines."""
    calls: list[list[str]] = []
    answers = iter(outputs)

    def run(argv: Sequence[str], *, timeout_s: float) -> "CompletedProcess[str]":
        calls.append(list(argv))
        return CompletedProcess(argv, code, next(answers, ""), message)

    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(kuma_install, "run_tool", run)
    return calls


def control_plane(tag: str = "2.14.3", namespace: str = "kuma-system") -> Object:
    containers = [{"name": "control-plane", "image": f"docker.io:5000/kumahq/kuma-cp:{tag}"}]
    spec = {"template": {"spec": {"containers": containers}}}
    return thing("Deployment", "kuma-control-plane", spec, namespace=namespace)


def rendered(*things: Object) -> str:
    return yaml.safe_dump_all([*things, None])


CHART = yaml.safe_dump({"controlPlane": {"replicas": 1, "envVars": {}}, "namespaceAllowList": []})
COMMAND = ["/bin/kumactl", "--no-config", "install", "control-plane", "--without-kubernetes-connection"]
OWN = [f"--namespace={kuma.NAMESPACE}", f"--values={MANIFESTS / 'install.yaml'}"]


def test_kumactl_renders_offline_without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """It contacts no cluster, leaves nothing in the user's home, and chooses its own images."""
    calls = tool(monkeypatch, rendered(control_plane()))
    assert kuma.render(InstallOptions()) == (control_plane(),)
    assert calls == [[*COMMAND, *OWN]]


def test_later_values_take_precedence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`--mesh-values` over meshbench's file, registry and tag over every file."""
    values = tmp_path / "mine.yaml"
    values.write_text("controlPlane: {replicas: 2, envVars: {KUMA_ANY: '1'}}\n", "utf-8")
    calls = tool(monkeypatch, CHART, rendered(control_plane("2.13.1")))
    kuma.render(InstallOptions(values=(values,), hub="example.org/kumahq", tag="2.13.1"))
    images = [f"--set={name}.tag=2.13.1" for name in ("controlPlane.image", "dataPlane.image", "dataPlane.initImage")]
    hub = "--set=global.image.registry=example.org/kumahq"
    assert calls == [[*COMMAND, "--dump-values"], [*COMMAND, *OWN, f"--values={values}", hub, *images]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("controlPlan: {}\n", r"mine.yaml:1: controlPlan: is no value of Kuma's chart; did you mean controlPlane\?"),
        ("controlPlane:\n  replica: 2\n", r"mine.yaml:2: controlPlane.replica: .*did you mean replicas\?"),
        ("- one\n", "mine.yaml:1: is no mapping"),
    ],
)
def test_refuses_values_that_the_chart_ignores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, message: str
) -> None:
    """The chart silently ignores unknown values, and something else than intended would be measured."""
    values = tmp_path / "mine.yaml"
    values.write_text(text, "utf-8")
    tool(monkeypatch, CHART)
    with pytest.raises(InputError, match=message):
        kuma.render(InstallOptions(values=(values,)))


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (InstallOptions(), RefusedError, r"kuma/install.yaml: no such thing; hint: use kumactl 2.14"),
        (InstallOptions(tag="x y"), InputError, r"rejects these values \(tag x y\): no such thing"),
    ],
)
def test_exit_code_depends_on_whose_values_are_refused(
    monkeypatch: pytest.MonkeyPatch, options: InstallOptions, kind: type[MeshbenchError], message: str
) -> None:
    """The user's values are an input error; meshbench's own values mean another version of kumactl."""
    tool(monkeypatch, code=1, message="Warning: old\nError: no such thing\n")
    with pytest.raises(kind, match=message):
        kuma.render(options)


def test_reports_missing_kumactl(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is started, and the message has the tool and where to get it."""
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(RefusedError, match=r"^kumactl is not on PATH.*2\.14.*https://kuma\.io"):
        kuma.render(InstallOptions())


def test_refuses_another_series_of_kuma(monkeypatch: pytest.MonkeyPatch) -> None:
    """In 3.0 the same values and policies have another meaning; a tag of the user overrides the check."""
    tool(monkeypatch, rendered(control_plane("3.0.0")), rendered(control_plane("3.0.0")))
    with pytest.raises(RefusedError, match=r"kumactl installs Kuma 3\.0\.0; .* are for 2\.14"):
        kuma.render(InstallOptions())
    assert kuma.render(InstallOptions(tag="3.0.0"))


def test_refuses_control_plane_in_another_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cleanup would not find it."""
    tool(monkeypatch, rendered(control_plane(namespace="mesh")))
    with pytest.raises(InputError, match="no Deployment kuma-control-plane in kuma-system"):
        kuma.render(InstallOptions())


def test_does_not_apply_chart_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are jobs for Helm: one would patch the namespace, another would delete the webhooks at once."""
    hook = thing("Job", "patch", annotations={"helm.sh/hook": "pre-install"})
    tool(monkeypatch, rendered(hook, control_plane()))
    assert [one["kind"] for one in kuma.render(InstallOptions())] == ["Deployment"]


def test_cluster_scoped_objects_have_no_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The chart writes one on its webhooks, which the cluster drops, so that the two would always differ."""
    webhooks = thing("MutatingWebhookConfiguration", "hooks", namespace="kuma-system")
    tool(monkeypatch, rendered(webhooks, control_plane()))
    first, second = kuma.render(InstallOptions())
    assert (ref_of(first).namespace, ref_of(second).namespace) == ("", "kuma-system")


def test_sidecars_have_as_many_workers_as_istios() -> None:
    """Istio's own limit makes two; Kuma would start one for each core of the node."""
    limits = yaml.safe_load((MANIFESTS.parent / "istio/install.yaml").read_text("utf-8"))
    cpu = limits["spec"]["values"]["global"]["proxy"]["resources"]["limits"]["cpu"]
    assert kuma.pod_annotations() == {"kuma.io/sidecar-proxy-concurrency": cpu}
