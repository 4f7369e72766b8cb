"""Define the issues of trials and runs as data. What each code means and advises is in `bench.analysis.validity`."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from bench.results.base import Record

Severity = Literal["reason", "warning"]


class IssueCode(StrEnum):
    """The codes of issues: of a trial, of its load and its end, of a run's end, of a comparison, of a run's numbers."""

    EMPTY = "empty"
    ALL_FAILED = "all-failed"
    ERRORS = "errors"
    FEW_REQUESTS = "few-requests"
    SCARCE_REQUESTS = "scarce-requests"
    IMPOSSIBLE = "impossible-samples"
    LOST_ROWS = "lost-rows"
    GENERATOR_ENDED = "generator-ended"
    GENERATOR_CPU = "generator-cpu"
    LATE = "late-requests"
    IDENTITY = "closed-loop"
    MISSED_ARRIVALS = "missed-arrivals"
    STALL = "stall"
    UNSTEADY = "unsteady"
    RESTART = "restart"
    CLOCK = "clock"
    DERIVED_STARTS = "derived-starts"
    MANY_NAMES = "many-names"
    OWN_WAITS = "own-waits"
    OFF_TARGET = "off-target"
    USER_ERRORS = "user-errors"
    PROOF = "proof"
    UNPROVEN = "unproven"
    ENDED_EARLY = "ended-early"
    UNREAD_STATE = "unread-state"
    API_OUTAGE = "api-outage"
    CLOCK_SKEW = "clock-skew"
    NO_RESOURCES = "no-resources"
    NO_PROMETHEUS = "no-prometheus"
    INTERRUPTED = "interrupted"
    TIMEOUT = "timeout"
    KILLED = "killed"
    FAILED = "failed"
    INTERNAL_ERROR = "internal-error"
    NO_VALID_REPEAT = "no-valid-repeat"
    EXCLUDED_REPEATS = "excluded-repeats"
    NO_PERCENTILE = "no-percentile"
    NO_INTERVAL = "no-interval"
    BELOW_REFERENCE = "below-reference"
    MAYBE_ZERO = "maybe-zero"
    BUSY_CPUS = "busy-cpus"
    FEW_CPUS = "few-cpus"
    QUICK = "quick"
    UNFINISHED = "unfinished"
    INVALID_TRIAL = "invalid-trial"
    MEASURED_AGAIN = "measured-again"
    DAMAGED_TRIAL = "damaged-trial"
    RESOLUTION = "resolution"
    DESIGN = "design"
    NO_EFFECT = "no-effect"
    UNPROBED = "unprobed"
    LEFT_OUT = "left-out"
    NOISE = "noise"
    NO_OVERLAP = "no-overlap"
    CORRELATED = "correlated"
    OTHER_MACHINE = "other-machine"
    IMAGE_CHANGED = "image-changed"
    OTHER = "other"


class Issue(Record):
    """A problem of a trial or run. A reason makes a trial invalid, or is why a run is not complete; a warning is shown
    with the numbers."""

    code: IssueCode
    severity: Severity
    detail: Annotated[str, Field(description="what was seen, as text")]


def select_reasons(issues: Iterable[Issue]) -> tuple[Issue, ...]:
    """Return the issues that make a trial invalid."""
    return tuple(issue for issue in issues if issue.severity == "reason")


def select_warnings(issues: Iterable[Issue]) -> tuple[Issue, ...]:
    """Return the issues that leave a trial valid."""
    return tuple(issue for issue in issues if issue.severity == "warning")
