"""Generate the JSON Schemas and the reference page of scenarios from the models.

The generated files are in the repository and ship with the package, for editors, readers and programs.
`python -m bench.results.json_schema` in the repository's root writes them; a test compares them with the models.
"""

import json
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema

from bench.application.definition import Login, Ready
from bench.files.folders import find_shipped
from bench.files.locust_folder import MOST_BYTES, MOST_FILES
from bench.files.validation import (
    ENTRY_PATTERN,
    IMAGE_PATTERN,
    LABEL_PATTERN,
    LINE_PATTERN,
    METHOD_PATTERN,
    MODULE_PATTERN,
    NAME_PATTERN,
    PATH_PATTERN,
    PLACE_PATTERN,
    TAG_PATTERN,
    TEXT_PATTERN,
)
from bench.meshes import MESHES
from bench.results.records import FILES
from bench.scenario.model import Application, Configuration, Load, LoadOverride, Pair, Scenario
from bench.scenario.placement import NamespaceSettings, Placement, PodPlacement
from bench.scenario.probes import ScenarioProbe
from bench.scenario.types import Quantity
from bench.units import format_bytes

SCHEMA_FILE: Final = Path("scenarios/scenario.schema.json")
RECORD_FILES: Final = {name: Path(f"bench/results/record_schemas/{name}.schema.json") for name in FILES}
REFERENCE_FILE: Final = Path("docs/scenarios.md")

_EXAMPLE: Final = f"{next(iter(MESHES))}-policies"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SECTIONS: Final[dict[str, type[BaseModel]]] = {
    "scenario": Scenario,
    "application": Application,
    "application.ready": Ready,
    "application.login": Login,
    "load": Load,
    "configurations": Configuration,
    "configurations[].load": LoadOverride,
    "contrasts[]": Pair,
    "probes[]": ScenarioProbe,
    "placement": Placement,
    "placement.PART": PodPlacement,
    "placement.namespaces": NamespaceSettings,
}
_DESCRIPTIONS = {
    NAME_PATTERN: "name: 1 to 40 of a-z, 0-9 and -",
    LINE_PATTERN: "text, one line",
    TEXT_PATTERN: "text",
    PLACE_PATTERN: "relative path",
    ENTRY_PATTERN: "SERVICE:PORT",
    LABEL_PATTERN: "name of Kubernetes",
    MODULE_PATTERN: "name of a module",
    PATH_PATTERN: "path that starts with /",
    METHOD_PATTERN: "method, such as GET",
    TAG_PATTERN: "tag, without spaces",
    IMAGE_PATTERN: "image: registry/name:tag or registry/name@sha256:digest",
}

_SCALARS: Final = {"boolean": "true or false", "string": "text"}

_Schema = dict[str, Any]


class _Generator(GenerateJsonSchema):
    """Leave out the titles of fields, which would repeat the key."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's signature
        return False


def build_schema(name: str) -> _Schema:
    """Build the schema of a scenario file (`scenario`) or of a record (`run`, `trial`, `proof`, `summary`)."""
    if name == "scenario":
        return {"$schema": _DIALECT, **_build_scenario_schema(), "title": "meshbench scenario"}
    made = FILES[name].model_json_schema(by_alias=False, mode="serialization", schema_generator=_Generator)
    return {"$schema": _DIALECT, **made, "title": f"{name}.json of a meshbench run"}


def format_schema(name: str) -> str:
    """Format the schema as the text of a file."""
    return json.dumps(build_schema(name), indent=2) + "\n"


def format_scenario_reference() -> str:
    """Format the page `docs/scenarios.md`: every key of a scenario, and an example."""
    made = _build_scenario_schema()
    tables = (_format_section(place, model, made) for place, model in _SECTIONS.items())
    example = (find_shipped("scenarios") / f"{_EXAMPLE}.yaml").read_text("utf-8")
    return "\n".join([_INTRODUCTION, *tables, _OVERRIDES, f"## Example\n\n```yaml\n{example}```\n"])


def write_files() -> None:
    """Write the schemas and the reference page into the checkout that is the working directory."""
    SCHEMA_FILE.write_text(format_schema("scenario"), "utf-8")
    for name, path in RECORD_FILES.items():
        path.write_text(format_schema(name), "utf-8")
    REFERENCE_FILE.write_text(format_scenario_reference(), "utf-8")


def _build_scenario_schema() -> _Schema:
    made = Scenario.model_json_schema(schema_generator=_Generator)
    for model in _SECTIONS.values():
        _write_defaults(model, _find_properties(made, model))
    mesh = _find_properties(made, Configuration)["mesh"]
    del mesh["pattern"]
    mesh["enum"] = ["none", *MESHES]
    application = made["properties"]["application"]
    made["properties"]["application"] = {
        "anyOf": [{"$ref": application.pop("$ref")}, {"type": "string", "pattern": PLACE_PATTERN}],
        **application,
    }
    return made


def _write_defaults(model: type[BaseModel], properties: _Schema) -> None:
    """Replace defaults of quantities by their text in a file: `100ms` for 0.1."""
    for name, field in model.model_fields.items():
        for quantity in field.metadata:
            if isinstance(quantity, Quantity):
                properties[field.alias or name]["default"] = quantity.write(field.default)


def _find_properties(made: _Schema, model: type[BaseModel]) -> _Schema:
    section = made if model is Scenario else made["$defs"][model.__name__]
    properties: _Schema = section["properties"]
    return properties


def _format_section(place: str, model: type[BaseModel], made: _Schema) -> str:
    heading = "The file" if model is Scenario else f"`{place}`"
    properties = _find_properties(made, model)
    rows = (_format_row(field, field.alias or name, properties) for name, field in model.model_fields.items())
    table = ["| key | value | default | meaning |", "|---|---|---|---|", *rows]
    return "\n".join([f"## {heading}\n", f"{model.__doc__}\n", *table, ""])


def _format_row(field: FieldInfo, key: str, properties: _Schema) -> str:
    made = properties[key]
    default = "required" if field.is_required() else _format_default(made.get("default"))
    return f"| `{key}` | {_describe_type(made)} | {default} | {field.description} |"


def _describe_type(field: _Schema) -> str:
    """Describe the values of a field."""
    match field:
        case {"title": title}:
            return str(title)
        case {"anyOf": [some, {"type": "null"}]}:
            return f"{_describe_type(some)}; or null"
        case {"anyOf": [some, {"pattern": pattern}]}:
            return f"{_describe_type(some)}; or the {_DESCRIPTIONS[pattern]} of a file with these keys"
        case {"anyOf": [some, {"type": "array"}]}:
            return f"{_describe_type(some)}; or a list of several"
        case {"enum": choices}:
            return "one of " + ", ".join(f"`{choice}`" for choice in choices)
        case {"const": only}:
            return f"`{only}`"
        case {"pattern": pattern}:
            return _DESCRIPTIONS[pattern]
        case {"type": "integer"}:
            return f"whole number, {field['minimum']} to {field['maximum']}"
        case {"type": "array", "items": items}:
            return f"list, each {'' if 'enum' in items else 'a '}{_describe_type(items)}"
    return _SCALARS.get(field.get("type", "")) or _describe_mapping(field)


def _describe_mapping(field: _Schema) -> str:
    """Describe a mapping: its values where all are of one type, else the section of the page that lists its keys."""
    match field:
        case {"additionalProperties": False, "properties": values}:
            return "mapping: " + "; ".join(f"`{key}`, {_describe_type(value)}" for key, value in values.items())
        case {"additionalProperties": {"pattern": _} as values}:
            return f"mapping, each value an {_describe_type(values)}"
        case {"additionalProperties": {"type": "string"}}:
            return "mapping, each value a text"
        case {"patternProperties": values}:
            (value,) = values.values()
            return f"mapping, each value a {_describe_type(value)}"
    return "mapping, see below"


def _format_default(value: Any) -> str:
    match value:
        case None | [] | "":
            return ""
        case bool():
            return f"`{str(value).lower()}`"
        case dict():
            return f"`{{{', '.join(f'{key}: {one}' for key, one in value.items())}}}`"
    return f"`{value}`"


_INTRODUCTION: Final = f"""\
# Scenarios

<!-- Generated from bench/scenario/model.py by `python -m bench.results.json_schema`; change it there. -->

A scenario is one YAML file. It names an application, a load, and the configurations to compare. This page shows how to
write one; [the glossary](glossary.md) explains each term.

## Write your own scenario

1. Copy a shipped one: `meshbench scenarios show {_EXAMPLE} > mine.yaml`. `meshbench scenarios` lists them all.
2. Change it. The tables below list every key.
3. Check it: `meshbench validate mine.yaml` prints every error with its line, and which target takes the scenario. With
   `--target local` or `--target cluster` it fails where that target does not. `meshbench validate --mesh NAME FOLDER`
   checks manifests without a scenario.
4. See what it would do: `meshbench plan --scenario ./mine.yaml`.
5. Run it: `meshbench run --scenario ./mine.yaml`.

An editor with a YAML language server completes and checks the file. Its first line has to be
`# yaml-language-server: $schema=scenario.schema.json`, with the path to that file in `scenarios/`.

**Quantities** need a unit. Durations take `us`, `ms`, `s`, `min` (or `m`) and `h`. Rates are a number per `s`, `min` or
`h`, such as `50/s`. Shares take `%`.

**Text** that YAML would read as another type (`no`, `12`) needs quotes. Anchors, aliases, merge keys, tags and
duplicate keys are rejected in a scenario.

**Paths** of manifest folders and Locust files are relative and contain no `..`. meshbench searches the folder of the
scenario file first, then the shipped files. A symbolic link must not lead outside.

**A folder of manifests** is applied as a whole: every `*.yaml`, `*.yml` and `*.json`, in upper or lower case, at any
depth. README files, licences, other text (`*.md`, `*.txt`) and hidden files are ignored. Any other file is an error,
because it would not be applied. Files are read as kubectl reads them, up to 5 MiB each: several documents,
`kind: List`, anchors and merge keys, CRLF and byte order marks, rendered Helm charts. What a file has and is not
applied is listed: what a server has added to an object (`resourceVersion`, `uid`, `status`), objects that a controller
makes, and hooks of Helm that are not for an installation, such as tests.

A folder with a `kustomization.yaml` or a `Chart.yaml` is rendered by `kustomize`, `kubectl kustomize` or `helm` on
PATH, with the chart's own values, without plugins and network, in at most 60 s. The run's folder keeps what was
rendered, so that `--resume` and `report` need no tool. Without the tool, the error has the command to run elsewhere.

**A Locust file** may use any user class and any wait. A client of your own has to fire Locust's request event with
`response_time`. It should also pass `start_time`, as `events.request.measure` does. Without it meshbench derives the
start, and the trial gets a warning.

**The folder of the Locust file** travels with it, into the run's folder and into the pod: modules that it imports and
data that it reads, at most {MOST_FILES} files of {format_bytes(MOST_BYTES)}. Locust works in a copy, and what it writes
there is discarded. Left out are hidden files, compiled code, virtual environments, results, the scenario, what it
names elsewhere, and `locust.conf` and `pyproject.toml`, from which Locust would read settings. All of it is a condition
for `compare` and `gate`: give a Locust file a folder of its own where other files change often.

```yaml
load:
  locustfile: load/readers         # with load/shop.py and load/users.csv
  options: {{region: eu, pages: 3}}  # for options that readers.py declares
  env:
    TOKEN: {{env: SHOP_TOKEN}}       # read when a run starts, recorded nowhere
    LANGUAGE: en
  tags: [read]
```

## Choose a design

A block is every configuration once. The design decides how they share its time:

- **`duet`**: all are deployed, and loaded at the same time, each by a generator of its own. The noise of the machine
  affects all alike, and most of it cancels. Choose it for an answer within minutes.
- **`interleaved`**: all are deployed, and loaded in turn, in windows of about 30s. Choose it for the cost under the
  whole load, without contention between configurations.
- **`sequential`**: each is deployed and loaded alone. Choose it for capacity, for many users, and for the 2022 study's
  own statistic.

Without `design`, `quick` means a duet of at least 8 blocks of 15s, and any other run is interleaved. A scenario without
a reference is sequential. So is one whose configurations have a load of their own, and one with `isolation: full`.

- **In a duet** `users` and `rate` are those of the block, and are shared out equally: 20 users over three
  configurations are 6 each. `load.users_each` gives each configuration so many. With fewer than 4 each, the run is
  interleaved.
- **`--design duet`** without `--quick` means 12 blocks of 30s. `--study` means sequential windows of 120s.
- A run whose design differs from what was asked for says why. Numbers of different designs are never compared:
  [what the numbers mean](statistics.md) says what each one estimates.
"""

_OVERRIDES: Final = f"""\
## Change a key on the command line

`--users`, `--repeats`, `--duration`, `--warmup`, `--rate`, `--seed`, `--design` and `--quick` change the
key of that name.
`--set PATH=VALUE` changes any key; items of a list are counted from 0:

```sh
meshbench run --scenario {_EXAMPLE} --set load.think_time=1s
meshbench run --scenario users-sweep --set configurations.0.load.users=50
meshbench run --scenario mtls-only --set 'equalise=[tls, workers]'
```

The result passes the same checks as a file. `--users` and `--rate` are rejected where configurations have their own.
"""

if __name__ == "__main__":
    write_files()
