"""Try many cases of an edge for some time, and count what is found."""

import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded

from tests.fuzz.edge import Case, Edge
from tests.fuzz.mutations import limited

_BATCH: Final = 500  # cases of one seed
_SHOWN: Final = 300


@dataclass
class Outcome:
    """How many cases were tried in how many seconds, and each fault with its first case, by where it was raised."""

    cases: int = 0
    seconds: float = 0.0
    faults: dict[str, str] = field(default_factory=dict)

    @property
    def per_minute(self) -> float:
        return self.cases / self.seconds * 60


def fuzz(edge: Edge, folder: Path, *, seconds: float, seed: int) -> Outcome:
    """Try cases of an edge for so many seconds, drawn by a seed and those after it."""
    cases, read = edge.prepare(folder)
    outcome, began = Outcome(), time.monotonic()

    def try_one(case: Case) -> None:
        if time.monotonic() - began > seconds:
            return
        outcome.cases += 1
        try:
            with limited():
                edge.try_case(read, case)
        except Exception as error:  # noqa: BLE001  # that is what is looked for
            outcome.faults.setdefault(_locate(error), f"{error!r:.{_SHOWN}} for {case!r:.{_SHOWN}}")

    settled = settings(
        max_examples=_BATCH,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    while time.monotonic() - began < seconds:
        seeded(seed)(settled(given(cases)(try_one)))()
        seed += 1
    outcome.seconds = time.monotonic() - began
    return outcome


def _locate(error: Exception) -> str:
    """Return the last line of the product that an error went through."""
    frames = traceback.extract_tb(error.__traceback__)
    last = next((one for one in reversed(frames) if "/bench/" in one.filename), frames[-1])
    return f"{type(error).__name__} at {last.filename}:{last.lineno}"
