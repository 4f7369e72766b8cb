"""What an application is, as its application.yaml says."""

from pathlib import Path
from typing import Final

import pytest

from bench.application import definition
from bench.application.bookinfo.http import productpage_headers
from bench.application.bookinfo.login import COOKIE
from bench.application.bookinfo.settings import VERSIONS
from bench.application.definition import ApplicationDefinition, find_application, read_definition
from bench.application.model import Application, Gateway, Hop, PathRoute, read_application
from bench.application.objects import list_apps
from bench.errors import InputError
from bench.files.folders import list_manifest_files, list_unread_files
from tests.applications import BOOKINFO, read_bookinfo

MINIMAL: Final = "name: shop\nentry: web:8080\n"
DEPLOYMENT: Final = """\
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {name}}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{selector: {{app: {name}}}, ports: [{{port: 8080}}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}, version: v1}}}}
    spec:
      serviceAccountName: {name}
      containers: [{{name: {name}, image: x/y, ports: [{{containerPort: 8080}}]}}]
"""


def write_application(folder: Path, text: str, *services: str) -> ApplicationDefinition:
    """Write a definition and the manifests of its services, and read it."""
    (folder / "services.yaml").write_text("".join(DEPLOYMENT.format(name=name) for name in services), "utf-8")
    (folder / "application.yaml").write_text(text, "utf-8")
    return read_definition(folder / "application.yaml")


def test_shipped_application_is_defined_by_its_file() -> None:
    """Bookinfo's file names its entry, its calls and its versions."""
    assert find_application("bookinfo") is BOOKINFO
    assert (BOOKINFO.entry_service, BOOKINFO.services) == (
        "productpage",
        ("productpage", "details", "reviews", "ratings"),
    )
    assert BOOKINFO.check_answer(b"", {"reviews": "v3"}) == "page shows no book details"


def test_shipped_definition_agrees_with_its_services() -> None:
    """The versions, the cookie and the header of the file are those of the services' own code."""
    assert BOOKINFO.versions["reviews"].choices == VERSIONS["reviews"]
    assert BOOKINFO.login is not None
    assert BOOKINFO.login.cookie == COOKIE
    assert BOOKINFO.login.header in productpage_headers({}, "Marco")
    assert set(BOOKINFO.services) == set(VERSIONS) == set(list_apps(BOOKINFO))


def test_refuses_unknown_application() -> None:
    """The message has the known names."""
    with pytest.raises(InputError, match="unknown application 'bookinfos'; did you mean bookinfo"):
        find_application("bookinfos")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("entry: web:8080\nname:\n", "2: name: must be text, not nothing"),
        (MINIMAL + "redy: {}\n", "3: redy: unknown key 'redy'; did you mean ready?"),
        ("name: shop\nentry: web\n", "2: entry: 'web' is not SERVICE:PORT"),
        (MINIMAL + "ready: {path: x}\n", "3: ready.path: 'x' is not a path; it starts with /"),
        (
            MINIMAL + "ready: {check: ../x}\n",
            "3: ready.check: '../x' is not the name of a module below bench.application",
        ),
        (
            MINIMAL + "versions:\n  api: {choices: [v1], default: v2}\n",
            "4: versions.api: v2 is not among the choices: v1",
        ),
        (MINIMAL + "calls: {web: [api], api: [web]}\n", "1: calls: web -> api -> web is a circle; leave `calls` out"),
        (MINIMAL + "endpoints: {web: {/x: 200}}\n", "3: endpoints.web./x: '/x' is not a request; write METHOD /PATH"),
        (MINIMAL + "ready: {check: shop.pages}\n", "3: ready.check: no module shop.pages below bench.application"),
        (MINIMAL + "local: {module: shop}\n", "3: local.module: no module shop below bench.application"),
        (MINIMAL + "file: /etc/passwd\n", "3: file: unknown key 'file'"),
        ("", "must contain one YAML document"),
    ],
)
def test_reports_errors_with_their_line(text: str, message: str, tmp_path: Path) -> None:
    """A wrong definition is reported as any other file."""
    with pytest.raises(InputError) as raised:
        write_application(tmp_path, text, "web")
    assert message in str(raised.value)


def test_scenarios_mean_the_default_application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An application that is added, whatever its name, is not the one of scenarios that name none."""
    for name, more in (("aaa", ""), ("shop", "default: true\n")):
        (tmp_path / name).mkdir()
        write_application(tmp_path / name, f"name: {name}\nentry: web:8080\n{more}", "web")
    monkeypatch.setattr(definition, "find_shipped", lambda _: tmp_path)
    assert definition.list_shipped_applications() == ("shop", "aaa")


def test_refuses_definition_with_the_name_of_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenarios name the folder, and namespaces of a run the application: both have one name."""
    (tmp_path / "store").mkdir()
    write_application(tmp_path / "store", MINIMAL, "web")
    monkeypatch.setattr(definition, "find_shipped", lambda _: tmp_path)
    with pytest.raises(InputError, match="name: must be 'store', the name of its folder"):
        find_application("store")


def test_refuses_entry_that_is_no_service(tmp_path: Path) -> None:
    """The load would reach nothing at another port."""
    defined = write_application(tmp_path, "name: shop\nentry: web:80\n", "web")
    with pytest.raises(InputError, match="entry: no Service web:80; did you mean web:8080"):
        read_application(defined)


def test_enters_the_only_service(tmp_path: Path) -> None:
    """The entry of an application with one port of one Service need not be named."""
    application = read_application(write_application(tmp_path, "name: shop\n", "web"))
    assert (application.definition.entry, application.hops) == ("web:8080", (Hop("locust", "web"),))


def test_lists_the_services_that_could_be_the_entry(tmp_path: Path) -> None:
    """Which of several is meant, is not guessed."""
    defined = write_application(tmp_path, "name: shop\n", "web", "api")
    with pytest.raises(InputError, match="entry: is missing; name where the load enters: web:8080, api:8080"):
        read_application(defined)


def test_definition_is_no_manifest(tmp_path: Path) -> None:
    """It is neither applied nor refused as a file that is not applied; a manifest of the same name is applied."""
    write_application(tmp_path, MINIMAL, "web")
    assert [path.name for path in list_manifest_files(tmp_path)] == ["services.yaml"]
    assert list_unread_files(tmp_path) == []
    (tmp_path / "application.yaml").write_text("kind: Service\n", "utf-8")
    assert [path.name for path in list_manifest_files(tmp_path)] == ["application.yaml", "services.yaml"]


def test_application_with_unknown_calls_has_those_of_its_load(tmp_path: Path) -> None:
    """Who calls whom need not be known: only the entry's requests are; other services are asked for their root."""
    application = read_application(write_application(tmp_path, MINIMAL, "web", "api"))
    assert (application.namespace, application.knows_calls) == ("default", False)
    assert application.hops == (Hop("locust", "web"),)
    assert application.count_calls([({}, 5)], logins=0) == {Hop("locust", "web"): 5}
    assert [application.path_of(app) for app in ("web", "api")] == ["/", "/"]
    assert (application.versioned, application.versions, application.user_header) == ((), {}, "")


def test_valid_answer_contains_a_text(tmp_path: Path) -> None:
    """Without a module that checks more, a status and a text are all that is known of an answer."""
    defined = write_application(
        tmp_path, MINIMAL + "ready: {path: /a, status: 201, contains: ok, timeout: 2min}\n", "web"
    )
    assert (defined.ready.status, defined.ready.timeout_s) == (201, 120.0)
    assert defined.check_answer(b"all ok", {}) is None
    assert defined.check_answer(b"", {}) == "answer does not contain 'ok'"


def test_counts_calls_along_the_call_graph(tmp_path: Path) -> None:
    """A service that two others call gets the requests of both."""
    text = MINIMAL + "calls: {web: [api, cart], cart: [api]}\n"
    application = read_application(write_application(tmp_path, text, "web", "api", "cart"))
    assert {str(hop): count for hop, count in application.count_calls([({}, 5)], logins=2).items()} == {
        "locust -> web": 7,
        "web -> api": 5,
        "web -> cart": 5,
        "cart -> api": 5,
    }


def gateway_to(application: Application, *paths: str) -> Gateway:
    """Make a gateway with routes of these paths."""
    service = application.service(application.entry)
    return Gateway(service, tuple(PathRoute("exact", path, service) for path in paths))


@pytest.mark.parametrize(
    ("paths", "first"),
    [(("/login", "/health"), "POST /login"), (("/other",), "GET /productpage"), ((), "GET /productpage")],
)
def test_gateway_is_asked_for_routed_requests_of_the_entry(paths: tuple[str, ...], first: str) -> None:
    """Of the entry's requests those that have a route; all of them where none has."""
    application = read_bookinfo()
    known = application.entered_by(gateway_to(application, *paths)).requests_of("gateway")
    assert f"{known[0].method} {known[0].path}" == first
