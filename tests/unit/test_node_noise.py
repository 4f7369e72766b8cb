"""What else the nodes of a run do: pods of others that come or go, and CPU time that is not the run's."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bench.analysis.noise import measure_noise
from bench.analysis.validity import format_issue
from bench.errors import ClusterError, ErrorKind
from bench.k8s.client import Object
from bench.load.recorded import Start
from bench.results.issues import Issue, IssueCode
from bench.results.records import Window
from bench.results.resources import Row, write_resources
from bench.targets.cluster.interference import find_moves, snapshot_neighbours
from bench.targets.cluster.kubelet import Summaries
from bench.targets.cluster.neighbours import NeighbourWatch
from bench.targets.cluster.node_noise import NodeNoise, Reading
from tests.fake_cluster import FakeCluster, make_object

SECOND = 1_000_000_000
START = Start(0, 100.0)
NODE, OWN = ("", "n", ""), ("shop-7f3a", "web", "web")


def figures(at_s: float, **cpu_s: float) -> Mapping[tuple[str, str, str], Reading]:
    """Figures of the node, of a pod of the run and of one of others, with the CPU time of each."""
    keys = {"node": NODE, "own": OWN, "other": ("db", "db-1", "db")}
    return {keys[name]: Reading(at_s, round(used * SECOND), 0) for name, used in cpu_s.items()}


def noise(*summaries: Mapping[tuple[str, str, str], Reading]) -> list[Row]:
    found = NodeNoise({"n": 4.0}, ("shop-7f3a",))
    for one in summaries:
        found.add("n", one)
    return list(found.rows(START))


def test_others_are_the_node_without_the_run() -> None:
    """Four CPUs for 20 s: 40 s were used, 30 of them by the run."""
    rows = noise(
        figures(100, node=1000, own=500), figures(110, node=1020, own=515), figures(120, node=1040, own=530, other=9)
    )
    last = {name: cpu_ns for at_ns, name, role, cpu_ns, _ in rows if at_ns == 20 * SECOND and role == "noise"}
    assert last == {"capacity": 80 * SECOND, "own": 30 * SECOND, "others": 10 * SECOND}


def test_pods_are_interpolated_at_the_times_of_the_node() -> None:
    """Their figures are of other moments."""
    rows = noise(
        {**figures(100, node=0), **figures(95, own=0)},
        {**figures(110, node=10), **figures(105, own=10)},
        {**figures(120, node=20), **figures(115, own=20)},
    )
    own = [(at_ns, cpu_ns) for at_ns, name, _, cpu_ns, _ in rows if name == "own"]
    assert own == [(0, 0), (10 * SECOND, 10 * SECOND)]  # at 120 the pods' are not known
    assert [cpu_ns for _, name, _, cpu_ns, _ in rows if name == "others"] == [0, 0]


@pytest.mark.parametrize(
    "summaries",
    [
        (),
        (figures(100, node=1, own=1),),
        (figures(100, node=1, own=1), figures(110, node=2)),
        (figures(100, own=1), figures(110, own=2)),
    ],
)
def test_missing_figures_give_no_rows(summaries: tuple[Mapping[tuple[str, str, str], Reading], ...]) -> None:
    """Then the share of others is unknown, not zero."""
    assert noise(*summaries) == []


def test_figure_that_is_not_new_is_kept_once() -> None:
    same = figures(100, node=0, own=0)
    assert noise(same, same, figures(110, node=1, own=1)) == noise(same, figures(110, node=1, own=1))


@pytest.mark.parametrize(("window_s", "share"), [(25, 0.125), (5, None)])
def test_window_shorter_than_the_figures_has_no_share(window_s: int, share: float | None, tmp_path: Path) -> None:
    """A kubelet renews them every 10 to 15 s."""
    summaries = [figures(at_s, node=2 * (at_s - 100), own=1.5 * (at_s - 100)) for at_s in range(100, 150, 10)]
    trace = write_resources(tmp_path / "resources.parquet", noise(*summaries))
    found = measure_noise(trace, (Window(start_ns=5 * SECOND, end_ns=(5 + window_s) * SECOND),))
    assert found.other_cpu == (None if share is None else pytest.approx(share))


def pod(name: str, namespace: str = "db", *, at: str = "n", phase: str = "Running") -> Object:
    return make_object("v1", "Pod", name, namespace=namespace, spec={"nodeName": at}, status={"phase": phase})


def test_pods_of_others_that_came_or_went_are_listed() -> None:
    """On the nodes of the run only, and none of the run's own; one that has ended uses nothing."""
    stays, leaves, comes = pod("stays"), pod("leaves"), pod("comes")
    quiet = [pod("web", "shop-7f3a"), pod("far", at="m"), pod("done", phase="Succeeded")]
    before = snapshot_neighbours([stays, leaves], nodes=["n"], own=["shop-7f3a"])
    after = snapshot_neighbours([stays, comes, *quiet], nodes=["n"], own=["shop-7f3a"])
    assert find_moves(before, after) == ("pod db/comes came", "pod db/leaves went")
    assert find_moves(before, before) == ()


@dataclass
class Idle:
    """A meter that reads nothing."""

    found: tuple[Issue, ...] = ()
    reads: list[str] = field(default_factory=list)

    def tick(self) -> None:
        self.reads.append("tick")

    def read(self) -> None:
        self.reads.append("read")

    def rows(self, _start: Start) -> list[Row]:
        return []

    def issues(self) -> tuple[Issue, ...]:
        return self.found


def test_neighbour_that_came_during_the_load_is_an_issue() -> None:
    """A warning with its name, by which the block may be rerun."""
    fake, meter = FakeCluster(), Idle()
    watch = NeighbourWatch(fake.cluster, meter, ("n",), ("shop-7f3a",), {})
    watch.tick()
    watch.read()
    assert watch.issues() == ()
    fake.add([pod(f"job-{number}") for number in range(6)])
    watch.read()
    (issue,) = watch.issues()
    assert issue.code is IssueCode.NOISE
    assert "pod db/job-0 came" in format_issue(issue)
    assert "and 2 more" in issue.detail
    assert meter.reads == ["tick", "read", "read"]


def test_neighbours_that_cannot_be_listed_are_unknown() -> None:
    """An API server that is away ends no load."""
    fake = FakeCluster(down=1)
    watch = NeighbourWatch(fake.cluster, Idle(), ("n",), (), {"uid": "db/db-1"})
    watch.read()
    assert watch.issues() == ()


def test_deployments_of_a_block_share_summaries() -> None:
    """A kubelet's summary costs its node CPU time, once for all of them."""

    class Kubelets(FakeCluster):
        count = 0

        def read(self, _path: str, **_: str) -> Object:
            self.count += 1
            cpu = {"time": "2026-11-23T09:00:10Z", "usageCoreNanoSeconds": self.count}
            return {"node": {"nodeName": "n", "cpu": cpu}}

    kubelets = Kubelets()
    summaries = Summaries(kubelets.cluster)
    key = ("", "n", "")
    assert [summaries.read("n", age_s=60)[key].cpu_ns for _ in range(3)] == [1, 1, 1]
    assert summaries.read("other", age_s=60)[key].cpu_ns == 2
    assert summaries.read("n")[key].cpu_ns == 3
    broken = Summaries(FakeCluster().cluster)
    broken.cluster.read = fail  # type: ignore[method-assign]
    with pytest.raises(ClusterError):
        broken.read("n", age_s=60)


def fail(*_: object, **__: object) -> Object:
    raise ClusterError("no answer", kind=ErrorKind.UNREACHABLE)
