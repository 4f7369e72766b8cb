"""The base of all records."""

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION: Final = 2

RunStatus = Literal["running", "complete", "invalid", "interrupted", "failed"]


class Record(BaseModel):
    """Base of all records: frozen, rejects unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
