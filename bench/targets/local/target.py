"""Deploy an application, its sidecars and the load as processes on this host's loopback."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from bench.check_result import CheckResult
from bench.envoy.addresses import OutboundCapture, Placement, assign_ports, free_ports, is_taken
from bench.envoy.certificates import Certificates, issue_certificates
from bench.errors import DeployError
from bench.load.generator import make_load_spec
from bench.meshes.resolved import ResolvedConfiguration, ResolvedScenario
from bench.results.environment import read_environment
from bench.results.noise import NoiseRecorder
from bench.results.records import Environment, RunRecord, TargetRecord
from bench.scenario.plan import Trial, estimate_seconds
from bench.system.cancellation import CancelToken, wait_until
from bench.system.lock import hold_host_lock
from bench.system.parallel import for_each
from bench.system.processes import Launcher, Process
from bench.system.timing import DEFAULT, Timing
from bench.targets.local.deployment import LocalDeployment
from bench.targets.local.prober import LocalProber
from bench.targets.local.sidecars import Sidecars, validate_all
from bench.verification.prover import Prover

T = TypeVar("T")
R = TypeVar("R")

_PORT_TRIES = 3
# Services call each other in plaintext here: to load the system's authorities takes a fifth of a service's start.
_NO_AUTHORITIES = {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}

RECORD = TargetRecord(
    kind="local",
    title="data plane emulated on one machine",
    caveats=(
        "application, sidecars and load generator share one machine's CPUs; no network is crossed",
        "no iptables redirection: services connect to their sidecar's address, without the cost of redirection",
        "no control plane: sidecars have static configuration, in the shape that the control plane gives",
        "upstream Envoy without the mesh's own telemetry filters",
    ),
)


@dataclass(frozen=True, slots=True)
class LocalTarget:
    """The target of a run on this machine. `work` is a private folder for keys, sockets and configuration;
    `certificates` are by configuration; `validated` are the configurations whose proxies have validated theirs."""

    run: RunRecord
    resolved: ResolvedScenario
    launcher: Launcher
    watch: CancelToken
    work: Path
    certificates: Mapping[str, Certificates]
    timing: Timing
    validated: set[str] = field(default_factory=set)

    def for_each(self, act: Callable[[T], R], things: Sequence[T]) -> list[R]:
        """See `bench.targets.Target`. Proofs mostly wait for answers, and start no process."""
        return for_each(act, things)

    def start_each(self, act: Callable[[T], R], things: Sequence[T]) -> list[R]:
        """See `bench.targets.Target`. One after another: a process ends with the thread that has started it."""
        return [act(one) for one in things]

    @contextmanager
    def deploy(self, trials: Sequence[Trial], drafts: Sequence[Path]) -> Iterator[Sequence[LocalDeployment]]:
        """See `bench.targets.Target`. When another process takes a port before it is bound, new ports are chosen."""
        self.launcher.end_strays()
        with self.launcher.group() as processes:
            for attempt in range(1, _PORT_TRIES + 1):
                deployments = self._start(trials, drafts, processes)
                problems = [(one, problem) for one in deployments if (problem := self._wait(one)) is not None]
                if not problems:
                    break
                self.launcher.stop(processes)
                processes.clear()
                deployment, problem = problems[0]
                if attempt == _PORT_TRIES or not any(map(is_taken, deployment.placement.ports)):
                    raise DeployError(f"{deployment.prover.configuration.name} did not become ready: {problem}")
            yield deployments

    def _start(
        self, trials: Sequence[Trial], drafts: Sequence[Path], processes: list[Process]
    ) -> tuple[LocalDeployment, ...]:
        """Start all processes of a unit, in its order, and wait for none: they become ready at the same time."""
        placements = self._place(trials)
        noise = NoiseRecorder()
        started: dict[Trial, list[Process]] = {}
        for trial, draft in zip(trials, drafts, strict=True):
            started[trial] = []
            for process in self._start_services(placements[trial], draft):
                started[trial].append(process)
                processes.append(process)
        sidecars = {trial: self._sidecars(trial, placements[trial]) for trial in trials}
        self._validate(sidecars)
        for trial, draft in zip(trials, drafts, strict=True):
            own = sidecars[trial]
            for process in own.start(self.launcher, draft=draft) if own is not None else ():
                started[trial].append(process)
                processes.append(process)
        noise.add(processes)
        return tuple(
            self._make_deployment(trial, placements[trial], sidecars[trial], tuple(started[trial]), noise)
            for trial in trials
        )

    def _place(self, trials: Sequence[Trial]) -> dict[Trial, Placement]:
        """Choose the ports of a unit, each once: two Envoys could share a port, and neither would report it."""
        taken: set[int] = set()

        def choose(names: Sequence[str]) -> dict[str, int]:
            while not taken.isdisjoint((ports := free_ports(names)).values()):
                self.watch.check()
            taken.update(ports.values())
            return ports

        placements: dict[Trial, Placement] = {}
        for trial in trials:
            configuration = self.resolved.configuration(trial.configuration)
            mesh = configuration.mesh
            capture: OutboundCapture = mesh.data_plane.outbound_capture if mesh else "none"
            placements[trial] = assign_ports(configuration.application, capture=capture, choose_ports=choose)
        return placements

    def _make_deployment(
        self,
        trial: Trial,
        placement: Placement,
        sidecars: Sidecars | None,
        processes: tuple[Process, ...],
        noise: NoiseRecorder,
    ) -> LocalDeployment:
        configuration = self.resolved.configuration(trial.configuration)
        caller, callee = configuration.application.calls[0]
        return LocalDeployment(
            prover=Prover(LocalProber(placement, sidecars, processes), configuration),
            placement=placement,
            processes=processes,
            launcher=self.launcher,
            watch=self.watch,
            home=Path(tempfile.mkdtemp(dir=self.work)),
            noise=noise,
            spec=make_load_spec(
                configuration.load,
                configuration.application.definition,
                configuration.groups,
                address=f"127.0.0.1:{placement.reached_by(caller, callee)}",
                virtual_host=placement.host_of(callee),
                locust=self.resolved.inputs.locust,
                namespaces=[configuration.application.namespace],
                seed=self.run.plan.seed + trial.number,
                scenario=self.resolved.scenario,
            ),
        )

    def _validate(self, sidecars: Mapping[Trial, Sidecars | None]) -> None:
        """Let the proxies validate their configuration, once in a run for each configuration: later ones differ in
        ports and paths only, and a proxy that rejects its configuration ends at its start."""
        names = {trial: trial.configuration for trial, one in sidecars.items() if one is not None}
        new = [one for trial, one in sidecars.items() if one is not None and names[trial] not in self.validated]
        validate_all(new, self.launcher, watch=self.watch)
        self.validated.update(names.values())

    def _sidecars(self, trial: Trial, placement: Placement) -> Sidecars | None:
        configuration = self.resolved.configuration(trial.configuration)
        mesh, policies = configuration.settings.mesh, configuration.policies
        if policies is None:
            return None
        folder, certificates = Path(tempfile.mkdtemp(dir=self.work)), self.certificates[configuration.name]
        return Sidecars(mesh, placement, policies, certificates, folder, configuration.equalise)

    def _start_services(self, placement: Placement, draft: Path) -> Iterator[Process]:
        logs = draft / "services"
        logs.mkdir(exist_ok=True)
        program = self.resolved.application.definition.local
        assert program is not None  # noqa: S101  # the command line refuses an application without one
        for workload in self.resolved.application.workloads:
            options = [f"--port={placement.serving[workload.name]}", f"--version={workload.version}"]
            routes = [f"--connect-to={route}" for route in placement.connect_to(workload.name)]
            # -P: no `bench` package of the working directory
            argv = [sys.executable, "-P", "-m", program.full_name, workload.app, *options, *routes]
            # with the length of a pod's name, which an application may show
            pod = f"{workload.app}-{workload.version}-6c5b5b7d9f-abcde"
            env = {**dict.fromkeys(program.unset), "HOSTNAME": pod, **_NO_AUTHORITIES}
            yield self.launcher.start(workload.name, argv, role="service", log=logs / f"{workload.name}.log", env=env)

    def _wait(self, deployment: LocalDeployment) -> str | None:
        """Wait until a user would get a complete page; return the problem, with the log of a process that ended. Behind
        sidecars a missing page is no problem here: the proof reports its cause."""

        def check() -> str | None:
            ended = [process for process in deployment.processes if not process.running]
            if ended:
                return f"{ended[0].name}: {ended[0].describe_end()}\n{ended[0].log_tail()}"
            return "ready" if deployment.prover.page().ok else None

        limit_s = self.resolved.application.definition.ready.timeout_s or self.timing.local_ready_s
        result = wait_until(check, timeout_s=limit_s, watch=self.watch)
        if result is None and deployment.prover.configuration.mesh is None:
            return f"no complete page within {limit_s:.0f} s: {deployment.prover.page().seen}"
        return None if result in ("ready", None) else result


@contextmanager
def open_local(
    run: RunRecord, resolved: ResolvedScenario, *, launcher: Launcher, watch: CancelToken, timing: Timing = DEFAULT
) -> Iterator[LocalTarget]:
    """Open the local target for a run: a private working folder and the run's certificates."""
    with launcher.working_folder() as work, launcher.without_strays():
        yield LocalTarget(run, resolved, launcher, watch, work, _issue_certificates(run, resolved, work), timing)


def _issue_certificates(run: RunRecord, resolved: ResolvedScenario, work: Path) -> dict[str, Certificates]:
    """Issue certificates by configuration; configurations of one mesh with the same identities share theirs."""
    issued: dict[tuple[str, frozenset[tuple[str, tuple[str, ...]]]], Certificates] = {}
    found: dict[str, Certificates] = {}
    for configuration in resolved.configurations:
        if configuration.mesh is not None:
            same = (configuration.settings.mesh, frozenset(configuration.identities.items()))
            if same not in issued:
                issued[same] = _issue(configuration, run, folder=work / f"{configuration.name}-identities")
            found[configuration.name] = issued[same]
    return found


def _issue(configuration: ResolvedConfiguration, run: RunRecord, *, folder: Path) -> Certificates:
    now = datetime.now(UTC)
    run_s = estimate_seconds(run.scenario, run.plan)
    certificates = issue_certificates(folder, configuration.identities, wire=configuration.wire, now=now, run_s=run_s)
    certificates.require_validity(now + timedelta(seconds=run_s))
    return certificates


@dataclass(frozen=True, slots=True)
class LocalBackend:
    """See `bench.targets.Backend`."""

    record: TargetRecord = RECORD
    cluster: None = None
    findings: tuple[CheckResult, ...] = ()
    timing: Timing = DEFAULT

    def settle(self, resolved: ResolvedScenario) -> ResolvedScenario:
        return resolved

    def environment(self) -> Environment:
        return read_environment()

    def keep_inputs(self, run: Path) -> None:
        """Do nothing: this machine needs no files of its own."""

    def lock(self, run: Path, run_id: str, watch: CancelToken) -> AbstractContextManager[None]:  # noqa: ARG002  # no waiting
        return hold_host_lock(run, run_id)

    def open(
        self, run: RunRecord, resolved: ResolvedScenario, *, launcher: Launcher, watch: CancelToken
    ) -> AbstractContextManager[LocalTarget]:
        return open_local(run, resolved, launcher=launcher, watch=watch, timing=self.timing)
