"""How long `meshbench --help` takes, compared with the least that a command made with click can take."""

import sys
from collections.abc import Iterator
from statistics import median

from bench.units import format_ratio
from tests.benchmarks.children import MESHBENCH, used_by
from tests.benchmarks.figure import Figure, Pairs, format_s

_PAIRS = 15
_AIM = 2.0
_BARE = [sys.executable, "-c", "import click"]
_HELP = [MESHBENCH, "--help"]


def figures() -> Iterator[Figure]:
    """Yield the ratio, pair by pair, and both times."""
    used_by(_BARE), used_by(_HELP)  # the first of each reads its files from the disk
    measured = [(used_by(_BARE).wall_s, used_by(_HELP).wall_s) for _ in range(_PAIRS)]
    pairs = Pairs.of(measured)
    yield Figure(
        what="meshbench --help / python -c 'import click'",
        value=format_ratio(pairs.median),
        spread=pairs.summary,
        aim="<= 2.00",
        met=pairs.median <= _AIM,
    )
    bare, helped = (median(times) for times in zip(*measured, strict=True))
    yield Figure(what="meshbench --help", value=format_s(helped))
    yield Figure(what="python -c 'import click'", value=format_s(bare))
