"""Which objects on a cluster are ours: the labels by which every object names its run, and the only way to create one.

Nothing is ever chosen by its name: an object is touched when it carries our label and the run's id, and else left
alone.
"""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from bench.errors import ClusterError, ErrorKind, RefusedError
from bench.k8s.client import FIELD_MANAGER, Cluster, Object, Ref, ref_of
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
_ATTEMPTS: Final = 3  # of a step that is refused, since an object was deleted or changed between two requests
_WORKLOADS: Final = ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "CronJob")
_WEBHOOKS: Final = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
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
    """Return a copy with the run's labels, down to the pods that are made from it. Webhooks are called for objects in
    the run's namespaces only, so that a mesh of the run neither changes nor refuses those of others."""
    labels = {MANAGED_BY: PRODUCT, RUN_ID: run_id, COMPONENT: component}
    copy = deepcopy(thing)
    _add_entries(copy["metadata"], "labels", labels)
    _add_entries(copy["metadata"], "annotations", {CREATED_AT: now.astimezone(UTC).isoformat(timespec="seconds")})
    for template in _pod_templates(copy):
        _add_entries(template.setdefault("metadata", {}), "labels", labels)
    for webhook in copy.get("webhooks") or () if copy["kind"] in _WEBHOOKS else ():
        _limit_to_run(webhook, run_id)
    return copy


def _limit_to_run(webhook: dict[str, Any], run_id: str) -> None:
    """Make a webhook select namespaces of the run only, in addition to its own selector; what is in no namespace is not
    selected by it."""
    selector = webhook.get("namespaceSelector") or {}
    own = {"key": RUN_ID, "operator": "In", "values": [run_id]}
    webhook["namespaceSelector"] = {**selector, "matchExpressions": [*(selector.get("matchExpressions") or ()), own]}


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

    def create(self, thing: Object, component: str) -> Object:
        """Create an object, with this run's labels; return it as the API server has it.

        Where an object of that name exists, it is this step's, repeated after an answer that was lost, if it has the
        labels of this run and component; it is then returned as it is. Raises RefusedError for any other. Waits for one
        of this run's that is being deleted; DeployError names what blocks the deletion.
        """
        return self._make(thing, component)[0]

    def create_all(self, things: Iterable[Object], component: str) -> None:
        """Create objects one after another."""
        for thing in things:
            self.create(thing, component)

    def apply(self, thing: Object, component: str) -> Object:
        """Create an object as `create` does, or change it where it is this step's. Raises RefusedError, too, where
        another program has changed what it says."""
        for _ in range(_ATTEMPTS):
            made, is_new = self._make(thing, component)
            try:
                return made if is_new else self._change(made, thing, component)
            except ClusterError as error:
                if error.kind is not ErrorKind.CONFLICT:
                    raise
                conflict = error
        raise conflict

    def apply_all(self, things: Iterable[Object], component: str) -> None:
        """Apply objects one after another."""
        for thing in things:
            self.apply(thing, component)

    def remove(self, ref: Ref, *, grace_s: int | None = None) -> None:
        """Request the deletion of an object of this run; one that is deleted, or not this run's, is left alone."""
        existing = self.cluster.get(ref)
        if existing is not None and run_of(existing) == self.run_id:
            self._delete(existing, grace_s)

    def delete_pods(self, namespace: str) -> tuple[Ref, ...]:
        """Request the deletion of this run's pods in a namespace, with a short grace period. Others replace them,
        unless the namespace is being deleted, too."""
        pods = self.cluster.list("v1", "Pod", namespace=namespace, labels=self.mine())
        for pod in pods:
            self._delete(pod, POD_GRACE_S)
        return tuple(map(ref_of, pods))

    def _delete(self, thing: Object, grace_s: int | None) -> None:
        with self.journal.step("delete", **journal_fields(self.cluster, ref_of(thing))):
            self.cluster.delete(thing, grace_s=grace_s)

    def _make(self, thing: Object, component: str) -> tuple[Object, bool]:
        """Return the object, and whether it is new."""
        labelled, ref = self._label(thing, component), ref_of(thing)
        with self.journal.step("apply", **journal_fields(self.cluster, ref)):
            for _ in range(_ATTEMPTS):
                try:
                    return self.cluster.create(labelled), True
                except ClusterError as error:
                    if error.kind is not ErrorKind.CONFLICT:
                        raise
                    conflict = error
                if existing := self._read_own(ref, component):
                    return existing, False
            raise conflict

    def _change(self, existing: Object, thing: Object, component: str) -> Object:
        if other := find_other_writer(existing):
            raise RefusedError(f"{ref_of(existing)} is this run's, but {other} has changed it; hint: start a new run")
        return self.cluster.change(existing, self._label(thing, component))

    def _label(self, thing: Object, component: str) -> Object:
        return add_run_labels(thing, component, run_id=self.run_id, now=datetime.now(UTC))

    def _read_own(self, ref: Ref, component: str) -> Object | None:
        """Return the object of that name; None as soon as there is none. Raises RefusedError where it was not made for
        this component of the run."""
        existing = self.cluster.get(ref)
        if existing is None:
            return None
        if run_of(existing) != self.run_id:
            raise RefusedError(format_refusal(ref, existing, context=self.cluster.context))
        if existing["metadata"].get("deletionTimestamp"):
            wait_until_deleted(self.cluster, [ref], timeout_s=self.cluster.timing.gone_s, watch=self.watch)
            return None
        if (other := labels_of(existing).get(COMPONENT)) != component:
            raise RefusedError(f"{ref}, of the run's {component}, is there already as its {other}; hint: rename it")
        return existing


def find_other_writer(thing: Object) -> str:
    """Return which other program has changed what an object says, by the name that the API server has for it; empty
    where none has. One that writes metadata and status only, as controllers do, is none."""
    for entry in thing["metadata"].get("managedFields") or ():
        said = {key.removeprefix("f:") for key in entry.get("fieldsV1") or ()} - {"metadata", "status"}
        if entry.get("manager") != FIELD_MANAGER and said:
            return str(entry.get("manager") or "an unnamed program")
    return ""


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
