"""The second test case, whole: the real command runs the scenario `kuma-policies` with short windows."""

from pathlib import Path

import pytest

from bench.application.model import Hop
from bench.results.store import StoredRun, StoredTrial, open_run
from tests import command

pytestmark = pytest.mark.slow

MEASURED = (0, 5)  # 5: it measured, and says that this machine was too busy for the numbers to count
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
    assert finished.code in MEASURED, finished.told
    return open_run(next(output.glob("*/")))


def trial_of(run: StoredRun, configuration: str) -> StoredTrial:
    return next(trial for trial in run.trials if trial.record.configuration == configuration)


def seen_after(run: StoredRun, configuration: str, name: str) -> dict[str, str]:
    """What the proofs of one name saw after the load, by their subject."""
    proof = trial_of(run, configuration).proof
    assert proof is not None
    return {fact.subject: fact.seen for fact in proof.after if fact.name == name}


def test_every_proof_holds(run: StoredRun) -> None:
    """Baseline, sidecars alone, sidecars with policies: each is proven before and after its load."""
    assert {trial.record.configuration for trial in run.trials} == {"baseline", "kuma", "kuma-policies"}
    for trial in run.trials:
        assert trial.proof is not None
        assert trial.proof.failures == ()
        assert trial.proof.before
        assert trial.proof.after


def test_the_load_went_through_both_sidecars_of_every_hop_in_http2(run: StoredRun) -> None:
    """Requests are counted on both sides, and between sidecars nothing but HTTP/2 was spoken."""
    for configuration in ("kuma", "kuma-policies"):
        assert seen_after(run, configuration, "requests counted").keys() == HOPS
        spoken = seen_after(run, configuration, "protocol between sidecars")
        assert spoken.keys() == HOPS
        assert all(said.startswith("HTTP/2 x") for said in spoken.values())


def test_policies_bring_mutual_tls_and_mean_something(run: StoredRun) -> None:
    """Without policies plain text is accepted; with them it is TLS 1.2 with an identity, and permissions deny."""
    assert set(seen_after(run, "kuma", "plain text").values()) == {"200"}
    assert seen_after(run, "kuma", "handshakes") == {}
    handshakes = seen_after(run, "kuma-policies", "handshakes")
    assert handshakes.keys() == {"productpage", "details", "reviews", "ratings"}
    assert all(said.startswith("TLSv1.2 x") for said in handshakes.values())
    assert seen_after(run, "kuma-policies", "mutual TLS").keys() == HOPS
    for policy in ("details-viewer", "reviews-viewer", "ratings-viewer"):
        seen = seen_after(run, "kuma-policies", f"policy {policy}").values()
        assert sorted(seen) == ["200", "403 RBAC: access denied"]


def test_what_the_sidecars_were_told_is_kept(run: StoredRun) -> None:
    """Each trial with a mesh keeps the configuration of its five sidecars, without keys."""
    for configuration, count in (("baseline", 0), ("kuma", 5), ("kuma-policies", 5)):
        kept = list((trial_of(run, configuration).path / "proxies").glob("*.json"))
        assert len(kept) == count
        assert not any("PRIVATE KEY" in Path(path).read_text("utf-8") for path in kept)
