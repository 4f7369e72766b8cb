"""A mesh's CNI plugin in the user's values: the pre-flight checks it like the rest of a control plane."""

from collections.abc import Callable

import pytest

from bench.k8s.client import Object
from bench.meshes.istio import control_plane as istio
from bench.targets.cluster.preflight.capacity import (
    FreeNode,
    PodPlan,
    PodRequest,
    Resources,
    add_mesh,
    subtract_daemons,
)
from tests.shown_cluster import fake, options

GI = 2**30
AGENT = {"image": "hub/install-cni:1", "resources": {"requests": {"cpu": "100m", "memory": "1Gi"}}}
PLUG_IN: Object = {
    "apiVersion": "apps/v1",
    "kind": "DaemonSet",
    "metadata": {"name": "istio-cni-node", "namespace": "istio-system"},
    "spec": {"template": {"spec": {"containers": [AGENT]}}},
}

Look = Callable[..., PodPlan]


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Look:
    def rendered(*things: Object, refuse: frozenset[tuple[str, str]] = frozenset()) -> PodPlan:
        monkeypatch.setattr(istio, "render", lambda _options: things)
        return add_mesh(PodPlan(({},)), "istio", cluster=fake(refuse=refuse), options=options())

    return rendered


def test_warns_that_plugin_affects_every_node(look: Look) -> None:
    """Pods of other users depend on it, too, during the run; without a plugin there is no warning."""
    (finding,) = look(PLUG_IN).remarks
    assert (finding.status, finding.name) == ("warning", "plugin")
    assert "istio-cni-node sets up the network of every pod on every node" in finding.detail
    assert look().remarks == ()


def test_missing_plugin_permission_names_its_role(look: Look) -> None:
    """Without it the run would fail while it installs the mesh."""
    lacking, _ = look(PLUG_IN, refuse=frozenset({("create", "daemonsets")})).remarks
    assert (lacking.status, lacking.name) == ("error", "plugin")
    assert "create daemonsets.apps" in lacking.detail
    assert lacking.hint.endswith("rbac/install-cni.yaml")


def test_counts_plugin_image_and_its_share_of_each_node(look: Look) -> None:
    """It runs on every node, which leaves less free capacity for the other pods."""
    planned = look(PLUG_IN)
    assert planned.images == ("hub/install-cni:1",)
    assert planned.requests == ()
    assert planned.everywhere == (PodRequest("istio-cni-node", Resources(0.1, GI)),)
    assert subtract_daemons(planned.everywhere, [FreeNode("one", Resources(1.0, 3 * GI), 10)]) == (
        FreeNode("one", Resources(0.9, 2 * GI), 9),
    )
