"""Nights on a real cluster, as the shipped CronJob measures them: in a pod, with its own account, on a volume."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from bench.k8s.client import Cluster, Ref
from bench.k8s.wait import wait_until_deleted
from bench.system.cancellation import CancelToken, wait_until
from tests.cluster.job import MEASURED
from tests.cluster.lab import CONTEXT, MESHLAB, ROOT, home, kubeconfig
from tests.cluster.runner_image import RUNNER, build_runner

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NAMESPACE: Final = "meshbench-nightly"
NIGHT_S: Final = 400.0
_POLL_S: Final = 1.0
_SCENARIO: Final = {
    "schema_version": 1,
    "name": "night",
    "title": "A night of seconds",
    "reference": "baseline",
    "repeats": 1,
    "rerun_invalid": False,
    "load": {"users": 8, "think_time": "200ms", "warmup": "1s", "duration": "5s"},
    "configurations": [{"name": "baseline", "mesh": "none"}, {"name": "istio", "mesh": "istio"}],
}
# What a lab needs: a volume without a storage class, which a pod may write to as it is, and the lab's values for Istio.
_OVERLAY: Final = """\
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
  - ../nightly/overlays/istio
  - volume.yaml
configMapGenerator:
  - name: night
    namespace: meshbench-nightly
    files: [night.yaml, istio-values.yaml]
generatorOptions:
  disableNameSuffixHash: true
images:
  - name: meshbench/runner
    newName: RUNNER
    newTag: lab
patches:
  - target: {kind: PersistentVolumeClaim}
    patch: |-
      - {op: add, path: /spec/storageClassName, value: ""}
      - {op: add, path: /spec/volumeName, value: meshbench-nights}
  - target: {kind: CronJob}
    patch: |-
      - {op: replace, path: /spec/jobTemplate/spec/template/spec/containers/0/env/0/value, value: /scenario/night.yaml}
      - op: add
        path: /spec/jobTemplate/spec/template/spec/containers/0/args/-
        value: --mesh-values=/scenario/istio-values.yaml
      - {op: add, path: /spec/jobTemplate/spec/template/spec/containers/0/args/-, value: --scale-requests=25%}
      - op: add
        path: /spec/jobTemplate/spec/template/spec/containers/0/volumeMounts/-
        value: {name: night, mountPath: /scenario, readOnly: true}
      - op: add
        path: /spec/jobTemplate/spec/template/spec/volumes/-
        value: {name: night, configMap: {name: night}}
"""
_VOLUME: Final = """\
apiVersion: v1
kind: PersistentVolume
metadata: {name: meshbench-nights}
spec:
  capacity: {storage: 5Gi}
  accessModes: [ReadWriteOnce]
  storageClassName: ""
  persistentVolumeReclaimPolicy: Retain
  hostPath: {path: FOLDER, type: Directory}
"""


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """The folder of the node that is the volume; its pods are of user 1000."""
    folder = tmp_path / "nights"
    for path in (folder, folder / "pages"):
        path.mkdir()
        path.chmod(0o777)
    return folder


@pytest.fixture
def nightly(cluster: Cluster, tmp_path: Path, volume: Path) -> Iterator[Path]:
    """The job and its pages on the lab, from the shipped manifests; yields the rendered manifests."""
    build_runner()
    shutil.copytree(ROOT / "manifests" / "nightly", tmp_path / "nightly")
    shutil.copytree(ROOT / "manifests" / "rbac", tmp_path / "rbac")
    lab = tmp_path / "lab"
    lab.mkdir()
    (lab / "kustomization.yaml").write_text(_OVERLAY.replace("RUNNER", RUNNER.partition(":")[0]), "utf-8")
    (lab / "volume.yaml").write_text(_VOLUME.replace("FOLDER", str(volume)), "utf-8")
    (lab / "night.yaml").write_text(yaml.safe_dump(_SCENARIO), "utf-8")
    shutil.copyfile(MESHLAB.parent / "istio-values.yaml", lab / "istio-values.yaml")
    rendered = tmp_path / "rendered.yaml"
    rendered.write_text(_kubectl("kustomize", str(lab)), "utf-8")
    try:
        _kubectl("apply", "--filename", str(rendered))
        yield rendered
    finally:
        _kubectl("delete", "--wait=false", "--filename", str(rendered))
        wait_until_deleted(cluster, [Ref("v1", "Namespace", NAMESPACE)], timeout_s=60.0, watch=CancelToken())


def _kubectl(*arguments: str) -> str:
    argv = [str(home() / "cli" / "kubectl"), "--kubeconfig", str(kubeconfig()), "--context", CONTEXT, *arguments]
    ran = subprocess.run(argv, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def _measure_night(cluster: Cluster, name: str) -> tuple[int, str]:
    """Start the job now, and wait for its end; return the pod's exit code and its log."""
    _kubectl("--namespace", NAMESPACE, "create", "job", name, "--from", "cronjob/nightly")

    def ended() -> dict[str, Any] | None:
        for pod in cluster.list("v1", "Pod", namespace=NAMESPACE, labels=f"batch.kubernetes.io/job-name={name}"):
            for status in pod.get("status", {}).get("containerStatuses", ()):
                if state := status["state"].get("terminated"):
                    return dict(state)
        return None

    state = wait_until(ended, timeout_s=NIGHT_S, watch=CancelToken(), poll_s=_POLL_S)
    log = _kubectl("--namespace", NAMESPACE, "logs", f"job/{name}")
    assert state, log
    return int(state["exitCode"]), log


def test_two_nights_are_measured_judged_and_served(cluster: Cluster, nightly: Path, volume: Path) -> None:
    """Each adds itself to the history and removes what it made; the history and the newest report are served."""
    for name in ("first", "second"):
        code, log = _measure_night(cluster, name)
        assert code in MEASURED, log
    nights = {json.loads(line)["run_id"] for line in (volume / "history.jsonl").read_text("utf-8").splitlines()}
    assert len(nights) == 2
    assert not cluster.list("v1", "Namespace", labels="app.kubernetes.io/managed-by=meshbench")
    path = f"/api/v1/namespaces/{NAMESPACE}/services/pages:http/proxy"
    assert "Nightly history" in _kubectl("get", "--raw", f"{path}/")
    assert "meshbench" in _kubectl("get", "--raw", f"{path}/latest.html")


@pytest.mark.parametrize("mesh", ["istio", "kuma"])
def test_overlay_is_accepted(cluster: Cluster, tmp_path: Path, mesh: str) -> None:
    """Every object passes the API server's strict dry run; what is in the new namespace, in one that exists."""
    rendered = _kubectl("kustomize", str(ROOT / "manifests" / "nightly" / "overlays" / mesh))
    objects = [*yaml.safe_load_all(rendered)]
    assert {"CronJob", "PersistentVolumeClaim", "ServiceAccount", "Service", "ClusterRole"} <= {
        one["kind"] for one in objects
    }
    for one in objects:
        if "namespace" in one["metadata"]:
            one["metadata"]["namespace"] = "default"
        cluster.apply(one, dry_run=True)
    [job] = [one for one in objects if one["kind"] == "CronJob"]
    [container] = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert {"name": "SCENARIO", "value": f"{mesh}-policies"} in container["env"]
