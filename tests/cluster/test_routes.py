"""Several versions of reviews behind real control planes' routes: each user gets their version, counted, and nothing
stays."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.k8s.client import Cluster
from bench.results.records import ProofRecord
from bench.results.resources import read_resources
from bench.results.samples import read_parquet
from bench.results.store import read_record
from tests.cluster.job import MEASURED, Job, assert_unchanged, run_job, small_kuma_options

pytestmark = pytest.mark.slow

ISTIO = {"name": "istio-by-user", "mesh": "istio", "manifests": ["istio/deployment-strategy"]}
KUMA = {"name": "kuma-by-user", "mesh": "kuma", "manifests": ["kuma/mtls", "kuma/deployment-strategy"]}
VERSIONS = {"reviews": ["v1", "v2", "v3"]}
PAGES = {"page as others": "100 of 100 with reviews v1", "page as Marco": "100 of 100 with reviews v2"}


def measure(cluster: Cluster, folder: Path, *arguments: str, configuration: Mapping[str, Any]) -> Job:
    """One trial with all versions, of which nothing stays on the cluster."""
    load = {"users": 8, "warmup": "1s", "duration": "3s"}
    with assert_unchanged(cluster):
        job = run_job(folder, *arguments, scenario=[configuration], application=VERSIONS, load=load)
    assert job.exit_code in MEASURED, job.output
    return job


def check_routes(job: Job) -> None:
    """Check that a hundred pages of each kind are right before and after; every version's sidecar counted its own
    users' load."""
    (trial,) = job.trials()
    folder = job.folder / "trials" / trial
    proof = read_record(folder / "proof.json", ProofRecord)
    assert proof.failures == ()
    for facts in (proof.before, proof.after):
        assert {fact.subject: fact.seen for fact in facts if fact.name == "pages"} == PAGES
    counted = {
        fact.subject: [int(number) for number in re.findall(r"(\d+) by", fact.seen)]
        for fact in proof.after
        if fact.name == "requests counted"
    }
    samples = read_parquet(folder / "samples.parquet")
    pages = {name: int((samples.name == number).sum()) for number, name in enumerate(samples.names)}
    assert pages.keys() == {"login", "page as Marco", "page as others"}
    assert counted["productpage -> reviews-v1"] == [pages["page as others"]] * 2
    assert counted["productpage -> reviews-v2"] == [pages["page as Marco"]] * 2
    assert counted["productpage -> reviews-v3"] == [0, 0]
    assert counted["reviews-v2 -> ratings"] == [pages["page as Marco"]] * 2
    assert samples.ok.all()


def check_names(job: Job) -> None:
    """Check that three pods of one app have their own logs, images and figures."""
    ((name, record),) = job.trials().items()
    folder, reviews = job.folder / "trials" / name, {f"reviews-{version}" for version in VERSIONS["reviews"]}
    assert {image for image in record["images"] if image.startswith("reviews")} == reviews
    logs = {file.stem for file in (job.private / "trials" / name / "services").iterdir()}
    assert {f"{one}-istio-proxy" for one in reviews} <= logs
    assert reviews <= set(read_resources(folder / "resources.parquet").processes)


@pytest.mark.soak("cluster")
@pytest.mark.usefixtures("existing_istio")
def test_istio_routes_by_user(cluster: Cluster, tmp_path: Path) -> None:
    """A DestinationRule's subsets and a VirtualService's header lead each user to a version."""
    job = measure(cluster, tmp_path, "--use-existing-mesh", configuration=ISTIO)
    check_routes(job)
    check_names(job)


def test_kuma_routes_by_user(cluster: Cluster, tmp_path: Path, kumactl: str) -> None:
    """A MeshHTTPRoute leads each user to the Service of a version."""
    check_routes(measure(cluster, tmp_path, *small_kuma_options(tmp_path), configuration=KUMA))
