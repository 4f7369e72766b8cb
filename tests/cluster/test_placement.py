"""Where the pods of a run may be: on a node that keeps other pods out, with the labels and settings of a scenario."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.k8s.client import Cluster, Object
from bench.k8s.ownership import OURS, labels_of
from tests.cluster.job import BASELINE, ISTIO, MEASURED, MESH, run_command, run_job, write_scenario
from tests.command import Command

pytestmark = pytest.mark.usefixtures("as_before")

TAINT = {"key": "role", "value": "workload", "effect": "NoSchedule"}
SECURITY = "pod-security.kubernetes.io/warn"


@pytest.fixture
def dedicated(cluster: Cluster) -> Iterator[None]:
    """Give the lab's node the label and the taint of a node group for one workload."""
    with _changed_node(cluster, {"labels": {"role": "workload"}}, {"taints": [TAINT]}):
        yield


@contextmanager
def _changed_node(cluster: Cluster, metadata: Object, spec: Object) -> Iterator[None]:
    (node,) = cluster.list("v1", "Node")
    name = {"name": node["metadata"]["name"]}
    try:
        cluster.apply({"apiVersion": "v1", "kind": "Node", "metadata": {**name, **metadata}, "spec": spec})
        yield
    finally:
        cluster.apply({"apiVersion": "v1", "kind": "Node", "metadata": name, "spec": {}})


@pytest.mark.usefixtures("dedicated")
def test_tainted_node_is_refused_with_the_option_that_uses_it(tmp_path: Path) -> None:
    """Exit code 3; with what the hint's option sets the same check passes."""
    looked = run_command(tmp_path, "doctor", "--scenario", "smoke")
    assert looked.exit_code == 3, looked.output
    assert "0 of 1 node ready and open to pods: taint role=workload:NoSchedule on 1 node" in looked.stdout
    option = "placement.application.tolerations=[role=workload:NoSchedule]"
    assert f"--set '{option}'" in looked.stdout
    tolerating = write_scenario(tmp_path, [BASELINE], placement={"application": {"tolerations": [TAINT]}})
    again = run_command(tmp_path, "doctor", "--scenario", str(tolerating))
    assert "1 of 1 node ready and open to pods" in again.stdout, again.output
    assert "unschedulable" not in again.stdout, again.output


@pytest.mark.usefixtures("dedicated")
def test_every_part_of_a_run_is_placed(cluster: Cluster, tmp_path: Path) -> None:
    """Application, load, probes and control plane are on the node, whose taint all of them tolerate; both namespaces of
    each trial have the scenario's labels and annotations."""
    seen: dict[str, Object] = {}
    spaces: dict[str, Object] = {}

    def look(command: Command) -> None:
        command.line("stage", stage="deployed")
        for thing in cluster.list("v1", "Pod", labels=OURS):
            seen[thing["metadata"]["name"]] = thing
        for thing in cluster.list("v1", "Namespace", labels=OURS):
            spaces[thing["metadata"]["name"]] = thing

    placement: dict[str, Any] = {
        "application": {"node_selector": {"role": "workload"}},
        "namespaces": {"labels": {SECURITY: "privileged"}, "annotations": {"team": "a"}},
    }
    job = run_job(tmp_path, *MESH, scenario=[ISTIO], during=look, placement=placement)
    assert job.exit_code in MEASURED, job.output
    assert {"locust"} <= seen.keys()
    assert any(name.startswith("istiod") for name in seen)
    assert any(name.startswith("probe-") for name in seen)
    for name, pod in seen.items():
        assert pod["spec"]["nodeSelector"].items() >= {"role": "workload"}.items(), name
    trials = {name: one for name, one in spaces.items() if name.startswith("bookinfo-")}
    assert len(trials) == 2
    assert all(labels_of(one)[SECURITY] == "privileged" for one in trials.values())
    assert all(one["metadata"]["annotations"]["team"] == "a" for one in trials.values())
    assert "placement of pods: application: nodes with role=workload" in str(job.record["target"]["caveats"])


def test_label_that_no_node_has_is_named(tmp_path: Path) -> None:
    """Before anything is created."""
    job = run_job(tmp_path, "--load-node", "role=benchmark")
    assert job.exit_code == 3, job.output
    assert "0 of 1 node ready and open to pods of the load: no label role=benchmark on 1 node" in job.message
    assert job.run_folder is None


def test_label_of_a_mesh_is_refused(tmp_path: Path) -> None:
    """With file and line, before the cluster is read."""
    placement = {"namespaces": {"labels": {"istio-injection": "enabled"}}}
    job = run_job(tmp_path, placement=placement)
    assert job.exit_code == 2, job.output
    assert "placement.namespaces.labels.istio-injection: Istio reads it" in job.message
