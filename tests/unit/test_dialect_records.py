"""Policies: our sidecars are configured by them as those that real control planes configured."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.envoy.config_dump import parse_bootstrap, parse_dump
from bench.files.folders import find_shipped
from bench.meshes import MESHES
from bench.meshes.protocols import Policies
from tests.dialect import Construct, find_effects, list_constructs, make_record
from tests.golden import GOLDEN, MISSING, find_differences, normalise
from tests.policies import parse_folders, read_policies
from tests.sidecars import VERSIONS, application_with, bootstrap_of, place
from tests.unit.test_data_path import config_dump

CONSTRUCTS = {one.name: one for one in list_constructs()}
RECORDS = [one.name for one in list_constructs() if one.record.exists()]
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason=MISSING)


def policies_of(construct: Construct, folder: Path) -> Policies:
    """The policies of a construct, all of which are translated."""
    (folder / "policies.yaml").write_text(construct.text, "utf-8")
    application = application_with(*construct.reviews)
    sources = parse_folders(construct.mesh, [folder], application)
    reading = MESHES[construct.mesh].policies.read_policies(sources, application)
    assert reading.untranslated == ()
    return reading.policies


def ours(mesh: str, name: str, policies: Policies, *reviews: str) -> dict[str, Any]:
    application = application_with(*reviews)
    ports = dict.fromkeys(place(mesh, application).inbound.values(), 9080)
    bootstrap = bootstrap_of(mesh, name, application, policies)
    return find_effects(parse_bootstrap(json.loads(json.dumps(bootstrap))), ports)


@pytest.mark.parametrize("name", CONSTRUCTS)
def test_every_construct_is_translated(name: str, tmp_path: Path) -> None:
    """A construct that is recorded on a cluster has a sidecar here to be compared with, and shows in one of them."""
    construct = CONSTRUCTS[name]
    policies = policies_of(construct, tmp_path)
    plain = read_policies(construct.mesh, [], application_with(*construct.reviews))
    sidecars = ("productpage", "details", "ratings")
    changed = [
        one
        for one in sidecars
        if ours(construct.mesh, one, policies, *construct.reviews)
        != ours(construct.mesh, one, plain, *construct.reviews)
    ]
    assert changed


@pytest.mark.parametrize("name", RECORDS)
def test_sidecars_have_the_recorded_policies(name: str, tmp_path: Path) -> None:
    """What a control plane made of a construct, of its version, is what we make of it."""
    construct = CONSTRUCTS[name]
    policies = policies_of(construct, tmp_path)
    recorded = json.loads(construct.record.read_text("utf-8"))
    assert recorded["meshes"]
    for sidecar, effects in recorded["sidecars"].items():
        made = ours(construct.mesh, sidecar, policies, *construct.reviews)
        assert [*find_differences(normalise(effects), normalise(made))] == [], sidecar


@needs_golden
@pytest.mark.parametrize(
    ("mesh", "folders"),
    [("istio", ("istio/deployment-strategy",)), ("kuma", ("kuma/mtls", "kuma/deployment-strategy"))],
)
def test_effects_of_recorded_sidecars_equal_ours(mesh: str, folders: tuple[str, ...]) -> None:
    """The comparison itself, with sidecars that were recorded before."""
    manifests = find_shipped("manifests")
    policies = read_policies(mesh, [manifests / one for one in folders], application_with(*VERSIONS))
    effects = find_effects(parse_dump(config_dump(f"{mesh}/{mesh}-canary", "productpage-v1")))
    assert (len(effects["routes"]), len(effects["clusters"])) == (7, 11 if mesh == "istio" else 7)
    assert [*find_differences(normalise(effects), normalise(ours(mesh, "productpage", policies, *VERSIONS)))] == []


@needs_golden
def test_record_has_the_names_of_the_manifests(tmp_path: Path) -> None:
    """The run's namespace is that of the manifests, and the version of the mesh is there."""
    folder = tmp_path / "trials" / "01-one-1" / "proxies"
    folder.mkdir(parents=True)
    text = json.dumps(config_dump("istio/istio-policies", "details-v1")).replace("bookinfo.svc", "bookinfo-7f3a.svc")
    (folder / "details.json").write_text(text, "utf-8")
    about = {"run_id": "20260101T000000Z-one-7f3a", "mesh_versions": {"istio": "1.31.0"}}
    (tmp_path / "run.json").write_text(json.dumps(about), "utf-8")
    made = make_record(tmp_path)
    assert made["meshes"] == {"istio": "1.31.0"}
    assert "7f3a" not in json.dumps(made)
    (chain,) = made["sidecars"]["details"]["inbound"]
    assert [one["name"] for one in chain["policies"]] == ["envoy.filters.http.rbac"]
