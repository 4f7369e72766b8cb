"""Wait for a cluster: each wait has a timeout, detects success and failure, and explains a failure."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from bench.errors import DeployError
from bench.k8s.client import Cluster, Object, Ref
from bench.k8s.diagnose import FindProblems, Grace, explain_problems, find_problems
from bench.system.cancellation import CancelToken, wait_until


@dataclass(frozen=True, slots=True)
class Pods:
    """The pods of a namespace that carry these labels (`app=details,version=v1`); all, if none are given."""

    namespace: str
    labels: str = ""

    def __str__(self) -> str:
        return f"pods of {self.namespace}" + (f" with {self.labels}" if self.labels else "")


@dataclass(frozen=True, slots=True)
class _Observation:
    """The state at one moment; `lacking` is empty once it is as wanted."""

    lacking: str
    things: tuple[Object, ...]


def wait_for(
    cluster: Cluster,
    subject: Ref | Pods,
    condition: Callable[[tuple[Object, ...]], bool],
    *,
    timeout_s: float,
    watch: CancelToken,
    failed: FindProblems = find_problems,
) -> tuple[Object, ...]:
    """Wait until `condition` holds for the objects of `subject` (none yet, one object, or pods), and return them.

    Raises DeployError at the timeout, or when a problem that `failed` finds has outlasted its grace.
    """

    def look() -> _Observation:
        things = _read_subject(cluster, subject)
        lacking = "" if condition(things) else f"{subject}: not as wanted" if things else f"{subject}: not there"
        return _Observation(lacking, things)

    return _wait_until_ready(cluster, subject.namespace, look, timeout_s=timeout_s, watch=watch, failed=failed)


def _read_subject(cluster: Cluster, subject: Ref | Pods) -> tuple[Object, ...]:
    if isinstance(subject, Pods):
        return cluster.list("v1", "Pod", namespace=subject.namespace, labels=subject.labels)
    thing = cluster.get(subject)
    return () if thing is None else (thing,)


def wait_for_rollout(
    cluster: Cluster,
    namespace: str,
    names: Sequence[str],
    *,
    kind: str = "Deployment",
    timeout_s: float,
    watch: CancelToken,
) -> None:
    """Wait until all pods of these Deployments (or DaemonSets, or StatefulSets) are new and available, and none of
    their old ones is left, or until these Jobs have completed."""
    look = partial(_observe_rollout, cluster, namespace, names, kind)
    _wait_until_ready(cluster, namespace, look, timeout_s=timeout_s, watch=watch, failed=find_problems)


def _observe_rollout(cluster: Cluster, namespace: str, names: Sequence[str], kind: str) -> _Observation:
    there = cluster.list("batch/v1" if kind == "Job" else "apps/v1", kind, namespace=namespace)
    wanted = [one for one in there if one["metadata"]["name"] in names]
    missing = set(names) - {one["metadata"]["name"] for one in wanted}
    lacking = [f"there is no {kind} {namespace}/{name}" for name in sorted(missing)]
    lacking += [text for one in wanted if (text := describe_unavailable(one))]
    if not lacking:
        return _Observation("", ())
    pods = cluster.list("v1", "Pod", namespace=namespace)
    own = [pod for pod in pods if any(_selects(workload, pod) for workload in wanted)]
    return _Observation("; ".join(lacking), (*wanted, *own))


def describe_unavailable(workload: Object) -> str:
    """Describe what a Deployment, DaemonSet, StatefulSet or Job lacks; empty when its rollout is complete."""
    status = workload.get("status", {})
    name = f"{workload['kind']} {workload['metadata'].get('namespace', '')}/{workload['metadata']['name']}"
    if workload["kind"] == "Job":
        conditions = {one["type"] for one in status.get("conditions") or () if one["status"] == "True"}
        wanted = workload["spec"].get("completions") or 1
        return "" if "Complete" in conditions else f"{name}: {status.get('succeeded', 0)} of {wanted} pods completed"
    if status.get("observedGeneration", 0) < workload["metadata"].get("generation", 0):
        return f"{name}: its newest version was not processed yet"
    wanted, ready, old = _count_pods(workload)
    if ready < wanted:
        return f"{name}: {ready} of {wanted} pods available"
    return f"{name}: {old} old pods are still there" if old > 0 else ""


def _count_pods(workload: Object) -> tuple[int, int, int]:
    """Return how many pods it wants, how many of them are new and available, how many are too many."""
    status = workload.get("status", {})
    if workload["kind"] == "DaemonSet":  # its old pods are on the same nodes: never more than one each
        wanted = status.get("desiredNumberScheduled", 0)
        return wanted, min(status.get("updatedNumberScheduled", 0), status.get("numberAvailable", 0)), 0
    wanted = workload["spec"].get("replicas", 1)
    ready = min(status.get("updatedReplicas", 0), status.get("availableReplicas", 0))
    return wanted, ready, status.get("replicas", 0) - wanted


def _selects(workload: Object, pod: Object) -> bool:
    labels = pod["metadata"].get("labels", {})
    wanted: dict[str, str] = (workload["spec"].get("selector") or {}).get("matchLabels") or {}
    return bool(wanted) and all(labels.get(key) == value for key, value in wanted.items())


def _wait_until_ready(
    cluster: Cluster,
    namespace: str,
    look: Callable[[], _Observation],
    *,
    timeout_s: float,
    watch: CancelToken,
    failed: FindProblems,
) -> tuple[Object, ...]:
    grace = Grace(cluster.timing.grace)
    last = _Observation("not checked yet", ())

    def format_failure(why: str) -> str:
        return f"{last.lacking}, {why}\n{explain_problems(cluster, namespace, last.things, failed)}".rstrip()

    def is_ready() -> bool:
        nonlocal last
        last = look()
        if last.lacking:
            problems = (problem for thing in last.things for problem in failed(thing))
            if final := grace.final(problems, now=time.monotonic()):
                raise DeployError(format_failure(f"will not become ready: {final.where}"))
        return not last.lacking

    if not wait_until(is_ready, timeout_s=timeout_s, watch=watch, poll_s=cluster.timing.poll_s):
        raise DeployError(format_failure(f"after {timeout_s:g} s"))
    return last.things


def wait_until_deleted(cluster: Cluster, what: str | Iterable[Ref], *, timeout_s: float, watch: CancelToken) -> None:
    """Wait until a namespace, or each of some objects, is deleted. Raises DeployError that names what blocks the
    deletion."""
    left: dict[Ref, Object | None] = dict.fromkeys([Ref("v1", "Namespace", what)] if isinstance(what, str) else what)

    def all_deleted() -> bool:
        for ref in tuple(left):
            left[ref] = cluster.get(ref)
            if left[ref] is None:
                del left[ref]
        return not left

    if not wait_until(all_deleted, timeout_s=timeout_s, watch=watch, poll_s=cluster.timing.poll_s):
        blocked = [f"{ref}: {describe_blockers(thing)}" for ref, thing in left.items() if thing is not None]
        raise DeployError("\n  ".join([f"still there after {timeout_s:g} s:", *blocked]))


def describe_blockers(thing: Object) -> str:
    """Describe what keeps an object from being deleted."""
    metadata = thing["metadata"]
    if "deletionTimestamp" not in metadata:
        return "its deletion was not requested"
    conditions = thing.get("status", {}).get("conditions", ()) if thing["kind"] == "Namespace" else ()
    reasons = [f"{one['type']}: {one.get('message', '')}" for one in conditions if one["status"] == "True"]
    finalizers = [f"finalizer {one}" for one in (*metadata.get("finalizers", ()), *_namespace_finalizers(thing))]
    return "; ".join(["terminating", *finalizers, *reasons])


def _namespace_finalizers(thing: Object) -> Sequence[str]:
    """Return a namespace's finalizers without Kubernetes' own, which every namespace has until it is empty."""
    spec = thing.get("spec", {}) if thing["kind"] == "Namespace" else {}
    return [one for one in spec.get("finalizers", ()) if one != "kubernetes"]
