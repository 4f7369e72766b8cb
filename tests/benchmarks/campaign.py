"""Take runs of several kinds in turn, and go on where an earlier command stopped.

So a drift of the machine affects all kinds alike, and nothing that was measured is lost when a campaign is ended.
"""

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.errors import InvalidMeasurementError, exit_code_of
from bench.results.records import RunRecord
from bench.results.store import read_record
from bench.results.summary_records import Contrast, SummaryRecord
from tests.benchmarks.children import MESHBENCH

SCENARIOS: Final = Path(__file__).with_name("scenarios")
_ACCEPTED: Final = (0, exit_code_of(InvalidMeasurementError))


@dataclass(frozen=True, slots=True)
class Measured:
    """One finished run of a campaign."""

    kind: str
    record: RunRecord
    summary: SummaryRecord

    @property
    def seconds(self) -> float:
        """Return the time from the run's start to its end."""
        return (self.record.ended_at - self.record.started_at).total_seconds() if self.record.ended_at else 0.0

    def by_block(self, configuration: str, metric: str = "p95_ms") -> dict[int, float]:
        """Return a metric of the valid repeats of a configuration, by block."""
        repeats = self.summary.configurations[configuration].repeats
        found = ((repeat.block, getattr(repeat, metric)) for repeat in repeats if repeat.valid)
        return {block: value for block, value in found if value}

    def contrast(self, configuration: str, reference: str, metric: str = "p95_ms") -> Contrast:
        """Return the contrast of a pair."""
        pair = (configuration, reference, metric)
        return next(one for one in self.summary.contrasts if (one.configuration, one.reference, one.metric) == pair)


@dataclass(frozen=True, slots=True)
class Campaign:
    """Runs in `folder`, below a folder for each kind; `options` are those of `meshbench run`, by kind."""

    folder: Path
    options: Mapping[str, Sequence[str]]

    def go_on(self) -> str:
        """Make one run, of the kind with fewest runs, and return a line about it. Raises CalledProcessError where it
        fails."""
        return self._run(min(self.options, key=lambda kind: len(self._finished(kind))))

    def runs(self, kind: str) -> tuple[Measured, ...]:
        """Read the finished runs of a kind, oldest first."""
        return tuple(
            Measured(kind, read_record(run / "run.json", RunRecord), read_record(run / "summary.json", SummaryRecord))
            for run in self._finished(kind)
        )

    def _run(self, kind: str) -> str:
        began = time.monotonic()
        argv = [MESHBENCH, "run", *self.options[kind], "--output", str(self.folder / kind)]
        ran = subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        if ran.returncode not in _ACCEPTED:
            raise subprocess.CalledProcessError(ran.returncode, argv, stderr=ran.stderr)
        return f"  {kind}: {time.monotonic() - began:.0f} s, exit code {ran.returncode}"

    def _finished(self, kind: str) -> list[Path]:
        return [summary.parent for summary in sorted(self.folder.glob(f"{kind}/*/summary.json"))]
