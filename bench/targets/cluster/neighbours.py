"""Watch the pods of others on the nodes of a run during a load, in addition to what a meter reads."""

from collections.abc import Collection
from dataclasses import dataclass

from bench.analysis.validity import make_issue
from bench.errors import ClusterError
from bench.k8s.client import Cluster
from bench.load.recorded import Start
from bench.results.issues import Issue, IssueCode
from bench.results.resources import Row
from bench.targets.cluster.interference import Neighbours, find_moves, snapshot_neighbours
from bench.targets.cluster.load.generator import Meter
from bench.units import format_first

_NAMED_AT_MOST = 4


@dataclass
class NeighbourWatch:
    """A `meter` that also reports the pods of others that came or went between its making and its last reading.
    `nodes` are those of the run, `own` its namespaces."""

    cluster: Cluster
    meter: Meter
    nodes: Collection[str]
    own: Collection[str]
    before: Neighbours
    after: Neighbours | None = None

    def tick(self) -> None:
        self.meter.tick()

    def read(self) -> None:
        self.meter.read()
        try:
            self.after = snapshot_neighbours(self.cluster.list("v1", "Pod"), nodes=self.nodes, own=self.own)
        except ClusterError:
            self.after = None  # an API server that is away is reported by the load itself

    def rows(self, start: Start) -> list[Row]:
        return self.meter.rows(start)

    def issues(self) -> tuple[Issue, ...]:
        moves = find_moves(self.before, self.after) if self.after is not None else ()
        if not moves:
            return self.meter.issues()
        detail = f"on the nodes of the run, during the load: {format_first(moves, _NAMED_AT_MOST)}"
        return (*self.meter.issues(), make_issue(IssueCode.NOISE, detail))
