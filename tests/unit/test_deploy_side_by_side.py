"""All configurations of a block on a cluster at once: their namespaces, what stays between blocks, and the end."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from bench.errors import DeployError
from bench.k8s.client import Ref
from bench.meshes.istio import control_plane as istio
from bench.meshes.kuma import control_plane as kuma
from bench.meshes.resolved import resolve_stored
from bench.results.store import StoredRun
from bench.scenario.plan import Plan, Trial
from bench.system.cancellation import CancelToken
from bench.system.journal import Journal, read_journal
from bench.targets.cluster import target as cluster_target
from bench.targets.cluster.deployment import ClusterDeployment
from bench.targets.cluster.load.placement import UNDECIDED
from bench.targets.cluster.target import ClusterTarget
from tests.factory import ConfigSpec, RunSpec, make_run
from tests.fake_cluster import FakeCluster, make_object
from tests.shown_cluster import options

CONFIGURATIONS = (
    ConfigSpec("baseline", "none"),
    ConfigSpec("istio-policies", "istio", ("istio/policies",)),
    ConfigSpec("kuma-policies", "kuma", ("kuma/policies",)),
)


@pytest.fixture
def run(tmp_path: Path) -> StoredRun:
    return make_run(tmp_path / "made", RunSpec(configurations=CONFIGURATIONS, repeats=2))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    """A cluster with both meshes, whose pods are ready at once."""
    for plane in (istio, kuma):
        for name, answer in (("wait_ready", None), ("find_unaccepted", "")):
            monkeypatch.setattr(plane, name, lambda *_args, answer=answer, **_: answer)
    monkeypatch.setattr(ClusterDeployment, "start", lambda _self: None)
    monkeypatch.setattr(cluster_target, "ensure_held", lambda *_: None)
    return FakeCluster(meshes=frozenset({istio.NAMESPACE, kuma.NAMESPACE}))


@contextmanager
def opened(run: StoredRun, fake: FakeCluster, folder: Path) -> Iterator[ClusterTarget]:
    """The target of the run as a duet, in existing meshes."""
    record = run.record.model_copy(update={"scenario": run.record.scenario.model_copy(update={"design": "duet"})})
    with (
        closing(Journal(folder / "journal.jsonl")) as journal,
        cluster_target.open_target(
            fake.cluster,
            options(existing_mesh=True),
            run=record,
            resolved=resolve_stored(record.scenario, run.path),
            journal=journal,
            watch=CancelToken(),
            load_place=UNDECIDED,
        ) as target,
    ):
        yield target


def units(run: StoredRun) -> tuple[tuple[Trial, ...], ...]:
    plan: Plan = run.record.plan.model_copy(update={"design": "duet"})
    return plan.units


def namespaces(fake: FakeCluster) -> set[str]:
    return {ref.name for ref in fake.things if ref.kind == "Namespace"}


def own(run: StoredRun, block: int) -> set[str]:
    """The namespaces of a block."""
    end = run.record.run_id.rpartition("-")[2]
    names = {f"bookinfo-{end}-{block}-{one.name}" for one in CONFIGURATIONS}
    return names | {f"{name}-outside" for name in names}


def test_each_block_has_namespaces_of_all_configurations(run: StoredRun, fake: FakeCluster, tmp_path: Path) -> None:
    """Before a load nothing of the block before is left, which would use CPU under it."""
    first, second = units(run)
    with opened(run, fake, tmp_path) as target:
        with target.deploy(first, [tmp_path] * 3) as deployments:
            assert [one.manifests.configuration.name for one in deployments] == [one.configuration for one in first]
            assert namespaces(fake) == own(run, 1)
        with target.deploy(second, [tmp_path] * 3):
            assert namespaces(fake) == own(run, 2)
    assert fake.things == {}


def test_policies_of_one_configuration_apply_to_no_other(run: StoredRun, fake: FakeCluster, tmp_path: Path) -> None:
    """None is left in a root namespace under a common name; each configuration in Kuma has its own Mesh."""
    end = run.record.run_id.rpartition("-")[2]
    with opened(run, fake, tmp_path) as target, target.deploy(units(run)[0], [tmp_path] * 3):
        policies = [ref for ref in fake.things if "istio.io/" in ref.api_version]
        assert {ref.namespace for ref in policies} == {f"bookinfo-{end}-1-istio-policies"}
        meshes = [ref.name for ref in fake.things if ref.kind == "Mesh"]
        assert meshes == [f"bookinfo-{end}-kuma-policies"]
        labels = fake.things[Ref("v1", "Namespace", f"bookinfo-{end}-1-kuma-policies")]["metadata"]["labels"]
        assert labels["kuma.io/mesh"] == meshes[0]


def test_mesh_of_a_configuration_outlives_its_dataplanes(run: StoredRun, fake: FakeCluster, tmp_path: Path) -> None:
    """It stays between the blocks, with its identity, and is deleted when no pod of the run is left."""
    first, second = units(run)
    with opened(run, fake, tmp_path) as target:
        for unit in (first, second):
            with target.deploy(unit, [tmp_path] * 3):
                pass
            assert {"Mesh", "MeshIdentity"} <= {ref.kind for ref in fake.things}
    deleted = [ref for ref, _ in fake.log]
    (mesh,) = [index for index, ref in enumerate(deleted) if ref.kind == "Mesh"]
    assert mesh > max(index for index, ref in enumerate(deleted) if ref.kind == "Namespace")


def test_what_the_control_plane_generated_is_deleted_at_the_end(
    run: StoredRun, fake: FakeCluster, tmp_path: Path
) -> None:
    """It has no label of the run: Kuma keeps the MeshTrust of an identity that is deleted."""
    name = f"identity-bookinfo-{run.record.run_id.rpartition('-')[2]}-kuma-policies"
    trust = make_object("kuma.io/v1alpha1", "MeshTrust", name, namespace="kuma-system")
    other = make_object("kuma.io/v1alpha1", "MeshTrust", "identity", namespace="kuma-system")
    with opened(run, fake, tmp_path) as target, target.deploy(units(run)[0], [tmp_path] * 3):
        assert Ref("kuma.io/v1alpha1", "MeshIdentity", name, "kuma-system") in fake.things
        fake.add([trust, other])
    assert [ref.name for ref in fake.things] == ["identity"]


def test_failure_of_one_configuration_ends_the_block(
    run: StoredRun, fake: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its logs are saved with those of the others, and everything is removed."""

    def fail(deployment: ClusterDeployment) -> None:
        if deployment.manifests.configuration.name == "kuma-policies":
            raise DeployError("no pod became ready")

    saved: list[str] = []
    monkeypatch.setattr(ClusterDeployment, "start", fail)
    monkeypatch.setattr(
        ClusterDeployment, "save_logs", lambda self, _draft: saved.append(self.manifests.configuration.name)
    )
    with (
        pytest.raises(DeployError, match="no pod became ready"),
        opened(run, fake, tmp_path) as target,
        target.deploy(units(run)[0], [tmp_path] * 3),
    ):
        pytest.fail("was deployed")
    assert sorted(saved) == sorted(one.name for one in CONFIGURATIONS)
    assert fake.things == {}


def test_journal_has_each_object_before_it_is_created(run: StoredRun, fake: FakeCluster, tmp_path: Path) -> None:
    """Also where several threads write it: each line is complete."""
    with opened(run, fake, tmp_path) as target, target.deploy(units(run)[0], [tmp_path] * 3):
        there = {(ref.kind, ref.name, ref.namespace) for ref in fake.things}
    lines = read_journal(tmp_path / "journal.jsonl")
    assert len(lines) == len((tmp_path / "journal.jsonl").read_text("utf-8").splitlines())
    assert there <= {
        (one.get("kind"), one.get("name"), one.get("namespace")) for one in lines if one["step"] == "apply"
    }


def test_policies_have_the_same_form_where_the_run_installs_the_mesh(run: StoredRun) -> None:
    """A mesh that is the run's own is shared by all of its configurations."""
    scenario = run.record.scenario.model_copy(update={"design": "duet"})
    resolved = resolve_stored(scenario, run.path)
    names = resolved.name_configurations("7f3a", existing_mesh=False)
    assert names["kuma-policies"].run_mesh == "bookinfo-7f3a-kuma-policies"
    moved = resolved.configuration("istio-policies").in_namespaces(names["istio-policies"]).moved
    assert {one.value["metadata"]["namespace"] for one in moved} == {"bookinfo-7f3a-istio-policies"}
