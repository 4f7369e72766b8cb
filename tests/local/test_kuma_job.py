"""The second test case: the real command runs the scenario `kuma-policies` with short windows."""

from pathlib import Path

import pytest

from bench.application.model import Hop
from bench.results.store import StoredRun, StoredTrial, read_run
from tests import command

pytestmark = pytest.mark.slow

HOPS = {
    str(Hop(*pair))
    for pair in (
        ("locust", "productpage"),
        ("productpage", "details"),
        ("productpage", "reviews"),
        ("reviews", "ratings"),
    )
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    """One repeat with windows of two seconds."""
    output = tmp_path_factory.mktemp("kuma") / "results"
    short = ("--repeats", "1", "--users", "4", "--warmup", "0s", "--duration", "2s", *command.ONCE)
    finished = command.run("run", "--scenario", "kuma-policies", *short, output=output)
    assert finished.code in command.MEASURED, finished.output
    return read_run(next(output.glob("[!.]*/")))


def trial_of(run: StoredRun, configuration: str) -> StoredTrial:
    return next(trial for trial in run.trials if trial.record.configuration == configuration)


def evidence_after(run: StoredRun, configuration: str, name: str) -> dict[str, str]:
    """What the proofs of one name found after the load, by their subject."""
    proof = trial_of(run, configuration).proof
    assert proof is not None
    return {fact.subject: fact.seen for fact in proof.after if fact.name == name}


def test_every_proof_holds(run: StoredRun) -> None:
    """All proofs of the baseline, of sidecars alone and of sidecars with policies hold before and after the load."""
    assert {trial.record.configuration for trial in run.trials} == {"baseline", "kuma", "kuma-policies"}
    for trial in run.trials:
        assert trial.proof is not None
        assert trial.proof.failures == ()
        assert trial.proof.before
        assert trial.proof.after


def test_load_passes_both_sidecars_of_each_hop_in_http2(run: StoredRun) -> None:
    """Requests are counted on both sides, and sidecars speak only HTTP/2 to each other."""
    for configuration in ("kuma", "kuma-policies"):
        assert evidence_after(run, configuration, "requests counted").keys() == HOPS
        spoken = evidence_after(run, configuration, "protocol between sidecars")
        assert spoken.keys() == HOPS
        assert all(text.startswith("HTTP/2 x") for text in spoken.values())


def test_policies_enforce_mutual_tls_and_permissions(run: StoredRun) -> None:
    """Without policies plaintext is accepted; with them it is TLS 1.2 with an identity, and permissions deny."""
    assert set(evidence_after(run, "kuma", "plaintext").values()) == {"200"}
    assert evidence_after(run, "kuma", "handshakes") == {}
    handshakes = evidence_after(run, "kuma-policies", "handshakes")
    assert handshakes.keys() == {"productpage", "details", "reviews", "ratings"}
    assert all(text.startswith("TLSv1.2 x") for text in handshakes.values())
    assert evidence_after(run, "kuma-policies", "mutual TLS").keys() == HOPS
    for policy in ("details-viewer", "reviews-viewer", "ratings-viewer"):
        seen = evidence_after(run, "kuma-policies", f"policy {policy}").values()
        assert sorted(seen) == ["200", "403 RBAC: access denied"]


def test_sidecar_configuration_is_stored(run: StoredRun) -> None:
    """Each trial with a mesh stores the configuration of its five sidecars, without keys."""
    for configuration, count in (("baseline", 0), ("kuma", 5), ("kuma-policies", 5)):
        kept = list((trial_of(run, configuration).path / "proxies").glob("*.json"))
        assert len(kept) == count
        assert not any("PRIVATE KEY" in Path(path).read_text("utf-8") for path in kept)
