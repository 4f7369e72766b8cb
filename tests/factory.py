"""Runs without a measurement: complete run folders on disk, with simulated requests, for tests that read runs.

The simulated users form a closed loop with log-normal latencies, so that throughput, latency and think time
fit together as they do in a real trial. Everything depends on the seed alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from bench.results.issues import Issue
from bench.results.records import (
    ClockRecord,
    Environment,
    Evidence,
    GeneratorRecord,
    ProofRecord,
    RunRecord,
    TargetRecord,
    TrialRecord,
    Window,
)
from bench.results.resources import COLUMNS
from bench.results.samples import Samples, read_columns, write_columns, write_parquet
from bench.results.store import RunFolder, StoredRun, read_run
from bench.scenario.loader import find_inputs
from bench.scenario.model import Scenario
from bench.scenario.plan import SETTLE_S, Trial, count_rounds, make_plan
from bench.scenario.types import Design

THINK_S = 0.1
STARTED_AT = datetime(2026, 11, 23, 3, 15, tzinfo=UTC)
SERVICES = ("productpage", "details", "reviews", "ratings")
ENVIRONMENT = Environment(
    meshbench="0.1.0",
    python="3.11.9",
    locust="2.47.0",
    envoy="1.40.0",
    os="Debian GNU/Linux 12",
    kernel="6.1.0",
    machine="x86_64",
    cpu_model="Example CPU @ 2.50GHz",
    cpus=8,
    memory_bytes=32 * 1024**3,
    address_host="a1b2c3d4",
)
TARGET = TargetRecord(
    kind="local",
    title="data plane emulated on one machine",
    caveats=(
        "application, sidecars and load generator share one machine's CPUs and its loopback",
        "no iptables redirection: services have the address of their sidecar, without the cost of interception",
        "no control plane: the sidecars have static configuration, in the shape that a control plane gives",
        "upstream Envoy without the mesh's own telemetry filters",
    ),
)


@dataclass(frozen=True)
class ConfigSpec:
    """A configuration: its latency, and the CPU of its processes per request."""

    name: str
    mesh: str = "none"
    manifests: tuple[str, ...] = ()
    median_ms: float = 6.0
    users: int | None = None
    capacity_rps: float = 1e9
    sidecar_cpu_ms: float = 0.0
    error_share: float = 0.0
    names: tuple[str, ...] = ("/productpage",)  # requests take them in turn; each after the first is 30 % slower


ISTIO_POLICIES = (
    ConfigSpec("baseline", median_ms=6.0),
    ConfigSpec("istio", "istio", median_ms=8.6, sidecar_cpu_ms=2.4),
    ConfigSpec("istio-policies", "istio", ("istio/policies",), median_ms=9.1, sidecar_cpu_ms=2.7),
)
ISTIO_AND_KUMA = (
    *ISTIO_POLICIES,
    ConfigSpec("kuma", "kuma", median_ms=9.4, sidecar_cpu_ms=2.6),
    ConfigSpec("kuma-policies", "kuma", ("kuma/policies",), median_ms=10.1, sidecar_cpu_ms=3.0),
)
MESH_PAIRS = (("kuma", "istio"), ("kuma-policies", "istio-policies"))
USERS_SWEEP = tuple(ConfigSpec(f"users-{users}", users=users, capacity_rps=420.0) for users in (10, 20, 100, 200, 500))


@dataclass(frozen=True)
class RunSpec:
    """The parts of a simulated run; a test changes the fields that matter to it."""

    configurations: Sequence[ConfigSpec] = ISTIO_POLICIES
    name: str = "istio-policies"
    title: str = "What Istio and its security policies cost Bookinfo"
    repeats: int = 3
    reference: str | None = "baseline"
    contrasts: Sequence[tuple[str, str]] = ()
    users: int = 20
    warmup_s: float = 30.0
    duration_s: float = 120.0
    run_sd: float = 0.05
    seed: int = 7
    quick: bool = False
    status: str = "complete"
    issues: tuple[Issue, ...] = ()
    again: tuple[int, ...] = ()  # blocks that were rerun
    design: Design = "sequential"
    block_sd: float = 0.0  # of what all configurations of a block share
    trial_changes: dict[str, dict[str, Any]] = field(default_factory=dict)  # folder -> fields of its TrialRecord
    used_cpu: float = 0.4  # share of all CPUs that the run itself uses, where there are figures of noise
    noise: dict[str, float] | None = None  # folder -> share of the CPUs that others use from a third of the window on


def make_run(output: Path, made: RunSpec = RunSpec()) -> StoredRun:
    """Write the run's folder below `output` like a real run, and open it."""
    scenario = make_scenario(made)
    plan = make_plan(scenario, made.seed).with_rerun(made.again)
    record = RunRecord(
        run_id=f"20261123T031500Z-{made.name}-7f3a",
        meshbench_version="0.1.0",
        status="running",
        started_at=STARTED_AT,
        scenario=scenario,
        scenario_source=made.name,
        plan=plan,
        target=TARGET,
        environment=ENVIRONMENT,
    )
    folder = RunFolder.create(output, record, fill=find_inputs(scenario, "made.yaml").copy_to)
    rng = np.random.default_rng(made.seed)
    common = {block: float(np.exp(rng.normal(0, made.block_sd))) if made.block_sd else 1.0 for block in range(1, 101)}
    for trial in plan.trials:
        _make_trial(folder, trial, made, rng=rng, common=common[trial.block])
    folder.finish(status=made.status, exit_code=0, issues=made.issues, cleanup_ok=True)
    return read_run(folder.path)


def make_scenario(made: RunSpec) -> Scenario:
    """Return the scenario of such a run."""
    configurations = [
        {
            "name": c.name,
            "mesh": c.mesh,
            "manifests": c.manifests,
            **({"load": {"users": c.users}} if c.users else {}),
        }
        for c in made.configurations
    ]
    load = {
        "users": made.users,
        "think_time_s": THINK_S,
        "warmup_s": made.warmup_s,
        "duration_s": made.duration_s,
    }
    return Scenario.model_validate(
        {
            "schema_version": 1,
            "name": made.name,
            "title": made.title,
            "description": "A simulated run.",
            "application": {"name": "bookinfo", "reviews": "v3"},
            "load": load | {"locustfile": "bookinfo"},
            "repeats": made.repeats,
            "reference": made.reference,
            "contrasts": [{"configuration": one, "reference": other} for one, other in made.contrasts],
            "configurations": configurations,
            "quick": made.quick,
            **({} if made.design == "sequential" else {"design": made.design}),
        }
    )


def simulate(
    simulated: ConfigSpec, users: int, made: RunSpec, *, rng: np.random.Generator, common: float = 1.0
) -> Samples:
    """Simulate the requests of one trial: every user thinks, sends a request, waits. `common`: its block's factor."""
    total_s = _count_load_seconds(made)
    # Beyond the capacity users queue: the mean response is what keeps throughput at the capacity.
    queue_s = max(0.0, users / simulated.capacity_rps - THINK_S - simulated.median_ms / 1e3)
    base_s = (simulated.median_ms / 1e3 + queue_s) * np.exp(rng.normal(0, made.run_sd)) * common
    turns = int(total_s / (THINK_S + base_s) * 1.25) + 5
    latency = base_s * np.exp(rng.normal(0, 0.38, (users, turns)))
    latency *= np.where(rng.random((users, turns)) < 0.006, 1 + rng.pareto(2.5, (users, turns)), 1)
    begin = rng.uniform(0, THINK_S, (users, 1))
    rough_start = begin + np.arange(turns) * (THINK_S + base_s)
    latency *= 1 + 1.5 * np.exp(-rough_start / 6) + 0.06 * np.sin(rough_start / 9 + rng.uniform(0, 6))
    started = begin + np.cumsum(latency + THINK_S, axis=1) - latency
    latency, started = latency[started < total_s], started[started < total_s]
    order = np.argsort(started)
    started_ns = (started[order] * 1e9).astype(np.int64)
    name = (np.arange(len(order)) % len(simulated.names)).astype(np.int32)
    ok = rng.random(len(order)) >= simulated.error_share
    return Samples(
        intended_ns=started_ns - rng.integers(20_000, 400_000, len(order)),
        started_ns=started_ns,
        latency_ns=(latency[order] * 1e9 * np.where(name, 1.3, 1)).astype(np.int64),
        status=np.where(ok, 200, 503).astype(np.int16),
        ok=ok,
        bytes=np.where(ok, 5183, 95).astype(np.int64),
        name=name,
        names=simulated.names,
    )


def make_evidence(simulated: ConfigSpec) -> tuple[Evidence, ...]:
    """Return the proof of such a trial."""
    sidecars = "5 sidecars" if simulated.mesh != "none" else "no sidecar"
    found = [Evidence(name="sidecars", subject="all services", ok=True, expected=sidecars, seen=sidecars)]
    if simulated.mesh != "none":
        seen = "TLSv1.3, peer spiffe://cluster.local/ns/bookinfo/sa/bookinfo-productpage"
        found.append(Evidence(name="mTLS on the wire", subject="reviews", ok=True, expected="TLSv1.3", seen=seen))
    if simulated.manifests:
        found += [
            Evidence(name="allowed request", subject="productpage", ok=True, expected="200", seen="200"),
            Evidence(
                name="denied request",
                subject="ratings",
                ok=True,
                expected="403",
                seen="403 RBAC: access denied",
            ),
        ]
    return tuple(found)


def _make_windows(made: RunSpec) -> tuple[Window, ...]:
    """Return the windows of a trial. In each later one of an interleaved block the load settles first."""
    rounds = count_rounds(made.duration_s) if made.design == "interleaved" else 1
    length_s = made.duration_s / rounds
    starts_s = [made.warmup_s + number * (length_s + SETTLE_S) for number in range(rounds)]
    return tuple(Window(start_ns=round(s * 1e9), end_ns=round((s + length_s) * 1e9)) for s in starts_s)


def _count_load_seconds(made: RunSpec) -> float:
    return _make_windows(made)[-1].end_ns / 1e9


def _make_trial(folder: RunFolder, trial: Trial, made: RunSpec, *, rng: np.random.Generator, common: float) -> None:
    simulated = next(c for c in made.configurations if c.name == trial.configuration)
    users = folder.record.scenario.load_of(trial.configuration).users
    samples = simulate(simulated, users, made, rng=rng, common=common)
    windows, total_s = _make_windows(made), _count_load_seconds(made)
    started_at = STARTED_AT + timedelta(minutes=4 * (trial.number if made.design == "sequential" else trial.block))
    record = TrialRecord(
        trial=trial.folder,
        number=trial.number,
        configuration=trial.configuration,
        block=trial.block,
        design=made.design,
        status="complete",
        started_at=started_at,
        users=users,
        think_time_s=THINK_S,
        windows=windows,
        generator=GeneratorRecord(
            locust_requests=len(samples),
            locust_failures=int((~samples.ok).sum()),
            recorded=len(samples),
            exit_code=0,
        ),
        clock=ClockRecord(monotonic_s=total_s, wall_s=total_s),
    )
    record = record.model_copy(update=made.trial_changes.get(trial.folder, {}))
    evidence = make_evidence(simulated)
    with folder.draft(trial) as draft:
        write_parquet(samples, draft / "samples.parquet")
        _write_resources(draft / "resources.parquet", simulated, made, rate=len(samples) / total_s, rng=rng)
        if made.noise is not None:
            _add_noise(draft / "resources.parquet", made, others=made.noise.get(trial.folder, 0.01))
        folder.keep(draft, record, ProofRecord(trial=trial.folder, before=evidence, after=evidence))


def _add_noise(path: Path, made: RunSpec, *, others: float) -> None:
    """Add the counters of two CPUs, of which others use a share for a third of the window."""
    at = np.arange(0, made.warmup_s + made.duration_s, 0.5)
    busy_s = np.clip(at - made.warmup_s - made.duration_s / 3, 0, made.duration_s / 3)
    counters = {
        "capacity": 2 * at,
        "own": 2 * made.used_cpu * at,
        "others": 0.02 * at + 2 * others * busy_s,
        "steal": 0.06 * at,
    }
    added: dict[str, Any] = {
        "at_ns": np.tile((at * 1e9).astype(np.int64), len(counters)),
        "process": np.repeat(np.array(list(counters), np.str_), len(at)),
        "role": np.full(len(at) * len(counters), "noise"),
        "cpu_ns": np.concatenate([(counted * 1e9).astype(np.int64) for counted in counters.values()]),
        "rss_bytes": np.zeros(len(at) * len(counters), np.int64),
    }
    before = read_columns(path, COLUMNS)
    write_columns(path, {name: np.concatenate([before[name], added[name]]) for name in added})


def _write_resources(
    path: Path, simulated: ConfigSpec, made: RunSpec, *, rate: float, rng: np.random.Generator
) -> None:
    """Write a row per process and half second; CPU grows with the requests."""
    shares = {"productpage": 0.5, "details": 0.12, "reviews": 0.25, "ratings": 0.13}
    use = {name: ("service", 3.1 * share, 48.0) for name, share in shares.items()} | {
        "locust": ("generator", 0.9, 92.0)
    }
    if simulated.mesh != "none":
        sidecars = {name: share * 0.75 for name, share in shares.items()} | {"locust": 0.25}
        use |= {
            f"{name}-sidecar": ("sidecar", simulated.sidecar_cpu_ms * share, 31.0) for name, share in sidecars.items()
        }
    at = np.arange(0, _count_load_seconds(made), 0.5)
    noise = {name: np.exp(rng.normal(0, 0.04)) for name in use}
    count = len(use)
    write_columns(
        path,
        {
            "at_ns": np.repeat((at * 1e9).astype(np.int64), count),
            "process": np.tile(np.array(list(use), np.str_), len(at)),
            "role": np.tile(np.array([role for role, _, _ in use.values()], np.str_), len(at)),
            "cpu_ns": np.outer(
                at, [ms * 1e6 * rate * noise[name] for name, (_, ms, _) in use.items()]
            ).astype(np.int64).ravel(),
            "rss_bytes": np.tile(
                np.array([round(mib * 2**20 * noise[name]) for name, (_, _, mib) in use.items()]), len(at)
            ),
        },
    )  # fmt: skip
