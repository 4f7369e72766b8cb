"""A mesh that is added by the registry alone is planned, examined, installed and removed like any other."""

from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import cast

import pytest
import yaml

from bench.k8s.client import Ref
from bench.k8s.ownership import Owner
from bench.meshes import MESHES
from bench.meshes.cluster_protocol import ControlPlane, InstallOptions
from bench.meshes.control_planes import CONTROL_PLANES
from bench.meshes.protocols import Mesh
from bench.meshes.resolved import ResolvedScenario, resolve_scenario
from bench.scenario.overrides import Overrides
from bench.scenario.plan import make_plan
from bench.system.cancellation import CancelToken
from bench.system.journal import Journal
from bench.targets.cluster.dry_run import dry_run
from bench.targets.cluster.preflight.permissions import needs_of
from bench.targets.cluster.probes.injection import read_namespace_state, selecting_webhooks
from bench.targets.cluster.teardown.cleanup import clean_cluster
from tests.fake_cluster import FakeCluster, make_object
from tests.local.test_toy_mesh import SCENARIO
from tests.shown_cluster import fake, node, options
from tests.toy_mesh import TOY
from tests.toy_mesh import control_plane as plane

PLANE: ControlPlane = plane  # the type checker compares the module with the protocol
RUN = "20261123T031500Z-toy-7f3a"


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cast("dict[str, Mesh]", MESHES), "toy", TOY)


@pytest.fixture
def resolved(tmp_path: Path) -> ResolvedScenario:
    """A scenario that names the mesh."""
    (file := tmp_path / "toy.yaml").write_text(yaml.safe_dump(SCENARIO), "utf-8")
    return resolve_scenario(str(file), Overrides())


def test_plan_has_the_mesh(resolved: ResolvedScenario) -> None:
    """What a run would install, the images of its sidecars, and the labels that request them."""
    cluster = fake(objects={"Node": (node(),)})
    found = dry_run(cluster, resolved, options(), plan=make_plan(resolved.scenario, 1))
    assert found.control_planes == {"toy": {"Namespace": 1, "Deployment": 1}}
    assert {"toy.example/plane:1", "toy.example/proxy:1"} <= set(found.images)


def test_rights_are_asked_for() -> None:
    """A run with the mesh needs to keep its policies, another one does not."""
    assert "toys" in {need.resource for need in needs_of(["toy"], install=True)}
    assert "toys" not in {need.resource for need in needs_of(["istio"], install=True)}


def test_injection_is_recognised() -> None:
    """By its labels and by the domain of its webhooks."""
    namespace = make_object("v1", "Namespace", "run", metadata={"labels": {"toy.example/inject": "enabled"}})
    pod = make_object("v1", "Pod", "details", namespace="run")
    rule = {"resources": ["pods"], "operations": ["CREATE"], "apiGroups": [""]}
    webhook = {"webhooks": [{"name": "inject.toy.example", "rules": [rule]}]}
    assert selecting_webhooks(namespace, [pod], [webhook]) == ("inject.toy.example",)
    labels = {"metadata": {"name": "run", "labels": {"toy.example/inject": "enabled"}}}
    assert read_namespace_state(labels, [], [], own=()).labels == ("toy.example/inject=enabled",)


def test_control_plane_is_installed_and_removed(tmp_path: Path) -> None:
    """Everything that a run applies has its labels, and its cleanup leaves nothing."""
    cluster, looks = FakeCluster(), count()
    cluster.timing = replace(cluster.timing, clock=lambda: next(looks) / 1000)
    journal = Journal(tmp_path / "journal.jsonl")
    assert CONTROL_PLANES["toy"].find_installed(cluster.cluster) == ""
    Owner(cluster.cluster, RUN, journal, CancelToken()).apply_all(plane.render(InstallOptions()), "toy")
    journal.close()
    assert CONTROL_PLANES["toy"].find_installed(cluster.cluster) == "namespace toy-system"
    assert Ref("apps/v1", "Deployment", "toy", "toy-system") in cluster.things
    clean_cluster(cluster.cluster, RUN, watch=CancelToken(), wait_s=5.0)
    assert not cluster.things
