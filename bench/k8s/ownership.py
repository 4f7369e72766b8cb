"""What on a cluster is ours: the labels by which every object names its run, and the only way to make one.

Nothing is ever chosen by name: an object is touched when it carries our label and the run's id, and else left alone.
"""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from bench.errors import RefusedError
from bench.k8s.client import Cluster, Object, Ref, ref_of
from bench.k8s.wait import gone
from bench.system.cancellation import Watch
from bench.system.journal import Journal

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
PRODUCT: Final = "meshbench"
RUN_ID: Final = "meshbench.dev/run-id"
COMPONENT: Final = "meshbench.dev/component"
CREATED_AT: Final = "meshbench.dev/created-at"

OURS: Final = f"{MANAGED_BY}={PRODUCT},{RUN_ID}"  # the selector of every run's objects

POD_GRACE_S: Final = 1  # nobody is served any more; Kuma's sidecars alone would drain for 30 s


def selector(run_id: str) -> str:
    """The label selector of one run's objects."""
    return f"{MANAGED_BY}={PRODUCT},{RUN_ID}={run_id}"


def labels_of(thing: Object) -> Mapping[str, str]:
    """An object's labels; empty where it has none."""
    return thing["metadata"].get("labels") or {}


def run_of(thing: Object) -> str:
    """The id of the run that made it; empty for what is not ours."""
    labels = labels_of(thing)
    return labels.get(RUN_ID, "") if labels.get(MANAGED_BY) == PRODUCT else ""


def labelled(thing: Object, component: str, *, run_id: str, now: datetime) -> Object:
    """A copy that says whose it is, down to the pods that are made from it."""
    labels = {MANAGED_BY: PRODUCT, RUN_ID: run_id, COMPONENT: component}
    copy = deepcopy(thing)
    _add(copy["metadata"], "labels", labels)
    _add(copy["metadata"], "annotations", {CREATED_AT: now.astimezone(UTC).isoformat(timespec="seconds")})
    for template in _templates(copy):
        _add(template.setdefault("metadata", {}), "labels", labels)
    return copy


def _add(metadata: dict[str, Any], key: str, entries: Mapping[str, str]) -> None:
    metadata[key] = {**(metadata.get(key) or {}), **entries}


def _templates(thing: Object) -> Iterable[dict[str, Any]]:
    """The pod template of a workload; for a CronJob also that of its jobs."""
    spec = thing.get("spec") or {}
    for key in ("template", "jobTemplate", "podTemplate"):
        template = spec.get(key)
        if thing["kind"] in _WORKLOADS and isinstance(template, dict):
            yield template
            yield from _templates({"kind": "Job", "spec": template.get("spec")})


_WORKLOADS = ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "CronJob", "MeshGatewayInstance")


@dataclass(frozen=True, slots=True)
class Owner:
    """Makes and removes objects in the name of one run."""

    cluster: Cluster
    run_id: str
    journal: Journal
    watch: Watch

    def mine(self) -> str:
        """The label selector of this run's objects."""
        return selector(self.run_id)

    def apply(self, thing: Object, component: str) -> Object:
        """Makes an object, or changes it, with this run's labels; returns it as the API server has it.

        Raises RefusedError where one of that name exists that is not this run's. One of this run's that is being
        deleted is waited for; DeployError tells what holds it.
        """
        ref = ref_of(thing)
        self._make_way(ref)
        with self.journal.step("apply", **recorded(self.cluster, ref)):
            return self.cluster.apply(labelled(thing, component, run_id=self.run_id, now=datetime.now(UTC)))

    def apply_all(self, things: Iterable[Object], component: str) -> None:
        """Applies one after another."""
        for thing in things:
            self.apply(thing, component)

    def remove(self, ref: Ref, *, grace_s: int | None = None) -> None:
        """Asks for the deletion of an object of this run; one that is gone, or not this run's, is left alone."""
        found = self.cluster.get(ref)
        if found is not None and run_of(found) == self.run_id:
            with self.journal.step("delete", **recorded(self.cluster, ref)):
                self.cluster.delete(ref, grace_s=grace_s)

    def send_pods_away(self, namespace: str) -> tuple[Ref, ...]:
        """Asks for the deletion of this run's pods in a namespace, in a hurry. Others take their place, unless the
        namespace is going, too."""
        pods = tuple(map(ref_of, self.cluster.list("v1", "Pod", namespace=namespace, labels=self.mine())))
        for pod in pods:
            self.remove(pod, grace_s=POD_GRACE_S)
        return pods

    def _make_way(self, ref: Ref) -> None:
        """Sees to it that nobody else has the name, and that no earlier object of ours is still going."""
        found = self.cluster.get(ref)
        if found is None:
            return
        if run_of(found) != self.run_id:
            raise RefusedError(refusal(ref, found, context=self.cluster.context))
        if found["metadata"].get("deletionTimestamp"):
            gone(self.cluster, [ref], timeout_s=self.cluster.timing.gone_s, watch=self.watch)


def recorded(cluster: Cluster, ref: Ref) -> dict[str, str]:
    """What the journal keeps of an object, to find it again."""
    names = {"api_version": ref.api_version, "kind": ref.kind, "name": ref.name, "namespace": ref.namespace}
    return {**names, "context": cluster.context, "server": cluster.server}


def refusal(ref: Ref, found: Object, *, context: str) -> str:
    """Why an object that exists is not touched, and what helps."""
    other = run_of(found)
    if other:
        return f"{ref} exists, of the run {other}; first: meshbench cleanup --context {context} --run-id {other}"
    return f"{ref} exists and was not made by meshbench, so it is neither used nor removed; rename it or remove it"
