"""Define what a scenario gives to its Locust file: options, variables and tags; and read the variables' values."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_serializer,
    model_validator,
)

from bench.errors import InputError, Problem
from bench.files.validation import OPTION_PATTERN, TAG_PATTERN, VARIABLE_PATTERN, format_value
from bench.scenario.types import Source
from bench.system.redaction import register_secret

_LONGEST_VALUE: Final = 64 * 1024  # characters; Linux takes twice as many
_OURS: Final = ("HOME", "PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PYTHONDONTWRITEBYTECODE")

OptionValues = str | bool | int | float


def _check_option_value(value: object) -> object:
    if value is False:
        raise ValueError("is false: an option without a value is given or not; leave it out")
    if not isinstance(value, str | bool | int | float) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"must be text, a number or true, not {format_value(value)}")
    return _check_text(value) if isinstance(value, str) else value


def _check_text(value: str) -> str:
    if "\0" in value or len(value) > _LONGEST_VALUE:
        raise ValueError(f"must have no NUL character, and at most {_LONGEST_VALUE} characters")
    return value


def _check_variable(name: str) -> str:
    if name in _OURS or name.startswith("MESHBENCH_"):
        raise ValueError("is set by meshbench itself for Locust; choose another name")
    return name


class EnvironmentValue(BaseModel):
    """The value of a variable of Locust's environment: a literal one, or where to read it when a run starts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: str | None = None
    env: Annotated[str, Field(pattern=VARIABLE_PATTERN, max_length=200)] | None = None
    file: Annotated[str, Strict(), Field(min_length=1, max_length=1000)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_text(cls, data: Any, info: ValidationInfo) -> Any:
        """Read a text as a literal value. Raises ValueError for anything but text, and in a scenario file `{env: NAME}`
        or `{file: PATH}`."""
        if isinstance(data, str):
            return {"value": _check_text(data)}
        if not isinstance(data, Mapping):
            raise ValueError(f"must be text, {{env: NAME}} or {{file: PATH}}, not {format_value(data)}; quote numbers")
        if len(data) != 1 or ("value" in data and isinstance(info.context, Source)):
            raise ValueError("must be text, or a mapping with one key: {env: NAME} or {file: PATH}")
        return data

    @field_validator("file")
    @classmethod
    def _find_file(cls, file: str | None, info: ValidationInfo) -> str | None:
        """Return the absolute path of a file that is named relative to the scenario's folder: a resumed run knows no
        scenario file."""
        if file is None or not isinstance(info.context, Source):
            return file
        return str((info.context.folder / Path(file).expanduser()).absolute())

    @model_serializer
    def _write_text(self) -> str | dict[str, str]:
        return self.value if self.value is not None else {"env": self.env} if self.env else {"file": str(self.file)}

    @property
    def is_secret(self) -> bool:
        """Whether its value is read when a run starts, and recorded nowhere."""
        return self.value is None

    def __str__(self) -> str:
        if self.value is not None:
            return self.value
        return f"from the variable {self.env}" if self.env else f"from the file {self.file}"

    def read(self) -> str:
        """Return the value, a file's without line ends at its end. Raises ValueError where there is none."""
        if self.value is not None:
            return self.value
        text = _read_variable(self.env) if self.env else _read_file(Path(str(self.file)))
        register_secret(text)
        return text


def _read_variable(name: str) -> str:
    if name not in os.environ:
        raise ValueError(f"the variable {name} is not set; hint: export {name}=...")
    return os.environ[name]


def _read_file(path: Path) -> str:
    try:
        text = path.read_text("utf-8").rstrip("\r\n")
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is not text in UTF-8") from None
    if "\0" in text or len(text) > _LONGEST_VALUE:
        raise ValueError(f"{path}: must have no NUL character, and at most {_LONGEST_VALUE} characters")
    return text


def read_environment(variables: Mapping[str, EnvironmentValue], *, secrets_only: bool = False) -> dict[str, str]:
    """Return the values of variables by name; with `secrets_only` without literal ones. Raises InputError with a
    problem for each that has none."""
    values: dict[str, str] = {}
    problems = []
    for name, one in variables.items():
        try:
            if one.is_secret or not secrets_only:
                values[name] = one.read()
        except ValueError as error:
            problems.append(Problem("", 0, f"load.env.{name}", str(error)))
    if problems:
        raise InputError(problems)
    return values


_OPTION_SCHEMA: Final = {"type": ["string", "number", "boolean"]}
_ORIGINS: Final = [
    {"type": "object", "properties": {key: {"type": "string"}}, "required": [key], "additionalProperties": False}
    for key in ("env", "file")
]
VALUE_SCHEMA: Final = {"anyOf": [{"type": "string"}, *_ORIGINS]}


def describe_mapping(values: str, pattern: str, schema: dict[str, Any]) -> WithJsonSchema:
    """Return the schema of a mapping whose keys match a pattern, and have such values."""
    title = f"mapping of names to {values}"
    return WithJsonSchema(
        {"type": "object", "title": title, "patternProperties": {pattern: schema}, "additionalProperties": False}
    )


OptionName = Annotated[str, Field(pattern=OPTION_PATTERN, max_length=100)]
OptionValue = Annotated[OptionValues, BeforeValidator(_check_option_value)]
Options = Annotated[
    dict[OptionName, OptionValue],
    Field(max_length=100),
    describe_mapping("text, numbers or `true`", OPTION_PATTERN, _OPTION_SCHEMA),
]
VariableName = Annotated[str, Field(pattern=VARIABLE_PATTERN, max_length=200), AfterValidator(_check_variable)]
Variables = Annotated[
    dict[VariableName, EnvironmentValue],
    Field(max_length=100),
    describe_mapping("text, `{env: NAME}` or `{file: PATH}`", VARIABLE_PATTERN, VALUE_SCHEMA),
]
Tag = Annotated[str, Field(pattern=TAG_PATTERN, max_length=100)]
