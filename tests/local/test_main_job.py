"""The main job: the real command with real services, sidecars, certificates and load."""

import json
import math
import os
from pathlib import Path

import jsonschema
import pytest

from bench.analysis.noise import measure_noise
from bench.analysis.resource_usage import measure_processes
from bench.results.json_schema import build_schema
from bench.results.records import FILES
from bench.results.store import StoredRun, read_run
from bench.system.journal import read_journal
from tests import command

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    """A run of the scenario `smoke`."""
    output = tmp_path_factory.mktemp("smoke") / "results"
    finished = command.run("run", "--scenario", "smoke", output=output)
    assert finished.code in command.MEASURED, finished.output
    assert "Report: " in finished.out
    return read_run(next(output.glob("[!.]*/")))


def test_every_planned_trial_is_stored(smoke: StoredRun) -> None:
    """Each configuration is measured once per block, in the planned order."""
    assert [trial.record.trial for trial in smoke.trials] == [trial.folder for trial in smoke.record.plan.trials]
    assert smoke.problems == ()


def test_records_are_valid_under_their_schemas(smoke: StoredRun) -> None:
    """All JSON files of a run are valid under the schemas that ship."""
    for name in FILES:
        files = list(smoke.path.rglob(f"{name}.json"))
        assert files, name
        for file in files:
            jsonschema.validate(json.loads(file.read_text("utf-8")), build_schema(name))


def test_every_counted_request_is_stored(smoke: StoredRun) -> None:
    """The number of stored rows is the number of requests that Locust counted."""
    for trial in smoke.trials:
        assert trial.record.generator is not None
        assert len(trial.samples()) == trial.record.generator.locust_requests > 0


def test_every_proof_holds(smoke: StoredRun) -> None:
    """A load starts only after all proofs hold, and they still hold after it."""
    for trial in smoke.trials:
        assert trial.proof is not None
        assert trial.proof.failures == ()
        assert trial.proof.before
        assert trial.proof.after


def test_mesh_is_proven_on_every_hop(smoke: StoredRun) -> None:
    """Both proxies of each hop counted the load, both identities are proven, and every policy allows and denies."""
    hops = {"locust -> productpage", "productpage -> details", "productpage -> reviews", "reviews -> ratings"}
    trial = next(trial for trial in smoke.trials if trial.record.configuration == "istio-policies")
    assert trial.proof is not None
    facts = trial.proof.after
    for name in ("requests counted", "mutual TLS", "through sidecars"):
        assert {fact.subject for fact in facts if fact.name == name} == hops
    for policy in ("details-viewer", "reviews-viewer", "ratings-viewer", "productpage-login rule 0"):
        seen = [fact.seen for fact in facts if fact.name == f"policy {policy}"]
        assert any(text.startswith("200") for text in seen), policy
        assert any(text.startswith("403 RBAC") for text in seen), policy


def test_sidecars_use_resources_under_load(smoke: StoredRun) -> None:
    """Five sidecars use CPU and memory under load with a mesh, none without."""
    for trial in smoke.trials:
        trace = trial.resources()
        sidecars = [name for name, role in zip(trace.processes, trace.roles, strict=True) if role == "sidecar"]
        assert len(sidecars) == (0 if trial.record.configuration == "baseline" else 5)
        assert any(use.cpu_s for use in measure_processes(trace, trial.record.windows, 1))


def test_noise_is_recorded_of_every_trial(smoke: StoredRun) -> None:
    """The run's own use is that of its processes and of meshbench, and all CPU time of the machine is accounted for."""
    for trial in smoke.trials:
        trace, windows = trial.resources(), trial.record.windows
        noise = measure_noise(trace, windows)
        assert noise.used_cpu is not None
        assert noise.other_cpu is not None
        assert 0 < noise.used_cpu + noise.other_cpu < 1.1
        processes_s = sum(use.cpu_s or 0 for use in measure_processes(trace, windows, 1))
        capacity_s = (os.cpu_count() or 1) * sum(window.seconds for window in windows)
        assert noise.used_cpu * capacity_s > 0.8 * processes_s


def test_results_contain_no_key(smoke: StoredRun) -> None:
    """Private keys stay in the working folder, which is removed."""
    held = [path for path in smoke.path.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]
    assert held == []
    made = [line["path"] for line in read_journal(smoke.path / "journal.jsonl") if line["step"] == "make-folder"]
    assert made
    assert not any(Path(path).exists() for path in made)


def test_report_is_reproduced_from_the_run_folder(smoke: StoredRun) -> None:
    """`report` gives the same summary, also when only the run's folder exists."""
    before = (smoke.path / "summary.json").read_bytes()
    again = command.call("report", smoke.path, "--format", "md,csv", "--json", output=smoke.path.parent)
    assert again.code == 0, again.output
    assert again.out.encode() == before == (smoke.path / "summary.json").read_bytes()


@pytest.mark.measures
def test_open_loop_keeps_its_rate_and_intended_starts(tmp_path: Path) -> None:
    """With `--rate` arrivals do not wait for responses, and each request is stored with its intended start."""
    scenario = command.write_scenario(
        tmp_path, [command.BASELINE], load={"users": 20, "rate": "30/s", "warmup": "1s", "duration": "5s"}
    )
    finished = command.run("run", "--scenario", scenario, output=tmp_path / "results")
    assert finished.code in command.MEASURED, finished.output
    (trial,) = read_run(next((tmp_path / "results").glob("[!.]*/"))).trials
    counted = trial.samples().counted(trial.record.windows)
    expected = 30 * 5
    assert abs(len(counted) - expected) < 5 * math.sqrt(expected)
    assert (counted.intended_ns <= counted.started_ns).all()


@pytest.mark.soak("scenarios")
def test_throughput_saturates_in_the_users_sweep(tmp_path: Path) -> None:
    """The study's sweep completes and shows saturation: 25 times the users do not give 25 times the pages."""
    short = ("--repeats", "1", "--duration", "3s", "--warmup", "0s", *command.ONCE)
    finished = command.run("run", "--scenario", "users-sweep", *short, output=tmp_path / "results")
    assert finished.code in command.MEASURED, finished.output
    folder = next((tmp_path / "results").glob("[!.]*/"))
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    rps = {side["users"]: side["repeats"][0]["rps"] for side in summary["configurations"].values()}
    assert sorted(rps) == [10, 20, 100, 200, 500]
    assert rps[500] < 10 * rps[20]
    assert (folder / "report/sweep.svg").exists()
