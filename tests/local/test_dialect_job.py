"""Policies of tutorials in a whole run: two versions by weight, behind a page that needs the token of the load."""

import pytest

from bench.results.store import StoredRun, read_run
from tests import command
from tests.tokens import format_key_set, make_key, sign

pytestmark = pytest.mark.slow

POLICIES = """
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
      route:
        - {destination: {host: reviews, subset: v1}, weight: 50}
        - {destination: {host: reviews, subset: v2}, weight: 50}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens}
spec:
  selector: {matchLabels: {app: productpage}}
  jwtRules: [{issuer: https://login.example, jwks: 'KEYS'}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers}
spec:
  selector: {matchLabels: {app: productpage}}
  rules: [{from: [{source: {requestPrincipals: ["https://login.example/*"]}}]}]
"""
READER = """
from locust import FastHttpUser, constant, task


class Reader(FastHttpUser):
    wait_time = constant(0.1)

    @task
    def page(self):
        self.client.get("/productpage", headers={"Host": "productpage:9080", "Authorization": "Bearer TOKEN"})
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    """One repeat of two seconds."""
    folder, key = tmp_path_factory.mktemp("dialect"), make_key()
    (folder / "canary").mkdir()
    (folder / "canary/policies.yaml").write_text(POLICIES.replace("KEYS", format_key_set(key)), "utf-8")
    token = sign({"iss": "https://login.example", "sub": "me", "exp": 4102444800}, key)
    (folder / "reader.py").write_text(READER.replace("TOKEN", token), "utf-8")
    scenario = command.write_scenario(
        folder,
        [{"name": "canary", "mesh": "istio", "manifests": ["canary"]}],
        application={"versions": {"reviews": ["v1", "v2"]}},
        load={"users": 4, "think_time": "0.1s", "locustfile": "reader"},
    )
    output = folder / "results"
    finished = command.run("run", "--scenario", scenario, output=output)
    assert finished.code in command.MEASURED, finished.output
    return read_run(command.find_only_run(output))


def test_every_proof_holds(run: StoredRun) -> None:
    """A page without a token is denied, an invalid token rejected, and both versions count what their callers sent."""
    (trial,) = run.trials
    assert trial.proof is not None
    assert trial.proof.failures == ()
    seen = {fact.name: fact.seen for fact in trial.proof.after}
    assert seen["page"] == "403 RBAC: access denied"
    assert seen["policy tokens"].startswith("401 ")


def test_pages_come_from_both_versions(run: StoredRun) -> None:
    """All requests of the load pass with its token, and chance shares them out."""
    (trial,) = run.trials
    samples = trial.samples()
    assert samples.ok.all()
    assert trial.proof is not None
    hops = {fact.subject: fact.seen for fact in trial.proof.after if fact.name == "requests counted"}
    shares = [int(hops[f"productpage -> reviews-{one}"].partition(" ")[0]) for one in ("v1", "v2")]
    assert sum(shares) == len(samples.ok)
    assert all(shares)
