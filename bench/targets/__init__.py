"""Where a run happens. A target is one function that opens it; everything else is behind these Protocols."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from bench.load.generator import LoadOutcome, Progress
from bench.plan import Trial
from bench.records import Evidence, TargetRecord


class Deployment(Protocol):
    """One configuration, deployed and ready."""

    def prove(self, load: LoadOutcome | None = None) -> tuple[Evidence, ...]:
        """Evidence that it is what its name says; after a load also that the load went where it should."""

    def load(
        self, trial: Trial, draft: Path, *, show: Callable[[Progress], None], kept: Callable[[LoadOutcome], None]
    ) -> LoadOutcome:
        """Loads it for warm-up and window, and leaves samples and resources in `draft`. When it is cut short, what
        was measured is saved and told to `kept` before the exception goes on."""

    def restarts(self) -> tuple[str, ...]:
        """The processes that ended since it was deployed."""


class Target(Protocol):
    """A place where configurations can be deployed, one after another."""

    @property
    def record(self) -> TargetRecord:
        """What stands in the heading of every report from here."""

    def deploy(self, configuration: str, draft: Path) -> AbstractContextManager[Deployment]:
        """Deploys a configuration and waits until it is ready; leaving the block removes it. Raises DeployError.
        Logs and proxy configuration go into `draft`."""
