"""One configuration on this machine: its processes on loopback, its proofs and its load."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.envoy.addresses import Placement
from bench.load.generator import LoadOutcome, LoadSpec, RunningLoad
from bench.results.noise import NoiseRecorder
from bench.results.records import DataPath, Evidence
from bench.system.cancellation import CancelToken
from bench.system.processes import Launcher, Process
from bench.targets.local.locust import start_load
from bench.verification.prover import Prover


@dataclass
class LocalDeployment:
    """See `bench.targets.Deployment`; `home` is an empty folder for the load generator, `noise` the recorder of all
    deployments of the unit."""

    prover: Prover
    placement: Placement
    processes: tuple[Process, ...]
    launcher: Launcher
    watch: CancelToken
    spec: LoadSpec
    home: Path
    noise: NoiseRecorder

    def prove(self, load: LoadOutcome | None = None) -> tuple[Evidence, ...]:
        """See `bench.targets.Deployment`."""
        if load is not None and self.restarts():
            return ()  # a deployment with ended processes cannot be proven; they are reported as restarts
        return self.prover.prove(load.countable, is_mixed=load.is_mixed) if load else self.prover.prove()

    @contextmanager
    def loading(self, draft: Path) -> Iterator[RunningLoad]:
        """See `bench.targets.Deployment`."""
        self.prover.start_counting()
        with start_load(
            self.launcher,
            self.spec,
            draft,
            watch=self.watch,
            under_test=self.processes,
            noise=self.noise,
            home=self.home,
        ) as load:
            yield load

    def data_path(self, draft: Path) -> DataPath | None:
        """See `bench.targets.Deployment`."""
        return self.prover.data_path(draft / "proxies")

    def restarts(self) -> tuple[str, ...]:
        """Return the processes that ended by themselves: nothing restarts them here."""
        return tuple(
            f"{process.name} ({process.describe_failure()}) ended" for process in self.processes if not process.running
        )

    def images(self) -> dict[str, str]:
        """Return nothing: processes have no images."""
        return {}
