"""Istio's sidecars in real Envoys: their configuration loads and enforces the policies."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import pytest

from bench.application.model import Application
from bench.envoy.certificates import Certificates, issue_certificates
from bench.files.folders import find_shipped
from bench.meshes.istio.authorization import Request, decide_request
from bench.meshes.istio.data_plane import DATA_PLANE
from bench.meshes.istio.policy_model import IstioPolicies
from bench.meshes.istio.probes import principal_of
from bench.meshes.probe import Probe
from bench.targets.local.prober import query_admin_json
from tests.applications import read_bookinfo
from tests.envoys import Sidecars, place_sidecars, run_sidecars
from tests.policies import read_istio

CONFIGURATIONS: Mapping[str, tuple[str, ...]] = {"istio": (), "istio-policies": ("istio/policies",)}


@pytest.fixture(scope="module")
def application() -> Application:
    return read_bookinfo("v3")


@pytest.fixture(scope="module")
def certificates(application: Application, tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    names = IstioPolicies("bookinfo").identities(application)
    folder = tmp_path_factory.mktemp("run") / "ids"
    return issue_certificates(folder, names, wire=DATA_PLANE.wire, now=datetime.now(UTC), run_s=60)


def _policies(application: Application, *folders: str) -> IstioPolicies:
    return read_istio([find_shipped("manifests") / folder for folder in folders], application)


@pytest.fixture(scope="module")
def permissive(
    application: Application, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sidecars]:
    folder = tmp_path_factory.mktemp("permissive")
    with run_sidecars("istio", application, _policies(application), certificates=certificates, folder=folder) as mesh:
        yield mesh


@pytest.fixture(scope="module")
def strict(
    application: Application, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sidecars]:
    folder = tmp_path_factory.mktemp("strict")
    policies = _policies(application, "istio/policies")
    with run_sidecars("istio", application, policies, certificates=certificates, folder=folder) as mesh:
        yield mesh


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("reviews", ["v1", "v2", "v3"])
def test_envoy_accepts_every_sidecar(
    configuration: str, reviews: str, certificates: Certificates, tmp_path: Path
) -> None:
    """Envoy accepts each sidecar's configuration of each configuration, without an unknown field."""
    application = read_bookinfo(reviews)
    policies = _policies(application, *CONFIGURATIONS[configuration])
    sidecars = place_sidecars("istio", application, policies, certificates=certificates, folder=tmp_path)
    for command in sidecars.commands(tmp_path):
        done = subprocess.run([*command, "--mode", "validate"], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr


def test_page_passes_two_sidecars(permissive: Sidecars) -> None:
    """A plaintext request to the client's sidecar arrives over mutual TLS, with both identities."""
    answer = permissive.send("locust", "productpage", "/productpage")
    seen = json.loads(answer.body)
    assert (answer.status, answer.headers["server"]) == (200, "envoy")
    assert "URI=spiffe://cluster.local/ns/bookinfo/sa/locust" in seen["x-forwarded-client-cert"]
    assert "By=spiffe://cluster.local/ns/bookinfo/sa/bookinfo-productpage" in seen["x-forwarded-client-cert"]
    assert seen["peer"] == "127.0.0.6"


@pytest.mark.parametrize("host", ["details", "details:9080", "details.bookinfo", "details.bookinfo.svc:9080"])
def test_services_resolve_by_every_dns_name(permissive: Sidecars, host: str) -> None:
    """A service is reached by every name that a cluster's DNS accepts, with and without its port."""
    answer = permissive.send("productpage", "details", "/details/0", host=host)
    assert answer.status == 200


def test_unknown_hosts_are_refused(permissive: Sidecars) -> None:
    """The sidecar refuses a host that is no service of the application: no request leaves this machine."""
    answer = permissive.send("productpage", "details", "/", host="example.com")
    assert answer.status == 502


def test_hops_use_tls_1_3(permissive: Sidecars) -> None:
    """Both sidecars count handshakes, as TLS 1.3 with AES-128-GCM."""
    permissive.send("locust", "productpage", "/productpage")
    server, client = (permissive.stats(name, "ssl") for name in ("productpage", "locust"))
    for stats in (server, client):
        assert any(name.endswith("ssl.handshake") and value for name, value in stats.items())
        assert any(name.endswith("ssl.versions.TLSv1.3") and value for name, value in stats.items())
        assert any(name.endswith("ssl.ciphers.TLS_AES_128_GCM_SHA256") and value for name, value in stats.items())


def test_both_sidecars_count_each_request(permissive: Sidecars) -> None:
    """The admin interface counts every request per endpoint, whatever statistics are kept."""

    def counted(workload: str, cluster: str) -> int:
        statuses = query_admin_json(permissive.admins[workload], "/clusters?format=json")["cluster_statuses"]
        found = next(status for status in statuses if status["name"] == cluster)
        stats = {stat["name"]: int(stat.get("value", 0)) for stat in found["host_statuses"][0]["stats"]}
        return stats["rq_total"]

    sides = (("reviews", "outbound|9080||ratings.bookinfo.svc.cluster.local"), ("ratings", "inbound|9080||"))
    before = [counted(*side) for side in sides]
    for _ in range(7):
        permissive.send("reviews", "ratings", "/ratings/0")
    assert [counted(*side) - start for side, start in zip(sides, before, strict=True)] == [7, 7]


def test_retries_are_counted(permissive: Sidecars) -> None:
    """Retries, which hide errors as latency, have a counter in the client's sidecar, and it is zero."""
    permissive.send("locust", "productpage", "/productpage")
    assert set(permissive.stats("locust", "upstream_rq_retry").values()) == {0}


def test_permissive_accepts_plaintext(permissive: Sidecars) -> None:
    """Without a PeerAuthentication both plaintext and mutual TLS are accepted."""
    for caller in (None, "locust"):
        assert permissive.ask(Probe("", "details", caller, "GET", "/details/0", 200)).status == 200


def test_every_probe_is_answered_as_expected(strict: Sidecars) -> None:
    """Each policy allows and denies the probes that were derived from it, in real sidecars, with real identities."""
    asked = strict.policies.probes(strict.application)
    # The stand-ins for Bookinfo respond to every request with 200.
    expected = {probe: 200 if probe.status in (200, 302) else probe.status for probe in asked}
    assert {probe: strict.ask(probe).status for probe in asked} == expected
    assert {0, 200, 403} == set(expected.values())


def test_denied_request_gets_403(strict: Sidecars) -> None:
    """The wrong identity gets 403 `RBAC: access denied`, and the sidecar counts it."""
    answer = strict.ask(Probe("", "ratings", "bookinfo-productpage", "GET", "/ratings/0", 403))
    assert (answer.status, answer.body) == (403, b"RBAC: access denied")
    denied = strict.stats("ratings", "rbac.denied")
    assert sum(denied.values()) >= 1


def test_strict_refuses_plaintext(strict: Sidecars) -> None:
    """Plaintext gets no response under STRICT."""
    answer = strict.ask(Probe("", "details", None, "GET", "/details/0", 0))
    assert (answer.status, answer.refused) == (0, "connection closed without a response")


MANY_FIELDS = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: some-may-read}
spec:
  rules:
    - from:
        - source: {principals: ['*/bookinfo-productpage', 'cluster.local/ns/bookinfo/sa/lo*'], namespaces: [bookinfo]}
        - source: {notPrincipals: [cluster.local/ns/bookinfo/sa/bookinfo-ratings], notNamespaces: [shop]}
      to:
        - operation: {methods: [GET], notMethods: [PUT], paths: [/de*, '*/0', /exact]}
        - operation: {methods: [PUT], paths: [/other], ports: ['9080'], hosts: ['*:9080']}
    - to:
        - operation: {methods: ['*'], notPaths: [/details*, /reviews*], notPorts: ['81'], notHosts: [example.com]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: none-may-delete, namespace: istio-system}
spec:
  action: DENY
  rules:
    - to: [{operation: {methods: [DELETE]}}, {operation: {paths: ['*/secret'], ports: ['9080']}}]
    - from: [{source: {principals: [cluster.local/ns/bookinfo/sa/bookinfo-reviews]}}]
      to: [{operation: {methods: [POST]}}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: plain-details}
spec:
  selector: {matchLabels: {app: details}}
  portLevelMtls: {'9080': {mode: DISABLE}}
"""


def test_envoy_decides_like_the_evaluation(
    application: Application, certificates: Certificates, tmp_path: Path
) -> None:
    """Real sidecars decide on every combination of caller, method and path as the evaluation of the policies does."""
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "many.yaml").write_text(MANY_FIELDS, "utf-8")
    policies = read_istio([folder], application)
    status = {"allowed": 200, "denied": 403, "refused": 0}
    callers = {one.account: one for one in application.everyone}
    with run_sidecars("istio", application, policies, certificates=certificates, folder=tmp_path) as mesh:
        for workload, caller, method, path in product(
            ("details", "ratings"),
            (None, *sorted(callers)),
            ("GET", "POST", "PUT", "DELETE"),
            ("/details/0", "/exact", "/exact?query=1", "/my/secret", "/other"),
        ):
            principal = principal_of(application, callers[caller]) if caller else None
            request = Request(principal, method, path, f"{workload}:9080")
            decided = decide_request(policies, application.workload(workload), request)
            answer = mesh.ask(Probe("", workload, caller, method, path, status[decided]))
            assert answer.status == status[decided], (request, decided)
        # Where a workload has no TLS, its callers' sidecars use none.
        assert mesh.send("productpage", "details", "/details/0").status == 200
