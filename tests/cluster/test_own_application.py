"""An application that was not written for meshbench, with any Locust file, on a real cluster."""

from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from bench.k8s.client import Cluster
from bench.results.records import ProofRecord
from bench.results.store import read_record
from tests.cluster.job import MEASURED, MESH, assert_unchanged, run_job
from tests.cluster.lab_images import BOOKINFO
from tests.command import BASELINE

pytestmark = pytest.mark.slow

APPLICATION: Final = {"name": "shop", "entry": "front:8000", "ready": {"path": "/health"}}
LOAD: Final = {"users": 4, "warmup": "1s", "duration": "5s", "locustfile": "get"}
KEY: Final = "k3y-of-the-shop"  # of no account
LOCUSTFILE: Final = """\
from locust import FastHttpUser, constant, task


class Caller(FastHttpUser):
    wait_time = constant(0.1)

    @task
    def get(self):
        self.client.get("/health")
"""
POLICY: Final = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: viewer}
spec:
  selector: {matchLabels: {run: front}}
  rules: [{to: [{operation: {methods: [GET], notPaths: ["/admin*"]}}]}]
"""


def make_pod(name: str, command: list[str] | None = None, **variables: str) -> dict[str, Any]:
    """Make a pod of an image that the lab has: a service, or a command. It has the label `run` alone."""
    env = [{"name": key, "value": value} for key, value in {"SERVICE_NAME": "details", **variables}.items()]
    container: dict[str, Any] = {"name": "main", "image": BOOKINFO, "imagePullPolicy": "IfNotPresent", "env": env}
    container |= {"command": command} if command else {"ports": [{"name": "web", "containerPort": 9080}]}
    return {"metadata": {"labels": {"run": name}}, "spec": {"containers": [container]}}


def make(version: str, kind: str, name: str, **more: Any) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **more}


def make_workload(kind: str, name: str, pod: dict[str, Any], **spec: Any) -> dict[str, Any]:
    chosen = {"selector": {"matchLabels": {"run": name}}, "template": pod, **spec}
    return make("apps/v1", kind, name, spec=chosen)


def write_shop(folder: Path) -> None:
    """Write a front with two replicas and a named port, a headless store, an agent on each node, and a Job."""
    config = {"url": "http://store.default.svc.cluster.local:9080"}
    read = {"configMapKeyRef": {"name": "shop", "key": "url"}}
    front = make_pod("front")
    front["spec"]["containers"][0]["env"].append({"name": "STORE", "valueFrom": read})
    probe = {"httpGet": {"path": "/health", "port": "web"}, "periodSeconds": 1}
    front["spec"]["containers"][0]["readinessProbe"] = probe
    (first,) = make_pod("", ["python3", "-c", "pass"])["spec"]["containers"]
    front["spec"]["initContainers"] = [{**first, "name": "wait"}]
    job = make_pod("seed", ["python3", "-c", "print('seeded')"])
    job["spec"]["restartPolicy"] = "Never"
    ports = [{"name": "http", "port": 8000, "targetPort": "web"}, {"name": "tcp-other", "port": 9000, "targetPort": 9}]
    things = [
        make("v1", "ConfigMap", "shop", data=config),
        make("v1", "Namespace", "default"),
        make("v1", "Service", "front", spec={"ports": ports, "selector": {"run": "front"}}),
        make(
            "v1",
            "Service",
            "store",
            spec={"clusterIP": "None", "ports": [{"port": 9080}], "selector": {"run": "store"}},
        ),
        make_workload("Deployment", "front", front, replicas=2),
        make_workload("StatefulSet", "store", make_pod("store"), serviceName="store"),
        make_workload("DaemonSet", "agent", make_pod("agent")),
        make("batch/v1", "Job", "seed", spec={"template": job}),
        make("policy/v1", "PodDisruptionBudget", "front", spec={"minAvailable": 1, "selector": {}}),
    ]
    (folder / "shop").mkdir()
    (folder / "shop" / "all.yaml").write_text(yaml.safe_dump_all(things), "utf-8")
    (folder / "get.py").write_text(LOCUSTFILE, "utf-8")


def test_measures_an_application_without_a_mesh(cluster: Cluster, tmp_path: Path) -> None:
    """Workloads of every kind become ready, the Job completes, and nothing of them stays. The run's folder can be
    published: Secrets, data beside the Locust file, headers of probes and logs of containers are not in it."""
    write_shop(tmp_path)
    (tmp_path / "shop" / "key.yaml").write_text(yaml.safe_dump(make("v1", "Secret", "key", stringData={"key": KEY})))
    (tmp_path / "users.csv").write_text(f"jane,{KEY}\n", "utf-8")
    probe = {
        "as": "outside",
        "to": "front",
        "path": "/health",
        "headers": {"X-Key": {"env": "SHOP_KEY"}},
        "expect": 200,
    }
    changes: dict[str, Any] = {"application": APPLICATION, "load": LOAD, "probes": [probe]}
    with assert_unchanged(cluster):
        job = run_job(tmp_path, scenario=[BASELINE], env={"SHOP_KEY": KEY}, **changes)
    assert job.exit_code in MEASURED, job.output
    (record,) = job.trials().values()
    assert record["images"]["main"]  # an image that no registry has, has an id alone
    published = [path for path in job.folder.rglob("*") if path.is_file()]
    assert not [path for path in published if KEY.encode() in path.read_bytes() or path.suffix == ".log"]
    private = job.private
    assert KEY in (private / "application" / "key.yaml").read_text("utf-8")
    assert KEY in (private / "locust" / "users.csv").read_text("utf-8")
    logs = {path.name: path for path in (private / "trials" / "01-baseline-1").rglob("*.log")}
    assert {"load.log", "store-main.log"} <= logs.keys()
    assert {path.stat().st_mode & 0o777 for path in logs.values()} == {0o600}


def test_measures_an_application_in_istio(cluster: Cluster, tmp_path: Path) -> None:
    """The proxies of both replicas count the load together, and policies are proven with a known request only."""
    write_shop(tmp_path)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "viewer.yaml").write_text(POLICY, "utf-8")
    policies = {"name": "istio-policies", "mesh": "istio", "manifests": ["policies"]}
    with assert_unchanged(cluster):
        job = run_job(tmp_path, *MESH, scenario=[policies], application=APPLICATION, load=LOAD)
    assert job.exit_code in MEASURED, job.output
    (trial,) = job.trials()
    proof = read_record(job.folder / "trials" / trial / "proof.json", ProofRecord)
    facts = (*proof.before, *proof.after)
    assert [fact for fact in facts if not fact.ok] == []
    assert {"page", "through sidecars", "requests counted"} <= {fact.name for fact in facts}


@pytest.mark.soak("cluster")
def test_reports_a_page_that_is_never_ready(cluster: Cluster, tmp_path: Path) -> None:
    """A wrong path is one message with exit code 4, and nothing stays."""
    write_shop(tmp_path)
    wrong = {**APPLICATION, "ready": {"path": "/nowhere"}}
    with assert_unchanged(cluster):
        job = run_job(tmp_path, scenario=[BASELINE], application=wrong, load=LOAD, timing={"settle_s": 5.0})
    assert job.exit_code == 4, job.output
    assert "GET /nowhere of front:8000 got no valid answer within 5 s: expected 200" in job.output


def test_refuses_an_object_with_an_unknown_field(cluster: Cluster, tmp_path: Path) -> None:
    """A misspelt field is reported with file and line before anything is deployed."""
    write_shop(tmp_path)
    file = tmp_path / "shop" / "all.yaml"
    file.write_text(file.read_text("utf-8").replace("replicas: 2", "replica: 2"), "utf-8")
    with assert_unchanged(cluster):
        job = run_job(tmp_path, scenario=[BASELINE], application=APPLICATION, load=LOAD)
    assert job.exit_code == 4, job.output
    assert "the cluster does not accept the application:\nDeployment front: " in job.output
