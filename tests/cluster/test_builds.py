"""Two builds in one run: each configuration has its own image, and its own objects, on a real cluster."""

from pathlib import Path

import pytest
import yaml

from bench.files.folders import find_shipped
from bench.k8s.client import Cluster
from bench.results.records import ProofRecord
from bench.results.store import read_record
from tests.cluster.job import MEASURED, assert_unchanged, run_job
from tests.cluster.lab_images import BOOKINFO, tag_image

pytestmark = pytest.mark.slow

NEW = "docker.io/meshbench/bookinfo:new-build"
LOAD = {"users": 8, "warmup": "1s", "duration": "3s"}


def write_folder(folder: Path) -> None:
    """Write reviews with one more variable, from a ConfigMap that is added."""
    text = (find_shipped("manifests") / "bookinfo" / "reviews-v3.yaml").read_text("utf-8")
    thing = next(one for one in yaml.safe_load_all(text) if one)
    source = {"configMapKeyRef": {"name": "build", "key": "number"}}
    thing["spec"]["template"]["spec"]["containers"][0]["env"].append({"name": "BUILD", "valueFrom": source})
    added = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "build"}, "data": {"number": "2"}}
    folder.mkdir()
    (folder / "own.yaml").write_text(yaml.safe_dump_all([thing, added]), "utf-8")


@pytest.mark.soak("cluster")
def test_each_configuration_has_its_own_build(cluster: Cluster, tmp_path: Path) -> None:
    """A replaced Deployment starts with an added ConfigMap; the digests of a trial are those of its images; nothing
    stays."""
    write_folder(tmp_path / "new")
    configurations = [
        {"name": "old", "mesh": "none", "images": {"bookinfo": BOOKINFO}},
        {"name": "new", "mesh": "none", "images": {"bookinfo": NEW}, "manifests": ["new"]},
    ]
    with tag_image(f"{BOOKINFO}-4", NEW), assert_unchanged(cluster):
        job = run_job(tmp_path, scenario=configurations, load=LOAD)
    assert job.exit_code in MEASURED, job.output
    images = {name.split("-")[1]: record["images"]["reviews"] for name, record in job.trials().items()}
    assert images["old"] != images["new"]


@pytest.mark.usefixtures("existing_istio")
def test_sidecars_have_the_image_of_their_configuration(cluster: Cluster, tmp_path: Path) -> None:
    """Istio's sidecars get the image that a configuration names, which a proof shows."""
    (injector,) = (
        one
        for one in cluster.list("v1", "ConfigMap", namespace="istio-system")
        if one["metadata"]["name"] == "istio-sidecar-injector"
    )
    values = yaml.safe_load(injector["data"]["values"])["global"]
    proxy = f"{values['hub']}/{values['proxy'].get('image') or 'proxyv2'}:{values['tag']}"
    new = f"{proxy}-new"
    configuration = {"name": "new", "mesh": "istio", "images": {"sidecar": new}}
    with tag_image(proxy, new), assert_unchanged(cluster):
        job = run_job(tmp_path, "--use-existing-mesh", scenario=[configuration], load=LOAD)
    assert job.exit_code in MEASURED, job.output
    (trial,) = job.trials()
    proof = read_record(job.folder / "trials" / trial / "proof.json", ProofRecord)
    assert {fact.ok for fact in (*proof.before, *proof.after) if fact.name == "sidecar image"} == {True}
