"""The schemas and the reference page agree with the models."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from bench.files.folders import find_shipped
from bench.meshes import MESHES
from bench.results.json_schema import (
    RECORD_FILES,
    REFERENCE_FILE,
    SCHEMA_FILE,
    build_schema,
    format_scenario_reference,
    format_schema,
)
from bench.results.records import FILES
from bench.scenario.loader import find_scenario, list_shipped_scenarios, load_scenario
from bench.scenario.model import Application, Configuration, Load, LoadOverride, Scenario
from bench.units import parse_duration, parse_percent
from tests.validating import validate_file

ROOT = find_shipped("scenarios").parent

SMALL = "name: a\ntitle: b\nconfigurations: [{name: c, mesh: none}]\n"
GOOD = [
    SMALL,
    SMALL + "load: {users: 1, think_time: 0s, rate: 50/s, warmup: 1.5s, duration: 2 min}\n",
    SMALL + "seed: 4\nquick: true\nmargin: 5 %\nreference: c\nschema_version: 1\n",
    SMALL + "reference: null\nseed: null\nload: {rate: null}\n",
    SMALL.replace("mesh: none", "mesh: istio, load: {users: 10000, rate: 1/h}").replace("1/h", "90/h"),
    SMALL + "application: {name: bookinfo, versions: {reviews: v1}}\ndescription: two\n",
    SMALL.replace("}]", "}, {name: d, mesh: none}]") + "contrasts: [{configuration: c, reference: d}]\n",
]
BAD = [
    "[]",
    "text",
    SMALL.replace("name: a", "nam: a"),
    SMALL.replace("name: a", "name: A"),
    SMALL.replace("title: b", 'title: "\\e"'),
    SMALL.replace("title: b", f"title: {'x' * 121}"),
    SMALL.replace(", mesh: none", ""),
    SMALL.replace("[{name: c, mesh: none}]", "[]"),
    SMALL + "schema_version: 2\n",
    SMALL + "repeats: 0\n",
    SMALL + "repeats: '3'\n",
    SMALL + "quick: 1\n",
    SMALL + "margin: 10\n",
    SMALL + "margin: ten%\n",
    SMALL + "seed: -1\n",
    SMALL + "load: {users: 10001}\n",
    SMALL + "load: {users: 1.5}\n",
    SMALL + "load: {think_time_s: 0.1}\n",
    SMALL + "load: {duration: 5}\n",
    SMALL + "load: {duration: -5s}\n",
    SMALL + "load: {rate: 50}\n",
    SMALL + "load: {locustfile: ../x}\n",
    SMALL + "load: null\n",
    SMALL + "contrasts: [{configuration: c}]\n",
    SMALL + "contrasts: {configuration: c, reference: d}\n",
    SMALL + "application: {versions: {reviews: v4}}\n",
    SMALL.replace("mesh: none", "mesh: istio, manifests: [/etc]"),
    SMALL.replace("mesh: none", "mesh: none, load: {warmup: 5s}"),
]


def accepts(text: str) -> bool:
    """Whether the scenario schema accepts a file."""
    return Draft202012Validator(build_schema("scenario")).is_valid(yaml.safe_load(text))


@pytest.mark.parametrize("name", ["scenario", *FILES])
def test_schemas_are_valid(name: str) -> None:
    """Each schema is one of draft 2020-12, with a title and a description, and refuses unknown keys."""
    made = build_schema(name)
    Draft202012Validator.check_schema(made)
    assert made["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert made["title"]
    assert made["description"]
    assert made["additionalProperties"] is False
    assert "$id" not in made


def test_schema_lists_the_meshes_of_the_registry() -> None:
    """An editor completes their names, and underlines any other."""
    assert all(accepts(SMALL.replace("mesh: none", f"mesh: {mesh}")) for mesh in ("none", *MESHES))
    assert not accepts(SMALL.replace("mesh: none", "mesh: linkerd"))


@pytest.mark.parametrize("name", list_shipped_scenarios())
def test_shipped_scenarios_satisfy_their_schema(name: str) -> None:
    """Each shipped scenario names its schema for editors, and satisfies it."""
    text = find_scenario(name).read_text("utf-8")
    assert text.startswith("# yaml-language-server: $schema=scenario.schema.json\n")
    assert accepts(text)


@pytest.mark.parametrize("text", GOOD)
def test_schema_accepts_files_of_the_models(tmp_path: Path, text: str) -> None:
    """A file that the schema accepts in an editor is valid for meshbench."""
    (path := tmp_path / "mine.yaml").write_text(text)
    assert validate_file(path) == ()
    assert accepts(text)


@pytest.mark.parametrize("text", BAD)
def test_schema_refuses_files_that_models_refuse(tmp_path: Path, text: str) -> None:
    """An editor underlines what meshbench refuses for its type, unit, spelling or bounds."""
    (path := tmp_path / "mine.yaml").write_text(text)
    assert validate_file(path)
    assert not accepts(text)


@pytest.mark.parametrize("name", list_shipped_scenarios())
def test_stored_scenario_satisfies_the_run_schema(name: str) -> None:
    """In `run.json` a scenario has Python's names and bare floats, as the schema of a run has."""
    made = build_schema("run")
    inside = {"$ref": "#/$defs/Scenario", "$defs": made["$defs"]}
    Draft202012Validator(inside).validate(json.loads(load_scenario(name).model_dump_json()))


@pytest.mark.parametrize(
    ("section", "key", "seconds"),
    [("Load", "think_time", 0.1), ("Load", "warmup", 30), ("Load", "duration", 120)],
)
def test_defaults_of_quantities_have_a_unit(section: str, key: str, seconds: float) -> None:
    """meshbench reads the default that an editor inserts."""
    assert parse_duration(build_schema("scenario")["$defs"][section]["properties"][key]["default"]) == seconds


def test_default_margin_is_a_percentage() -> None:
    """The default margin of the schema is the model's."""
    default = Scenario.model_fields["margin"].default
    assert parse_percent(build_schema("scenario")["properties"]["margin"]["default"]) == default


@pytest.mark.parametrize("model", [Scenario, Application, Load, Configuration, LoadOverride])
def test_every_key_is_on_the_reference_page(model: Any) -> None:
    """Each key has a description, and the page has them all."""
    page = format_scenario_reference()
    for name, field in model.model_fields.items():
        assert field.description
        assert f"| `{field.alias or name}` |" in page
        assert field.description in page


def test_committed_schema_and_page_are_current() -> None:
    """`python -m bench.results.json_schema` makes both from the models."""
    assert (ROOT / SCHEMA_FILE).read_text("utf-8") == format_schema("scenario")
    assert (ROOT / REFERENCE_FILE).read_text("utf-8") == format_scenario_reference()


@pytest.mark.parametrize("name", RECORD_FILES)
def test_shipped_record_schemas_are_current(name: str) -> None:
    """The shipped schema files are made from the models."""
    assert (ROOT / RECORD_FILES[name]).read_text("utf-8") == format_schema(name)
