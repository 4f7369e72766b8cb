"""Copy the reports of a nightly job to where they are served, and nothing else of its runs."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.errors import StoreError

LATEST: Final = "latest.html"
_SUFFIX: Final = ".report.html"


def publish_reports(runs: Sequence[Path], pages: Path) -> None:
    """Copy the report of each run, the newest last, to `pages`, the newest as latest.html as well; remove the copies of
    runs that are gone. Raises StoreError."""
    try:
        pages.mkdir(parents=True, exist_ok=True)
        reports = {f"{run.name}{_SUFFIX}": run / "report" / "index.html" for run in runs}
        there = {name: report for name, report in reports.items() if report.is_file()}
        for name, report in there.items():
            shutil.copyfile(report, pages / name)
        for old in pages.glob(f"*{_SUFFIX}"):
            if old.name not in there:
                old.unlink()
        if there:
            shutil.copyfile([*there.values()][-1], pages / LATEST)
    except OSError as error:
        raise StoreError(f"{pages}: reports cannot be copied there: {error.strerror or error}") from error
