"""Define requests of a scenario's own that prove what its policies do."""

from typing import Annotated, Any, Final

from pydantic import Field, WithJsonSchema, field_validator

from bench.files.validation import HEADER_PATTERN, LABEL_PATTERN, LINE_PATTERN, METHOD_PATTERN, PATH_PATTERN
from bench.scenario.types import Section

OUTSIDE: Final = "outside"  # the caller without a sidecar or a certificate


def _is_number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("must be a status, such as 200, or 0 for a closed connection")
    return value


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
    headers: dict[Annotated[str, Field(pattern=HEADER_PATTERN)], Annotated[str, Field(pattern=LINE_PATTERN)]] = Field(
        {}, max_length=50, description="Headers in addition to the usual ones. They are recorded with the scenario."
    )
    expect: Annotated[int, Field(ge=0, le=599), WithJsonSchema({"type": "integer", "minimum": 0, "maximum": 599})] = (
        Field(description="The status of the response; 0 where the connection is closed without one.")
    )

    _check_status = field_validator("expect", mode="before")(_is_number)

    @property
    def subject(self) -> str:
        """The request for people: `web -> api: GET /items`."""
        return f"{self.caller} -> {self.to}: {self.method} {self.path}"
