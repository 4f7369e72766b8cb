"""Policies as tutorials write them, on real control planes: proven, and in sidecars as on one machine."""

from pathlib import Path
from typing import Any

import pytest

from bench.k8s.client import Cluster
from bench.results.records import ProofRecord
from bench.results.store import read_record
from tests.cluster.job import MEASURED, MESH, assert_unchanged, run_job, small_kuma_options
from tests.dialect import Construct, list_constructs, list_differences, make_record, write_scenario

pytestmark = pytest.mark.slow

CONSTRUCTS = {one.name: one for one in list_constructs()}
ALWAYS = {"istio-tokens"}  # tests on one machine compare all of them with what was recorded here


def constructs_of(mesh: str) -> list[Any]:
    rare = pytest.mark.soak("cluster")
    names = [name for name, one in CONSTRUCTS.items() if one.mesh == mesh]
    return [pytest.param(name, marks=[] if name in ALWAYS else [rare]) for name in names]


def measure(cluster: Cluster, folder: Path, construct: Construct, *arguments: str) -> None:
    """Check a run with the policies of a construct, of which nothing stays on the cluster."""
    with assert_unchanged(cluster):
        job = run_job(folder, *arguments, scenario=write_scenario(construct, folder))
    assert job.exit_code in MEASURED, job.output
    (trial,) = job.trials()
    assert read_record(job.folder / "trials" / trial / "proof.json", ProofRecord).failures == ()
    assert list_differences(construct, make_record(job.folder), folder) == []


@pytest.mark.parametrize("name", constructs_of("istio"))
def test_istio_makes_of_policies_what_we_make(name: str, cluster: Cluster, tmp_path: Path) -> None:
    """Every proof holds, and istiod gives each sidecar the filters, routes and clusters that ours have."""
    measure(cluster, tmp_path, CONSTRUCTS[name], *MESH)


@pytest.mark.parametrize("name", constructs_of("kuma"))
@pytest.mark.usefixtures("kumactl")
def test_kuma_makes_of_policies_what_we_make(name: str, cluster: Cluster, tmp_path: Path) -> None:
    """The same with kuma-cp."""
    measure(cluster, tmp_path, CONSTRUCTS[name], *small_kuma_options(tmp_path))
