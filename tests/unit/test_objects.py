"""The objects of a file of manifests are those that `kubectl apply` would take; what is not applied is listed."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.errors import InputError
from bench.files.objects import ManifestReader, read_objects

OBJECT = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: NAME}\ndata: {a: b}\n"


def read(path: Path, text: str) -> tuple[list[Any], list[str]]:
    """The objects of a file, and what is not applied, without the path."""
    path.write_text(text, "utf-8")
    reader = ManifestReader()
    objects = [one.value for one in reader.read(path)]
    return objects, [str(one).removeprefix(f"{path}:") for one in reader.omissions]


def names(objects: list[Any]) -> list[str]:
    return [one["metadata"]["name"] for one in objects]


def test_empty_documents_are_no_objects(tmp_path: Path) -> None:
    """Helm renders a template that is switched off as a comment between two separators."""
    text = f"---\n# Source: a/b.yaml\n---\n{OBJECT}---\n\n---\n"
    assert (names(read(tmp_path / "a.yaml", text)[0]), read(tmp_path / "a.yaml", text)[1]) == (["NAME"], [])


def test_items_of_a_list_are_objects_with_their_lines(tmp_path: Path) -> None:
    """Also in a list of one kind, whose items need not name it, and in a list in a list."""
    text = (
        "apiVersion: v1\nkind: List\nitems:\n"
        "- apiVersion: v1\n  kind: ConfigMap\n  metadata:\n    name: a\n"
        "- apiVersion: apps/v1\n  kind: DeploymentList\n  items:\n  - metadata:\n      name: b\n    spec: {x: 1}\n"
    )
    path = tmp_path / "a.yaml"
    path.write_text(text, "utf-8")
    first, second = read_objects(path)
    assert first.line_of(()) == 4
    assert str(first.problem(("metadata", "name"), "is wrong")) == f"{path}:7: metadata.name: is wrong"
    assert second.value == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "b"},
        "spec": {"x": 1},
    }
    assert second.line_of(("spec", "x")) == 13


def test_reads_the_output_of_kubectl_get(tmp_path: Path) -> None:
    """What a server has added is left out, and listed once for the file."""
    server = {"uid": "u-1", "resourceVersion": "7", "generation": 2, "creationTimestamp": "2026-01-01T00:00:00Z"}
    annotations = {"kubectl.kubernetes.io/last-applied-configuration": "{}"}
    items = [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web", **server, "annotations": annotations, "managedFields": [{}]},
            "spec": {"template": {"metadata": {"creationTimestamp": None, "labels": {"app": "web"}}}},
            "status": {"replicas": 1},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web", **server, "annotations": {**annotations, "mine": "x"}},
            "spec": {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ports": [{"port": 80, "nodePort": 30000}]},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "headless", **server},
            "spec": {"clusterIP": "None", "clusterIPs": ["None"], "ports": [{"port": 80}]},
        },
    ]
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": items, "metadata": {}}, indent=1)
    objects, omissions = read(tmp_path / "live.json", listed)
    assert objects == [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web"},
            "spec": {"template": {"metadata": {"labels": {"app": "web"}}}},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web", "annotations": {"mine": "x"}},
            "spec": {"ports": [{"port": 80}]},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "headless"},
            "spec": {"clusterIP": "None", "clusterIPs": ["None"], "ports": [{"port": 80}]},
        },
    ]
    (omission,) = omissions
    assert ": what a server has added to 3 objects (metadata.creationTimestamp, " in omission
    assert omission.endswith(") is not applied: another server would refuse it")
    assert all(key in omission for key in ("metadata.uid", "status", "spec.clusterIP", "spec.ports[].nodePort"))
    assert listed.splitlines()[int(omission.split(":")[0]) - 1].strip().startswith('"creationTimestamp"')


def test_fields_that_are_empty_are_left_out_without_a_word(tmp_path: Path) -> None:
    """Generated manifests have `creationTimestamp: null` and `status: {}`, which mean nothing."""
    text = "apiVersion: v1\nkind: Service\nmetadata: {name: a, creationTimestamp: null}\nstatus: {}\n"
    assert read(tmp_path / "a.yaml", text) == (
        [{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}}],
        [],
    )


def test_address_that_a_person_has_written_stays(tmp_path: Path) -> None:
    """Without the mark of a server, `clusterIP` is a wish."""
    text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIP: 10.0.0.7}\n"
    assert read(tmp_path / "a.yaml", text)[0][0]["spec"] == {"clusterIP": "10.0.0.7"}


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ('annotations: {"helm.sh/hook": test}', "a Helm hook for test"),
        ('annotations: {"helm.sh/hook": "pre-delete, post-rollback"}', "a Helm hook for pre-delete, post-rollback"),
        ("ownerReferences: [{kind: ReplicaSet, name: web-1, controller: true}]", "ReplicaSet web-1 makes it"),
    ],
)
def test_lists_objects_that_are_not_applied(tmp_path: Path, metadata: str, reason: str) -> None:
    """Tests of a chart and what a controller makes are no part of an application, and are listed with their line."""
    text = f"{OBJECT}---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: b\n  {metadata}\n"
    objects, omissions = read(tmp_path / "a.yaml", text)
    assert names(objects) == ["NAME"]
    assert omissions == [f"8: Pod b is not applied: {reason}"]


def test_hooks_of_an_installation_are_applied(tmp_path: Path) -> None:
    """A Job that Helm runs before an installation is part of it."""
    text = OBJECT.replace("name: NAME", 'name: a, annotations: {"helm.sh/hook": "pre-install,pre-upgrade"}')
    assert names(read(tmp_path / "a.yaml", text)[0]) == ["a"]


def test_objects_of_the_cluster_itself_are_not_applied(tmp_path: Path) -> None:
    """A cluster has them in each namespace, and makes their tokens."""
    text = OBJECT.replace("NAME", "kube-root-ca.crt")
    text += "---\napiVersion: v1\nkind: Secret\ntype: kubernetes.io/service-account-token\nmetadata: {name: t}\n"
    objects, omissions = read(tmp_path / "a.yaml", text)
    assert objects == []
    assert [one.partition(": ")[2] for one in omissions] == [
        "each of ConfigMap kube-root-ca.crt, Secret t is not applied: a cluster makes it by itself",
    ]


@pytest.mark.parametrize("text", ["kind: {{ .Values.kind }}\n", "{{- if .Values.on }}\nkind: A\n{{- end }}\n"])
def test_template_is_refused_with_the_command(tmp_path: Path, text: str) -> None:
    """A chart's template is no manifest; a text that has braces in quotes is one."""
    path = tmp_path / "a.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(InputError, match=r"a\.yaml:1: has \{\{ \}\}, so that it is a template; hint: render it first"):
        read_objects(path)
    assert names(read(path, OBJECT.replace("b}", '"{{ b }}"}'))[0]) == ["NAME"]


def test_same_file_is_read_once(tmp_path: Path) -> None:
    """Two configurations with a folder get the same documents, and its omissions are listed once."""
    path = tmp_path / "a.yaml"
    path.write_text(f"{OBJECT}---\n{OBJECT}status: {{a: 1}}\n", "utf-8")
    reader = ManifestReader()
    assert all(one is other for one, other in zip(reader.read(path), reader.read(path), strict=True))
    assert len(reader.omissions) == 1
