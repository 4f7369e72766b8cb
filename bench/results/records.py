"""Define the records in a run's folder; their JSON Schemas are generated from these models.

Data paths come from the sidecars' own configuration and counters: times in seconds; null is none, or no limit.

    run.json      RunRecord       scenario, target, plan and end of a run
    trial.json    TrialRecord     one deployment and measurement of one configuration
    proof.json    ProofRecord     the evidence that the trial measured what its name says
    summary.json  SummaryRecord   the numbers of every table

All times of samples are integer nanoseconds since the trial's start, on a monotonic clock; wall-clock times are UTC and
are only used in names and headings.
"""

from itertools import pairwise
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from bench.results.base import (
    SCHEMA_VERSION,
    Count,
    FileName,
    Number,
    Record,
    RunStatus,
    Seconds,
    Time,
    WindowNs,
)
from bench.results.issues import Issue, select_reasons, select_warnings
from bench.results.summary_records import SummaryRecord
from bench.scenario.model import Scenario
from bench.scenario.plan import Plan
from bench.scenario.types import Design

ANY_NODE: Final = "any node"
"""The placement of a run whose pods nothing limits."""


class Retries(Record):
    """Envoy's retry policy of a route."""

    number: Count
    conditions: tuple[str, ...]
    per_try_timeout_s: Seconds | None
    backoff_s: Annotated[tuple[Seconds, Seconds], Field(description="the first interval and the longest")]


class Limits(Record):
    """Envoy's circuit breaker of a cluster."""

    connections: Count | None
    pending: Count | None
    requests: Count | None
    retries: Count | None


class ObservedConnections(Record):
    """The connections that the caller's sidecar counted to the callee's; without a TLS version they are plaintext."""

    http: tuple[str, ...]
    tls: tuple[str, ...]
    ciphers: tuple[str, ...]
    curves: tuple[str, ...]


class EffectiveRoute(Record):
    """The caller's sidecar's settings for requests to one callee, and the protocols of its connections."""

    caller: str
    callee: str
    http: Annotated[str, Field(description="the configured version of HTTP")]
    seen: ObservedConnections
    timeout_s: Seconds | None
    retries: Retries | None
    load_balancing: Annotated[str, Field(description="as Envoy names it")]
    limits: Limits


class Inbound(Record):
    """The settings of a workload's own sidecar for requests to it. Policies are the number of entries in the RBAC
    filters of that layer; null where there is no such filter, so that every request is allowed."""

    workload: str
    http_policies: Count | None
    network_policies: Count | None
    timeout_s: Seconds | None
    retries: Retries | None


class DataPath(Record):
    """The data path of a trial."""

    workers: Annotated[dict[str, Count], Field(description="worker threads of each sidecar")]
    ways: tuple[EffectiveRoute, ...]
    inbounds: tuple[Inbound, ...]
    clusters: dict[str, Count] = Field(
        {}, description="clusters that each sidecar knows: more where other namespaces have Services in the mesh"
    )


TrialStatus = Literal["complete", "invalid", "failed", "interrupted"]


class Environment(Record):
    """The versions and hardware that a number depends on; runs are compared only when they are equal."""

    meshbench: str
    python: str
    locust: str
    envoy: str
    os: str
    kernel: str
    machine: str
    cpu_model: str
    cpus: Number
    memory_bytes: Count
    address_host: Annotated[str, Field(description="a short hash of the machine's or cluster's id, never its name")]
    cluster: Annotated[str, Field(description="the cluster's version and nodes; empty on one machine")] = ""


class TargetRecord(Record):
    """The target of a run; `caveats` are its limits, in the heading of every report."""

    kind: Literal["local", "kubernetes"]
    title: str
    caveats: tuple[str, ...]


class ClusterRecord(Record):
    """The options and facts of a run on a cluster, so that it can be resumed and repeated with the same ones."""

    version: Annotated[str, Field(description="of the API server")]
    nodes: Count
    images: Annotated[dict[str, str], Field(description="images that replace those of the manifests, by workload")]
    registry: Annotated[str, Field(description="the mirror that images are pulled from; empty for their own")] = ""
    mesh_values: Annotated[dict[str, tuple[str, ...]], Field(description="values files by mesh, which are private")]
    mesh_versions: Annotated[dict[str, str], Field(description="of the meshes' tools, or of existing meshes")]
    hub: str = ""
    tag: str = ""
    revision: str = ""
    existing_mesh: Annotated[
        bool, Field(description="the mesh was installed before the run, which does not change it")
    ] = False
    prometheus: Annotated[
        str,
        Field(description="source of CPU and memory in addition to the kubelets, without a URL's user and password"),
    ] = ""
    scale_requests: Annotated[
        float, Field(gt=0, le=1, description="share of their CPU and memory requests that pods had")
    ] = 1.0
    load_selector: Annotated[str, Field(description="the label of the load's nodes; empty for the scenario's")] = ""
    load_node: Annotated[str, Field(description="the node of the load alone; empty where it has none")] = ""


class PathLength(Record):
    """The path of a page through a configuration: sequential calls, and the proxies that they cross."""

    hops: Annotated[int, Field(ge=0, le=1_000_000)]
    proxies: Annotated[int, Field(ge=0, le=1_000_000)]


def _require_inside(name: str) -> str:
    """Refuse the name of a file that is not below the trial's folder."""
    if not name or name.startswith("/") or "\0" in name or ".." in name.split("/"):
        raise ValueError("is not the name of a file of the trial")
    return name


class TrialEntry(Record):
    """A finished trial: its folder below `trials/`, and the SHA-256 of each of its files."""

    folder: FileName
    sha256: dict[Annotated[str, AfterValidator(_require_inside)], str]


class RunRecord(Record):
    """`run.json`."""

    schema_version: Literal[2] = SCHEMA_VERSION
    run_id: str
    meshbench_version: str
    status: RunStatus
    exit_code: int | None = None
    issues: Annotated[tuple[Issue, ...], Field(description="why the run is not complete")] = ()
    started_at: Time
    ended_at: Time | None = None
    scenario: Scenario
    scenario_source: Annotated[str, Field(description="shipped name, or the file's name")]
    plan: Plan
    remarks: Annotated[
        tuple[Issue, ...],
        Field(description="why the design is not as asked for; what of the manifests has no effect or is not applied"),
    ] = ()
    target: TargetRecord
    cluster: ClusterRecord | None = None
    environment: Environment
    paths: Annotated[
        dict[str, PathLength] | None,
        Field(description="of each configuration whose pages all take the same path; null where it was not stored"),
    ] = None
    services: Annotated[
        tuple[str, ...], Field(description="the application's services, in the order in which a request reaches them")
    ] = ()
    trials: tuple[TrialEntry, ...] = ()
    cleanup_ok: bool | None = None
    converted_from: Annotated[
        Literal[1] | None, Field(description="the version of the format in which the run was begun, if it was another")
    ] = None

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        """Check that the parts belong together: the plan has the scenario's configurations, and no trial came twice."""
        known = {configuration.name for configuration in self.scenario.configurations}
        if unknown := {name for names in self.plan.order for name in names} - known:
            raise ValueError(f"the plan has configurations that the scenario has not: {', '.join(sorted(unknown))}")
        folders = [entry.folder for entry in self.trials]
        if len(set(folders)) < len(folders):
            raise ValueError("a trial is listed twice")
        return self

    @property
    def placement_text(self) -> str:
        """Where its pods could be, and what its namespaces had, as text."""
        if self.cluster is None:
            return ANY_NODE
        return "; ".join(self.scenario.placement.load_on(self.cluster.load_selector).describe()) or ANY_NODE


class Window(Record):
    """The steady part of a trial: a sample counts when `start_ns <= started_ns < end_ns`."""

    start_ns: WindowNs
    end_ns: WindowNs

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.end_ns < self.start_ns:
            raise ValueError("the window ends before it starts")
        return self

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.start_ns) / 1e9


class GeneratorRecord(Record):
    """The load generator's own counts of a trial."""

    locust_requests: Annotated[Count, Field(description="requests that Locust counted")]
    locust_failures: Count
    recorded: Annotated[Count, Field(description="rows that the recorder wrote")]
    derived_starts: Annotated[
        Count, Field(description="requests whose event had no valid start, which was derived from the end")
    ] = 0
    clock_step_ms: Annotated[
        float, Field(description="largest step of the generator's wall clock against its monotonic one; 0: none")
    ] = 0.0
    exit_code: int | None
    options: Annotated[
        tuple[str, ...] | None,
        Field(description="options that the locustfile has, of those that meshbench offers; null: unknown"),
    ] = None
    locust_p95_ms: Annotated[float | None, Field(description="Locust's own, rounded P95: a cross-check only")] = None


class PaceRecord(Record):
    """How users spent the windows. The waits are those that happened, and a task is what a user does between two."""

    tasks: Annotated[
        int, Field(ge=1, lt=1 << 62, description="tasks that were due in the windows; in an open loop, arrivals")
    ]
    waiting_s: Annotated[Seconds, Field(description="sum of all users' time in waits, in the windows")]
    working_s: Annotated[Seconds, Field(description="sum of all users' time in tasks that ended, in the windows")]
    late_p95_ms: Annotated[float, Field(description="P95 of how much later than due a wait ended")]

    @property
    def mean_wait_s(self) -> float:
        return self.waiting_s / self.tasks


class ClockRecord(Record):
    """Time of a trial on the monotonic and on the wall clock, which differ if the machine was suspended."""

    monotonic_s: float
    wall_s: float

    @property
    def gap_s(self) -> float:
        return abs(self.wall_s - self.monotonic_s)


class TrialRecord(Record):
    """`trial.json`."""

    schema_version: Literal[2] = SCHEMA_VERSION
    trial: Annotated[FileName, Field(description="the trial's folder name: 01-baseline-1")]
    number: Number
    configuration: str
    block: Number
    design: Annotated[Design, Field(description="how the configurations of its block shared the time")] = "sequential"
    status: TrialStatus
    issues: tuple[Issue, ...] = ()
    started_at: Time
    users: Number
    think_time_s: Seconds
    rate: Annotated[
        float | None, Field(gt=0, le=1e9, description="arrivals per second of an open loop; null: closed loop")
    ] = None
    workers: Annotated[Number, Field(description="Locust's processes that sent requests")] = 1
    windows: tuple[Window, ...]
    warmup_extended: bool = False
    generator: GeneratorRecord | None = None
    pace: Annotated[PaceRecord | None, Field(description="null: unknown, or no task was due in the windows")] = None
    clock: ClockRecord | None = None
    images: dict[str, str] = Field({}, description="container images that ran, with their digests")

    @model_validator(mode="after")
    def _check_windows(self) -> Self:
        if any(later.start_ns < earlier.end_ns for earlier, later in pairwise(self.windows)):
            raise ValueError("a window starts before the one before has ended")
        return self

    @property
    def is_paired(self) -> bool:
        """Whether the configurations of its block shared the time."""
        return self.design != "sequential"

    @property
    def reasons(self) -> tuple[Issue, ...]:
        return select_reasons(self.issues)

    @property
    def warnings(self) -> tuple[Issue, ...]:
        return select_warnings(self.issues)


class Evidence(Record):
    """One machine-checked fact: the question and its subject, the expected answer, and the actual answer.

    Responses to users may be denied by the configuration's own policies: then the load fails with the same result.
    """

    name: str
    subject: str
    ok: bool
    expected: str
    seen: str
    about: Annotated[
        Literal["responses", "configuration"], Field(description="responses to users, or the configuration itself")
    ] = "configuration"


class ProofRecord(Record):
    """`proof.json`: evidence from before and after the window."""

    schema_version: Literal[2] = SCHEMA_VERSION
    trial: str
    before: tuple[Evidence, ...]
    after: tuple[Evidence, ...]
    data_path: Annotated[DataPath | None, Field(description="the data path; null without a mesh")] = None

    @property
    def failures(self) -> tuple[Evidence, ...]:
        return tuple(evidence for evidence in (*self.before, *self.after) if not evidence.ok)


FILES: dict[str, type[Record]] = {
    "run": RunRecord,
    "trial": TrialRecord,
    "proof": ProofRecord,
    "summary": SummaryRecord,
}
