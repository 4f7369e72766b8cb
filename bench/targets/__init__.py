"""Where a run happens: a backend is chosen first, it opens a target for a run, and all else is behind these
Protocols."""

from __future__ import annotations  # the table of options is below this package, and --help loads nothing else

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from bench.check_result import CheckResult
    from bench.load.generator import LoadOutcome, RunningLoad
    from bench.meshes.resolved import ResolvedScenario
    from bench.results.records import ClusterRecord, DataPath, Environment, Evidence, RunRecord, TargetRecord
    from bench.scenario.plan import Trial
    from bench.system.cancellation import CancelToken
    from bench.system.processes import Launcher
T = TypeVar("T")
R = TypeVar("R")


class Deployment(Protocol):
    """One configuration, deployed and ready."""

    def prove(self, load: LoadOutcome | None = None) -> tuple[Evidence, ...]:
        """Return the evidence that it is what its name says; after a load also that the load went where it should."""

    def loading(self, draft: Path) -> AbstractContextManager[RunningLoad]:
        """Start its load generator, which writes into `draft`, without waiting for the first user. Leaving the block
        ends a generator that still runs, and saves logs. Raises DeployError."""

    def data_path(self, draft: Path) -> DataPath | None:
        """Return what requests met on their path, from the sidecars' counters and configuration; None without a mesh.
        Writes the configuration into the draft's `proxies/`. To be called outside the window."""

    def restarts(self) -> tuple[str, ...]:
        """Return the processes that ended since it was deployed."""

    def images(self) -> dict[str, str]:
        """Return the digests of the container images that run, by container; empty where there are no containers."""


class Target(Protocol):
    """Where configurations can be deployed."""

    def for_each(self, act: Callable[[T], R], things: Sequence[T]) -> Sequence[R]:
        """Return the results of `act`, which only asks, for all things, in their order: at once where most of it is
        waiting. Raises the error of the first thing that has one."""

    def start_each(self, act: Callable[[T], R], things: Sequence[T]) -> Sequence[R]:
        """Return the results of `act`, which may start processes, as `for_each` does."""

    def deploy(self, trials: Sequence[Trial], drafts: Sequence[Path]) -> AbstractContextManager[Sequence[Deployment]]:
        """Deploy the configurations of a unit's trials side by side, and wait until they are ready; leaving the block
        removes them. Writes logs and proxy configuration of each into its draft. Raises DeployError."""


class Backend(Protocol):
    """This machine, or a cluster that was examined; chosen before a run begins."""

    @property
    def record(self) -> TargetRecord:
        """The record that the heading of every report shows."""

    @property
    def cluster(self) -> ClusterRecord | None:
        """How the cluster is used; None on this machine."""

    @property
    def findings(self) -> tuple[CheckResult, ...]:
        """The results of the checks that a run needs there; on this machine `bench.run.doctor` makes them."""

    def settle(self, resolved: ResolvedScenario) -> ResolvedScenario:
        """Return the scenario as it can be measured there: with another design, and a remark, where the one that was
        chosen is not possible."""

    def environment(self) -> Environment:
        """Return the environment record: versions and hardware that a number from here depends on."""

    def keep_inputs(self, run: Path) -> None:
        """Copy the files that the backend was given into a run's folder, so that the run can be resumed."""

    def lock(self, run: Path, run_id: str, watch: CancelToken) -> AbstractContextManager[None]:
        """Hold the backend for the run whose folder is or will be at `run`. `watch` can end the wait for the lock.
        Raises LockedError."""

    def open(
        self, run: RunRecord, resolved: ResolvedScenario, *, launcher: Launcher, watch: CancelToken
    ) -> AbstractContextManager[Target]:
        """Open the target for a run; leaving the block removes everything that was created for it."""
