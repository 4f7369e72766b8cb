"""What meshbench writes into a run's folder, as models: the files' schemas and docs come from here.

    run.json      RunRecord       what was run, where, in which order, and how it ended
    trial.json    TrialRecord     one deployment and measurement of one configuration
    proof.json    ProofRecord     the evidence that the trial measured what its name says
    summary.json  SummaryRecord   the numbers of every table

All times of samples are integer nanoseconds since the trial's start, on a monotonic clock; wall-clock times
are UTC and only name things.
"""

from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from bench.plan import Plan
from bench.scenario import Scenario

SCHEMA_VERSION: Final = 1


class Record(BaseModel):
    """Base of all records: frozen, and unknown keys are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


RunStatus = Literal["running", "complete", "invalid", "interrupted", "failed"]
TrialStatus = Literal["complete", "invalid", "failed", "interrupted"]
Metric = Literal["p50_ms", "p95_ms", "p99_ms", "rps"]
Role = Literal["service", "sidecar", "generator", "control-plane", "node"]
Verdict = Literal["slower", "faster", "different", "equivalent", "inconclusive", "invalid"]


class Environment(Record):
    """The surroundings that a number depends on; runs are compared only when these are equal."""

    meshbench: str
    python: str
    locust: str
    envoy: str
    os: str
    kernel: str
    machine: str
    cpu_model: str
    cpus: int
    memory_bytes: int
    address_host: Annotated[str, Field(description="a short hash of the machine's or cluster's id, never its name")]
    cluster: Annotated[str, Field(description="the cluster's version and nodes; empty on one machine")] = ""


class TargetRecord(Record):
    """Where the run happened, and what this place does not have: `caveats` go into every report's heading."""

    kind: Literal["local", "kubernetes"]
    title: str
    caveats: tuple[str, ...]


class ClusterRecord(Record):
    """How a run uses its cluster, so that it can be resumed and repeated alike."""

    version: Annotated[str, Field(description="of the API server")]
    nodes: int
    images: Annotated[dict[str, str], Field(description="images that replace those of the manifests, by workload")]
    registry: Annotated[str, Field(description="the mirror that images are pulled from; empty for their own")] = ""
    mesh_values: Annotated[dict[str, tuple[str, ...]], Field(description="values files by mesh, in the run's values/")]
    mesh_versions: Annotated[dict[str, str], Field(description="the meshes' tools, as they name their version")]
    hub: str = ""
    tag: str = ""
    revision: str = ""
    existing_mesh: Annotated[bool, Field(description="the mesh was there before, and stays")] = False


class TrialEntry(Record):
    """A finished trial: its folder below `trials/`, and the SHA-256 of each of its files."""

    folder: str
    sha256: dict[str, str]


class RunRecord(Record):
    """`run.json`."""

    schema_version: Literal[1] = SCHEMA_VERSION
    run_id: str
    meshbench_version: str
    status: RunStatus
    exit_code: int | None = None
    reason: Annotated[str, Field(description="why the run is not complete, for people")] = ""
    started_at: datetime
    ended_at: datetime | None = None
    scenario: Scenario
    scenario_source: Annotated[str, Field(description="shipped name, or the file's name")]
    plan: Plan
    target: TargetRecord
    cluster: ClusterRecord | None = None
    environment: Environment
    trials: tuple[TrialEntry, ...] = ()
    cleanup_ok: bool | None = None


class Window(Record):
    """The steady part of a trial: a sample counts when `start_ns <= started_ns < end_ns`."""

    start_ns: int
    end_ns: int

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.start_ns) / 1e9


class GeneratorRecord(Record):
    """The load generator's own account of a trial."""

    locust_requests: Annotated[int, Field(description="requests that Locust counted")]
    locust_failures: int
    recorded: Annotated[int, Field(description="rows that the recorder wrote")]
    exit_code: int | None
    locust_p95_ms: Annotated[float | None, Field(description="Locust's own, rounded P95: a cross-check only")] = None
    problem: Annotated[str, Field(description="why the generator ended early, if it did")] = ""


class ClockRecord(Record):
    """How far the monotonic and the wall clock moved apart: a machine that slept shows here."""

    monotonic_s: float
    wall_s: float

    @property
    def gap_s(self) -> float:
        return abs(self.wall_s - self.monotonic_s)


class TrialRecord(Record):
    """`trial.json`."""

    schema_version: Literal[1] = SCHEMA_VERSION
    trial: Annotated[str, Field(description="the trial's folder name: 01-baseline-1")]
    number: int
    configuration: str
    block: int
    status: TrialStatus
    reasons: Annotated[tuple[str, ...], Field(description="why the trial cannot carry a result")] = ()
    warnings: Annotated[tuple[str, ...], Field(description="doubts that do not make it invalid")] = ()
    started_at: datetime
    users: int
    think_time_s: float
    rate: Annotated[float | None, Field(description="arrivals per second of an open loop; null: closed loop")] = None
    windows: tuple[Window, ...]
    warmup_extended: bool = False
    generator: GeneratorRecord | None = None
    clock: ClockRecord | None = None
    restarts: Annotated[tuple[str, ...], Field(description="processes that ended during the trial")] = ()
    images: Annotated[dict[str, str], Field(description="container images that ran, with their digests")] = {}


class Evidence(Record):
    """One machine-checked fact: what was asked of whom, what had to be seen, and what was seen."""

    name: str
    subject: str
    ok: bool
    expected: str
    seen: str


class ProofRecord(Record):
    """`proof.json`: evidence from before and after the window."""

    schema_version: Literal[1] = SCHEMA_VERSION
    trial: str
    before: tuple[Evidence, ...]
    after: tuple[Evidence, ...]

    @property
    def failures(self) -> tuple[Evidence, ...]:
        return tuple(evidence for evidence in (*self.before, *self.after) if not evidence.ok)


class ProcessUse(Record):
    """What one process used during the window of one repeat: a process, a container of a pod, or a whole node, which
    has all the others in it. Null where it was read too seldom to say."""

    process: str
    role: Role
    cpu_s: Annotated[float | None, Field(description="CPU time in the seconds of `seen_s`")]
    seen_s: Annotated[float | None, Field(description="seconds of the window that lie between readings")] = None
    cpu_ms_per_request: float | None
    rss_max_bytes: Annotated[int | None, Field(description="resident size; of a container or node its working set")]


class RepeatSummary(Record):
    """One repeat's numbers, from the raw samples of its window; null where they cannot be had.

    `requests` are all that started inside the window, `errors` those that were not good; the percentiles
    are nearest-rank over the good ones.
    """

    trial: str
    block: int
    valid: bool
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
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
    generator_cpu: Annotated[float | None, Field(description="cores used by the generator")]
    resources: tuple[ProcessUse, ...]


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
    sidecar_rss_bytes: Annotated[float | None, Field(description="sum over sidecars of the largest resident size")]
    service_cpu_ms_per_request: float | None


class Contrast(Record):
    """Two configurations on one metric. `ratio` 1.10 is +10 %; the deltas are in ms, or in 1/s for `rps`."""

    configuration: str
    reference: str
    metric: Metric
    n: tuple[int, int]
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
    reason: Annotated[str, Field(description="why there is no interval, or why the verdict is withheld")]
    mde: Annotated[float | None, Field(description="smallest ratio minus 1 that would be found with 80 % power")]
    block_ratios: Annotated[tuple[float | None, ...], Field(description="the ratio inside each block")]


class SummaryRecord(Record):
    """`summary.json`."""

    schema_version: Literal[1] = SCHEMA_VERSION
    run_id: str
    scenario: str
    target: str
    valid: bool
    quick: bool
    status: RunStatus
    reference: str | None
    margin: float
    confidence: float
    configurations: dict[str, ConfigurationSummary]
    contrasts: tuple[Contrast, ...]
    doubts: Annotated[tuple[str, ...], Field(description="what a reader must know before using a number")]


FILES: dict[str, type[Record]] = {
    "run": RunRecord,
    "trial": TrialRecord,
    "proof": ProofRecord,
    "summary": SummaryRecord,
}
