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


def campaign(folder: Path) -> Campaign:
    """Return the campaign: a duet as with `--quick`, the others with three blocks in windows of 5 s."""
    short = ("--repeats", "3", "--duration", "5s", "--warmup", "2s")
    options = {design: ("--scenario", _SCENARIO, *short, "--design", design) for design in DESIGNS}
    return Campaign(folder, {**options, "duet": ("--scenario", _SCENARIO, "--quick")})


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
