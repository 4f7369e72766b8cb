"""A control plane that restarts during a trial, on a real cluster."""

from pathlib import Path

import pytest

from bench.k8s.client import Cluster
from bench.meshes.istio import control_plane as istio
from bench.system.cancellation import CancelToken
from tests.cluster.job import ISTIO, run_job, until_loading
from tests.cluster.lab_images import kill_container
from tests.command import Command
from tests.issues import read_reasons

pytestmark = pytest.mark.usefixtures("existing_istio", "as_before")


@pytest.mark.soak("cluster")
def test_restarted_control_plane_makes_trial_invalid(cluster: Cluster, tmp_path: Path) -> None:
    """Exit code 5 with the restarted pod's name, as for a restart in the application; the load itself completed."""

    def harm(started: Command) -> None:
        until_loading(started, "01-istio-1")
        (pod,) = cluster.list("v1", "Pod", namespace=istio.NAMESPACE, labels=istio.PODS)
        (status,) = pod["status"]["containerStatuses"]
        kill_container(status["containerID"])

    job = run_job(tmp_path, "--use-existing-mesh", scenario=[ISTIO], load={"duration": "4s"}, during=harm)
    istio.wait_ready(cluster, timeout_s=60, watch=CancelToken())
    assert job.exit_code == 5, job.output
    trial = job.trials()["01-istio-1"]
    (restart,) = (reason for reason in read_reasons(trial) if reason.startswith("restart: "))
    assert restart.startswith("restart: discovery in istiod-"), restart
    assert "exit code 137" in restart
    assert (job.private / "trials" / "01-istio-1" / "services" / "istiod-discovery.log").stat().st_size > 0
