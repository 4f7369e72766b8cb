"""The problems of one scenario file, without its manifests."""

from pathlib import Path

from bench.errors import InputError, Problem
from bench.scenario.loader import load_scenario


def validate_file(path: Path) -> tuple[Problem, ...]:
    """Return the problems of a scenario file, none where it is valid."""
    try:
        load_scenario(str(path))
    except InputError as error:
        return error.problems
    return ()
