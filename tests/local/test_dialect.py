"""Policies in the dialect of the meshes' own guides, in real Envoys: each construct does what it says."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from bench.application.model import Application
from bench.envoy.certificates import issue_certificates
from bench.meshes import MESHES
from bench.targets.local.prober import query_admin
from tests.envoys import Sidecars, run_sidecars
from tests.policies import parse_folders
from tests.sidecars import application_with
from tests.tokens import format_key_set, make_key, sign

ONE, BOTH = application_with("v3"), application_with("v1", "v2")
TRAFFIC = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: every}
spec: {host: "*.bookinfo.svc.cluster.local", trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: ratings}
spec:
  host: ratings
  trafficPolicy:
    tls: {mode: DISABLE}
    connectionPool:
      tcp: {maxConnections: 100, connectTimeout: 1s, tcpKeepalive: {time: 60s, interval: 10s, probes: 3}}
      http: {http2MaxRequests: 1000, maxRequestsPerConnection: 1}
    outlierDetection: {consecutive5xxErrors: 5, interval: 1s}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
    - timeout: 3s
      retries: {attempts: 2, perTryTimeout: 1s, retryOn: "connect-failure,5xx,418"}
      route:
        - {destination: {host: reviews, subset: v1}, weight: 75}
        - {destination: {host: reviews, subset: v2}, weight: 25}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: details}
spec:
  hosts: [details]
  http:
    - match: [{uri: {exact: /details/0}}]
      fault: {abort: {httpStatus: 418, percentage: {value: 100}}}
      route: [{destination: {host: details}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings}
spec:
  hosts: [ratings]
  http:
    - fault: {delay: {fixedDelay: 200ms, percentage: {value: 100}}}
      route: [{destination: {host: ratings}}]
"""


def _run(mesh: str, text: str, folder: Path, application: Application) -> Iterator[Sidecars]:
    given = folder / "given"
    given.mkdir()
    (given / "policies.yaml").write_text(text, "utf-8")
    reading = MESHES[mesh].policies.read_policies(parse_folders(mesh, [given], application), application)
    assert reading.untranslated == ()
    policies = reading.policies
    names, wire = policies.identities(application), MESHES[mesh].data_plane.wire
    certificates = issue_certificates(folder / "ids", names, wire=wire, now=datetime.now(UTC), run_s=60)
    with run_sidecars(mesh, application, policies, certificates=certificates, folder=folder) as sidecars:
        yield sidecars


ACCESS = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens}
spec:
  selector: {matchLabels: {app: productpage}}
  jwtRules: [{issuer: https://login.example, jwks: 'KEYS'}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-readers}
spec:
  selector: {matchLabels: {app: productpage}}
  rules:
    - from: [{source: {requestPrincipals: ["https://login.example/*"]}}]
      when: [{key: "request.auth.claims[group]", values: [readers]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: loopback}
spec:
  selector: {matchLabels: {app: details}}
  rules: [{from: [{source: {ipBlocks: [127.0.0.0/8], remoteIpBlocks: [127.0.0.1], notIpBlocks: [10.0.0.0/8]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-loopback}
spec:
  selector: {matchLabels: {app: ratings}}
  action: DENY
  rules: [{when: [{key: source.ip, values: [127.0.0.1]}], to: [{operation: {paths: [/closed]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: keyed}
spec:
  selector: {matchLabels: {app: reviews}}
  rules:
    - when: [{key: "request.headers[x-key]", values: [open*]}]
    - from: [{source: {serviceAccounts: [bookinfo-productpage]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: audited}
spec: {action: AUDIT, rules: [{to: [{operation: {methods: [GET]}}]}]}
"""


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return make_key()


@pytest.fixture(scope="module")
def access(key: rsa.RSAPrivateKey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecars]:
    yield from _run("istio", ACCESS.replace("KEYS", format_key_set(key)), tmp_path_factory.mktemp("access"), ONE)


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecars]:
    yield from _run("istio", TRAFFIC, tmp_path_factory.mktemp("traffic"), BOTH)


def test_weights_share_requests_out(traffic: Sidecars) -> None:
    """Of 200 requests three quarters go to v1, within the bounds that chance leaves once in a million."""
    assert {
        traffic.send("productpage", "reviews-v1", "/reviews/0", host="reviews:9080").status for _ in range(200)
    } == {200}
    counted = MESHES["istio"].data_plane.requests(partial(query_admin, traffic.admins["productpage"]))
    sent = [counted[f"outbound|9080|{one}|reviews.bookinfo.svc.cluster.local"] for one in ("v1", "v2")]
    assert sum(sent) == 200
    assert 120 <= sent[0] <= 180


def test_abort_answers_instead_of_the_service(traffic: Sidecars) -> None:
    """The sidecar of the caller answers itself, with the status of the fault, and passes all other paths on."""
    aborted = traffic.send("productpage", "details", "/details/0")
    assert (aborted.status, aborted.body) == (418, b"fault filter abort")


def test_delay_holds_requests_back(traffic: Sidecars) -> None:
    """The response comes after the fixed delay."""
    began = time.monotonic()
    assert traffic.send("reviews-v2", "ratings", "/ratings/0").status == 200
    assert time.monotonic() - began >= 0.2


def test_tls_mode_decides_how_callers_connect(traffic: Sidecars) -> None:
    """ISTIO_MUTUAL of a wildcard brings the caller's identity; DISABLE of the closer rule brings none."""
    secured = json.loads(traffic.send("locust", "productpage", "/").body)
    plain = json.loads(traffic.send("locust", "ratings", "/ratings/0").body)
    assert "spiffe://cluster.local/ns/bookinfo/sa/locust" in secured["x-forwarded-client-cert"]
    assert "x-forwarded-client-cert" not in plain


def test_connection_pool_ends_connections(traffic: Sidecars) -> None:
    """With one request per connection, each request opens one."""
    before = _connections(traffic)
    for _ in range(3):
        assert traffic.send("locust", "ratings", "/ratings/0").status == 200
    assert _connections(traffic) - before == 3


def _connections(traffic: Sidecars) -> int:
    opened = MESHES["istio"].data_plane.connections(partial(query_admin, traffic.admins["locust"]))
    return opened["outbound|9080||ratings.bookinfo.svc.cluster.local"]["HTTP/1.1"]


def test_token_opens_the_page(access: Sidecars, key: rsa.RSAPrivateKey) -> None:
    """403 without a token, 401 with an invalid one, 403 with the wrong claim, and 200 with a reader's."""
    claims = {"iss": "https://login.example", "sub": "me", "exp": 4102444800}
    other = make_key()
    tokens = {
        "none": "",
        "forged": sign({**claims, "group": "readers"}, other),
        "writer": sign({**claims, "group": "writers"}, key),
        "reader": sign({**claims, "group": ["readers", "writers"]}, key),
    }
    statuses = {
        name: access.send(
            "locust", "productpage", "/productpage", headers={"Authorization": f"Bearer {token}"} if token else {}
        ).status
        for name, token in tokens.items()
    }
    assert statuses == {"none": 403, "forged": 401, "writer": 403, "reader": 200}


def test_addresses_are_those_of_this_machine(access: Sidecars) -> None:
    """Every connection between sidecars is from 127.0.0.1."""
    assert access.send("productpage", "details", "/details/0").status == 200
    assert access.send("reviews", "ratings", "/ratings/0").status == 200
    assert access.send("reviews", "ratings", "/closed").status == 403


def test_header_opens_to_other_callers(access: Sidecars) -> None:
    """A request passes by its header, or by the service account of its caller."""
    assert access.send("productpage", "reviews", "/reviews/0").status == 200
    assert access.send("locust", "reviews", "/reviews/0").status == 403
    assert access.send("locust", "reviews", "/reviews/0", headers={"X-Key": "opened"}).status == 200


def test_every_probe_is_answered_as_expected(access: Sidecars) -> None:
    """What follows from the policies holds in the sidecars: denied without a token and without the header."""
    asked = access.policies.probes(access.application)
    assert {probe.policy for probe in asked} >= {"tokens", "only-readers", "keyed rule 1"}
    assert {probe: access.ask(probe).status for probe in asked} == {probe: probe.status for probe in asked}


KUMA = """
apiVersion: kuma.io/v1alpha1
kind: Mesh
metadata: {name: default}
spec: {mtls: {enabledBackend: ca-1, backends: [{name: ca-1, type: builtin}]}}
---
apiVersion: kuma.io/v1alpha1
kind: MeshTrafficPermission
metadata: {name: all, namespace: kuma-system, labels: {kuma.io/mesh: default}}
spec:
  targetRef: {kind: Mesh}
  from: [{targetRef: {kind: Mesh}, default: {action: Allow}}]
---
apiVersion: kuma.io/v1alpha1
kind: MeshTrafficPermission
metadata: {name: ratings}
spec:
  targetRef: {kind: Dataplane, labels: {app: ratings}}
  from:
    - targetRef: {kind: MeshSubset, tags: {kuma.io/service: productpage_bookinfo_svc_9080}}
      default: {action: Deny}
---
apiVersion: kuma.io/v1alpha1
kind: MeshTimeout
metadata: {name: short}
spec:
  targetRef: {kind: Mesh}
  to:
    - targetRef: {kind: MeshService, name: reviews_bookinfo_svc_9080}
      default: {connectionTimeout: 1s, http: {requestTimeout: 300ms, requestHeadersTimeout: 5s}}
---
apiVersion: kuma.io/v1alpha1
kind: MeshRetry
metadata: {name: twice}
spec:
  targetRef: {kind: Mesh}
  to: [{targetRef: {kind: Mesh}, default: {http: {numRetries: 2, retryOn: ["418", HttpMethodGet]}}}]
"""


@pytest.fixture(scope="module")
def kuma(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecars]:
    yield from _run("kuma", KUMA, tmp_path_factory.mktemp("kuma"), ONE)


def test_from_decides_by_the_callers_service(kuma: Sidecars) -> None:
    """Every caller passes but the service that the narrower permission denies; its sidecar gets 403 and no retry."""
    statuses = {name: kuma.send(name, "ratings", "/ratings/0").status for name in ("productpage", "reviews", "locust")}
    assert statuses == {"productpage": 403, "reviews": 200, "locust": 200}
    asked = kuma.policies.probes(kuma.application)
    assert {probe: kuma.ask(probe).status for probe in asked} == {probe: probe.status for probe in asked}


def test_timeout_ends_a_slow_request(kuma: Sidecars) -> None:
    """The caller's sidecar answers 504 after the timeout of that service; other services have the default."""
    began = time.monotonic()
    assert kuma.send("productpage", "reviews", "/slow").status == 504
    assert time.monotonic() - began >= 0.3
    assert kuma.send("productpage", "details", "/slow").status == 200


def test_retries_repeat_a_request(kuma: Sidecars) -> None:
    """A response with the status of the policy is asked for twice more."""
    assert kuma.send("productpage", "details", "/teapot").status == 418
    retries = sum(kuma.stats("productpage", "details.*upstream_rq_retry$").values())
    assert retries == 2
