"""Forecast what a run records at an expected rate of requests: samples, disk and memory. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

from bench.results.samples import RAW_ROW, TASK_ROW
from bench.scenario.model import Load, Scenario
from bench.scenario.plan import Trial
from bench.units import format_bytes, format_counted, format_rps

STORED_BYTES: Final = 12  # of a sample in `samples.parquet`
HELD_BYTES: Final = 250  # of memory, of each sample of the trials that end together, while their files are written
_RECORDED_BYTES: Final = RAW_ROW.itemsize + TASK_ROW.itemsize  # of a sample, until its trial has ended


@dataclass(frozen=True, slots=True)
class Forecast:
    """What trials record. `rates` are requests per second by configuration, None where they are not known: the other
    numbers are without those configurations. `disk_bytes` is the most at a time, `memory_bytes` what meshbench itself
    needs at the end of the largest unit."""

    rates: Mapping[str, float | None]
    samples: int
    disk_bytes: int
    memory_bytes: int

    def __str__(self) -> str:
        known = {rate for rate in self.rates.values() if rate is not None}
        unknown = [name for name, rate in self.rates.items() if rate is None]
        parts = []
        if known:
            least, most = format_rps(min(known)), format_rps(max(known))
            rate = most if least == most else f"{least} to {most}"
            parts.append(
                f"about {format_counted(self.samples, 'sample')} at {rate} requests/s for each configuration:"
                f" {format_bytes(self.disk_bytes)} of disk, {format_bytes(self.memory_bytes)} of memory"
            )
        if unknown:
            parts.append(f"the rate of {', '.join(unknown)} is not known, and measured in the first warm-up")
        return "; ".join(parts)


def expect_rates(scenario: Scenario, *, has_own_waits: bool) -> dict[str, float | None]:
    """Return the expected requests per second of each configuration, at most: the rate of an open loop, else that of
    users who wait for their think time alone. None where it is not known: without a think time, or where the Locust
    file `has_own_waits` and the scenario names no think time."""
    return {one.name: _expect_rate(scenario.load_of(one.name), has_own_waits) for one in scenario.configurations}


def _expect_rate(load: Load, has_own_waits: bool) -> float | None:  # a helper of one caller
    if load.rate_per_s is not None:
        return load.rate_per_s
    is_named = "think_time_s" in load.model_fields_set
    return load.users / load.think_time_s if load.think_time_s and (is_named or not has_own_waits) else None


def forecast_records(scenario: Scenario, trials: Sequence[Trial], rates: Mapping[str, float | None]) -> Forecast:
    """Forecast what these trials record at rates by configuration."""
    names = dict.fromkeys(trial.configuration for trial in trials)
    of_trial = {name: ceil((rates[name] or 0) * _load_s(scenario.load_of(name))) for name in names}
    samples = sum(of_trial[trial.configuration] for trial in trials)
    at_once = (sum if scenario.is_paired else max)(of_trial.values()) if of_trial else 0
    return Forecast(
        rates={name: rates[name] for name in names},
        samples=samples,
        disk_bytes=samples * STORED_BYTES + at_once * _RECORDED_BYTES,
        memory_bytes=at_once * HELD_BYTES,
    )


def _load_s(load: Load) -> float:
    return load.warmup_s + load.duration_s
