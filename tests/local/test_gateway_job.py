"""The load enters through gateways: the real command runs the scenario `gateway`, and gateways with policies."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.results.store import StoredRun, StoredTrial, read_run
from tests import command

pytestmark = pytest.mark.slow

SHORT = ("--repeats", "1", "--users", "4", "--warmup", "0s", "--duration", "2s", *command.ONCE)
GATEWAYS = ("istio-gateway", "kuma-gateway", "kuma-gateway-delegated")
ENTRY, INSIDE = "locust -> gateway", "gateway -> productpage"
POLICIES = """\
schema_version: 1
name: gateways
title: Gateways before services with policies
application: {versions: {reviews: v1}}
load: {warmup: 0s, duration: 2s, users: 2}
repeats: 1
rerun_invalid: false
configurations:
  - {name: istio, mesh: istio, manifests: [istio/policies, istio/gateway, istio/gateway-policies]}
  - {name: kuma-legacy, mesh: kuma, manifests: [kuma/policies-legacy, kuma/gateway]}
  - {name: kuma, mesh: kuma, manifests: [kuma/policies, kuma/gateway-delegated]}
"""


def measured(output: Path, *args: str) -> StoredRun:
    finished = command.run("run", *args, output=output)
    assert finished.code in command.MEASURED, finished.output
    return read_run(next(output.glob("[!.]*/")))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    """The shipped scenario, one repeat."""
    return measured(tmp_path_factory.mktemp("gateway") / "results", "--scenario", "gateway", *SHORT)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    """Gateways with mutual TLS behind them, and policies that apply to them."""
    folder = tmp_path_factory.mktemp("secured")
    (folder / "gateways.yaml").write_text(POLICIES, "utf-8")
    return measured(folder / "results", "--scenario", str(folder / "gateways.yaml"))


def trials_of(run: StoredRun, *configurations: str) -> Iterator[StoredTrial]:
    yield from (trial for trial in run.trials if trial.record.configuration in configurations)


def evidence_after(trial: StoredTrial, name: str) -> dict[str, str]:
    """What the proofs of one name found after the load, by their subject."""
    assert trial.proof is not None
    return {fact.subject: fact.seen for fact in trial.proof.after if fact.name == name}


def test_every_proof_holds(run: StoredRun, secured: StoredRun) -> None:
    """With and without a gateway, and with policies, all proofs hold before and after the load."""
    trials = (*run.trials, *secured.trials)
    assert len(trials) == 9
    for trial in trials:
        assert trial.proof is not None
        assert trial.proof.failures == ()
        assert trial.proof.before
        assert trial.proof.after


def test_load_passes_gateway_and_productpage_sidecar(run: StoredRun) -> None:
    """The gateway forwarded every request that entered it, and productpage's sidecar received all of them."""
    for trial in trials_of(run, *GATEWAYS):
        counted = evidence_after(trial, "requests counted")
        entered = counted[ENTRY].split()[0]
        assert int(entered) > 0
        assert counted[ENTRY] == f"{entered} by gateway"
        assert counted[INSIDE] == f"{entered} by gateway's proxy, {entered} by productpage's"


def test_each_gateway_uses_its_meshs_protocol(run: StoredRun) -> None:
    """Istio's and Kuma's gateways speak HTTP/1.1 to sidecars, a delegated one HTTP/2 through its sidecar."""
    spoken = {
        trial.record.configuration: evidence_after(trial, "protocol between sidecars")[INSIDE].split()[0]
        for trial in trials_of(run, *GATEWAYS)
    }
    assert spoken == {
        "istio-gateway": "HTTP/1.1",
        "kuma-gateway": "HTTP/1.1",
        "kuma-gateway-delegated": "HTTP/2",
    }


def test_gateway_refuses_path_without_route(run: StoredRun) -> None:
    """Productpage would respond to the path with 200; services respond to the paths of the routes."""
    for trial in trials_of(run, *GATEWAYS):
        assert evidence_after(trial, "no route") == {"/health": "404 from the gateway itself"}
        routes = evidence_after(trial, "route")
        assert routes.keys() == {"/productpage", "/static", "/login", "/logout", "/api/v1/products"}
        assert all(seen.endswith("from a service") for seen in routes.values())


def test_load_through_gateway_has_no_sidecar(run: StoredRun) -> None:
    """The gateway replaces the load's sidecar with one process, or two where a delegated gateway has a sidecar."""
    proxies = {
        trial.record.configuration: {file.stem for file in (trial.path / "proxies").glob("*.json")}
        for trial in run.trials
    }
    services = {"details", "productpage", "ratings", "reviews"}
    assert proxies["istio"] == proxies["kuma"] == {*services, "locust"}
    assert proxies["istio-gateway"] == proxies["kuma-gateway"] == {*services, "gateway"}
    assert proxies["kuma-gateway-delegated"] == {*services, "gateway", "gateway-front"}


def test_policies_allow_gateway_identity(secured: StoredRun) -> None:
    """Mutual TLS links the gateway's account with productpage's in both meshes, and all policies are in force."""
    for trial in secured.trials:
        identity = evidence_after(trial, "mutual TLS")[INSIDE]
        assert "gateway" in identity.split(" to ")[0]
        assert "productpage" in identity.split(" to ")[1]
    (istio,) = trials_of(secured, "istio")
    assert istio.proof is not None
    names = {fact.name for fact in istio.proof.after}
    assert {"policy allow-nothing", "policy gateway-viewer rule 0", "policy productpage-login rule 0"} <= names


def test_gateway_contrasts_are_reported(run: StoredRun) -> None:
    """The report has the contrasts that the scenario names and those with the baseline."""
    summary = json.loads((run.path / "summary.json").read_text("utf-8"))
    pairs = {(one["configuration"], one["reference"]) for one in summary["contrasts"]}
    assert {(pair.configuration, pair.reference) for pair in run.record.scenario.contrasts} <= pairs
    assert {(name, "baseline") for name in GATEWAYS} <= pairs


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("istio/gateway, ", "kuma/gateway, ", "is not of this configuration's mesh, whose kinds are of istio.io"),
        (", istio/gateway-policies", "", "denies every page at the gateway; hint: add istio/gateway-policies"),
    ],
)
def test_invalid_gateways_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    """Exit code 2, with file and line, and no folder of a run."""
    assert old in POLICIES
    (tmp_path / "gateways.yaml").write_text(POLICIES.replace(old, new), "utf-8")
    finished = command.run("run", "--scenario", str(tmp_path / "gateways.yaml"), output=tmp_path / "results")
    assert finished.code == 2, finished.output
    assert message in finished.err
    assert ".yaml:" in finished.err
    assert not (tmp_path / "results").exists() or not [*(tmp_path / "results").iterdir()]
