"""Nights on a real cluster, as the shipped CronJob measures them: in a pod, with its own account, on a volume."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from textwrap import indent
from typing import Any, Final, TypeVar

import pytest
import yaml

from bench.k8s.client import Cluster, Object, Ref
from bench.k8s.wait import wait_until_deleted
from bench.system.cancellation import CancelToken, wait_until
from tests.cluster.job import MEASURED
from tests.cluster.lab import CONTEXT, MESHLAB, ROOT, home, kubeconfig
from tests.cluster.runner_image import RUNNER, build_runner

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

T = TypeVar("T")

NAMESPACE: Final = "meshbench-nightly"
NIGHT_S: Final = 400.0
_POLL_S: Final = 1.0
_LOAD: Final = {"users": 8, "think_time": "200ms", "warmup": "1s", "duration": "5s"}
_SCENARIO: Final = {
    "schema_version": 1,
    "name": "night",
    "title": "A night of seconds",
    "reference": "baseline",
    "repeats": 1,
    "rerun_invalid": False,
    "load": _LOAD,
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
def nightly(cluster: Cluster, tmp_path: Path, volume: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """The job and its pages on the lab, from the shipped manifests; yields the rendered manifests. The parameter is
    what the scenario has of its own, and more patches of the CronJob."""
    scenario, patch = request.param
    build_runner()
    shutil.copytree(ROOT / "manifests" / "nightly", tmp_path / "nightly")
    shutil.copytree(ROOT / "manifests" / "rbac", tmp_path / "rbac")
    lab = tmp_path / "lab"
    lab.mkdir()
    overlay = _OVERLAY.replace("RUNNER", RUNNER.partition(":")[0])
    (lab / "kustomization.yaml").write_text(f"{overlay}{indent(patch, ' ' * 6)}", "utf-8")
    (lab / "volume.yaml").write_text(_VOLUME.replace("FOLDER", str(volume)), "utf-8")
    (lab / "night.yaml").write_text(yaml.safe_dump({**_SCENARIO, **scenario}), "utf-8")
    shutil.copyfile(MESHLAB.parent / "istio-values.yaml", lab / "istio-values.yaml")
    rendered = tmp_path / "rendered.yaml"
    rendered.write_text(_kubectl("kustomize", str(lab)), "utf-8")
    try:
        _kubectl("apply", "--filename", str(rendered))
        yield rendered
    finally:
        _kubectl("delete", "--wait=false", "--filename", str(rendered))
        wait_until_deleted(cluster, [Ref("v1", "Namespace", NAMESPACE)], timeout_s=60.0, watch=CancelToken())


def _kubectl(*arguments: str, stdin: str = "") -> str:
    argv = [str(home() / "cli" / "kubectl"), "--kubeconfig", str(kubeconfig()), "--context", CONTEXT, *arguments]
    ran = subprocess.run(argv, input=stdin, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def _start_night(name: str) -> None:
    """Start the job now."""
    _kubectl("--namespace", NAMESPACE, "create", "job", name, "--from", "cronjob/nightly")


def _end_night(cluster: Cluster, name: str, *, within_s: float = NIGHT_S) -> tuple[int, str]:
    """Wait for the end of a night; return the pod's exit code and its log."""

    def ended() -> dict[str, Any] | None:
        for pod in _list_pods(cluster, name):
            for status in pod.get("status", {}).get("containerStatuses", ()):
                if state := status["state"].get("terminated"):
                    return dict(state)
        return None

    state = _wait(ended, within_s)
    log = _kubectl("--namespace", NAMESPACE, "logs", f"job/{name}")
    assert state, log
    return int(state["exitCode"]), log


def _wait(condition: Callable[[], T | None], within_s: float) -> T | None:
    return wait_until(condition, timeout_s=within_s, watch=CancelToken(), poll_s=_POLL_S)


def _list_pods(cluster: Cluster, night: str) -> Sequence[Object]:
    return cluster.list("v1", "Pod", namespace=NAMESPACE, labels=f"batch.kubernetes.io/job-name={night}")


def _list_namespaces(cluster: Cluster) -> Sequence[Object]:
    """Return the namespaces of runs."""
    return cluster.list("v1", "Namespace", labels="app.kubernetes.io/managed-by=meshbench")


def _is_loaded(cluster: Cluster) -> bool:
    """Return whether a run's load has begun; its pod starts after those of the application."""
    return any(pod["status"].get("phase") == "Running" for pod in cluster.list("v1", "Pod", labels="app=locust"))


def _read_history(volume: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (volume / "history.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("nightly", [({}, "")], ids=["short"], indirect=True)
def test_two_nights_are_measured_judged_and_served(cluster: Cluster, nightly: Path, volume: Path) -> None:
    """Each adds itself to the history and removes what it made; the history and the newest report are served."""
    for name in ("first", "second"):
        _start_night(name)
        code, log = _end_night(cluster, name)
        assert code in MEASURED, log
    assert len({night["run_id"] for night in _read_history(volume)}) == 2
    assert not _list_namespaces(cluster)
    path = f"/api/v1/namespaces/{NAMESPACE}/services/pages:http/proxy"
    assert "Nightly history" in _kubectl("get", "--raw", f"{path}/")
    assert "meshbench" in _kubectl("get", "--raw", f"{path}/latest.html")


@pytest.mark.soak("nights")
@pytest.mark.parametrize("nightly", [({"load": {**_LOAD, "duration": "120s"}}, "")], ids=["long"], indirect=True)
def test_evicted_night_cleans_up_and_is_recorded(cluster: Cluster, nightly: Path, volume: Path) -> None:
    """An eviction ends the pod as a drained node does. It removes what it made within its grace period."""
    _start_night("evicted")
    assert _wait(partial(_is_loaded, cluster), NIGHT_S)
    [name] = [pod["metadata"]["name"] for pod in _list_pods(cluster, "evicted")]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": NAMESPACE}}
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/eviction"
    _kubectl("create", "--raw", path, "--filename", "-", stdin=json.dumps(eviction))
    assert _wait(lambda: not _list_pods(cluster, "evicted"), NIGHT_S)
    assert not _list_namespaces(cluster)
    [night] = _read_history(volume)
    record = json.loads((volume / "runs" / night["run_id"] / "run.json").read_text("utf-8"))
    assert (record["status"], record["exit_code"]) == ("interrupted", 143)


# What stands in for the claim is in memory, where a volume has the size that it says.
_SMALL: Final = """\
- op: replace
  path: /spec/jobTemplate/spec/template/spec/volumes/0
  value: {name: nights, emptyDir: {medium: Memory, sizeLimit: SIZE}}
"""


@pytest.mark.soak("nights")
@pytest.mark.parametrize(
    "nightly", [({}, _SMALL.replace("SIZE", size)) for size in ("8Ki", "64Mi")], ids=["8Ki", "64Mi"], indirect=True
)
def test_full_volume_ends_the_night_by_its_name(cluster: Cluster, nightly: Path) -> None:
    """What has no room is not begun, or ends in order; the message names the volume."""
    _start_night("full")
    code, log = _end_night(cluster, "full")
    assert code in {3, 9}, log
    assert "/nights" in log
    assert "Traceback" not in log
    assert not _list_namespaces(cluster)


_TOKEN_S: Final = 600  # the shortest that Kubernetes has
_SHORT_TOKEN: Final = f"""\
- op: add
  path: /spec/jobTemplate/spec/template/spec/automountServiceAccountToken
  value: false
- op: add
  path: /spec/jobTemplate/spec/template/spec/containers/0/volumeMounts/-
  value: {{name: account, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}}
- op: add
  path: /spec/jobTemplate/spec/template/spec/volumes/-
  value:
    name: account
    projected:
      sources:
        - serviceAccountToken: {{path: token, expirationSeconds: {_TOKEN_S}}}
        - configMap: {{name: kube-root-ca.crt, items: [{{key: ca.crt, path: ca.crt}}]}}
        - downwardAPI: {{items: [{{path: namespace, fieldRef: {{fieldPath: metadata.namespace}}}}]}}
"""


@pytest.mark.soak("nights")
@pytest.mark.timeout(2400)
@pytest.mark.parametrize(
    "nightly", [({"load": {**_LOAD, "duration": f"{_TOKEN_S // 2 + 60}s"}}, _SHORT_TOKEN)], ids=["token"], indirect=True
)
def test_night_outlives_its_token(cluster: Cluster, nightly: Path, volume: Path) -> None:
    """The token of the account expires during the load; the kubelet's new one is used from then on."""
    _start_night("long")
    code, log = _end_night(cluster, "long", within_s=3 * _TOKEN_S)
    assert code in MEASURED, log
    assert not _list_namespaces(cluster)
    assert len(_read_history(volume)) == 1


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
