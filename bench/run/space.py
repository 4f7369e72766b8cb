"""Check that what a run records fits on the disk and into memory: before it starts, when its first warm-up has shown
the rate of requests, and during each load."""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from bench.analysis.forecast import Forecast, expect_rates, forecast_records
from bench.check_result import CheckResult
from bench.errors import StoreError
from bench.load.generator import Progress
from bench.load.locustfile_check import is_shipped
from bench.meshes.resolved import ResolvedScenario
from bench.results.store import RunFolder
from bench.scenario.plan import Plan
from bench.units import format_bytes

RESERVE_BYTES: Final = 1024**3  # of the disk: a load ends before others on this machine have none left
START_BYTES: Final = 1024**3  # of memory, for the application, sidecars and Locust on this machine
CLIENT_BYTES: Final = 256 * 1024**2  # of memory, for meshbench itself where these are elsewhere

_SMALLER: Final = "use a lower rate or fewer users, shorter windows, or fewer repeats"


def forecast_run(resolved: ResolvedScenario, plan: Plan) -> Forecast:
    """Forecast what a run records."""
    rates = expect_rates(resolved.scenario, has_own_waits=not is_shipped(resolved.inputs.locustfile))
    return forecast_records(resolved.scenario, plan.trials, rates)


def check_space(output: Path, expected: Forecast, *, base_bytes: int = START_BYTES) -> tuple[CheckResult, ...]:
    """Check disk and memory for what a run is expected to record. `base_bytes` of memory is for everything else."""
    return (
        CheckResult("records", "ok", str(expected)),
        _check_disk(find_folder(output), expected.disk_bytes + RESERVE_BYTES),
        _check_memory(expected.memory_bytes + base_bytes),
    )


def find_folder(output: Path) -> Path:
    """Return the folder that exists, of a path and its parents."""
    # os.path.exists, since Path.exists raises where permission is missing
    return next(path for path in (output.resolve(), *output.resolve().parents) if os.path.exists(path))  # noqa: PTH110


def raise_first_error(results: Iterable[CheckResult]) -> None:
    """Raise the error of the first check that failed."""
    for result in results:
        if result.status == "error":
            raise result.error(f"{result.name}: {result.detail}; hint: {result.hint}")


def _check_disk(folder: Path, needed: int) -> CheckResult:
    free = shutil.disk_usage(folder).free
    if free >= needed:
        return CheckResult("free disk", "ok", format_bytes(free))
    detail = f"{format_bytes(free)} on the disk of {folder}, {format_bytes(needed)} needed"
    return CheckResult("free disk", "error", detail, f"remove files, choose another disk with --output, or {_SMALLER}")


def _check_memory(needed: int) -> CheckResult:
    free = psutil.virtual_memory().available
    if free >= needed:
        return CheckResult("free memory", "ok", format_bytes(free))
    detail = f"{format_bytes(free)}, {format_bytes(needed)} needed"
    return CheckResult("free memory", "error", detail, f"end other programs, or {_SMALLER}")


@dataclass(frozen=True, slots=True)
class SpaceWatch:
    """Watches the disk of a run during its loads; `rates` are those that were measured in the first warm-ups."""

    folder: RunFolder
    rates: dict[str, float | None] = field(default_factory=dict)

    def look(self, configuration: str, progress: Progress) -> None:
        """Raise StoreError before the last GiB of the disk is used. When a configuration's first window begins, raise
        RefusedError where what is missing of the run does not fit at the measured rates."""
        if shutil.disk_usage(self.folder.path).free < RESERVE_BYTES:
            left = format_bytes(RESERVE_BYTES)
            raise StoreError(
                f"{self.folder.path}: less than {left} is free on its disk, so that the load was ended; complete trials"
                " are kept"
            )
        if not progress.in_window or configuration in self.rates:
            return
        self.rates[configuration] = progress.sent_per_s
        record = self.folder.record
        finished = {entry.folder for entry in record.trials}
        missing = [trial for trial in record.plan.trials if trial.folder not in finished]
        rates = {name: self.rates.get(name) for name in {trial.configuration for trial in missing}}
        expected = forecast_records(record.scenario, missing, rates)
        raise_first_error(check_space(self.folder.path, expected, base_bytes=0))
