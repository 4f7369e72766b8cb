"""The base of all records."""

from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from bench.units import NANOSECONDS

SCHEMA_VERSION: Final = 2

RunStatus = Literal["running", "complete", "invalid", "interrupted", "failed"]


LONGEST_NS: Final = 400 * 24 * 3600 * NANOSECONDS
"""No run has times beyond it; sums and differences of times within it fit into 64 bits."""
_LONGEST_WINDOW_NS: Final = 40 * 24 * 3600 * NANOSECONDS


def _require_plausible(at: datetime) -> datetime:
    """Refuse years at both ends of the calendar, whose times in another zone do not exist."""
    if not _FIRST_YEAR <= at.year <= _LAST_YEAR:
        raise ValueError(f"the year {at.year} is not that of a run")
    return at.astimezone(UTC)


_FIRST_YEAR: Final = 2000
_LAST_YEAR: Final = 2999

# The values of records: a file whose checksum fits may have been written by anything.
Time = Annotated[AwareDatetime, AfterValidator(_require_plausible)]
Count = Annotated[int, Field(ge=0, lt=1 << 62)]
Number = Annotated[int, Field(ge=1, le=1_000_000)]
Seconds = Annotated[float, Field(ge=0, le=1e12)]
Logarithm = Annotated[float, Field(ge=-100, le=100)]
WindowNs = Annotated[int, Field(ge=0, le=_LONGEST_WINDOW_NS)]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200)]


class Record(BaseModel):
    """Base of all records: frozen, rejects unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
