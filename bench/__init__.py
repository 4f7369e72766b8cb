"""meshbench: what does this service mesh, with these policies, cost this application?"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from os import PathLike

    from bench.frames.run import Run

__version__ = "0.1.0"


def open_run(path: "str | PathLike[str]", *, strict: bool = False) -> "Run":
    """Open the folder of a run, to read its numbers as pandas DataFrames. Loads pandas when it is called, not before.

    Raises StoreError where there is no run, for another version of its format, or, if `strict`, for a damaged trial.
    """
    from pathlib import Path

    from bench.frames.run import Run
    from bench.results import store

    return Run(store.read_run(Path(path), strict=strict))
