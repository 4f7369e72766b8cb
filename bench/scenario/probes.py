"""Define requests of a scenario's own that prove what its policies do."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Final

from pydantic import Field, WithJsonSchema, field_validator

from bench.files.validation import HEADER_PATTERN, LABEL_PATTERN, LINE_PATTERN, METHOD_PATTERN, PATH_PATTERN
from bench.files.yaml_source import Loc
from bench.scenario.load_settings import VALUE_SCHEMA, EnvironmentValue, describe_mapping
from bench.scenario.types import Section

OUTSIDE: Final = "outside"  # the caller without a sidecar or a certificate
_LINE: Final = re.compile(LINE_PATTERN)


def _is_number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("must be a status, such as 200, or 0 for a closed connection")
    return value


class HeaderValue(EnvironmentValue):
    """The value of a header: a literal one, or where to read it when a run starts."""

    value: Annotated[str, Field(pattern=LINE_PATTERN)] | None = None

    def read(self) -> str:
        """Return the value. Raises ValueError where there is none, or where a header cannot have it."""
        text = super().read()
        if _LINE.search(text) is None or not _is_latin(text):
            raise ValueError(f"{self}: must be one line without control characters, in Latin-1")
        return text


def _is_latin(text: str) -> bool:
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True


Headers = Annotated[
    dict[Annotated[str, Field(pattern=HEADER_PATTERN)], HeaderValue],
    Field(max_length=50),
    describe_mapping("text, `{env: NAME}` or `{file: PATH}`", HEADER_PATTERN, VALUE_SCHEMA),
]


class ScenarioProbe(Section):
    """A request whose response shows that a configuration is what it should be. It is sent before and after each load,
    from a pod, or on one machine a process, with the account and the labels of a workload."""

    caller: Annotated[str, Field(pattern=LABEL_PATTERN)] = Field(
        alias="as",
        description="The workload that sends it, through its sidecar; or `outside`, in plaintext without a sidecar.",
    )
    to: Annotated[str, Field(pattern=LABEL_PATTERN)] = Field(description="The workload, or `gateway`, that gets it.")
    method: Annotated[str, Field(pattern=METHOD_PATTERN)] = Field("GET", description="The method.")
    path: Annotated[str, Field(pattern=PATH_PATTERN, max_length=2000)] = Field(
        "/", description="The path, with the query if there is one."
    )
    headers: Headers = Field(
        {},
        description="Headers in addition to the usual ones. A text is recorded with the scenario; a secret is read from"
        " a variable or a file when a run starts, and recorded nowhere.",
    )
    expect: Annotated[int, Field(ge=0, le=599), WithJsonSchema({"type": "integer", "minimum": 0, "maximum": 599})] = (
        Field(description="The status of the response; 0 where the connection is closed without one.")
    )

    _check_status = field_validator("expect", mode="before")(_is_number)

    @property
    def subject(self) -> str:
        """The request for people: `web -> api: GET /items`."""
        return f"{self.caller} -> {self.to}: {self.method} {self.path}"

    def read_headers(self) -> tuple[tuple[str, str], ...]:
        """Return its headers with their values. Raises ValueError for one that has none."""
        return tuple((name, one.read()) for name, one in self.headers.items())

    def list_unreadable_headers(self) -> Iterator[tuple[Loc, str]]:
        """Yield each header whose value cannot be read, with its path in the probe, and why."""
        for name, one in self.headers.items():
            try:
                one.read()
            except ValueError as error:
                yield ("headers", name), str(error)
