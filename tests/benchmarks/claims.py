"""How often each design claims a difference where there is none: one configuration under six names."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.benchmarks.campaign import SCENARIOS, Campaign
from tests.benchmarks.designs import DESIGNS
from tests.benchmarks.figure import Figure

_SCENARIO: Final = str(SCENARIOS / "alike.yaml")
_ENOUGH: Final = 40
_MOST_FALSE: Final = 5 / 40
_BLOCKS: Final = {"duet": "8"}


def campaign(folder: Path) -> Campaign:
    """Return the campaign: in windows of 5 s, a duet of as many blocks as with `--quick`, the others of three."""
    short = ("--scenario", _SCENARIO, "--duration", "5s", "--warmup", "2s")
    return Campaign(folder, {one: (*short, "--design", one, "--repeats", _BLOCKS.get(one, "3")) for one in DESIGNS})


def figures(folder: Path) -> Iterator[Figure]:
    """Yield for each design how many of its comparisons exclude 1."""
    found = campaign(folder)
    for design in DESIGNS:
        contrasts = [
            one for run in found.runs(design) for one in run.summary.contrasts if one.confirmatory and one.ratio_low
        ]
        false = sum(not (one.ratio_low or 0) <= 1 <= (one.ratio_high or 0) for one in contrasts)
        enough = len(contrasts) >= _ENOUGH
        yield Figure(
            what=f"{design}: false claims",
            value=f"{false} of {len(contrasts)}",
            aim="<= 5 of 40",
            met=false <= _MOST_FALSE * len(contrasts) if enough else None,
        )
