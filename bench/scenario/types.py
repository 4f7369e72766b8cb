"""Define the types of a scenario's fields: names, counts, paths, and quantities with a unit, each with its bounds.

They read scenario files, where a quantity needs its unit and a given file must exist, and the scenario stored in
`run.json`, which has bare floats. A `Source` as validation context marks a scenario file.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Strict,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from bench.application.definition import list_shipped_applications
from bench.application.rendering import find_inner, find_renderer
from bench.files.folders import SUFFIXES, Kind, find_shipped, list_manifest_files, list_unread_files, walk_files
from bench.files.validation import NAME_PATTERN, PLACE_PATTERN, format_value
from bench.files.yaml_source import format_suggestion
from bench.units import (
    DURATION_PATTERN,
    PERCENT_PATTERN,
    RATE_PATTERN,
    format_duration,
    format_first,
    parse_duration,
    parse_percent,
    parse_rate,
)

SCHEMA_VERSION: Final = 1

# How the configurations of a block share its time: loaded at once, in turn, or deployed and loaded one after another.
Design = Literal["duet", "interleaved", "sequential"]

_SUFFIXES: Final = ", ".join(f"*{suffix}" for suffix in SUFFIXES)
_NAMED_AT_MOST: Final = 5


class Section(BaseModel):
    """Base of the models: frozen, rejects unknown keys, accepts the file's and Python's names of a field."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_by_name=True, validate_by_alias=True
    )


@dataclass(frozen=True, slots=True)
class Source:
    """The folder of a scenario file; validation with a Source requires units and looks for the given files.

    `names` are the configurations' names in the text, for checks in a file with invalid configurations.
    """

    folder: Path
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Quantity:
    """A float that scenario files give with a unit, from `low` to `high`; records have the bare float."""

    kind: str
    low: str
    high: str
    pattern: str
    parse: Callable[[str], float]
    write: Callable[[float], str]

    @property
    def title(self) -> str:
        """Description for users: `duration, 1s to 24h`."""
        return f"{self.kind}, {self.low} to {self.high}"

    def read(self, value: object, info: ValidationInfo) -> object:
        """Parse a text and check its bounds; a bare number is accepted only outside scenario files."""
        if isinstance(info.context, Source) and not isinstance(value, str):
            raise ValueError(f"must be text with a unit ({self.title}), not {format_value(value)}")
        number = self._number(value) if isinstance(value, str) else value
        if isinstance(number, int | float) and not self.parse(self.low) <= number <= self.parse(self.high):
            raise ValueError(f"{format_value(value)} is out of bounds ({self.title})")
        return number

    def _number(self, text: str) -> float:
        try:
            return self.parse(text)
        except ValueError:
            raise ValueError(f"{format_value(text)} is not a {self.kind} with a unit ({self.title})") from None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_before_validator_function(self.read, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        if handler.mode == "serialization":
            return handler(schema)
        return {"type": "string", "title": self.title, "pattern": f"^{self.pattern}$"}


def _make_duration(low: str, high: str) -> Quantity:
    return Quantity("duration", low, high, DURATION_PATTERN, parse_duration, format_duration)


def _check_version(version: int) -> int:
    if version != SCHEMA_VERSION:
        raise ValueError(f"this meshbench reads version {SCHEMA_VERSION}, not {version}")
    return version


def find_manifests(name: str, folder: Path | None) -> Path:
    """Return the folder of manifests that a scenario in `folder` means: one in that folder, else a shipped one.

    Raises ValueError where it has no manifests, contains a file that would not be applied, or where a symbolic link
    leads outside.
    """
    return _require_manifests(name, _find("manifests", name, folder))


def find_application_folder(name: str, folder: Path) -> Path:
    """Return the folder of manifests of an application that does not ship: only one in the scenario's `folder`. Raises
    ValueError as `find_manifests`."""
    found = folder / name
    if not os.path.isdir(found):  # noqa: PTH112 - Path.is_dir raises where permission is missing
        near = format_suggestion(name, list_shipped_applications())
        raise ValueError(
            f"{format_value(name)} is neither a folder of manifests beside the scenario nor an application that"
            f" ships{near}"
        )
    _reject_escape(found, folder)
    return _require_manifests(name, found)


def _require_manifests(name: str, found: Path) -> Path:
    """Return the folder, if it is for a tool, or has manifests and nothing that would not be applied. Raises ValueError
    otherwise."""
    if not found.is_dir():
        raise ValueError(f"{name} is not a folder; give the folder of the manifests")
    if find_renderer(found) is not None:
        return found  # what of it is applied, its tool knows
    if inner := find_inner(found):
        raise ValueError(f"{name}/{inner.relative_to(found)} is for a tool such as Kustomize; name that folder itself")
    if unread := list_unread_files(found):
        every = [_escape_name(f"{name}/{path.relative_to(found)}") for path in unread]
        names = format_first(every, _NAMED_AT_MOST)
        folders = "; links to folders are not followed: name such a folder itself" * any(map(os.path.isdir, unread))
        raise ValueError(
            f"{names} would not be applied: manifests are {_SUFFIXES}{folders}; move other files elsewhere"
        )
    if not list_manifest_files(found):
        raise ValueError(f"{name} contains no manifests ({_SUFFIXES})")
    return found


def _escape_name(name: str) -> str:
    """Escape a file name for terminals: control characters, and bytes that are not UTF-8."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in name)


def find_locustfile(name: str, folder: Path | None) -> Path:
    """Return the Locust file that a scenario in `folder` means by `name`. Raises ValueError as `find_manifests`."""
    found = _find("locustfiles", name if name.endswith(".py") else f"{name}.py", folder)
    if not found.is_file():
        raise ValueError(f"{name} is not a file")
    return found


def name_locustfile(name: str) -> str:
    """Return the file name of the Locust file that a scenario means by `name`: `readers.py` for `load/readers`."""
    last = name.rpartition("/")[2]
    return last if last.endswith(".py") else f"{last}.py"


def _find(kind: Kind, name: str, folder: Path | None) -> Path:
    roots = [folder, find_shipped(kind)] if folder else [find_shipped(kind)]
    for root in roots:
        found = root / name
        if os.path.exists(found):  # noqa: PTH110 - Path.exists raises where permission is missing
            _reject_escape(found, root)
            return found
    near = format_suggestion(name, _list_shipped_paths(kind))
    raise ValueError(f"no {name} in the scenario's folder or among the shipped {kind}{near}")


def _reject_escape(found: Path, root: Path) -> None:
    inside = Path(os.path.realpath(root))
    for path in chain([found], walk_files(found)):  # the folder first, so that nothing outside is listed
        if not Path(os.path.realpath(path)).is_relative_to(inside):
            name = _escape_name(str(path.relative_to(root)))
            raise ValueError(f"{name} leads out of its folder through a symbolic link")


def _list_shipped_paths(kind: Kind) -> set[str]:
    root = find_shipped(kind)
    if kind == "locustfiles":
        return {path.stem for path in root.glob("*.py")}
    return {path.parent.relative_to(root).as_posix() for path in list_manifest_files(root)}


def _check_manifests(path: str, info: ValidationInfo) -> str:
    if isinstance(info.context, Source):
        find_manifests(path, info.context.folder)
    return path


def _check_locustfile(path: str, info: ValidationInfo) -> str:
    if isinstance(info.context, Source):
        find_locustfile(path, info.context.folder)
    return path


ApplicationName = Annotated[str, Field(pattern=NAME_PATTERN)]
Version = Annotated[int, Strict(), AfterValidator(_check_version), WithJsonSchema({"const": SCHEMA_VERSION})]
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Users = Annotated[int, Strict(), Field(ge=1, le=10_000)]
Repeats = Annotated[int, Strict(), Field(ge=1, le=100)]
Seed = Annotated[int, Strict(), Field(ge=0, le=2**32 - 1)]
ThinkTime = Annotated[float, Strict(), _make_duration("0s", "1h")]
WarmUp = Annotated[float, Strict(), _make_duration("0s", "24h")]
Window = Annotated[float, Strict(), _make_duration("1s", "24h")]
Rate = Annotated[
    float,
    Strict(),
    Quantity("rate", "1/min", "10000/s", RATE_PATTERN, parse_rate, lambda rate: f"{rate:g}/s"),
]
Margin = Annotated[
    float,
    Strict(),
    Quantity("percentage", "0.1%", "100%", PERCENT_PATTERN, parse_percent, lambda share: f"{share * 100:g}%"),
]
ManifestFolder = Annotated[str, Field(pattern=PLACE_PATTERN, max_length=200), AfterValidator(_check_manifests)]
LocustFile = Annotated[str, Field(pattern=PLACE_PATTERN, max_length=200), AfterValidator(_check_locustfile)]
Mesh = Name  # or `none`; checked when a scenario is resolved, since a scenario knows no meshes
