"""A scenario is resolved once: every trial of a run uses what was read then."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench.analysis.proxy_cost import measure_paths
from bench.analysis.run_summary import summarise
from bench.cli.plan_text import format_plan
from bench.envoy import addresses
from bench.errors import InputError
from bench.files.folders import find_shipped
from bench.meshes.istio import control_plane as istio
from bench.meshes.kuma import control_plane as kuma
from bench.meshes.resolved import ResolvedScenario, resolve_scenario, resolve_stored
from bench.meshes.rewriting import Namespaces
from bench.results.store import StoredRun
from bench.scenario.loader import NO_OVERRIDES, find_stored_inputs
from bench.scenario.overrides import Overrides
from bench.scenario.plan import make_plan
from bench.scenario.types import Design
from bench.system.cancellation import CancelToken
from bench.system.journal import Journal
from bench.system.processes import Launcher
from bench.targets.cluster import target as cluster_target
from bench.targets.cluster.deployment import ClusterDeployment
from bench.targets.cluster.load.placement import UNDECIDED
from bench.targets.cluster.preflight.capacity import build_manifests
from bench.targets.local.target import LocalTarget, open_local
from tests.factory import ConfigSpec, RunSpec, make_run
from tests.fake_cluster import FakeCluster
from tests.shown_cluster import options

CONFIGURATIONS = (
    ConfigSpec("baseline"),
    ConfigSpec("mtls", "istio", ("istio/mtls",)),
    ConfigSpec("gateway", "istio", ("istio/mtls", "istio/gateway")),
    ConfigSpec("kuma", "kuma", ("kuma/policies",)),
)


@pytest.fixture
def run(tmp_path: Path) -> StoredRun:
    """The folder of a run with two repeats of each configuration."""
    return make_run(tmp_path, RunSpec(configurations=CONFIGURATIONS, repeats=2))


@pytest.fixture
def opened(run: StoredRun, monkeypatch: pytest.MonkeyPatch) -> Counter[Path]:
    """How often each manifest has been opened since the run has its folder."""
    assert run.trials
    counts, really_open = Counter[Path](), Path.open

    def count(path: Path, *args: Any, **kwargs: Any) -> Any:
        counts[path] += "manifests" in path.parts
        return really_open(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", count)
    return counts


def list_manifests(run: StoredRun) -> set[Path]:
    """The manifests of the application and of the run's folder."""
    stored = find_stored_inputs(run.record.scenario, run.path).manifests.values()
    folders = (find_shipped("manifests") / "bookinfo", *stored)
    return {file for folder in folders for file in folder.rglob("*.yaml") if file.name != "application.yaml"}


def require_one_opening(opened: Counter[Path], run: StoredRun) -> None:
    # the application's definition is no manifest, and is looked at where files are listed
    counted = {path: count for path, count in opened.items() if count and path.name != "application.yaml"}
    assert counted.keys() >= list_manifests(run)
    assert set(counted.values()) == {1}, counted


class Processes:
    """A launcher that starts nothing: each process has ended with exit code 0."""

    def __init__(self, work: Path) -> None:
        self.work = work

    @contextmanager
    def working_folder(self) -> Iterator[Path]:
        yield self.work

    @contextmanager
    def without_strays(self) -> Iterator[None]:
        yield

    @contextmanager
    def group(self) -> Iterator[list[Any]]:
        yield []

    def end_strays(self) -> None:
        """There are none."""

    def start(self, name: str, argv: Sequence[str], **_: Any) -> Any:
        return SimpleNamespace(name=name, argv=argv, running=False, popen=SimpleNamespace(returncode=0))


def test_local_run_reads_each_manifest_once(
    run: StoredRun, opened: Counter[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Certificates, sidecars and user groups of all trials come from what was read when the run was opened."""
    monkeypatch.setattr(addresses, "_bind", lambda _port, _sockets: True)
    monkeypatch.setattr(LocalTarget, "_wait", lambda _self, _deployment: None)
    resolved = resolve_stored(run.record.scenario, run.path)
    launcher = cast("Launcher", Processes(tmp_path))
    with open_local(run.record, resolved, launcher=launcher, watch=CancelToken()) as target:
        for trial in run.record.plan.trials:
            with target.deploy([trial], [tmp_path]):
                pass
    require_one_opening(opened, run)


def test_cluster_run_reads_each_manifest_once(
    run: StoredRun, opened: Counter[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pre-flight, the dry run of policies and the objects of all trials come from what was read at the start."""
    for plane in (istio, kuma):
        for name, answer in (("wait_ready", None), ("find_unaccepted", "")):
            monkeypatch.setattr(plane, name, lambda *_args, answer=answer, **_: answer)
    monkeypatch.setattr(ClusterDeployment, "start", lambda _self: None)
    monkeypatch.setattr(cluster_target, "ensure_held", lambda *_: None)
    there, watch = options(existing_mesh=True), CancelToken()
    resolved = resolve_stored(run.record.scenario, run.path)
    build_manifests(resolved, there)
    with (
        closing(Journal(tmp_path / "journal.jsonl")) as journal,
        cluster_target.open_target(
            FakeCluster(meshes=frozenset({istio.NAMESPACE, kuma.NAMESPACE})).cluster,
            there,
            run=run.record,
            resolved=resolved,
            journal=journal,
            watch=watch,
            load_place=UNDECIDED,
        ) as target,
    ):
        for trial in run.record.plan.trials:
            with target.deploy([trial], [tmp_path]):
                pass
    require_one_opening(opened, run)


def test_configurations_may_have_namespaces_of_their_own(run: StoredRun) -> None:
    """Each configuration has a map of its own, so that two could run side by side."""
    resolved: ResolvedScenario = resolve_stored(run.record.scenario, run.path)
    for name, space in (("mtls", "one"), ("gateway", "two")):
        placed = resolved.configuration(name).in_namespaces(Namespaces({"bookinfo": space, "shop": f"{space}-shop"}))
        assert placed.deployed.namespace == space
        assert placed.identities["bookinfo-details"] == (f"spiffe://cluster.local/ns/{space}/sa/bookinfo-details",)
        assert {one.value["metadata"]["namespace"] for one in placed.moved} <= {space, "istio-system"}
    assert resolved.configuration("mtls").deployed == resolved.configuration("mtls").application


def test_reports_problems_of_all_configurations(run: StoredRun) -> None:
    """A problem of the second configuration does not hide one of the third."""
    stored = find_stored_inputs(run.record.scenario, run.path).manifests
    for folder in ("istio/gateway", "kuma/policies"):
        (stored[folder] / "wrong.yaml").write_text("kind: Nothing\n", "utf-8")
    with pytest.raises(InputError) as raised:
        resolve_stored(run.record.scenario, run.path)
    assert {Path(problem.file).parent for problem in raised.value.problems} == {
        stored["istio/gateway"],
        stored["kuma/policies"],
    }


def planned(name: str, *, run_mesh: str = "") -> list[str]:
    """The lines of `meshbench plan` about names that differ on a cluster."""
    resolved = resolve_scenario(name, NO_OVERRIDES)
    names = Namespaces({"bookinfo": "bookinfo-RUN"}, run_mesh)
    rewrites = resolved.list_rewrites({one.name: names for one in resolved.configurations})
    lines = format_plan(resolved, make_plan(resolved.scenario, 1), None, rewrites).splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("on a cluster, names"))
    return lines[first + 1 : lines.index("comparisons, P95 first:")]


def test_plan_lists_each_rewrite_with_files_and_lines() -> None:
    """Each name once, then where it stands, the application's own objects in the versions that are deployed first; what
    stays as it is written is not listed."""
    identity = "cluster.local/ns/{}/sa/bookinfo-productpage"
    assert planned("istio-policies") == [
        f"  identity {identity.format('bookinfo')} -> {identity.format('bookinfo-RUN')}",
        "    istio/policies/details-viewer.yaml:14, istio/policies/reviews-viewer.yaml:14",
        "  identity cluster.local/ns/bookinfo/sa/bookinfo-reviews -> cluster.local/ns/bookinfo-RUN/sa/bookinfo-reviews",
        "    istio/policies/ratings-viewer.yaml:14",
        "  namespace (none) -> bookinfo-RUN",
        (
            "    bookinfo/accounts.yaml:5,12,19,26, bookinfo/details.yaml:5, bookinfo/productpage.yaml:5, "
            "bookinfo/ratings.yaml:5,"
        ),
        "    bookinfo/reviews-v3.yaml:5, bookinfo/services.yaml:6,22,38,54, istio/policies/allow-nothing.yaml:4,",
        (
            "    istio/policies/details-viewer.yaml:4, istio/policies/productpage-login.yaml:4, "
            "istio/policies/ratings-viewer.yaml:4,"
        ),
        "    istio/policies/reviews-viewer.yaml:4",
    ]


def test_plan_lists_what_an_existing_mesh_needs() -> None:
    """There, policies for a whole mesh are limited to the run, in the run's own namespace or mesh."""
    assert "  namespace istio-system -> bookinfo-RUN" in planned("istio-policies", run_mesh="bookinfo-RUN")
    lines = planned("kuma-policies", run_mesh="bookinfo-RUN")
    assert "  mesh default -> bookinfo-RUN" in lines
    assert "  name identity -> identity-bookinfo-RUN" in lines
    assert any("spiffe://bookinfo-RUN.default.mesh.local/ns/bookinfo-RUN/sa/" in line for line in lines)


def side_by_side(name: str) -> ResolvedScenario:
    """A shipped scenario whose configurations are deployed together."""
    resolved = resolve_scenario(name, NO_OVERRIDES)
    return replace(resolved, scenario=resolved.scenario.model_copy(update={"design": "duet"}))


def test_configurations_side_by_side_have_namespaces_of_their_own() -> None:
    """Also where the run installs the mesh: nothing of one configuration may apply to another."""
    names = side_by_side("istio-policies").name_configurations("7f3a", existing_mesh=False)
    assert {name: (one.home, one.outside, one.run_mesh) for name, one in names.items()} == {
        name: (f"bookinfo-7f3a-{name}", f"bookinfo-7f3a-{name}-outside", f"bookinfo-7f3a-{name}")
        for name in ("baseline", "istio", "istio-policies")
    }
    later = side_by_side("istio-policies").name_configurations("7f3a", existing_mesh=False, block=2)
    assert later["istio"].home == "bookinfo-7f3a-2-istio"
    assert later["istio"].run_mesh == "bookinfo-7f3a-istio"


def test_sequential_run_keeps_one_namespace() -> None:
    """One configuration at a time is there."""
    resolved = resolve_scenario("istio-policies", NO_OVERRIDES)
    resolved = replace(resolved, scenario=resolved.scenario.model_copy(update={"design": "sequential"}))
    assert {one.home for one in resolved.name_configurations("7f3a", existing_mesh=False).values()} == {"bookinfo-7f3a"}
    assert {one.run_mesh for one in resolved.name_configurations("7f3a", existing_mesh=False).values()} == {""}


def test_namespace_of_configuration_is_a_name_of_kubernetes() -> None:
    """A configuration may have a name that is too long for it, ends in a dash, or is the name outside of another."""
    resolved, odd = resolve_scenario("istio-policies", NO_OVERRIDES), ("a" * 40, "a" * 39 + "b", "-", "x-outside", "x")
    made = [resolved.name_namespaces(f"7f3a{'0' * 12}", name, existing_mesh=False, block=100) for name in odd]
    names = [name for one in made for name in (one.home, one.outside)]
    assert len(set(names)) == 2 * len(odd)
    for name in names:
        assert len(name) <= 63
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name)


def test_plan_lists_rewrites_of_each_configuration_side_by_side() -> None:
    """Policies for the whole mesh apply to the configuration's namespace, or Kuma's Mesh, alone."""
    names = {
        name: side_by_side(name).name_configurations(existing_mesh=False) for name in ("istio-policies", "gateway")
    }
    rewrites = {
        (one.kind, one.written, one.runs)
        for one in side_by_side("istio-policies").list_rewrites(names["istio-policies"])
    }
    assert ("namespace", "", "bookinfo-RUN-baseline") in rewrites
    assert ("namespace", "istio-system", "bookinfo-RUN-istio-policies") in rewrites
    assert ("namespace", "istio-system", "bookinfo-RUN-baseline") not in rewrites
    gateways = {(one.path, one.runs) for one in side_by_side("gateway").list_rewrites(names["gateway"])}
    assert ("spec.selector.meshbench.dev/namespace", "bookinfo-RUN-istio-gateway") in gateways


@pytest.mark.parametrize("design", ["duet", "sequential"])
def test_gateway_in_an_existing_mesh_selects_by_run_and_configuration(design: Design) -> None:
    """Istio looks for the pods of a Gateway in all namespaces, those of other runs and configurations, too."""
    resolved = resolve_scenario("gateway", Overrides(design=design))
    rewrites = resolved.list_rewrites(resolved.name_configurations(existing_mesh=True))
    assert ("spec.selector.meshbench.dev/mesh", "bookinfo-RUN-istio-gateway") in {
        (one.path, one.runs) for one in rewrites
    }


def test_part_of_an_existing_mesh_belongs_to_one_configuration() -> None:
    """What a configuration has in the mesh outside of namespaces is its own, also where one follows the other."""
    names = resolve_scenario("kuma-policies", Overrides(design="sequential")).name_configurations(existing_mesh=True)
    assert names["kuma-policies"].run_mesh == "bookinfo-RUN-kuma-policies"
    assert {one.home for one in names.values()} == {"bookinfo-RUN"}


def test_plan_names_files_that_equalise() -> None:
    """Policies that a mesh gets for `equalise` are listed like those of the scenario."""
    assert "    kuma/equal-retries.yaml:6, kuma/equal-tls.yaml:8" in planned("istio-vs-kuma-equalised")


def test_report_reads_no_manifest(run: StoredRun, opened: Counter[Path]) -> None:
    """What it needs of them is in the run's record; a run of an older version has it in its manifests only."""
    older, _ = summarise(run)
    assert sum(opened.values())
    paths = measure_paths(resolve_stored(run.record.scenario, run.path))
    opened.clear()
    stored = replace(run, record=run.record.model_copy(update={"paths": paths}))
    assert summarise(stored)[0] == older
    assert not sum(opened.values())
    assert {cost.configuration for cost in older.hop_costs} == {"mtls", "gateway", "kuma"}
