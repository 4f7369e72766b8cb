"""Two applications, a Locust file for each and policies, none of them written for meshbench, measured on a real cluster
as `docs/your-application.md` says: `init`, `validate`, `run`."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from bench.k8s.client import Cluster
from bench.results.store import read_run
from tests import go_modules
from tests.cluster.brought_images import build_httpbin, build_podinfo, fetch_podinfo
from tests.cluster.job import BASELINE, MEASURED, MESH, Job, assert_unchanged, run_job

pytestmark = pytest.mark.slow

BROUGHT: Final = Path(__file__).with_name("brought")
LOCUSTFILES: Final = {"podinfo": "load/users.py", "httpbin": "load/locustfile.py"}
POLICIES: Final = {"name": "istio-policies", "mesh": "istio", "manifests": ["policies"]}
LOAD: Final = {"users": 12, "warmup": "2s", "duration": "8s"}


_FEW: Final = 0.05  # on a busy machine a few miss the timeout of the policies, or a connection that gunicorn closes


def meshbench(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command that needs no cluster, as its user does, in the folder of the scenario."""
    return subprocess.run(
        [sys.executable, "-m", "bench.cli.main", *arguments], cwd=folder, capture_output=True, text=True
    )


def bring(folder: Path, name: str) -> None:
    """Copy the application's manifests, Locust file and policies to where its user has them, and check them."""
    shutil.copytree(BROUGHT / name, folder, dirs_exist_ok=True)
    made = meshbench(folder, "init", name, "--locustfile", LOCUSTFILES[name])
    assert made.returncode == 0, made.stderr


def measure(cluster: Cluster, folder: Path, name: str, **load: Any) -> Job:
    """Run what `init` wrote without a mesh, and with policies, at the same time."""
    written = yaml.safe_load((folder / f"{name}.yaml").read_text("utf-8"))
    keys = {
        "application": written["application"],
        "reference": written["reference"],
        "design": "duet",
        "load": {**written["load"], **LOAD, **load},
    }
    with assert_unchanged(cluster):
        return run_job(folder, *MESH, "--scale-requests", "25%", scenario=[BASELINE, POLICIES], **keys)


def assert_measured(job: Job, requests: set[str]) -> None:
    """Check that every configuration was loaded with these requests, and that its proofs hold."""
    assert job.exit_code in MEASURED, job.output
    trials = read_run(job.folder).trials
    assert {one.record.configuration for one in trials} == {"baseline", "istio-policies"}
    for trial in trials:
        samples = trial.samples()
        assert {samples.names[number] for number in samples.name} == requests
        assert samples.ok.mean() > 1 - _FEW
        assert trial.proof is not None
        assert trial.proof.failures == ()


def test_measures_a_go_module_with_its_own_manifests(cluster: Cluster, tmp_path: Path) -> None:
    """podinfo's front end and back end, as they ship, but for the autoscalers, which are refused by name."""
    if why := go_modules.missing():
        pytest.skip(why)
    sources = fetch_podinfo()
    build_podinfo(sources)
    shutil.copytree(sources / "deploy" / "webapp", tmp_path / "podinfo", copy_function=shutil.copyfile)
    bring(tmp_path, "podinfo")
    refused = meshbench(tmp_path, "validate", "podinfo.yaml", "--target", "cluster")
    assert refused.returncode == 2
    assert "frontend/hpa.yaml:2: kind: HorizontalPodAutoscaler frontend would change the number" in refused.stderr
    for file in (tmp_path / "podinfo").glob("*/hpa.yaml"):
        file.unlink()
    job = measure(cluster, tmp_path, "podinfo")
    assert_measured(job, {"/", "/echo"})


def test_measures_an_application_of_wheels(cluster: Cluster, tmp_path: Path) -> None:
    """httpbin behind gunicorn, a Locust file with a module, a data file and an option, and policies of which meshbench
    understands all but one."""
    build_httpbin()
    bring(tmp_path, "httpbin")
    job = measure(cluster, tmp_path, "httpbin", options={"page-bytes": 2048})
    assert_measured(job, {"/json", "/bytes/N", "/anything/orders/N", "/cookies/set"})
