"""A Locust file is loaded once, in a real Locust, before anything starts: each problem has its file and line."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from bench.errors import InputError
from bench.files.locust_folder import find_locust_folder
from bench.load import locustfile_check
from bench.load.generator import LoadSpec
from bench.load.locustfile_check import Inspection, check_locustfile, inspect_locustfile
from bench.meshes.resolved import resolve_file
from bench.scenario.load_settings import EnvironmentValue
from tests import command
from tests.load_pods import make_load_spec

HEAD = "from locust import HttpUser, LoadTestShape, User, between, events, tag, task\n\n"
BUYER = """
class Buyer(HttpUser):
    wait_time = between(1, 2)

    @task
    def page(self):
        self.client.get("/productpage")
"""
OPTIONS = """
@events.init_command_line_parser.add_listener
def options(parser):
    parser.add_argument("--region", required=True)
    parser.add_argument("--pages", type=int, default=1)
    parser.add_argument("--think-time", type=float)
"""


def spec_of(folder: Path, text: str, files: Mapping[str, str] | None = None, **settings: Any) -> LoadSpec:
    """Return the load of a Locust file with this text, and of files beside it."""
    for name, content in {"mine.py": text, **(files or {})}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content, "utf-8")
    locust = find_locust_folder(folder / "mine.py")
    return replace(make_load_spec(), locustfile=locust.locustfile, helpers=locust.helpers, **settings)


def places(found: Inspection) -> list[tuple[str, int, str]]:
    return [(one.file or one.key, one.line, one.message) for one in found.findings]


def test_reports_users_and_options(tmp_path: Path) -> None:
    """Helpers and data are found as in a run, from the folder and in subfolders, with the scenario's variables."""
    text = HEAD + "import os\nfrom pathlib import Path\nimport shop.names\n" + OPTIONS + BUYER
    text += "\nassert Path('names.csv').read_text() == shop.names.NAMES\nassert os.environ['TOWN'] == 'Graz'\n"
    files = {"names.csv": "jane", "shop/__init__.py": "", "shop/names.py": "NAMES = 'jane'\n"}
    spec = spec_of(tmp_path, text, files, options={"region": "-eu"}, env={"TOWN": EnvironmentValue(value="Graz")})
    assert inspect_locustfile(spec) == Inspection((), ("Buyer",), ("pages", "region", "think-time"))
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "__init__.py",
        "mine.py",
        "names.csv",
        "names.py",
        "shop",
    ]


@pytest.mark.parametrize(
    ("text", "file", "line", "message"),
    [
        ("def broken(:\n", "mine.py", 1, "SyntaxError: "),
        ("import helper\n", "helper.py", 2, "ZeroDivisionError: division by zero"),
        ("import nowhere\n", "mine.py", 1, "ModuleNotFoundError: No module named 'nowhere'"),
        ("import sys\n\nsys.exit('not today')\n", "mine.py", 3, "SystemExit: not today"),
        ("import os\n\nos._exit(3)\n", "load.locustfile", 0, "ends Locust while it is loaded"),
        ("x = 1\n", "load.locustfile", 0, "has no user class: a class that inherits from HttpUser"),
        (
            HEAD + BUYER + "\nclass Steps(LoadTestShape):\n    def tick(self):\n        return None\n",
            "mine.py",
            11,
            "Steps is a LoadTestShape, which would change the number of users during the window",
        ),
        (HEAD + "class Idle(HttpUser):\n    pass\n", "mine.py", 3, "Idle has no tasks"),
        (HEAD + OPTIONS.replace("--pages", "--host") + BUYER, "mine.py", 7, "ArgumentError: argument --host: conflict"),
        (HEAD + OPTIONS + BUYER, "load.locustfile", 0, "Locust refuses its command line: the following arguments"),
    ],
)
def test_problem_has_file_and_line(tmp_path: Path, text: str, file: str, line: int, message: str) -> None:
    """Whatever is wrong is one message, with the innermost line of the user's own files."""
    (found,) = places(inspect_locustfile(spec_of(tmp_path, text, {"helper.py": "# helps\n1 / 0\n"})))
    assert found[:2] == (file, line)
    assert found[2].startswith(message)


@pytest.mark.parametrize("waiting", ["import time\ntime.sleep(600)\n", "import time\nwhile True: pass\n"])
def test_file_that_hangs_is_reported_with_its_line(tmp_path: Path, waiting: str) -> None:
    """Neither a sleep, which Locust turns into a switch to its own loop, nor a busy loop is waited for."""
    ((file, line, message),) = places(inspect_locustfile(spec_of(tmp_path, waiting), limit_s=2.0))
    assert (file, line) == ("mine.py", 2)
    assert message.startswith("does not finish loading within 2 s")


def test_what_the_file_starts_is_ended(tmp_path: Path) -> None:
    """A tool in a session of its own would go on, beside every measurement."""
    leaving = "import subprocess\nfrom pathlib import Path\n"
    leaving += "child = subprocess.Popen(['sleep', '300'], start_new_session=True)\n"
    leaving += f"Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid))\n"
    assert inspect_locustfile(spec_of(tmp_path, HEAD + leaving + BUYER)).users == ("Buyer",)
    pid = int((tmp_path / "pid").read_text())
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    ("settings", "key", "message"),
    [
        (
            {"options": {"region": "eu", "page": 2}},
            "load.options.page",
            "is no option of the Locust file, which declares",
        ),
        (
            {"options": {"region": "eu", "users": 2}},
            "load.options.users",
            "is an option of Locust itself; use the keys",
        ),
        (
            {"options": {"region": "eu", "pages": "x"}},
            "load.options.pages",
            "Locust refuses its command line: argument",
        ),
        ({"tags": ("fast",)}, "load.tags", "no task is left of Buyer"),
        ({"env": {"LOCUST_USERS": EnvironmentValue(value="9")}}, "load.env.LOCUST_USERS", "is read by Locust itself"),
    ],
)
def test_problem_of_a_setting_has_its_key(tmp_path: Path, settings: dict[str, Any], key: str, message: str) -> None:
    """What the scenario gives has to be what the Locust file takes."""
    spec = spec_of(tmp_path, HEAD + OPTIONS + BUYER, **{"options": {"region": "eu"}, **settings})
    ((found, _, text),) = places(inspect_locustfile(spec))
    assert (found, text[: len(message)]) == (key, message)


def test_same_content_is_loaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pre-flight after `validate` costs nothing; another helper is another content."""
    spec = spec_of(tmp_path, HEAD + BUYER, {"helper.py": ""})
    first = inspect_locustfile(spec)
    monkeypatch.setattr(locustfile_check, "run_limited", None)
    assert inspect_locustfile(spec) == first
    (tmp_path / "helper.py").write_text("x = 1\n")
    with pytest.raises(TypeError):
        inspect_locustfile(spec)


def scenario(folder: Path, text: str, **load: Any) -> Path:
    (folder / "mine.py").write_text(text, "utf-8")
    content = {
        "name": "mine",
        "title": "Mine",
        "load": {"locustfile": "mine", **load},
        "reference": None,
        "configurations": [{"name": "baseline", "mesh": "none"}],
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
    return folder / "mine.yaml"


def test_missing_variable_and_module_have_a_hint(tmp_path: Path) -> None:
    """A pod has none of this machine's variables, so that a run on a cluster finds what it lacks before it starts."""
    path = scenario(tmp_path, HEAD + "import os\nTOKEN = os.environ['USER_OF_THE_SHOP']\n" + BUYER)
    with pytest.raises(InputError) as failure:
        check_locustfile(resolve_file(path), on_cluster=True)
    hint = "; hint: give it in load.env: {USER_OF_THE_SHOP: {env: USER_OF_THE_SHOP}}"
    assert str(failure.value) == f"{tmp_path}/mine.py:4: KeyError: 'USER_OF_THE_SHOP'{hint}"
    path = scenario(tmp_path, HEAD + "import nowhere.deep\n" + BUYER)
    with pytest.raises(InputError, match=r"mine\.py:3: .* hint: put it beside .* -m pip install nowhere$"):
        check_locustfile(resolve_file(path))
    found = check_locustfile(resolve_file(path), own_image=True)  # which may have the package
    assert found is not None
    assert [one.missing_module for one in found.findings] == ["nowhere"]


def test_shipped_file_without_settings_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is meshbench's own; an option that it does not declare is still found."""
    monkeypatch.setattr(locustfile_check, "run_limited", None)
    assert check_locustfile(resolve_file(command.ROOT / "scenarios" / "smoke.yaml")) is None


def test_validate_and_run_report_it(tmp_path: Path) -> None:
    """`validate` ends with exit code 2 and the message, and so does `run`, before it creates anything."""
    path = scenario(tmp_path, HEAD + BUYER, options={"region": "eu"})
    checked = command.call("validate", path, output=tmp_path / "results")
    assert checked.code == 2, checked.output
    assert "mine.yaml:6: load.options.region: is no option of the Locust file, which declares no options" in checked.err
    started = command.call("run", "--scenario", path, "--output", tmp_path / "results", output=tmp_path / "results")
    assert started.code == 2, started.output
    assert "load.options.region: is no option of the Locust file" in started.err
    assert not (tmp_path / "results").exists()
    path = scenario(tmp_path, HEAD + BUYER)
    checked = command.call("validate", path, output=tmp_path / "results")
    assert checked.code == 0, checked.output
    assert "user classes: Buyer" in checked.out
