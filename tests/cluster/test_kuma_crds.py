"""Kuma's manifests on a real API server with Kuma's CRDs and no Kuma."""

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.errors import ClusterError
from bench.files.folders import find_shipped
from bench.files.yaml_source import parse_generated, read_documents
from bench.k8s.client import Cluster, Object, Ref, ref_of
from bench.k8s.ownership import Owner
from bench.meshes.kuma import control_plane as kuma
from bench.system.cancellation import CancelToken
from bench.system.journal import Journal
from bench.targets.cluster.teardown.cleanup import clean_cluster
from tests.cluster.job import delete_named
from tests.cluster.lab import MESHLAB
from tests.moving import move_objects

DEFINITIONS = MESHLAB.parent / "crds" / "kuma"
MANIFESTS = find_shipped("manifests") / "kuma"
FORMS = sorted(folder.name for folder in MANIFESTS.iterdir() if folder.is_dir())


@pytest.fixture(scope="module")
def owner(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Owner]:
    """A run with Kuma's CRDs and namespace, and no control plane. All of it is deleted afterwards."""
    assert kuma.find_installed(cluster) == "", "Kuma is installed on the lab"
    journal = Journal(tmp_path_factory.mktemp("kuma") / "journal.jsonl")
    owner = Owner(cluster, f"t-kuma-{secrets.token_hex(3)}", journal, CancelToken())
    try:
        for file in sorted(DEFINITIONS.glob("*.yaml")):
            owner.apply_all(parse_generated(file.read_text("utf-8")), "kuma")
        owner.apply(namespace(kuma.NAMESPACE), "kuma")
        yield owner
    finally:
        clean_cluster(cluster, owner.run_id, watch=owner.watch)
        journal.close()
    assert kuma.find_installed(cluster) == ""
    assert not [kind for kind in cluster.kinds() if kind.api_version.startswith("kuma.io/")]


@pytest.fixture
def place(owner: Owner) -> str:
    """A namespace of one test, for an application."""
    name = f"{owner.run_id}-{secrets.token_hex(2)}"
    owner.apply(namespace(name, **kuma.namespace_labels()), "namespace")
    return name


def namespace(name: str, **labels: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def read_manifests(folder: Path) -> list[Object]:
    return [document.value for file in sorted(folder.glob("*.yaml")) for document in read_documents(file)]


@pytest.mark.parametrize("form", FORMS)
def test_shipped_manifests_are_accepted(owner: Owner, place: str, form: str) -> None:
    """In a run's namespace each manifest is accepted unchanged: no field is unknown to Kuma's CRDs, none dropped."""
    objects = move_objects("kuma", read_manifests(MANIFESTS / form), place)
    for thing in objects:
        owner.cluster.apply(thing, dry_run=True)
    owner.apply_all(objects, "policy")
    for thing in objects:
        there = owner.cluster.get(ref_of(thing))
        assert there is not None
        assert _holds(there, {part: applied for part, applied in thing.items() if part != "metadata"}), there
        owner.remove(ref_of(thing))


@pytest.mark.parametrize("form", FORMS)
def test_configurations_side_by_side_have_no_object_in_common(owner: Owner, form: str) -> None:
    """Each in a Mesh of its own, all objects of two configurations are there at once, under names that are valid."""
    made: list[dict[Ref, Object]] = []
    for end in ("1-kuma", f"1-{'k' * 20}"):
        name = f"{owner.run_id}-{end}"
        owner.apply(namespace(name, **kuma.namespace_labels(run_mesh=name)), "namespace")
        objects = (*kuma.base_objects(name), *move_objects("kuma", read_manifests(MANIFESTS / form), name, name))
        owner.apply_all(objects, "policy")
        made.append({ref_of(thing): thing for thing in objects})
    assert made[0].keys().isdisjoint(made[1])
    for ref in (ref for one in made for ref in one):
        assert owner.cluster.get(ref) is not None
        owner.remove(ref)


def _holds(there: Any, applied: Any) -> bool:
    """Whether all applied fields are there; the API server adds the defaults of the CRDs."""
    if isinstance(applied, dict):
        return all(key in there and _holds(there[key], value) for key, value in applied.items())
    if isinstance(applied, list):
        return len(there) == len(applied) and all(map(_holds, there, applied))
    return bool(there == applied)


def test_base_mesh_resets_a_configurations_mesh(owner: Owner) -> None:
    """Applied over another, the base mesh removes what that one had set, mutual TLS above all."""
    (base,) = kuma.base_objects()
    legacy = next(thing for thing in read_manifests(MANIFESTS / "policies-legacy") if thing["kind"] == "Mesh")
    for mesh, secured in ((base, False), (legacy, True), (base, False)):
        assert ("mtls" in owner.apply(mesh, "kuma").get("spec", {})) is secured
    owner.remove(ref_of(base))


def test_misspelt_field_is_refused(owner: Owner, place: str) -> None:
    """A dry run reports a field that the API server would otherwise drop silently."""
    (policy,) = (
        thing for thing in read_manifests(MANIFESTS / "policies") if thing["metadata"]["name"] == "details-viewer"
    )
    (placed,) = move_objects("kuma", [policy], place)
    placed["spec"]["targetReff"] = placed["spec"]["targetRef"]
    with pytest.raises(ClusterError, match="targetReff"):
        owner.cluster.apply(placed, dry_run=True)


def test_unprocessed_identity_is_not_accepted(owner: Owner) -> None:
    """Without a control plane an identity has no status, and that is reported."""
    (identity,) = (thing for thing in read_manifests(MANIFESTS / "policies") if thing["kind"] == "MeshIdentity")
    owner.apply(identity, "policy")
    found = kuma.find_unaccepted(owner.cluster, [identity])
    assert found == "MeshIdentity kuma-system/identity: not yet processed by the control plane"
    owner.remove(ref_of(identity))


def test_cluster_scoped_control_plane_objects_are_found(owner: Owner) -> None:
    """Objects about the zone that a control plane creates under the CRDs of our run are ours to remove."""
    zone = {"apiVersion": "kuma.io/v1alpha1", "kind": "Zone", "metadata": {"name": "t-zone"}, "spec": {"enabled": True}}
    owner.cluster.apply(zone)
    assert [ref_of(one) for one in kuma.find_leftovers(owner.cluster, since="")] == [ref_of(zone)]
    delete_named(owner.cluster, ref_of(zone))
    assert kuma.find_leftovers(owner.cluster, since="") == ()
