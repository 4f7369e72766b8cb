"""Equal settings in both meshes: the real command, then what connections, sidecars and the report show."""

from pathlib import Path

import pytest
import yaml

from bench.results.records import DataPath
from bench.results.store import StoredRun, read_run
from tests import command

pytestmark = pytest.mark.slow

SCENARIO = {
    "schema_version": 1,
    "name": "equalised",
    "title": "Both meshes, equalised",
    "repeats": 1,
    "configurations": [
        {"name": "istio-policies", "mesh": "istio", "manifests": ["istio/policies"]},
        {"name": "kuma-policies", "mesh": "kuma", "manifests": ["kuma/policies"]},
        {"name": "kuma", "mesh": "kuma"},
    ],
}
MESHED = ("istio-policies", "kuma-policies")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    """One repeat with windows of two seconds; the equalised settings come from the command line."""
    folder = tmp_path_factory.mktemp("equalised")
    (folder / "equalised.yaml").write_text(yaml.safe_dump(SCENARIO), "utf-8")
    asked = ("--scenario", str(folder / "equalised.yaml"), "--set", "equalise=[tls, workers, retries]")
    short = ("--users", "4", "--warmup", "0s", "--duration", "2s", *command.ONCE)
    finished = command.run("run", *asked, *short, output=folder / "results")
    assert finished.code in command.MEASURED, finished.output
    return read_run(next((folder / "results").glob("[!.]*/")))


@pytest.fixture(scope="module")
def paths(run: StoredRun) -> dict[str, DataPath]:
    """The data path of each configuration's requests."""
    found = {trial.record.configuration: trial.proof.data_path for trial in run.trials if trial.proof}
    return {name: path for name, path in found.items() if path is not None}


def evidence_after(run: StoredRun, configuration: str, name: str) -> list[str]:
    """What the proofs of one name found after the load."""
    proof = next(trial.proof for trial in run.trials if trial.record.configuration == configuration)
    assert proof is not None
    return [fact.seen for fact in proof.after if fact.name == name]


def test_every_proof_holds(run: StoredRun) -> None:
    """All proofs hold, including those of the equalised settings."""
    assert [trial.proof.failures if trial.proof else None for trial in run.trials] == [(), (), ()]
    for configuration in (*MESHED, "kuma"):
        assert evidence_after(run, configuration, "set alike: workers") == ["2 in a sidecar"]
        assert evidence_after(run, configuration, "set alike: retries") == ["none between sidecars"]


@pytest.mark.parametrize("configuration", MESHED)
def test_both_meshes_use_the_same_tls(run: StoredRun, paths: dict[str, DataPath], configuration: str) -> None:
    """Each hop uses TLS 1.3, with the same cipher and curve; no sidecar accepted anything older."""
    ways = paths[configuration].ways
    assert len(ways) == 4
    seen = {(route.seen.tls, route.seen.ciphers, route.seen.curves) for route in ways}
    assert seen == {(("TLSv1.3",), ("TLS_AES_128_GCM_SHA256",), ("X25519MLKEM768",))}
    assert all(text.startswith("TLSv1.3 x") for text in evidence_after(run, configuration, "handshakes"))


def test_other_settings_stay(paths: dict[str, DataPath]) -> None:
    """Each mesh keeps its protocol, its limits and its load balancing; without policies Kuma's sidecars speak
    plaintext."""
    spoken = {name: {route.seen.http for route in path.ways} for name, path in paths.items()}
    assert spoken == {"istio-policies": {("HTTP/1.1",)}, "kuma-policies": {("HTTP/2",)}, "kuma": {("HTTP/2",)}}
    assert {route.load_balancing for route in paths["istio-policies"].ways} == {"LEAST_REQUEST"}
    assert {route.seen.tls for route in paths["kuma"].ways} == {()}
    assert {inbound.workload for inbound in paths["kuma"].inbounds} == {"productpage", "details", "reviews", "ratings"}


def test_report_lists_remaining_differences(run: StoredRun) -> None:
    """The report lists the equalised settings and the remaining differences."""
    page = (run.path / "report" / "report.md").read_text("utf-8")
    table = page.partition("## Data path comparison")[2].partition("\n## ")[0]
    assert "**EQUALISED** Set to the same value in all meshes" in page
    assert "In addition to the mesh, these differ: protocol between sidecars, TLS version" in table
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in table.splitlines()}
    assert rows["retries between sidecars"].endswith("| equal | none | none | none |")
    assert rows["workers of a sidecar"].endswith("| equal | 2 | 2 | 2 |")


def test_sidecar_configuration_is_stored_without_keys(run: StoredRun) -> None:
    """The trial's folder has the configuration that was started, without keys."""
    for trial in run.trials:
        kept: list[Path] = list((trial.path / "proxies").glob("*.json"))
        assert len(kept) == 5
        assert not any("PRIVATE KEY" in path.read_text("utf-8") for path in kept)
        if trial.record.configuration in MESHED:
            assert all('"tls_minimum_protocol_version": "TLSv1_3"' in path.read_text("utf-8") for path in kept)
