"""What every format is made from: the run, its numbers, its plots. Read-only."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from bench.digest import Digest
from bench.records import ConfigurationSummary, ProcessUse, RunRecord, SummaryRecord
from bench.store import StoredRun

if TYPE_CHECKING:
    from bench.report.figures import Picture


@dataclass(frozen=True)
class Plots:
    """The pictures, or why there are none."""

    pictures: "tuple[Picture, ...]"
    missing: str = ""


@dataclass(frozen=True)
class Report:
    """One run, ready to be written down. `digests` are keyed by the trial's folder."""

    run: StoredRun
    summary: SummaryRecord
    digests: Mapping[str, Digest]

    @property
    def record(self) -> RunRecord:
        return self.run.record

    @property
    def configurations(self) -> dict[str, ConfigurationSummary]:
        return self.summary.configurations

    @property
    def is_sweep(self) -> bool:
        """Whether the configurations differ in their number of users."""
        return len({configuration.users for configuration in self.configurations.values()}) > 1

    def digests_of(self, configuration: str) -> Iterator[Digest]:
        """The digests of one configuration, in the order of its blocks."""
        found = (digest for digest in self.digests.values() if digest.configuration == configuration)
        yield from sorted(found, key=lambda digest: digest.block)

    def family(self, configuration: str) -> str:
        """What a configuration is besides its number of users: mesh and manifests."""
        made = self.record.scenario.configuration(configuration)
        mesh = "no mesh" if made.mesh == "none" else made.mesh
        return " + ".join((mesh, *made.manifests))

    @property
    def doubts(self) -> tuple[str, ...]:
        """What a reader must know first: why the run has not gone to its end, then the summary's doubts."""
        return (*([self.record.reason] if self.record.reason else []), *self.summary.doubts)

    @cached_property
    def plots(self) -> Plots:
        """The pictures, drawn when first asked for; without a plotting library the tables do alone."""
        try:
            from bench.report.figures import draw_figures

            return Plots(draw_figures(self))
        except (ImportError, OSError) as error:
            return Plots((), f"{type(error).__name__}: {error}")


def uses(configuration: ConfigurationSummary, role: str) -> dict[str, tuple[ProcessUse, ...]]:
    """Process -> its use in each valid repeat, for the processes of one role."""
    found: dict[str, tuple[ProcessUse, ...]] = {}
    for repeat in configuration.repeats:
        for use in repeat.resources if repeat.valid else ():
            if use.role == role:
                found[use.process] = (*found.get(use.process, ()), use)
    return found
