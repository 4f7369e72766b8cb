"""A run as a mesh leaves it on a cluster, made of small objects: an application whose pods ignore SIGTERM, custom
resources, and a webhook for their deletion whose service does not respond.

It affects no other objects of the cluster: kinds and webhook have their own API group.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.k8s.client import Cluster, Object, Ref, ref_of
from bench.k8s.ownership import Owner
from bench.k8s.wait import wait_until_deleted
from bench.system.cancellation import CancelToken, wait_until
from bench.system.journal import Journal
from tests.cluster.job import delete_named

IMAGE = "docker.io/meshlab/python:3.11"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
RBAC = "rbac.authorization.k8s.io"


@dataclass(frozen=True)
class Run:
    """Names that no other run has."""

    run_id: str

    @classmethod
    def new(cls) -> "Run":
        return cls(f"t-cleanup-{secrets.token_hex(3)}")

    @property
    def group(self) -> str:
        return f"{self.run_id}.meshbench.dev"

    @property
    def app(self) -> str:
        return f"{self.run_id}-app"

    @property
    def system(self) -> str:
        return f"{self.run_id}-system"

    @property
    def outside(self) -> Ref:
        """What its control plane created without labels."""
        return Ref("v1", "ConfigMap", f"{self.run_id}-outside", "default")

    def objects(self) -> tuple[tuple[Object, str], ...]:
        """All objects, with their component, in an order in which they can be created."""
        return (
            (make_namespace(self.system), "kuma"),
            (self.definition("Mesh", "Cluster"), "kuma"),
            (self.definition("Policy", "Namespaced"), "kuma"),
            (make_object(f"{RBAC}/v1", "ClusterRole", self.run_id, rules=[]), "kuma"),
            (make_namespace(self.app), "namespace"),
            (self.custom("Mesh", "mesh"), "policy"),
            (self.custom("Policy", "inside", self.app), "policy"),
            (self.custom("Policy", "second", self.system), "policy"),
            (deployment(self.app), "application"),
            (deployment(self.system), "kuma"),
            (self.webhook(), "kuma"),
        )

    def few(self) -> tuple[tuple[Object, str], ...]:
        """One object of each kind, which is enough for a run that is killed while it creates them."""
        sorts = ("Namespace", "CustomResourceDefinition", "ClusterRole", "Policy", "ValidatingWebhookConfiguration")
        left_out = (self.system, f"meshes.{self.group}", "second")
        chosen = [(one, component) for one, component in self.objects() if one["kind"] in sorts]
        return tuple(pair for pair in chosen if pair[0]["metadata"]["name"] not in left_out)

    def definition(self, kind: str, scope: str) -> Object:
        plural = f"{kind.lower()}s"
        names = {"kind": kind, "plural": plural, "singular": kind.lower()}
        schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
        version = {"name": "v1", "served": True, "storage": True, "schema": schema}
        spec = {"group": self.group, "scope": scope, "names": names, "versions": [version]}
        return make_object("apiextensions.k8s.io/v1", "CustomResourceDefinition", f"{plural}.{self.group}", spec=spec)

    def custom(self, kind: str, name: str, place: str = "") -> Object:
        return make_object(f"{self.group}/v1", kind, name, place)

    def webhook(self) -> Object:
        rule = {"operations": ["DELETE"], "apiGroups": [self.group], "apiVersions": ["*"], "resources": ["*"]}
        service = {"namespace": self.system, "name": "missing"}
        asked = {
            "name": self.group,
            "rules": [rule],
            "clientConfig": {"service": service},
            "failurePolicy": "Fail",
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        }
        return make_object(
            "admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", self.run_id, webhooks=[asked]
        )


def make_object(api_version: str, kind: str, name: str, place: str = "", **more: object) -> Object:
    """Return an object without labels."""
    metadata = {"name": name, **({"namespace": place} if place else {})}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **more}


def make_namespace(name: str) -> Object:
    return make_object("v1", "Namespace", name)


def deployment(place: str) -> Object:
    """Return a Deployment of two pods that ignore SIGTERM and are killed after 30 s."""
    container = {
        "name": "main",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-c", STUBBORN],
    }
    labels = {"app": "stubborn"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    return make_object("apps/v1", "Deployment", "stubborn", place, spec=spec)


@contextmanager
def owner_of(run: Run, cluster: Cluster, folder: Path) -> Iterator[Owner]:
    """Return the owner that creates objects in the run's name."""
    journal = Journal(folder / f"{run.run_id}.jsonl")
    try:
        yield Owner(cluster, run.run_id, journal, CancelToken())
    finally:
        journal.close()


def create_run(run: Run, cluster: Cluster, folder: Path, *, only: tuple[str, ...] = ()) -> None:
    """Create the run, or its objects of these kinds; its pods run when this returns."""
    chosen = [(one, component) for one, component in run.objects() if not only or one["kind"] in only]
    with owner_of(run, cluster, folder) as owner:
        for one, component in chosen:
            owner.apply(one, component)
    if not only or "Deployment" in only:
        running = wait_until(lambda: _all_run(cluster, run), timeout_s=60, watch=CancelToken(), poll_s=0.3)
        assert running


def _all_run(cluster: Cluster, run: Run) -> bool:
    pods = [pod for place in (run.app, run.system) for pod in cluster.list("v1", "Pod", namespace=place)]
    return len(pods) == 4 and all(pod.get("status", {}).get("phase") == "Running" for pod in pods)


def remove_run(run: Run, cluster: Cluster) -> None:
    """Remove the run by name, for a test that failed half-way."""
    refs = [ref_of(one) for one, _component in reversed(run.objects())] + [run.outside]
    for ref in refs:
        delete_named(cluster, ref, grace_s=1 if ref.kind == "Pod" else None)
    wait_until_deleted(cluster, refs, timeout_s=90, watch=CancelToken())
