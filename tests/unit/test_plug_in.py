"""A mesh's CNI plug-in, which a user's values bring: looked at before a run like everything else of a control plane."""

from collections.abc import Callable

import pytest

from bench.k8s.client import Object
from bench.meshes.istio import control_plane as istio
from bench.targets.cluster.preflight.capacity import Asked, Free, Planned, Room, left_by, with_mesh
from tests.shown_cluster import fake, options

GI = 2**30
AGENT = {"image": "hub/install-cni:1", "resources": {"requests": {"cpu": "100m", "memory": "1Gi"}}}
PLUG_IN: Object = {
    "apiVersion": "apps/v1",
    "kind": "DaemonSet",
    "metadata": {"name": "istio-cni-node", "namespace": "istio-system"},
    "spec": {"template": {"spec": {"containers": [AGENT]}}},
}

Look = Callable[..., Planned]


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Look:
    def rendered(*things: Object, refuse: frozenset[tuple[str, str]] = frozenset()) -> Planned:
        monkeypatch.setattr(istio, "render", lambda _options: things)
        return with_mesh(Planned(((),)), "istio", cluster=fake(refuse=refuse), options=options())

    return rendered


def test_who_installs_a_plug_in_is_told_that_it_is_part_of_every_nodes_network(look: Look) -> None:
    """Pods of others start by it too, for as long as the run lasts; without one there is nothing to tell."""
    (finding,) = look(PLUG_IN).remarks
    assert (finding.status, finding.name) == ("warning", "plug-in")
    assert "istio-cni-node is part of how every pod on every node gets its network" in finding.detail
    assert look().remarks == ()


def test_a_right_that_a_plug_in_takes_and_is_missing_names_the_role_that_gives_it(look: Look) -> None:
    """Without it the run would end in the middle of installing the mesh."""
    lacking, _ = look(PLUG_IN, refuse=frozenset({("create", "daemonsets")})).remarks
    assert (lacking.status, lacking.name) == ("error", "plug-in")
    assert "create daemonsets.apps" in lacking.detail
    assert lacking.hint.endswith("rbac/install-cni.yaml")


def test_a_plug_ins_image_and_its_part_of_each_node_are_looked_at(look: Look) -> None:
    """It is on every node: it is no pod that finds itself a place, and leaves less for those that do."""
    planned = look(PLUG_IN)
    assert planned.images == ("hub/install-cni:1",)
    assert planned.asked == ()
    assert planned.everywhere == (Asked("istio-cni-node", Room(0.1, GI)),)
    assert left_by(planned.everywhere, [Free("one", Room(1.0, 3 * GI), 10)]) == (Free("one", Room(0.9, 2 * GI), 9),)
