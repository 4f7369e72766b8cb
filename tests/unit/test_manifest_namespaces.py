"""Every object of a run is in a namespace of its own, or is refused before anything starts."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.application.manifests import read_folders
from bench.errors import InputError
from bench.files.folders import find_shipped, list_manifest_files
from bench.files.yaml_source import read_documents
from bench.meshes import MESHES
from bench.meshes.rewriting import Namespaces, Object, Rewrite
from tests.applications import read_bookinfo
from tests.moving import move_documents, move_objects
from tests.policies import read_gateway, read_policies

MANIFESTS = find_shipped("manifests")
BOOKINFO = read_bookinfo("v3")
ROOTS = {"istio": "istio-system", "kuma": "kuma-system"}
POLICIES = ("PeerAuthentication", "AuthorizationPolicy", "MeshIdentity", "MeshTrafficPermission")


def shipped_objects() -> Iterator[Any]:
    """Every object of every shipped folder of policies and gateways, with its mesh."""
    for mesh in ROOTS:
        for folder in sorted(path for path in (MANIFESTS / mesh).iterdir() if path.is_dir()):
            for file in list_manifest_files(folder):
                for number, document in enumerate(read_documents(file)):
                    name = f"{mesh}/{folder.name}/{document.value['kind']}-{document.value['metadata']['name']}"
                    yield pytest.param(mesh, folder, (file.name, number), id=name)


def moved(folder: Path, copy: Path, place: tuple[str, int], namespace: str | None) -> str:
    """A copy of the manifests in which one object has this namespace, and the kind of the object."""
    kind = ""
    for file in list_manifest_files(folder):
        documents = [document.value for document in read_documents(file)]
        if file.name == place[0]:
            documents[place[1]]["metadata"]["namespace"] = namespace
            kind = documents[place[1]]["kind"]
        (copy / file.name).write_text(yaml.safe_dump_all(documents, sort_keys=False), "utf-8")
    return kind


def problems(mesh: str, folder: Path) -> list[str]:
    """The errors of reading gateway and policies of a folder, by field."""
    try:
        gateway = read_gateway(mesh, [folder], BOOKINFO)
        read_policies(mesh, [folder], BOOKINFO.entered_by(gateway) if gateway else BOOKINFO)
    except InputError as error:
        return [f"{problem.path}: {problem.message}" for problem in error.problems]
    return []


@pytest.mark.parametrize("namespace", ["production", "kube-system"])
@pytest.mark.parametrize(("mesh", "folder", "place"), [*shipped_objects()])
def test_refuses_object_in_a_foreign_namespace(
    mesh: str, folder: Path, place: tuple[str, int], namespace: str, tmp_path: Path
) -> None:
    """A Service, a Gateway or a policy of any kind would change what is there."""
    moved(folder, tmp_path, place, namespace)
    assert [problem for problem in problems(mesh, tmp_path) if problem.startswith("metadata.namespace: ")]


@pytest.mark.parametrize(("mesh", "folder", "place"), [*shipped_objects()])
def test_only_policies_may_be_for_the_whole_mesh(
    mesh: str, folder: Path, place: tuple[str, int], tmp_path: Path
) -> None:
    """A Deployment or a Service in the control plane's namespace is refused."""
    kind = moved(folder, tmp_path, place, ROOTS[mesh])
    refused = any(problem.startswith("metadata.namespace: ") for problem in problems(mesh, tmp_path))
    assert refused is (kind not in POLICIES)


@pytest.mark.parametrize("namespace", ["bookinfo", None])
@pytest.mark.parametrize(
    ("mesh", "folder", "place"),
    [param for param in shipped_objects() if param.values[0] == "istio"],
)
def test_application_namespace_becomes_the_runs(
    mesh: str, folder: Path, place: tuple[str, int], namespace: str | None, tmp_path: Path
) -> None:
    """Also if the manifest names none."""
    moved(folder, tmp_path, place, namespace)
    assert problems(mesh, tmp_path) == problems(mesh, folder)
    written = [one.value for file in list_manifest_files(tmp_path) for one in read_documents(file)]
    placed = move_objects(mesh, written, "bookinfo-7f3a")
    assert {thing["metadata"]["namespace"] for thing in placed} <= {"bookinfo-7f3a", ROOTS[mesh]}


DEFAULT = Namespaces({"default": "default-7f3a"})


def in_default(folder: str) -> tuple[Object, ...]:
    """The shipped manifests of a folder, written for an application in the namespace `default`."""
    text = "".join(f"---\n{file.read_text('utf-8')}" for file in list_manifest_files(MANIFESTS / folder))
    for written, place in (("/ns/bookinfo/", "/ns/{}/"), ("_bookinfo_svc", "_{}_svc"), (".bookinfo.svc", ".{}.svc")):
        text = text.replace(written, place.format("default"))
    return tuple(one for one in yaml.safe_load_all(text) if one)


def list_texts(value: Any, path: str = "") -> dict[str, str]:
    """Every text of a part of an object, by its path."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = {key: text for name, part in items for key, text in list_texts(part, f"{path}/{name}").items()}
    return {**found, **({path: value} if isinstance(value, str) else {})}


@pytest.mark.parametrize("folder", ["policies", "policies-legacy", "gateway", "mtls", "deployment-strategy"])
def test_application_in_default_keeps_kumas_mesh(folder: str) -> None:
    """Its Mesh has that name, too, and the trust domain `default.default.mesh.local`: only namespaces change."""
    written = [{**one, "metadata": {**one["metadata"]}} for one in in_default(f"kuma/{folder}")]
    for one in written:
        if one["kind"] == "MeshTrafficPermission":
            one["metadata"]["namespace"] = "default"
    found = move_documents("kuma", written, DEFAULT)
    for moved in found:
        before, after = list_texts(moved.document.value), list_texts(moved.value)
        changed = {path: (before.get(path, ""), text) for path, text in after.items() if before.get(path) != text}
        for path, (old, new) in changed.items():
            assert new == {
                "/metadata/namespace": "default-7f3a",
            }.get(path, old.replace("/ns/default/", "/ns/default-7f3a/").replace("_default_svc", "_default-7f3a_svc"))
        assert len(changed) == len(moved.rewrites)
    texts = "\n".join(text for moved in found for text in list_texts(moved.value).values())
    assert "/ns/default/" not in texts
    assert "_default_svc" not in texts
    assert all(one.value["metadata"]["name"] == "default" for one in found if one.value["kind"] == "Mesh")


def test_application_in_default_is_evaluated_as_written(tmp_path: Path) -> None:
    """Permissions mean the same as in any other namespace, and allow the identities of the run."""
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(in_default("kuma/policies")), "utf-8")
    application = read_bookinfo("v3", namespace="default")
    policies = read_policies("kuma", [tmp_path], application)
    usual = read_policies("kuma", [MANIFESTS / "kuma/policies"], BOOKINFO)
    assert policies.probes(application) == usual.probes(BOOKINFO)
    deployed = replace(application, namespace="default-7f3a")
    allowed = yaml.safe_dump_all(one.value for one in move_documents("kuma", in_default("kuma/policies"), DEFAULT))
    for name in policies.identities(deployed)["bookinfo-productpage"]:
        assert name == "spiffe://default.default.mesh.local/ns/default-7f3a/sa/bookinfo-productpage"
        assert name in allowed


@pytest.mark.parametrize(
    ("mesh", "cluster", "identity"),
    [
        ("istio", "outbound|9080||details.{}.svc.cluster.local", "spiffe://cluster.local/ns/{}/sa/bookinfo-details"),
        (
            "kuma",
            "default_details_{}_default_msvc_9080",
            "spiffe://default.default.mesh.local/ns/{}/sa/bookinfo-details",
        ),
    ],
)
def test_names_have_the_namespace_of_each_workload(mesh: str, cluster: str, identity: str) -> None:
    """A workload may be in another namespace than the others; a run gives each its own."""
    stock = {one.name: replace(one, namespace="stock") for one in BOOKINFO.workloads if one.name == "details"}
    written = replace(
        BOOKINFO,
        workloads=tuple(stock.get(one.name, one) for one in BOOKINFO.workloads),
        services=tuple(
            replace(one, workloads=tuple(stock.get(each.name, each) for each in one.workloads))
            for one in BOOKINFO.services
        ),
    )
    policies = read_policies(mesh, [MANIFESTS / "kuma/policies"] if mesh == "kuma" else [], BOOKINFO)
    running = replace(
        written, namespace="bookinfo-7f3a", namespaces={"bookinfo": "bookinfo-7f3a", "stock": "stock-7f3a"}
    )
    for application, home, other in ((written, "bookinfo", "stock"), (running, "bookinfo-7f3a", "stock-7f3a")):
        clusters = [policies.outbound_cluster(application, application.service(one)) for one in ("details", "ratings")]
        assert clusters == [cluster.format(other), cluster.format(home).replace("details", "ratings")]
        names = [policies.identities(application)[application.workload(one).identity] for one in ("details", "ratings")]
        assert names == [(identity.format(other),), (identity.format(home).replace("details", "ratings"),)]


def test_rewrites_name_file_line_and_both_texts() -> None:
    """A reader finds each place in the manifests."""
    folder = MANIFESTS / "istio/policies"
    moved = MESHES["istio"].policies.mesh_objects(read_folders([folder]), Namespaces({"bookinfo": "bookinfo-7f3a"}))
    (found,) = [one for one in moved if one.value["metadata"]["name"] == "details-viewer"]
    file = str(folder / "details-viewer.yaml")
    identity = "cluster.local/ns/{}/sa/bookinfo-productpage"
    assert found.rewrites == (
        Rewrite(
            file,
            14,
            "spec.rules[0].from[0].source.principals[0]",
            "identity",
            identity.format("bookinfo"),
            identity.format("bookinfo-7f3a"),
        ),
        Rewrite(file, 4, "metadata.namespace", "namespace", "", "bookinfo-7f3a"),
    )
