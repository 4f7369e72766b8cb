"""Both meshes set alike, whole: the real command, and what the wire, the sidecars and the report then say."""

from pathlib import Path

import pytest
import yaml

from bench.results.records import DataPath
from bench.results.store import StoredRun, open_run
from tests import command

pytestmark = pytest.mark.slow

MEASURED = (0, 5)  # 5: it measured, and says that this machine was too busy for the numbers to count
SCENARIO = {
    "schema_version": 1,
    "name": "alike",
    "title": "Both meshes, set alike",
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
    """One repeat with windows of two seconds; what is set alike comes from the command line."""
    folder = tmp_path_factory.mktemp("alike")
    (folder / "alike.yaml").write_text(yaml.safe_dump(SCENARIO), "utf-8")
    asked = ("--scenario", str(folder / "alike.yaml"), "--set", "equalise=[tls, workers, retries]")
    short = ("--users", "4", "--warmup", "0s", "--duration", "2s", *command.ONCE)
    finished = command.run("run", *asked, *short, output=folder / "results")
    assert finished.code in MEASURED, finished.told
    return open_run(next((folder / "results").glob("*/")))


@pytest.fixture(scope="module")
def paths(run: StoredRun) -> dict[str, DataPath]:
    """What each configuration's requests met."""
    found = {trial.record.configuration: trial.proof.data_path for trial in run.trials if trial.proof}
    return {name: path for name, path in found.items() if path is not None}


def seen_after(run: StoredRun, configuration: str, name: str) -> list[str]:
    """What the proofs of one name saw after the load."""
    proof = next(trial.proof for trial in run.trials if trial.record.configuration == configuration)
    assert proof is not None
    return [fact.seen for fact in proof.after if fact.name == name]


def test_every_proof_holds(run: StoredRun) -> None:
    """Also those that what is to be set alike is."""
    assert [trial.proof.failures if trial.proof else None for trial in run.trials] == [(), (), ()]
    for configuration in (*MESHED, "kuma"):
        assert seen_after(run, configuration, "set alike: workers") == ["2 in a sidecar"]
        assert seen_after(run, configuration, "set alike: retries") == ["none between sidecars"]


@pytest.mark.parametrize("configuration", MESHED)
def test_sidecars_of_both_meshes_speak_the_same_tls(
    run: StoredRun, paths: dict[str, DataPath], configuration: str
) -> None:
    """Each hop is in TLS 1.3, with the same cipher and curve; no sidecar took anything older."""
    ways = paths[configuration].ways
    assert len(ways) == 4
    seen = {(way.seen.tls, way.seen.ciphers, way.seen.curves) for way in ways}
    assert seen == {(("TLSv1.3",), ("TLS_AES_128_GCM_SHA256",), ("X25519MLKEM768",))}
    assert all(told.startswith("TLSv1.3 x") for told in seen_after(run, configuration, "handshakes"))


def test_what_is_not_set_alike_stays(paths: dict[str, DataPath]) -> None:
    """Each mesh keeps its protocol, its limits and its balancing; without policies Kuma's sidecars speak plain text."""
    spoken = {name: {way.seen.http for way in path.ways} for name, path in paths.items()}
    assert spoken == {"istio-policies": {("HTTP/1.1",)}, "kuma-policies": {("HTTP/2",)}, "kuma": {("HTTP/2",)}}
    assert {way.load_balancing for way in paths["istio-policies"].ways} == {"LEAST_REQUEST"}
    assert {way.seen.tls for way in paths["kuma"].ways} == {()}
    assert {inbound.workload for inbound in paths["kuma"].inbounds} == {"productpage", "details", "reviews", "ratings"}


def test_the_report_says_what_is_left(run: StoredRun) -> None:
    """Its heading and its table have what was set alike, and the table what differs all the same."""
    page = (run.path / "report" / "report.md").read_text("utf-8")
    table = page.partition("## Equal or not")[2].partition("\n## ")[0]
    assert "**EQUALISED** Set alike in all meshes" in page
    assert "Besides the mesh's name these differ: protocol between sidecars, TLS version" in table
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in table.splitlines()}
    assert rows["retries between sidecars"].endswith("| equal | none | none | none |")
    assert rows["workers of a sidecar"].endswith("| equal | 2 | 2 | 2 |")


def test_the_sidecars_configuration_is_kept_as_it_was_run(run: StoredRun) -> None:
    """What lies in the trial's folder is what was started, without keys."""
    for trial in run.trials:
        kept: list[Path] = list((trial.path / "proxies").glob("*.json"))
        assert len(kept) == 5
        assert not any("PRIVATE KEY" in path.read_text("utf-8") for path in kept)
        if trial.record.configuration in MESHED:
            assert all('"tls_minimum_protocol_version": "TLSv1_3"' in path.read_text("utf-8") for path in kept)
