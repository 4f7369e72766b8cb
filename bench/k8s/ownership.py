"""Which objects on a cluster are ours: the labels by which every object names its run, and the only way to create one.

Nothing is ever chosen by its name: an object is touched when it carries our label and the run's id, and else left
alone.
"""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from bench.errors import RefusedError
from bench.k8s.client import Cluster, Object, Ref, ref_of
from bench.k8s.wait import wait_until_deleted
from bench.system.cancellation import CancelToken
from bench.system.journal import Journal
from bench.system.output import format_command

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
PRODUCT: Final = "meshbench"
RUN_ID: Final = "meshbench.dev/run-id"
COMPONENT: Final = "meshbench.dev/component"
WORKLOAD: Final = "meshbench.dev/workload"  # of the application's pods: whose name they have in records
CREATED_AT: Final = "meshbench.dev/created-at"

OURS: Final = f"{MANAGED_BY}={PRODUCT},{RUN_ID}"  # the selector of every run's objects

STAGE: Final = "stage"  # a step of the journal that creates nothing
POD_GRACE_S: Final = 1  # no client is left; a sidecar alone would drain for 30 s
_WORKLOADS: Final = ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "CronJob")
_CUSTOM_TEMPLATE: Final = "podTemplate"  # of a custom resource that becomes pods, such as a mesh's gateway


def format_cleanup(context: str, run_id: str | None = None) -> str:
    """Format the command that removes what a run left on a cluster; of any run without an id."""
    return format_command("meshbench", "cleanup", "--context", context, *(("--run-id", run_id) if run_id else ()))


def run_selector(run_id: str) -> str:
    """Return the label selector of one run's objects."""
    return f"{MANAGED_BY}={PRODUCT},{RUN_ID}={run_id}"


def labels_of(thing: Object) -> Mapping[str, str]:
    """Return an object's labels; empty where it has none."""
    return thing["metadata"].get("labels") or {}


def run_of(thing: Object) -> str:
    """Return the id of the run that made an object; empty for what is not ours."""
    labels = labels_of(thing)
    return labels.get(RUN_ID, "") if labels.get(MANAGED_BY) == PRODUCT else ""


def add_run_labels(thing: Object, component: str, *, run_id: str, now: datetime) -> Object:
    """Return a copy with the run's labels, down to the pods that are made from it."""
    labels = {MANAGED_BY: PRODUCT, RUN_ID: run_id, COMPONENT: component}
    copy = deepcopy(thing)
    _add_entries(copy["metadata"], "labels", labels)
    _add_entries(copy["metadata"], "annotations", {CREATED_AT: now.astimezone(UTC).isoformat(timespec="seconds")})
    for template in _pod_templates(copy):
        _add_entries(template.setdefault("metadata", {}), "labels", labels)
    return copy


def _add_entries(metadata: dict[str, Any], key: str, entries: Mapping[str, str]) -> None:
    metadata[key] = {**(metadata.get(key) or {}), **entries}


def _pod_templates(thing: Object) -> Iterable[dict[str, Any]]:
    """Yield the pod template of a workload; for a CronJob also that of its jobs."""
    spec = thing.get("spec") or {}
    for key in ("template", "jobTemplate") if thing["kind"] in _WORKLOADS else (_CUSTOM_TEMPLATE,):
        template = spec.get(key)
        if isinstance(template, dict):
            yield template
            yield from _pod_templates({"kind": "Job", "spec": template.get("spec")})


@dataclass(frozen=True, slots=True)
class Owner:
    """Creates and deletes objects on behalf of one run."""

    cluster: Cluster
    run_id: str
    journal: Journal
    watch: CancelToken

    def note_stage(self, stage: str) -> None:
        """Write into the journal that a stage of a block is over: by these lines the time of a run is divided up."""
        self.journal.write(STAGE, stage=stage)

    def mine(self) -> str:
        """Return the label selector of this run's objects."""
        return run_selector(self.run_id)

    def apply(self, thing: Object, component: str) -> Object:
        """Create or change an object, with this run's labels; return it as the API server has it.

        Raises RefusedError where an object of that name exists that is not this run's. Waits for one of this run's that
        is being deleted; DeployError names what blocks the deletion.
        """
        ref = ref_of(thing)
        self._ensure_free(ref)
        with self.journal.step("apply", **journal_fields(self.cluster, ref)):
            return self.cluster.apply(add_run_labels(thing, component, run_id=self.run_id, now=datetime.now(UTC)))

    def apply_all(self, things: Iterable[Object], component: str) -> None:
        """Apply objects one after another."""
        for thing in things:
            self.apply(thing, component)

    def remove(self, ref: Ref, *, grace_s: int | None = None) -> None:
        """Request the deletion of an object of this run; one that is deleted, or not this run's, is left alone."""
        existing = self.cluster.get(ref)
        if existing is not None and run_of(existing) == self.run_id:
            with self.journal.step("delete", **journal_fields(self.cluster, ref)):
                self.cluster.delete(ref, grace_s=grace_s)

    def delete_pods(self, namespace: str) -> tuple[Ref, ...]:
        """Request the deletion of this run's pods in a namespace, with a short grace period. Others replace them,
        unless the namespace is being deleted, too."""
        pods = tuple(map(ref_of, self.cluster.list("v1", "Pod", namespace=namespace, labels=self.mine())))
        for pod in pods:  # each was just listed by the run's labels
            with self.journal.step("delete", **journal_fields(self.cluster, pod)):
                self.cluster.delete(pod, grace_s=POD_GRACE_S)
        return pods

    def _ensure_free(self, ref: Ref) -> None:
        """Make sure that no other owner has the name, and that no earlier object of ours is still terminating."""
        existing = self.cluster.get(ref)
        if existing is None:
            return
        if run_of(existing) != self.run_id:
            raise RefusedError(format_refusal(ref, existing, context=self.cluster.context))
        if existing["metadata"].get("deletionTimestamp"):
            wait_until_deleted(self.cluster, [ref], timeout_s=self.cluster.timing.gone_s, watch=self.watch)


def journal_fields(cluster: Cluster, ref: Ref) -> dict[str, str]:
    """Return what the journal keeps of an object, to find it again."""
    names = {"api_version": ref.api_version, "kind": ref.kind, "name": ref.name, "namespace": ref.namespace}
    return {**names, "context": cluster.context, "server": cluster.server}


def format_refusal(ref: Ref, existing: Object, *, context: str) -> str:
    """Format why an object that exists is not touched, with a hint."""
    other = run_of(existing)
    if other:
        return f"{ref} exists, of the run {other}; hint: first run: {format_cleanup(context, other)}"
    return f"{ref} exists and was not made by meshbench, so it is neither used nor deleted; hint: rename or delete it"
