"""Scenarios as users write them: valid ones, and every error, reported once with its place."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bench.errors import InputError
from bench.files.folders import find_shipped
from bench.meshes.resolved import find_problems
from bench.scenario.loader import find_scenario, list_shipped_scenarios, load_scenario
from bench.scenario.model import Load, Scenario
from bench.scenario.overrides import Overrides
from bench.scenario.types import find_locustfile, find_manifests
from tests.validating import validate_file

GOOD = """\
schema_version: 1
name: mine
title: A question
application: {name: bookinfo, reviews: v3}
load: {users: 20, think_time: 100ms, warmup: 30s, duration: 120s, locustfile: browse}
repeats: 3
reference: baseline
margin: 10%
configurations:
  - {name: baseline, mesh: none}
  - {name: istio, mesh: istio, manifests: [policies/strict]}
"""

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a scenario file next to a Locust file and a folder of manifests."""
    (tmp_path / "browse.py").write_text("")
    (tmp_path / "policies" / "strict").mkdir(parents=True)
    (tmp_path / "policies" / "strict" / "mtls.yaml").write_text("kind: PeerAuthentication\n")

    def scenario(text: str) -> Path:
        path = tmp_path / "mine.yaml"
        path.write_text(text, "utf-8")
        return path

    return scenario


def messages(path: Path) -> list[str]:
    """What `validate` reports about a file, without the folder of the test."""
    return [str(problem).replace(f"{path.parent}/", "") for problem in validate_file(path)]


def refused(path: Path | str, overrides: Overrides) -> list[str]:
    """The error of loading a scenario with overrides."""
    with pytest.raises(InputError) as raised:
        load_scenario(str(path), overrides)
    return str(raised.value).splitlines()


def test_quantities_have_base_units(write: Write) -> None:
    """Quantities are seconds and shares inside the program, whatever unit the file has."""
    scenario = load_scenario(str(write(GOOD.replace("120s", "2min"))))
    assert scenario.load == Load(users=20, think_time_s=0.1, warmup_s=30.0, duration_s=120.0, locustfile="browse")
    assert scenario.margin == pytest.approx(0.1)
    assert scenario.configuration("istio").manifests == ("policies/strict",)
    assert not scenario.quick


def test_only_name_title_and_configurations_are_required(write: Write) -> None:
    """Everything else has a default: Bookinfo, 20 users, three repeats, no comparison."""
    scenario = load_scenario(str(write("name: a\ntitle: b\nconfigurations: [{name: c, mesh: none}]\n")))
    assert (scenario.load, scenario.repeats, scenario.reference) == (Load(), 3, None)


def test_scenario_is_frozen(write: Write) -> None:
    """A validated scenario cannot change."""
    with pytest.raises(ValidationError, match="frozen"):
        load_scenario(str(write(GOOD))).repeats = 4  # type: ignore[misc]  # what the test is about


def test_stored_scenario_equals_the_loaded_one(write: Write) -> None:
    """A dump of a scenario, with Python's names and bare floats, is read as the same scenario."""
    scenario = load_scenario(str(write(GOOD.replace("think_time: 100ms", "rate: 50/s"))))
    dump = scenario.model_dump(mode="json")
    assert dump["load"]["rate_per_s"] == 50.0
    assert Scenario.model_validate(dump) == scenario
    assert Scenario.model_validate_json(json.dumps(dump)) == scenario


def test_stored_scenario_outlives_what_ships(write: Write) -> None:
    """A run can be read whose application, or the version of whose service, has gone since; a file cannot name it."""
    stored = load_scenario(str(write(GOOD))).model_dump(mode="json")
    for application in (
        {"name": "gone", "versions": {"api": "v9"}, "images": {"api": "x/y"}},
        {"name": "bookinfo", "versions": {"reviews": "v9"}, "images": {}},
    ):
        read = Scenario.model_validate({**stored, "application": application})
        assert read.application.model_dump(exclude_none=True) == application


def test_configuration_changes_only_its_own_keys(write: Write) -> None:
    """A configuration's load is the scenario's, with its own users, rate or think time."""
    text = GOOD.replace("{name: baseline, mesh: none}", "{name: baseline, mesh: none, load: {users: 7}}")
    scenario = load_scenario(str(write(text)))
    assert scenario.load_of("baseline") == scenario.load.model_copy(update={"users": 7})
    assert scenario.load_of("istio") == scenario.load


@pytest.mark.parametrize("name", ["absent.yaml", "folder/absent.yaml"])
def test_missing_file_is_one_line(tmp_path: Path, name: str) -> None:
    """Case 1: the line has the path."""
    assert refused(tmp_path / name, Overrides()) == [f"{tmp_path / name}: no such file"]


def test_folder_is_one_line(tmp_path: Path) -> None:
    """Case 1: a directory instead of a file."""
    assert refused(tmp_path, Overrides()) == [f"{tmp_path}: is a directory"]


def test_syntax_error_has_line_and_column(write: Write) -> None:
    """Case 2: the error is where the text stops being YAML."""
    (message,) = messages(write("name: mine\ntitle: [a, b\n"))
    assert message.startswith("mine.yaml:3: not YAML, at column 1: ")


def test_reports_all_errors_at_once(write: Write) -> None:
    """Case 3: one pass reports every error, each with its line and a suggestion."""
    text = (
        GOOD.replace("users: 20", "usres: 20")
        .replace("repeats: 3", "repaets: 3")
        .replace("reviews: v3", "reviews: V3")
        .replace("reference: baseline", "reference: basline")
        .replace("mesh: istio,", "mesh: itsio,")
    )
    path = write(text)
    assert [str(problem).replace(f"{path.parent}/", "") for problem in find_problems(path)] == [
        "mine.yaml:4: application.versions.reviews: 'V3' is not supported (supported: v1, v2, v3); did you mean v3?",
        "mine.yaml:5: load.usres: unknown key 'usres'; did you mean users?",
        "mine.yaml:7: reference: basline is not a configuration (configurations: baseline, istio)",
        "mine.yaml:6: repaets: unknown key 'repaets'; did you mean repeats?",
        "mine.yaml:11: configurations[1].mesh: unknown mesh 'itsio'; did you mean istio? (meshes: none, istio, kuma)",
    ]


def test_python_names_are_no_keys(write: Write) -> None:
    """In a file a quantity has its unit in the value, never in the key."""
    (message,) = messages(write(GOOD.replace("think_time: 100ms", "think_time_s: 0.1")))
    assert message == "mine.yaml:5: load.think_time_s: unknown key 'think_time_s'; did you mean think_time?"


def test_reports_missing_keys(write: Write) -> None:
    """A required key that is missing is reported with its path."""
    assert messages(write("schema_version: 1\nconfigurations: [{mesh: none}]\n")) == [
        "mine.yaml:1: name: is missing",
        "mine.yaml:1: title: is missing",
        "mine.yaml:2: configurations[0].name: is missing",
    ]


def test_duplicate_key_has_both_lines(write: Write) -> None:
    """Case 4: a repeated key is reported with both lines."""
    (message,) = messages(write(GOOD + "repeats: 5\n"))
    assert message == "mine.yaml:12: repeats: duplicate key, first on line 6"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: !!python/object/apply:os.mkdir ['{folder}/made']\n", "the tag tag:yaml.org,2002:python"),
        ("name: &a mine\ntitle: *a\n", "the anchor &a"),
        ("name: mine\n---\nname: other\n", "contains 2 YAML documents"),
        ("", "contains nothing"),
        ("# only a comment\n", "contains nothing"),
        ("- a\n- list\n", "must be a mapping of keys to values, not a list"),
        ("just text\n", "must be a mapping of keys to values, not 'just text'"),
    ],
)
def test_refuses_anything_but_one_plain_mapping(write: Write, text: str, expected: str) -> None:
    """Case 6: tags, anchors, several documents and other shapes; nothing in them is executed."""
    path = write(text)
    path.write_text(text.replace("{folder}", str(path.parent)))
    (message,) = messages(path)
    assert expected in message
    assert not (path.parent / "made").exists()


@pytest.mark.parametrize("users", ["0", "-3", "1.5", "20.0", "1000000000", "true", '"20"', "1e3", "no", "null", "[]"])
def test_users_are_a_bounded_integer(write: Write, users: str) -> None:
    """Case 7: zero, negative, fractional, huge and mistyped users are refused with the valid range."""
    (message,) = messages(write(GOOD.replace("users: 20", f"users: {users}")))
    assert message.startswith("mine.yaml:5: load.users: must be ")


@pytest.mark.parametrize(
    "duration",
    [
        "-5s",
        "0s",
        "0.5s",
        "25h",
        ".5s",
        "nan",
        "2 minits",
        "5",
        "1.5",
        "no",
        "[1s]",
        "9" * 500 + "s",
    ],
)
def test_durations_need_a_unit_and_have_bounds(write: Write, duration: str) -> None:
    """Case 8: a duration out of bounds or without a unit is refused with the bounds."""
    (message,) = messages(write(GOOD.replace("120s", duration)))
    assert message.startswith("mine.yaml:5: load.duration: ")
    assert message.split(": ", 2)[2].count("duration, 1s to 24h") == 1
    assert len(message) < 200


def test_refuses_window_shorter_than_warmup(write: Write) -> None:
    """Case 8: also where either is a default."""
    (given,) = messages(write(GOOD.replace("120s", "20s")))
    (default,) = messages(write(GOOD.replace(", warmup: 30s, duration: 120s", ", warmup: 5min")))
    assert given.startswith("mine.yaml:5: load.duration: the window (20s) is shorter than the warm-up (30s)")
    assert default.startswith("mine.yaml:5: load: the window (2min) is shorter than the warm-up (5min)")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("margin: 10%", "margin: 10", "must be text with a unit (percentage, 0.1% to 100%), not 10"),
        ("margin: 10%", "margin: 0%", "'0%' is out of bounds (percentage, 0.1% to 100%)"),
        ("think_time: 100ms", "rate: 50", "must be text with a unit (rate, 1/min to 10000/s), not 50"),
        ("think_time: 100ms", "rate: 0/s", "'0/s' is out of bounds (rate, 1/min to 10000/s)"),
        ("think_time: 100ms", "think_time: 2h", "'2h' is out of bounds (duration, 0s to 1h)"),
        ("repeats: 3", "repeats: 0", "must be at least 1, not 0"),
        ("repeats: 3", "repeats: 101", "must be at most 100, not 101"),
        ("repeats: 3", "seed: -1", "must be at least 0, not -1"),
        ("repeats: 3", "quick: 1", "must be true or false, not 1"),
        ("schema_version: 1", "schema_version: 2", "this meshbench reads version 1, not 2"),
        ("schema_version: 1", "schema_version: true", "must be a whole number, not true"),
        ("title: A question", "title: no", "must be text, but YAML reads false here; put it in quotes"),
        ("title: A question", "title: [a]", "must be text, not a list"),
        ("title: A question", 'title: "\\e"', "'\\x1b' must be one line of text without control characters"),
        ("title: A question", f"title: {'a' * 121}", "must have at most 120 characters"),
        ("mesh: none}", "mesh: no}", "must be text, but YAML reads false here; put it in quotes"),
        ("[policies/strict]", "policies/strict", "must be a list, not 'policies/strict'"),
    ],
)  # fmt: skip
def test_every_value_has_its_type_unit_and_bounds(write: Write, old: str, new: str, expected: str) -> None:
    """An invalid value is refused in a sentence that says what the field accepts."""
    (message,) = messages(write(GOOD.replace(old, new)))
    assert message.endswith(f": {expected}")


def test_requires_configurations_with_unique_names(write: Write) -> None:
    """A scenario has at least one configuration, and no two of one name."""
    head = GOOD[: GOOD.index("reference")]
    assert messages(write(head + "configurations: []\n")) == ["mine.yaml:7: configurations: must have at least 1 entry"]
    assert messages(write(GOOD.replace("name: istio", "name: baseline"))) == [
        "mine.yaml:9: configurations: names must be unique; given more than once: baseline"
    ]


@pytest.mark.parametrize(
    "place",
    [
        "../policies/strict",
        "/etc",
        "policies/../policies/strict",
        "~/x",
        "./policies",
        "-rf",
        "a//b",
        "a\\\\b",
    ],
)
def test_refuses_paths_outside(write: Write, place: str) -> None:
    """Case 10: manifests and Locust files have plain relative paths."""
    for old in ("[policies/strict]", "locustfile: browse"):
        path = write(GOOD.replace(old, f'["{place}"]' if old[0] == "[" else f'locustfile: "{place}"'))
        (message,) = messages(path)
        assert "is not allowed; write a path without .." in message


@pytest.mark.parametrize("linked", ["policies/out", "policies/strict/out.yaml"])
def test_refuses_symbolic_link_to_outside(write: Write, linked: str) -> None:
    """Case 10: neither a folder of manifests nor a file in it may be elsewhere."""
    place = "policies/out" if linked == "policies/out" else "policies/strict"
    path = write(GOOD.replace("policies/strict", place))
    (path.parent / linked).symlink_to("/usr/lib")
    (message,) = messages(path)
    assert message.endswith(f"manifests[0]: {linked} leads out of its folder through a symbolic link")


def test_refuses_circular_symbolic_link(write: Write) -> None:
    """Case 10: a link to itself is a missing folder, not an endless search."""
    path = write(GOOD.replace("policies/strict", "loop"))
    (path.parent / "loop").symlink_to("loop")
    assert "no loop in the scenario's folder" in messages(path)[0]


def test_reports_missing_files_with_line(write: Write) -> None:
    """Files that a scenario names have to exist before anything is started."""
    path = write(GOOD.replace("locustfile: browse", "locustfile: bokinfo").replace("strict", "empty"))
    (path.parent / "policies" / "empty").mkdir()
    locustfile, manifests = messages(path)
    assert locustfile.startswith("mine.yaml:5: load.locustfile: no bokinfo.py in the scenario's folder")
    assert locustfile.endswith("; did you mean bookinfo?")
    assert (
        manifests
        == "mine.yaml:11: configurations[1].manifests[0]: policies/empty contains no manifests (*.yaml, *.yml, *.json)"
    )


@pytest.mark.parametrize(
    "name",
    [
        *("notes.yaml.txt", "deny.yaml~", "deny.yml.bak", "deny.yamll", "apply.sh", "team-a/deny.yaml.orig", "deny"),
        *("readmeter", "README.yaml.bak", "readme-viewer.yml~", "license-deny.yamll", "LICENSE.yaml.txt"),
        *("License_service.ymal", "notice-deny", "copying.jsn"),
    ],
)
def test_refuses_file_that_would_not_be_applied(write: Write, name: str) -> None:
    """A file in a folder of manifests is applied or reported: a policy with a misspelt suffix is an error."""
    path = write(GOOD)
    stray = path.parent / "policies" / "strict" / name
    stray.parent.mkdir(exist_ok=True)
    stray.touch()
    (message,) = messages(path)
    assert message.startswith(
        f"mine.yaml:11: configurations[1].manifests[0]: policies/strict/{name} would not be applied"
    )
    assert message.endswith(": manifests are *.yaml, *.yml, *.json; move other files elsewhere")


def test_counts_files_that_would_not_be_applied(write: Write) -> None:
    """Five are named: a folder with a thousand pictures is one message, too."""
    path = write(GOOD)
    for number in range(8):
        (path.parent / "policies" / "strict" / f"{number}.png").touch()
    assert "policies/strict/4.png and 3 more would not be applied" in messages(path)[0]


def test_accepts_documentation_in_manifest_folders(write: Write) -> None:
    """README, licences and hidden files and folders are not manifests."""
    path = write(GOOD)
    folder = path.parent / "policies" / "strict"
    (folder / ".git").mkdir()
    (folder / "team").mkdir()
    licences = ("LICENSE", "LICENCE-APACHE.txt", "license-2.0.md", "LICENSE-MIT", "COPYING", "NOTICE")
    for name in ("README.md", "readme", "notes.txt", "team/CHANGES.md", *licences, ".hidden", ".git/config"):
        (folder / name).touch()
    assert validate_file(path) == ()


def test_refuses_link_to_manifest_folder(write: Write) -> None:
    """A link inside a folder of manifests could lead back; the files behind it would not be applied."""
    path = write(GOOD)
    (path.parent / "policies" / "strict" / "again").symlink_to(path.parent / "policies" / "strict")
    (message,) = messages(path)
    assert "policies/strict/again would not be applied" in message
    assert "links to folders are not followed: name such a folder itself" in message


@pytest.mark.parametrize(("name", "shown"), [(b"caf\xe9.bak", "caf\\udce9.bak"), (b"\x1b[2J.bak", "\\x1b[2J.bak")])
def test_escapes_unusual_file_names(write: Write, name: bytes, shown: str) -> None:
    """Bytes that are no text, and control characters of terminals, are escaped in the message."""
    path = write(GOOD)
    Path(os.fsdecode(os.fsencode(path.parent / "policies" / "strict") + b"/" + name)).touch()
    (message,) = messages(path)
    assert f"policies/strict/{shown} would not be applied" in message


def test_files_next_to_the_scenario_come_first(write: Write) -> None:
    """A user's files take precedence over shipped ones."""
    folder = write(GOOD).parent
    assert find_manifests("policies/strict", folder) == folder / "policies" / "strict"
    assert find_locustfile("browse", folder) == folder / "browse.py"
    assert find_locustfile("bookinfo", folder).parent == find_shipped("locustfiles")
    (folder / "bookinfo.py").touch()
    assert find_locustfile("bookinfo", folder).parent == folder
    with pytest.raises(ValueError, match="no policies/strict"):
        find_manifests("policies/strict", None)


@pytest.mark.parametrize("name", ["<script>", "=cmd()", "A", "a b", "", "a" * 41, "ä"])
def test_names_are_plain(write: Write, name: str) -> None:
    """Case 11: names are in paths, tables and pages, and have only a-z, 0-9 and -."""
    for old in ("name: mine", "{name: istio"):
        (message,) = messages(write(GOOD.replace(old, f'{old.split(":")[0]}: "{name}"')))
        assert "is not a name: 1 to 40 of the characters a-z, 0-9 and -" in message


def test_unknown_mesh_lists_supported_ones(write: Write) -> None:
    """Case 12: a mesh that meshbench cannot deploy."""
    (problem,) = find_problems(write(GOOD.replace("mesh: istio,", "mesh: linkerd,")))
    assert str(problem).endswith(
        "mine.yaml:11: configurations[1].mesh: unknown mesh 'linkerd' (meshes: none, istio, kuma)"
    )


@pytest.mark.parametrize("name", list_shipped_scenarios())
def test_shipped_scenarios_are_valid(name: str) -> None:
    """Each shipped scenario loads under its own name."""
    assert load_scenario(name).name == name


def test_shipped_scenarios_repeat_the_study() -> None:
    """Users from 10 to 500 on the baseline, and the cost of Istio and its policies at 20 users."""
    sweep, policies = load_scenario("users-sweep"), load_scenario("istio-policies")
    assert [sweep.load_of(c.name).users for c in sweep.configurations] == [10, 20, 100, 200, 500]
    assert {c.mesh for c in sweep.configurations} == {"none"}
    assert [c.name for c in policies.configurations] == ["baseline", "istio", "istio-policies"]
    load = policies.load
    assert (load.users, load.warmup_s, load.duration_s, policies.repeats) == (20, 30.0, 120.0, 3)


def test_unknown_name_lists_shipped_scenarios() -> None:
    """A name without a slash or suffix is a shipped scenario."""
    (message,) = refused("istio-polices", Overrides())
    assert "did you mean istio-policies?" in message
    assert all(name in message for name in list_shipped_scenarios())


def test_path_is_no_name() -> None:
    """A text with a slash or a suffix is a path, even where a shipped scenario has that name."""
    assert find_scenario("./smoke") == Path("smoke")
    assert find_scenario("smoke.yaml") == Path("smoke.yaml")
    assert find_scenario("smoke").is_file()


KEYS = st.sampled_from(["name", "load", "configurations", "users", "duration", "x"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
)
INSERTED = st.tuples(st.integers(0, len(GOOD)), st.text(max_size=20)).map(
    lambda place: GOOD[: place[0]] + place[1] + GOOD[place[0] :]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text() | INSERTED | JSON.map(json.dumps))
def test_any_text_is_a_scenario_or_an_input_error(write: Write, text: str) -> None:
    """Whatever is in a file, it is read or refused with reasons; no other exception is raised."""
    path = write("")
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    problems = validate_file(path)
    if not problems:
        assert isinstance(load_scenario(str(path)), Scenario)
    assert all(problem.message and problem.file == str(path) for problem in problems)
