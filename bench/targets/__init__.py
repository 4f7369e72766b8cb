"""Where a run happens. A place is chosen first; it opens a target for a run; everything else is behind these
Protocols."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from bench.check_result import CheckResult
from bench.load.generator import LoadOutcome, Progress
from bench.results.records import ClusterRecord, DataPath, Environment, Evidence, RunRecord, TargetRecord
from bench.scenario.loader import Inputs
from bench.scenario.plan import Trial
from bench.system.cancellation import Watch
from bench.system.processes import Launcher


class Deployment(Protocol):
    """One configuration, deployed and ready."""

    def prove(self, load: LoadOutcome | None = None) -> tuple[Evidence, ...]:
        """Evidence that it is what its name says; after a load also that the load went where it should."""

    def load(
        self, draft: Path, *, show: Callable[[Progress], None], kept: Callable[[LoadOutcome], None]
    ) -> LoadOutcome:
        """Loads it for warm-up and window, and leaves samples and resources in `draft`. When it is cut short, what
        was measured is saved and told to `kept` before the exception goes on."""

    def data_path(self, draft: Path) -> DataPath | None:
        """What requests met on their way, from the sidecars' configuration, which is in the draft's `proxies/` then,
        and their counters; None without a mesh. To be asked outside the window."""

    def restarts(self) -> tuple[str, ...]:
        """The processes that ended since it was deployed."""

    def images(self) -> dict[str, str]:
        """The container images that run, by what runs in them, as their digests; none where there are no containers."""


class Target(Protocol):
    """A place where configurations can be deployed, one after another."""

    def deploy(self, trial: Trial, draft: Path) -> AbstractContextManager[Deployment]:
        """Deploys a trial's configuration and waits until it is ready; leaving the block removes it. Raises
        DeployError. Logs and proxy configuration go into `draft`."""


class Place(Protocol):
    """This machine, or a cluster that was looked at: chosen before a run begins."""

    @property
    def record(self) -> TargetRecord:
        """What stands in the heading of every report from here."""

    @property
    def cluster(self) -> ClusterRecord | None:
        """How the cluster is used; None on this machine."""

    @property
    def findings(self) -> tuple[CheckResult, ...]:
        """What was seen there that a run needs; on this machine `bench.run.doctor` looks."""

    def environment(self) -> Environment:
        """The surroundings that a number from here depends on."""

    def keep_inputs(self, run: Path) -> None:
        """Copies into a run's folder what the place was told by files, so that the run can be resumed."""

    def lock(self, run: Path, run_id: str, watch: Watch) -> AbstractContextManager[None]:
        """Holds the place for the run whose folder is or will be at `run`. Raises LockedError; what `watch` sees ends
        the waiting for it."""

    def open(
        self, run: RunRecord, inputs: Inputs, *, launcher: Launcher, watch: Watch
    ) -> AbstractContextManager[Target]:
        """The target for a run; leaving the block removes everything that was made for it."""
