"""Kuma's sidecars in real Envoys: their configuration loads and enforces the policies."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import pytest

from bench.application.model import Application
from bench.envoy import admin as proxies
from bench.envoy.certificates import Certificates, issue_certificates
from bench.files.folders import find_shipped
from bench.meshes.kuma.data_plane import DATA_PLANE
from bench.meshes.kuma.policies import decide_request
from bench.meshes.kuma.policy_model import KumaPolicies
from bench.meshes.probe import Probe
from bench.meshes.protocols import Policies
from bench.targets.local.prober import query_admin_json
from tests.envoys import Sidecars, place_sidecars, run_sidecars
from tests.policies import read_kuma
from tests.sidecars import application_with

CONFIGURATIONS: Mapping[str, tuple[str, ...]] = {
    "kuma": (),
    "kuma-mtls": ("kuma/mtls",),
    "kuma-policies": ("kuma/policies",),
    "kuma-policies-legacy": ("kuma/policies-legacy",),
}
SECURED = ("kuma-policies", "kuma-policies-legacy")


def policies_of(configuration: str, application: Application) -> KumaPolicies:
    folders = [find_shipped("manifests") / folder for folder in CONFIGURATIONS[configuration]]
    return read_kuma(folders, application)


def certificates_of(policies: Policies, folder: Path) -> Certificates:
    names = policies.identities(application_with("v3"))
    return issue_certificates(folder, names, wire=DATA_PLANE.wire, now=datetime.now(UTC), run_s=60)


@pytest.fixture(scope="module")
def configurations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Sidecars]]:
    """The sidecars of every configuration, running in parallel."""
    application = application_with("v3")
    with ExitStack() as stack:
        found = {}
        for name in CONFIGURATIONS:
            folder, policies = tmp_path_factory.mktemp(name), policies_of(name, application)
            certificates = certificates_of(policies, folder / "ids")
            sidecars = run_sidecars("kuma", application, policies, certificates=certificates, folder=folder)
            found[name] = stack.enter_context(sidecars)
        yield found


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("reviews", ["v1", "v2"])
def test_envoy_accepts_every_sidecar(configuration: str, reviews: str, tmp_path: Path) -> None:
    """Envoy accepts each sidecar's configuration of each configuration, without an unknown field."""
    application = application_with(reviews)
    policies = policies_of(configuration, application)
    certificates = certificates_of(policies, tmp_path / "ids")
    sidecars = place_sidecars("kuma", application, policies, certificates=certificates, folder=tmp_path)
    for command in sidecars.commands(tmp_path):
        done = subprocess.run([*command, "--mode", "validate"], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("configuration", "identity"),
    [
        ("kuma", None),
        ("kuma-mtls", "spiffe://default.default.mesh.local/ns/bookinfo/sa/locust"),
        ("kuma-policies", "spiffe://default.default.mesh.local/ns/bookinfo/sa/locust"),
        ("kuma-policies-legacy", "spiffe://default/locust_bookinfo_svc"),
    ],
)
def test_page_passes_two_sidecars_in_http2(
    configurations: Mapping[str, Sidecars], configuration: str, identity: str | None
) -> None:
    """A request arrives in HTTP/1.1, was HTTP/2 between the sidecars, and has the caller's identity, if any."""
    sidecars = configurations[configuration]
    answer = sidecars.send("locust", "productpage", "/productpage")
    assert (answer.status, answer.headers["server"]) == (200, "envoy")
    seen = json.loads(answer.body)
    assert seen["peer"] == "127.0.0.6"
    assert seen.get("x-forwarded-client-cert", "URI=").partition("URI=")[2].split(";")[0] == (identity or "")
    opened = proxies.connections_by_cluster(query_admin_json(sidecars.admins["locust"], proxies.PROTOCOLS))
    service = next(one for one in sidecars.application.services if one.name == "productpage")
    used = opened[sidecars.policies.outbound_cluster(sidecars.application, service)]
    assert used["HTTP/1.1"] == 0 < used["HTTP/2"]


@pytest.mark.parametrize("configuration", SECURED)
def test_hops_use_tls_1_2(configurations: Mapping[str, Sidecars], configuration: str) -> None:
    """Both sidecars count handshakes as Kuma's do: TLS 1.2 with AES-128-GCM and X25519."""
    sidecars = configurations[configuration]
    sidecars.send("locust", "productpage", "/productpage")
    for name in ("productpage", "locust"):
        moved = [stat for stat, value in sidecars.stats(name, "ssl").items() if value]
        for end in ("versions.TLSv1.2", "ciphers.ECDHE-RSA-AES128-GCM-SHA256", "curves.X25519"):
            assert any(stat.endswith(end) for stat in moved), end
        assert not any("TLSv1.3" in stat for stat in moved)


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_every_probe_is_answered_as_expected(configurations: Mapping[str, Sidecars], configuration: str) -> None:
    """Each permission allows and denies the probes that were derived from it, in real sidecars, with real
    identities."""
    sidecars = configurations[configuration]
    asked = sidecars.policies.probes(sidecars.application)
    assert {probe: sidecars.ask(probe).status for probe in asked} == {probe: probe.status for probe in asked}


@pytest.mark.parametrize("configuration", SECURED)
def test_denied_call_gets_403_or_503(configurations: Mapping[str, Sidecars], configuration: str) -> None:
    """The caller's sidecar returns the 403, or 503 where the connection is closed and five retries failed."""
    sidecars = configurations[configuration]
    probes = sidecars.policies.probes(sidecars.application)
    denied = next(one for one in probes if one.policy == "ratings-viewer" and one.status != 200)
    caller = next(one.name for one in sidecars.application.everyone if one.account == denied.caller)
    answer = sidecars.send(caller, denied.workload, denied.path)
    assert answer.status == denied.status_through_sidecar
    retries = sum(sidecars.stats(caller, "ratings.*upstream_rq_retry$").values())
    assert retries == (0 if denied.status == 403 else 5)


@pytest.mark.parametrize("configuration", SECURED)
def test_certificate_of_another_mesh_is_refused(
    configurations: Mapping[str, Sidecars], configuration: str, tmp_path: Path
) -> None:
    """A certificate with the right name that is signed by another root is refused."""
    sidecars = configurations[configuration]
    forged = certificates_of(sidecars.policies, tmp_path / "forged").identity("bookinfo-productpage")
    mine = sidecars.certificates.identity("bookinfo-productpage")
    forged = replace(forged, roots=mine.roots)
    assert sidecars.knock("details", "/details/0", mine).status == 200
    assert sidecars.knock("details", "/details/0", forged).status == 0


MANY = """
apiVersion: kuma.io/v1alpha1
kind: MeshTrafficPermission
metadata: {name: some, namespace: kuma-system}
spec:
  rules:
    - default:
        deny: [{spiffeID: {type: Exact, value: 'spiffe://default.default.mesh.local/ns/bookinfo/sa/bookinfo-details'}}]
        allow: [{spiffeID: {type: Prefix, value: 'spiffe://default.default.mesh.local/ns/bookinfo/sa/bookinfo'}}]
---
apiVersion: kuma.io/v1alpha1
kind: MeshTrafficPermission
metadata: {name: more}
spec:
  targetRef: {kind: Dataplane, labels: {app: ratings}}
  rules: [{default: {allow: [{spiffeID: {type: Prefix, value: 'spiffe://default.default.mesh.local/ns'}}]}}]
"""
OLDER = """
apiVersion: kuma.io/v1alpha1
kind: TrafficPermission
metadata: {name: everything}
spec:
  sources: [{match: {kuma.io/service: locust_bookinfo_svc}}, {match: {kuma.io/service: ratings_bookinfo_svc_9080}}]
  destinations: [{match: {kuma.io/service: '*'}}]
---
apiVersion: kuma.io/v1alpha1
kind: TrafficPermission
metadata: {name: ratings}
spec:
  sources: [{match: {kuma.io/service: reviews_bookinfo_svc_9080}}]
  destinations: [{match: {kuma.io/service: ratings_bookinfo_svc_9080}}]
"""


@pytest.mark.parametrize(
    ("folder", "permissions"), [("kuma/policies", MANY), ("kuma/policies-legacy", OLDER)], ids=["identity", "builtin"]
)
def test_envoy_decides_like_the_evaluation(folder: str, permissions: str, tmp_path: Path) -> None:
    """Real sidecars decide on every pair of caller and callee as the evaluation of the permissions does."""
    application = application_with("v3")
    given = tmp_path / "given"
    given.mkdir()
    for path in (find_shipped("manifests") / folder).glob("mesh*.yaml"):
        (given / path.name).write_text(path.read_text("utf-8"), "utf-8")
    (given / "permissions.yaml").write_text(permissions, "utf-8")
    policies = read_kuma([given], application)
    certificates = certificates_of(policies, tmp_path / "ids")
    status = {"allowed": 200, "denied": 403, "refused": 0}
    names: dict[str | None, tuple[str, ...]] = {None: ()}
    names.update(policies.identities(application))
    with run_sidecars("kuma", application, policies, certificates=certificates, folder=tmp_path) as sidecars:
        for workload, account in product(("details", "ratings"), names):
            expected = status[decide_request(policies, application.workload(workload), names[account])]
            probe = Probe("", workload, account, "GET", "/", expected)
            assert sidecars.ask(probe).status == expected, (workload, account)
