"""An application of one's own: in the scenario, in a file beside it, and in the folder of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from bench.errors import InputError
from bench.meshes.resolved import ResolvedScenario, resolve_scenario, resolve_stored
from bench.results.records import RunRecord
from bench.scenario.loader import NO_OVERRIDES
from bench.scenario.model import Scenario
from bench.scenario.overrides import Overrides
from tests.unit.test_definition import DEPLOYMENT

LOCUSTFILE: Final = "from locust import HttpUser\n"


def write_scenario(folder: Path, application: Any, files: Mapping[str, str] | None = None) -> str:
    """Write a scenario with this application, a Locust file, and these files beside it; return its path."""
    for name, text in {"get.py": LOCUSTFILE, **(files or {})}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    content: dict[str, Any] = {"name": "mine", "title": "Mine", "load": {"locustfile": "get"}}
    content |= {} if application is None else {"application": application}
    content |= {"configurations": [{"name": "baseline", "mesh": "none"}, {"name": "istio", "mesh": "istio"}]}
    (folder / "mine.yaml").write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
    return str(folder / "mine.yaml")


def resolve_mine(folder: Path, application: Any, files: Mapping[str, str] | None = None) -> ResolvedScenario:
    """Resolve a scenario with this application."""
    return resolve_scenario(write_scenario(folder, application, files), NO_OVERRIDES)


SHOP: Final = {"shop/web.yaml": DEPLOYMENT.format(name="web")}
DEFINITION: Final = "name: shop\nready: {path: /get, status: 201, contains: ok, timeout: 2min}\n"


@pytest.mark.parametrize(
    ("application", "files"),
    [
        (yaml.safe_load(DEFINITION), SHOP),
        ("application.yaml", {**SHOP, "application.yaml": DEFINITION}),
        (None, {**SHOP, "application.yaml": DEFINITION}),
        ({"name": "shop"}, {**SHOP, "application.yaml": DEFINITION}),
        ({"name": "shop"}, {**SHOP, "shop/application.yaml": DEFINITION}),
        ("shop/application.yaml", {**SHOP, "shop/application.yaml": DEFINITION}),
    ],
)
def test_reads_application_from_scenario_or_file(tmp_path: Path, application: Any, files: Mapping[str, str]) -> None:
    """The same keys in the scenario, in a file that it names, or in one beside it or its manifests."""
    resolved = resolve_mine(tmp_path, application, files)
    definition = resolved.application.definition
    assert (definition.name, definition.entry, definition.folder) == ("shop", "web:8080", tmp_path / "shop")
    assert (definition.ready.path, definition.ready.status, definition.ready.contains) == ("/get", 201, "ok")
    assert definition.ready.timeout_s == 120
    assert [one.name for one in resolved.application.workloads] == ["web"]
    assert resolved.name_namespaces("7f3a", "baseline", existing_mesh=False).home == "shop-7f3a"


def test_keys_of_the_scenario_win_over_those_of_the_file(tmp_path: Path) -> None:
    """A scenario can change a key of the file beside it, and so can the command line."""
    application = {"name": "shop", "ready": {"path": "/other"}}
    path = write_scenario(tmp_path, application, {**SHOP, "application.yaml": DEFINITION})
    assert resolve_scenario(path, NO_OVERRIDES).application.definition.ready.path == "/other"
    changed = resolve_scenario(path, Overrides(sets=("application.ready.path=/third",)))
    assert changed.application.definition.ready.path == "/third"


def test_shipped_application_takes_another_namespace(tmp_path: Path) -> None:
    """Policies of a tutorial that name `default` need no change: the namespace is a key."""
    resolved = resolve_mine(tmp_path, {"name": "bookinfo", "namespaces": ["default"]})
    assert resolved.application.namespace == "default"
    assert resolved.application.definition.local is not None


def test_run_keeps_the_application(tmp_path: Path) -> None:
    """Resume and report use the manifests and the keys that the run's folder has, whatever became of the files."""
    files = {**SHOP, "application.yaml": DEFINITION}
    resolved = resolve_mine(tmp_path / "mine", "application.yaml", files)
    run = tmp_path / "run"
    run.mkdir()
    resolved.inputs.copy_to(run)
    stored = Scenario.model_validate_json(resolved.scenario.model_dump_json())
    (tmp_path / "mine").rename(tmp_path / "elsewhere")
    again = resolve_stored(stored, run)
    assert stored == resolved.scenario
    assert again.application.definition.folder == run / "application"
    assert again.application.workloads == resolved.application.workloads
    assert again.application.definition.entry == "web:8080"
    assert "scenario" in RunRecord.model_fields


@pytest.mark.parametrize(
    ("application", "files", "message"),
    [
        ({"name": "shopp"}, SHOP, "mine.yaml:5: application.manifests: 'shopp' is neither a folder of manifests"),
        ("other.yaml", SHOP, "mine.yaml:5: application: there is no file other.yaml beside the scenario"),
        ("../other.yaml", SHOP, "mine.yaml:5: application: '../other.yaml' is not allowed"),
        ({"name": "shop", "redy": {}}, SHOP, "mine.yaml:7: application.redy: unknown key 'redy'; did you mean ready?"),
        ({"name": "shop", "entry": "web:80"}, SHOP, "mine.yaml:7: application.entry: no Service web:80; did you mean"),
        (
            {"name": "shop", "entry": "web:8080"},
            {"shop/web.yaml": SHOP["shop/web.yaml"].replace("selector: {app: web}", "selector: {app: wbe}")},
            "mine.yaml:7: application.entry: the Service web selects no pods: no workload has the labels app=wbe",
        ),
        ({"name": "shop", "entry": "web"}, SHOP, "mine.yaml:7: application.entry: 'web' is not SERVICE:PORT"),
        ({"name": "shop", "versions": {"web": "v1"}}, SHOP, "mine.yaml:7: application.versions: are of applications"),
        ({"name": "shop", "images": {"api": "x"}}, SHOP, "mine.yaml:8: application.images.api: 'api' has no image"),
        ({"name": "bookinfo", "manifests": "shop"}, SHOP, "mine.yaml:7: application.manifests: the name bookinfo is"),
        ("a.yaml", {**SHOP, "a.yaml": "name: shop\nentri: a\n"}, "a.yaml:2: entri: unknown key 'entri'; did you mean"),
        ("a.yaml", {**SHOP, "a.yaml": "name: shop\nlocal: {module: x}\n"}, "a.yaml:2: local: unknown key 'local'"),
        (
            {"name": "shop"},
            {**SHOP, "shop/api.yaml": DEPLOYMENT.format(name="api")},
            "mine.yaml:5: application.entry: is missing; name where the load enters: api:8080, web:8080",
        ),
    ],
)
def test_reports_wrong_application_with_its_line(
    tmp_path: Path, application: Any, files: Mapping[str, str], message: str
) -> None:
    """Each wrong key is reported where it was written."""
    with pytest.raises(InputError) as raised:
        resolve_mine(tmp_path, application, files)
    assert message in str(raised.value)


def test_locust_file_has_the_name_of_the_application(tmp_path: Path) -> None:
    """A scenario that names none means the one of its application's name, not that of Bookinfo."""
    path = write_scenario(tmp_path, {"name": "shop"}, {**SHOP, "shop.py": LOCUSTFILE})
    text = Path(path).read_text("utf-8")
    Path(path).write_text(text.replace("load:\n  locustfile: get\n", ""), "utf-8")
    assert resolve_scenario(path, NO_OVERRIDES).scenario.load.locustfile == "shop"
    (tmp_path / "shop.py").unlink()
    with pytest.raises(InputError, match=r"no shop.py in the scenario's folder"):
        resolve_scenario(path, NO_OVERRIDES)


def test_report_lists_what_is_not_applied(tmp_path: Path) -> None:
    """The run's record has a remark for each object that is left out."""
    text = f"{SHOP['shop/web.yaml']}---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: shop}}\n"
    (issue,) = resolve_mine(tmp_path, {"name": "shop"}, {"shop/web.yaml": text}).remarks
    assert issue.code == "left-out"
    assert "Namespace shop is not applied" in issue.detail


POLICY: Final = (
    "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: NAME, namespace: default}\n"
)


def test_policies_of_another_namespace_are_one_problem(tmp_path: Path) -> None:
    """Tutorials write `namespace: default`: all of them are one problem, whose hint makes them work."""
    allowed = "spec: {rules: [{to: [{operation: {methods: [GET]}}]}]}\n"
    files = {"p/a.yaml": "---\n".join(POLICY.replace("NAME", name) + allowed for name in ("a", "b", "c"))}
    path = write_scenario(tmp_path, None, files)
    text = Path(path).read_text("utf-8").replace("mesh: istio", "mesh: istio\n  manifests: [p]")
    Path(path).write_text(text.replace("load:\n  locustfile: get\n", ""), "utf-8")
    with pytest.raises(InputError) as raised:
        resolve_scenario(path, NO_OVERRIDES)
    (problem,) = raised.value.problems
    assert "no workload runs in 'default'; known: bookinfo, istio-system; 2 more objects there, too" in str(problem)
    assert str(problem).endswith("--set application.namespaces=default")
    resolved = resolve_scenario(path, Overrides(sets=("application.namespaces=default",)))
    assert resolved.application.namespace == "default"


def test_policies_are_those_of_each_namespace(tmp_path: Path) -> None:
    """An application in two namespaces gets two in a run; policies and identities are moved with each."""
    spaces = {
        name: DEPLOYMENT.format(name=name).replace("metadata: {name", f"metadata: {{namespace: {space}, name")
        for name, space in (("web", "shop"), ("store", "db"))
    }
    policy = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: db}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: store, namespace: db}
spec:
  rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}], to: [{operation: {methods: [GET]}}]}]
"""
    files = {"shop/all.yaml": "".join(spaces.values()), "p/a.yaml": policy}
    path = write_scenario(tmp_path, {"name": "shop", "entry": "web:8080"}, files)
    text = Path(path).read_text("utf-8").replace("mesh: istio", "mesh: istio\n  manifests: [p]")
    Path(path).write_text(text, "utf-8")
    resolved = resolve_scenario(path, NO_OVERRIDES)
    written = resolved.configuration("istio")
    assert written.application.spaces == ("shop", "db")
    assert {one.name: written.mode(one) for one in written.application.workloads} == {
        "web": "PERMISSIVE",
        "store": "STRICT",
    }
    running = written.in_namespaces(resolved.name_namespaces("7f3a", "istio", existing_mesh=False))
    assert running.deployed.spaces == ("shop-7f3a", "db-7f3a")
    assert {one.value["metadata"]["namespace"] for one in running.moved} == {"db-7f3a"}
    assert running.ids["web"] == "spiffe://cluster.local/ns/shop-7f3a/sa/web"
    assert running.ids["store"] == "spiffe://cluster.local/ns/db-7f3a/sa/store"
    (allowed,) = (one.value for one in running.moved if one.value["kind"] == "AuthorizationPolicy")
    assert allowed["spec"]["rules"][0]["from"][0]["source"]["principals"] == ["cluster.local/ns/shop-7f3a/sa/web"]
    assert {(one.workload, one.caller, one.status) for one in running.probes} >= {("store", None, 0)}


def test_ready_of_a_scenario_completes_that_of_a_shipped_application(tmp_path: Path) -> None:
    """What a file does not give, such as the check of answers, is the application's; its request is what users send."""
    application = resolve_mine(tmp_path, {"name": "bookinfo", "ready": {"path": "/other"}}).application
    assert (application.definition.ready.path, application.definition.ready.check) == ("/other", "bookinfo.pages")
    assert application.path_of(application.entry) == "/other"
