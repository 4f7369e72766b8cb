"""Define the records of `summary.json`: the numbers of every table, from one process's use to the whole run."""

from typing import Annotated, Literal

from pydantic import Field

from bench.results.base import SCHEMA_VERSION, Record, RunStatus
from bench.results.issues import Issue, select_reasons, select_warnings
from bench.scenario.types import Design
from bench.system.processes import Role

Metric = Literal["p50_ms", "p95_ms", "p99_ms", "rps"]

Verdict = Literal["slower", "faster", "different", "equivalent", "inconclusive", "invalid"]


class ProcessUse(Record):
    """CPU and memory during the window of one repeat: of a process, a container of a pod, or a whole node, which
    includes all others. Null where there are too few readings."""

    process: str
    role: Role
    cpu_s: Annotated[float | None, Field(description="CPU time in the seconds of `seen_s`")]
    seen_s: Annotated[float | None, Field(description="seconds of the window that are between readings")] = None
    cpu_ms_per_request: float | None
    rss_max_bytes: Annotated[int | None, Field(description="resident size; of a container or node its working set")]


class NamedRepeat(Record):
    """The requests of one name in one repeat; percentiles are nearest-rank over the successful ones."""

    name: str
    requests: int
    errors: int
    p50_ms: float | None
    p95_ms: float | None


class RepeatSummary(Record):
    """One repeat's numbers, from the raw samples of its window; null where they cannot be computed.

    `requests` are all that started inside the window, `errors` those that failed; the percentiles are nearest-rank over
    the successful ones. An interleaved repeat has several windows, whose statistics are averaged.
    """

    trial: str
    block: int
    valid: bool
    issues: tuple[Issue, ...]
    requests: int
    errors: int
    window_s: float
    rps: float | None
    mean_ms: float | None
    p50_ms: float | None
    p75_ms: float | None
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    p999_ms: float | None
    max_ms: float | None
    thesis_p95_ms: float | None
    corrected_p95_ms: Annotated[float | None, Field(description="P95 from intended starts, omission corrected")]
    stall_s: Annotated[int, Field(description="whole seconds of the window without a completed request")]
    lateness_p95_ms: Annotated[float | None, Field(description="P95 of start minus intended start")]
    own_wait_ms: Annotated[
        float | None, Field(description="mean wait of a user, where the locustfile's own waits hold; else null")
    ] = None
    generator_cpu: Annotated[float | None, Field(description="cores used by the generator")]
    used_cpu: Annotated[
        float | None, Field(description="share of all CPUs that the run used, with all configurations of the block")
    ] = None
    other_cpu: Annotated[float | None, Field(description="share of all CPUs that all other processes used")] = None
    steal: Annotated[float | None, Field(description="share of all CPUs that the hypervisor gave to others")] = None
    pressure: Annotated[float | None, Field(description="share of the time in which some process waited for a CPU")] = (
        None
    )
    throttled: Annotated[float | None, Field(description="share of the time in which a limit stopped processes")] = None
    resources: tuple[ProcessUse, ...]
    by_name: Annotated[tuple[NamedRepeat, ...], Field(description="where requests have more than one name")] = ()

    @property
    def reasons(self) -> tuple[Issue, ...]:
        return select_reasons(self.issues)

    @property
    def warnings(self) -> tuple[Issue, ...]:
        return select_warnings(self.issues)


class NamedLatency(Record):
    """The requests of one name in one configuration, over its valid repeats: geometric means."""

    name: str
    n: Annotated[int, Field(description="valid repeats with successful requests of this name")]
    requests: int
    errors: int
    p50_ms: float | None
    p50_low_ms: float | None
    p50_high_ms: float | None
    p95_ms: float | None
    p95_low_ms: float | None
    p95_high_ms: float | None
    no_interval: Annotated[str, Field(description="why there is no interval, if there is none")]


class ConfigurationSummary(Record):
    """One configuration over its valid repeats: geometric means of P95, arithmetic of RPS."""

    mesh: str
    users: int
    valid: bool
    repeats: tuple[RepeatSummary, ...]
    n: Annotated[int, Field(description="valid repeats")]
    p95_ms: float | None
    p95_low_ms: float | None
    p95_high_ms: float | None
    p95_cv: Annotated[float | None, Field(description="standard deviation of ln P95 between repeats")]
    no_interval: Annotated[str, Field(description="why there is no interval, if there is none")]
    rps: float | None
    rps_low: float | None
    rps_high: float | None
    thesis_p95_ms: float | None
    requests: int
    errors: int
    sidecar_cpu_ms_per_request: float | None
    sidecar_cpu_low_ms_per_request: float | None = None
    sidecar_cpu_high_ms_per_request: float | None = None
    sidecar_rss_bytes: Annotated[float | None, Field(description="sum over sidecars of the largest resident size")]
    service_cpu_ms_per_request: float | None
    by_name: Annotated[tuple[NamedLatency, ...], Field(description="where requests have more than one name")] = ()


class Contrast(Record):
    """Two configurations on one metric. `ratio` 1.10 is +10 %; the deltas are in ms, or in 1/s for `rps`."""

    configuration: str
    reference: str
    metric: Metric
    n: Annotated[tuple[int, int], Field(description="valid repeats; in a paired design the blocks in which both are")]
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    delta_ms: float | None
    delta_low_ms: float | None
    delta_high_ms: float | None
    delta_rps: float | None
    delta_low_rps: float | None
    delta_high_rps: float | None
    method: str
    verdict: Verdict
    confirmatory: Annotated[bool, Field(description="true for the one contrast on P95 against the reference")]
    issues: Annotated[tuple[Issue, ...], Field(description="why there is no interval, or no verdict")]
    mde: Annotated[
        float | None,
        Field(description="smallest ratio minus 1 that is found with 80 % power"),
    ]
    block_ratios: Annotated[tuple[float | None, ...], Field(description="the ratio inside each block")]
    within_low: Annotated[
        float | None, Field(description="the ratio's 95 % interval without the differences between blocks")
    ] = None
    within_high: float | None = None
    median_ratio: Annotated[float | None, Field(description="median of the blocks' ratios, from 8 blocks on")] = None
    median_low: Annotated[float | None, Field(description="its exact interval, by order statistics")] = None
    median_high: float | None = None
    lag_1: Annotated[
        float | None, Field(description="correlation of neighbouring blocks' ln ratios, corrected for bias")
    ] = None
    effective_n: Annotated[float | None, Field(description="number of independent blocks that know as much")] = None
    sequential_minutes: Annotated[
        float | None, Field(description="machine minutes in which a sequential run would know the ratio as well")
    ] = None
    named: Annotated[bool, Field(description="the scenario names this pair in its `contrasts`")] = False
    alike: Annotated[bool, Field(description="one configuration under two names: any difference is noise")] = False

    @property
    def standing(self) -> Literal["confirmatory", "planned", "exploratory"]:
        """`planned` is P95 of a pair that the scenario names before the run, in addition to the confirmatory ones."""
        if self.confirmatory:
            return "confirmatory"
        return "planned" if self.named and self.metric == "p95_ms" else "exploratory"


class HopCost(Record):
    """What one proxy adds to a page: the difference to the reference, divided by the proxies that a page crosses in
    addition to the reference's. Arithmetic means over repeats, Welch's interval in ms; in a paired design the mean of
    the blocks' differences, with its t interval."""

    configuration: str
    reference: str
    statistic: Literal["mean_ms", "p50_ms"]
    n: tuple[int, int]
    hops: Annotated[int, Field(description="calls for a page, one after the other")]
    proxies: Annotated[int, Field(description="proxies that a page crosses in addition to the reference's")]
    ms_per_proxy: float | None
    low_ms_per_proxy: float | None
    high_ms_per_proxy: float | None
    issues: Annotated[tuple[Issue, ...], Field(description="warnings about the number")]


class SummaryRecord(Record):
    """`summary.json`."""

    schema_version: Literal[2] = SCHEMA_VERSION
    run_id: str
    scenario: str
    target: str
    valid: bool
    quick: bool
    design: Annotated[Design, Field(description="how the configurations of a block shared its time")] = "sequential"
    minutes: Annotated[float | None, Field(description="machine minutes from the run's start to its end")] = None
    cpu_use: Annotated[float | None, Field(description="share of all CPUs that the run used in its windows")] = None
    reruns: Annotated[int, Field(description="blocks that were measured again")] = 0
    status: RunStatus
    reference: str | None
    margin: float
    confidence: float
    configurations: dict[str, ConfigurationSummary]
    contrasts: tuple[Contrast, ...]
    hop_costs: tuple[HopCost, ...] = ()
    issues: Annotated[tuple[Issue, ...], Field(description="warnings about the run's numbers")]

    @property
    def is_paired(self) -> bool:
        """Whether the configurations of a block shared its time, so that they are compared by block."""
        return self.design != "sequential"
