"""`meshbench init` writes files that validate, says what it found, and overwrites nothing."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.cli.init import init
from bench.errors import InputError
from bench.files.yaml_source import parse_documents
from bench.meshes import MESHES
from bench.meshes.resolved import find_problems
from bench.scenario.loader import load_scenario
from bench.scenario.starter import inspect_objects, make_name

HTTPBIN = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: httpbin}
---
apiVersion: v1
kind: Service
metadata: {name: httpbin}
spec:
  ports: [{name: http, port: 8000, targetPort: 8080}]
  selector: {app: httpbin}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: httpbin}
spec:
  selector: {matchLabels: {app: httpbin, version: v1}}
  template:
    metadata: {labels: {app: httpbin, version: v1}}
    spec:
      serviceAccountName: httpbin
      containers:
        - name: httpbin
          image: example.org/httpbin:1
          ports: [{containerPort: 8080}]
          readinessProbe: {httpGet: {path: /status/200, port: 8080}}
"""


def run(*arguments: str) -> str:
    """Run the command, and return its output."""
    result = CliRunner().invoke(init, arguments, catch_exceptions=False, standalone_mode=False)
    if result.exception:
        raise result.exception
    return result.output


def shop(tmp_path: Path, text: str = HTTPBIN, name: str = "httpbin") -> Path:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "all.yaml").write_text(text, "utf-8")
    return folder


def test_written_files_are_valid(tmp_path: Path) -> None:
    """From a folder of manifests to a valid scenario in one command."""
    output = run(str(shop(tmp_path)))
    scenario = tmp_path / "httpbin.yaml"
    assert find_problems(scenario) == ()
    application = load_scenario(str(scenario)).application
    assert (application.name, application.entry) == ("httpbin", "httpbin:8000")
    assert application.ready is not None
    assert application.ready.path == "/status/200"
    assert "found 1 Deployment, 1 Service, 1 ServiceAccount" in output
    assert f"wrote {tmp_path / 'load' / 'httpbin.py'}" in output
    assert f"next: meshbench validate {scenario} --target cluster" in output


@pytest.mark.parametrize("name", ["httpbin.yaml", "httpbin/application.yaml"])
def test_overwrites_nothing(tmp_path: Path, name: str) -> None:
    """Nothing is written where one of the files is there."""
    folder = shop(tmp_path)
    (tmp_path / name).write_text("# mine\n", "utf-8")
    with pytest.raises(InputError, match="exists already, and is not overwritten"):
        run(str(folder))
    assert (tmp_path / name).read_text("utf-8") == "# mine\n"
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == sorted(["all.yaml", Path(name).name])


def test_uses_the_locust_file_of_the_user(tmp_path: Path) -> None:
    """A given Locust file is named, and one that is there under the name of the written one stays."""
    folder = shop(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "users.py").write_text("# mine\n", "utf-8")
    run(str(folder), "--locustfile", str(tmp_path / "mine" / "users.py"))
    assert load_scenario(str(tmp_path / "httpbin.yaml")).load.locustfile == "mine/users.py"
    assert not (tmp_path / "load").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mesh", "isto"], "--mesh: 'isto' is not supported (supported: istio, kuma); did you mean istio?"),
        (["--locustfile", "/none.py"], "/none.py: no such file"),
    ],
)
def test_refuses_wrong_options(tmp_path: Path, arguments: list[str], message: str) -> None:
    """Before anything is written."""
    folder = shop(tmp_path)
    with pytest.raises(InputError) as caught:
        run(str(folder), *arguments)
    assert str(caught.value) == message
    assert [path.name for path in tmp_path.iterdir()] == ["httpbin"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("replicas: 3\n", "all.yaml:1: is not a Kubernetes object; kind, apiVersion and metadata are required"),
        ("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\n", "no Service has a port"),
        ("a: [\n", "all.yaml:2: not YAML"),
    ],
)
def test_folder_that_is_no_application_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """Values of a chart, an application without a Service, a file that is no YAML."""
    with pytest.raises(InputError) as caught:
        run(str(shop(tmp_path, text)))
    assert message in str(caught.value)


def test_names_policies_that_are_no_part_of_an_application(tmp_path: Path) -> None:
    """They belong to a configuration, and the line is named."""
    policy = "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a}\n"
    output = run(str(shop(tmp_path, HTTPBIN + policy)))
    line = (HTTPBIN + policy).splitlines().index("kind: PeerAuthentication") + 1
    assert f"not part of an application: PeerAuthentication in {tmp_path}/httpbin/all.yaml:{line}; move it" in output


def service(name: str, *ports: str, kind: str = "ClusterIP") -> str:
    listed = ", ".join(f"{{{port}}}" for port in ports)
    return (
        f"---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n"
        f"spec: {{type: {kind}, selector: {{app: {name}}}, ports: [{listed}]}}\n"
    )


def workload(name: str, env: str = "") -> str:
    return (
        f"---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  template:\n"
        f"    metadata: {{labels: {{app: {name}}}}}\n    spec:\n"
        f"      containers: [{{name: {name}, image: x, env: [{{name: A, value: '{env}'}}]}}]\n"
    )


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        (service("a", "port: 9090, name: metrics", "port: 7000, name: http"), ("a:7000", "a:9090")),
        (service("cart", "port: 80") + service("shop", "port: 80", kind="LoadBalancer"), ("shop:80", "cart:80")),
        (
            service("cart", "port: 80") + workload("cart") + service("shop", "port: 80") + workload("shop", "cart:80"),
            ("shop:80", "cart:80"),
        ),
        (service("cart", "port: 80") + service("frontend", "port: 80"), ("frontend:80", "cart:80")),
        (service("a", "port: 53, protocol: UDP", "port: 8080"), ("a:8080",)),
    ],
)
def test_proposes_where_users_enter(text: str, entries: tuple[str, ...]) -> None:
    """A Service reached from outside, one that no other workload calls, one whose name says so; a port for HTTP."""
    objects = [one for one in parse_documents(text, file="a.yaml") if one.value]
    assert inspect_objects(objects, ()).entries == entries


def test_namespaces_begin_with_that_of_the_entry() -> None:
    """Objects that name none are in the first."""
    text = service("cart", "port: 80").replace("name: cart}", "name: cart, namespace: back}", 1)
    text += service("web", "port: 80").replace("name: web}", "name: web, namespace: front}", 1)
    objects = [one for one in parse_documents(text, file="a.yaml") if one.value]
    assert inspect_objects(objects, ()).namespaces == ("front", "back")


@pytest.mark.parametrize(
    ("folder", "name"), [("My App_2", "my-app-2"), ("a" * 50, "a" * 40), ("--", "application"), ("é", "application")]
)
def test_makes_valid_names(folder: str, name: str) -> None:
    """Whatever a folder is called."""
    assert make_name(folder) == name


def test_every_mesh_can_be_compared(tmp_path: Path) -> None:
    """The choices are those of the registry."""
    for mesh in MESHES:
        (tmp_path / mesh).mkdir()
        run(str(shop(tmp_path / mesh)), "--mesh", mesh)
        assert [one.mesh for one in load_scenario(str(tmp_path / mesh / "httpbin.yaml")).configurations][-1] == mesh
