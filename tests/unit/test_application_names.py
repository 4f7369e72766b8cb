"""An application's own objects in the namespaces of a run, and the names that its programs read."""

from pathlib import Path
from typing import Any

import pytest

from bench.application.manifests import read_folders
from bench.cli.plan_text import format_own_parts
from bench.meshes.application_names import find_mentions, move_application
from bench.meshes.rewriting import Moved, Namespaces
from tests.unit.test_application_objects import Object, make, make_pods, make_service, read
from tests.unit.test_definition import DEPLOYMENT
from tests.unit.test_own_application import resolve_mine

RUN = Namespaces({"shop": "shop-7f3a", "db": "db-7f3a"})


def move(folder: Path, *things: Object) -> list[Moved]:
    """Move an application with a Service `api` in `shop` and a Service `store` in `db`, and these objects."""
    application = read(folder, *base(), *things, entry="api:80", namespaces=("shop", "db"))
    return list(move_application(application, read_folders([folder]), RUN))


def base() -> tuple[Object, ...]:
    elsewhere = {"metadata": {"namespace": "db"}}
    return (
        make_pods("api", "Deployment", 80),
        make_service("api", 80),
        make_pods("store", "StatefulSet", 5432, **elsewhere),
        make_service("store", 5432, **elsewhere),
    )


def move_text(folder: Path, text: str) -> tuple[Any, list[tuple[str, str]]]:
    """Return a variable of a container after the move, and what was rewritten, without namespaces."""
    env = [{"name": "AT", "value": text}]
    *_, moved = move(folder, make_pods("worker", "Deployment", containers=[{"name": "b", "image": "x", "env": env}]))
    rewrites = [(one.written, one.runs) for one in moved.rewrites if one.kind == "service"]
    return moved.value["spec"]["template"]["spec"]["containers"][1]["env"][0]["value"], rewrites


@pytest.mark.parametrize(
    ("written", "runs"),
    [
        ("api.shop", "api.shop-7f3a"),
        ("http://api.shop:80/x", "http://api.shop-7f3a:80/x"),
        ("api.shop.svc", "api.shop-7f3a.svc"),
        ("api.shop.svc.cluster.local:80", "api.shop-7f3a.svc.cluster.local:80"),
        ("store-0.store.db.svc.cluster.local", "store-0.store.db-7f3a.svc.cluster.local"),
        ("a=api.shop,b=store.db", "a=api.shop-7f3a,b=store.db-7f3a"),
        ("api.shop.", "api.shop-7f3a."),
    ],
)
def test_rewrites_names_of_own_services(tmp_path: Path, written: str, runs: str) -> None:
    """A name of an own Service gets the run's namespace, wherever it stands in a text, and is listed."""
    text, rewrites = move_text(tmp_path, written)
    assert text == runs
    assert rewrites


@pytest.mark.parametrize(
    "text",
    ["api", "api.shop.com", "api.shopping", "my-api.shop", "www.api.shop", "other.shop", "api.db", "api.shop-old", ""],
)
def test_leaves_other_texts_alone(tmp_path: Path, text: str) -> None:
    """What only resembles a name of an own Service stays as it is written."""
    assert move_text(tmp_path, text) == (text, [])


def test_rewrites_arguments_probes_and_config_maps(tmp_path: Path) -> None:
    """Programs read arguments, commands and files; names are listed with the line of the text that has them."""
    probe = {"exec": {"command": ["curl", "api.shop"]}}
    container = {"name": "b", "image": "x", "args": ["--api=api.shop"], "livenessProbe": probe}
    job = make_pods("seed", "Job", pod={"initContainers": [{**container, "command": ["wait", "store.db"]}]})
    config = make(
        "ConfigMap", "conf", data={"name": "api.shop", "nginx.conf": "listen 80;\nproxy_pass http://api.shop;\n"}
    )
    *_, seed, conf = move(tmp_path, job, config)
    (first,) = seed.value["spec"]["template"]["spec"]["initContainers"]
    assert (first["args"], first["command"]) == (["--api=api.shop-7f3a"], ["wait", "store.db-7f3a"])
    assert first["livenessProbe"]["exec"]["command"][1] == "api.shop-7f3a"
    data = {"name": "api.shop-7f3a", "nginx.conf": "listen 80;\nproxy_pass http://api.shop-7f3a;\n"}
    assert conf.value["data"] == data
    assert {(one.written, one.runs) for one in conf.rewrites if one.kind == "service"} == {
        ("api.shop", "api.shop-7f3a")
    }
    assert all(one.line > 1 for one in conf.rewrites if one.kind == "service")


def test_moves_references_to_namespaces(tmp_path: Path) -> None:
    """Each object is in the run's namespace of its own, and so are the accounts and pods that it refers to."""
    group = "rbac.authorization.k8s.io/v1"
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}
    binding = make(
        "RoleBinding", "read", group, subjects=[{"kind": "ServiceAccount", "name": "a", "namespace": "shop"}]
    )
    policy = make("NetworkPolicy", "in", "networking.k8s.io/v1", spec={"ingress": [{"from": [peer]}]})
    moved = {one.value["metadata"]["name"]: one.value for one in move(tmp_path, binding, policy)}
    assert {name: one["metadata"]["namespace"] for name, one in moved.items()} == {
        "api": "shop-7f3a",
        "store": "db-7f3a",
        "read": "shop-7f3a",
        "in": "shop-7f3a",
    }
    assert moved["read"]["subjects"][0]["namespace"] == "shop-7f3a"
    selected = moved["in"]["spec"]["ingress"][0]["from"][0]["namespaceSelector"]["matchLabels"]
    assert selected == {"kubernetes.io/metadata.name": "shop-7f3a"}


def test_makes_no_public_address(tmp_path: Path) -> None:
    """A Service of type LoadBalancer is one of the cluster alone in a run; that is listed."""
    port = {"port": 80, "nodePort": 30080}
    *_, moved = move(tmp_path, make_service("public", port, type="LoadBalancer", loadBalancerIP="192.0.2.1"))
    assert moved.value["spec"] == {"ports": [{"port": 80}], "selector": {"app": "public"}, "type": "ClusterIP"}
    assert ("LoadBalancer", "ClusterIP") in {(one.written, one.runs) for one in moved.rewrites}


@pytest.mark.parametrize(
    ("text", "mentioned"),
    [
        ("--namespace=shop", "shop"),
        ("other.shop.svc", "shop"),
        ("api.shop", ""),
        ("a shop and api.shop", "shop"),
        ("--space=db", "db"),
        ("workshop", ""),
        ("my-shop", ""),
    ],
)
def test_reports_other_mentions_of_a_namespace(tmp_path: Path, text: str, mentioned: str) -> None:
    """What names a namespace and is no own Service cannot be rewritten safely; it is a warning with file and line."""
    env = [{"name": "AT", "value": text}]
    worker = make_pods("worker", "Deployment", containers=[{"name": "b", "image": "x", "env": env}])
    application = read(tmp_path, *base(), worker, entry="api:80", namespaces=("shop", "db"))
    found = find_mentions(application, read_folders([tmp_path]), RUN)
    assert [f"mentions the namespace {mentioned}," in one.message for one in found] == [True] * bool(mentioned)
    assert all(one.line > 1 and one.path.endswith("env[0].value") for one in found)


def test_lists_left_out_objects_and_mentions(tmp_path: Path) -> None:
    """`validate` and `plan` print both, with the file as the scenario names it."""
    text = DEPLOYMENT.format(name="web").replace("image: x/y,", "image: x/y, args: [--ns=shop],")
    files = {"web/all.yaml": f"{text}---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: shop}}\n"}
    resolved = resolve_mine(tmp_path, {"name": "web", "namespaces": ["shop"]}, files)
    lines = list(format_own_parts(resolved))
    assert lines[:2] == [
        "of the manifests is not applied:",
        "  web/all.yaml:23: Namespace shop is not applied: a run makes namespaces of its own",
    ]
    assert lines[2].startswith("warning: web/all.yaml:20: spec.template.spec.containers[0].args[0]: mentions")
