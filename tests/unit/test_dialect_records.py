"""Policies: our sidecars are configured by them as those that real control planes configured."""

import json
from pathlib import Path

import pytest

from bench.envoy.config_dump import parse_dump
from bench.files.folders import find_shipped
from tests.dialect import (
    build_effects,
    find_effects,
    list_constructs,
    list_differences,
    make_record,
    read_construct,
)
from tests.golden import GOLDEN, MISSING, find_differences, normalise
from tests.policies import read_policies
from tests.sidecars import VERSIONS, application_with
from tests.unit.test_data_path import config_dump

CONSTRUCTS = {one.name: one for one in list_constructs()}
RECORDS = [one.name for one in list_constructs() if one.record.exists()]
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason=MISSING)


@pytest.mark.parametrize("name", CONSTRUCTS)
def test_every_construct_is_translated(name: str, tmp_path: Path) -> None:
    """A construct that is recorded on a cluster has a sidecar here to be compared with, and shows in one of them."""
    construct = CONSTRUCTS[name]
    policies = read_construct(construct, tmp_path)
    plain = read_policies(construct.mesh, [], application_with(*construct.reviews))
    sidecars = ("productpage", "details", "ratings")
    changed = [
        one
        for one in sidecars
        if build_effects(construct.mesh, one, policies, *construct.reviews)
        != build_effects(construct.mesh, one, plain, *construct.reviews)
    ]
    assert changed


@pytest.mark.parametrize("name", RECORDS)
def test_sidecars_have_the_recorded_policies(name: str, tmp_path: Path) -> None:
    """What a control plane made of a construct, of its version, is what we make of it."""
    recorded = json.loads(CONSTRUCTS[name].record.read_text("utf-8"))
    assert recorded["meshes"]
    assert list_differences(CONSTRUCTS[name], recorded, tmp_path) == []


@needs_golden
@pytest.mark.parametrize(
    ("mesh", "folders"),
    [("istio", ("istio/deployment-strategy",)), ("kuma", ("kuma/mtls", "kuma/deployment-strategy"))],
)
def test_effects_of_recorded_sidecars_equal_build_effects(mesh: str, folders: tuple[str, ...]) -> None:
    """The comparison itself, with sidecars that were recorded before."""
    manifests = find_shipped("manifests")
    policies = read_policies(mesh, [manifests / one for one in folders], application_with(*VERSIONS))
    effects = find_effects(parse_dump(config_dump(f"{mesh}/{mesh}-canary", "productpage-v1")))
    assert (len(effects["routes"]), len(effects["clusters"])) == (7, 11 if mesh == "istio" else 7)
    assert [
        *find_differences(normalise(effects), normalise(build_effects(mesh, "productpage", policies, *VERSIONS)))
    ] == []


def test_difference_from_a_record_is_found(tmp_path: Path) -> None:
    """A record of other policies differs, by sidecar and path."""
    construct = CONSTRUCTS["istio-traffic-policy"]
    policies = read_construct(construct, tmp_path)
    effects = build_effects("istio", "productpage", policies, *construct.reviews)
    cluster = "outbound|9080||ratings.bookinfo.svc.cluster.local"
    assert list_differences(construct, {"sidecars": {"productpage": effects}}, tmp_path) == []
    effects["clusters"][cluster]["outlier_detection"]["interval"] = "11s"
    effects["clusters"].pop("outbound|9080||details.bookinfo.svc.cluster.local")
    assert list_differences(construct, {"sidecars": {"productpage": effects}}, tmp_path) == [
        "productpage: clusters/outbound|9080||details.bookinfo.svc.cluster.local",
        f"productpage: clusters/{cluster}/outlier_detection/interval",
    ]


@needs_golden
def test_record_has_the_names_of_the_manifests(tmp_path: Path) -> None:
    """The run's namespace is that of the manifests, and the version of the mesh is there."""
    folder = tmp_path / "trials" / "01-one-1" / "proxies"
    folder.mkdir(parents=True)
    text = json.dumps(config_dump("istio/istio-policies", "details-v1")).replace("bookinfo.svc", "bookinfo-7f3a.svc")
    (folder / "details.json").write_text(text, "utf-8")
    about = {"run_id": "20260101T000000Z-one-7f3a", "cluster": {"mesh_versions": {"istio": "1.31.0"}}}
    (tmp_path / "run.json").write_text(json.dumps(about), "utf-8")
    made = make_record(tmp_path)
    assert made["meshes"] == {"istio": "1.31.0"}
    assert "7f3a" not in json.dumps(made)
    (chain,) = made["sidecars"]["details"]["inbound"]
    assert [one["name"] for one in chain["policies"]] == ["envoy.filters.http.rbac"]
