"""Explain why pods do not become ready, from the objects themselves, so that the report needs no further look at the
cluster."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from bench.errors import ClusterError
from bench.k8s.client import Cluster, Object
from bench.system.redaction import redact

LOG_LINES = 12
_MOST_LOGS = 3
_MOST_EVENTS = 8
_LONGEST_LINE = 1000

# For how many seconds a state may last before it is final. An image that cannot be pulled is tried again after
# 10 and 20 s; what a quota or a webhook refuses may be accepted later.
_IMAGE_GRACE_S = 30.0
_CREATE_GRACE_S = 20.0
_RESTARTS = 2  # of a sidecar that has ended: more are no accident
_WAITING_GRACE_S = {
    "CrashLoopBackOff": 0.0,
    "InvalidImageName": 0.0,
    "ErrImageNeverPull": 0.0,
    "ErrImagePull": _IMAGE_GRACE_S,
    "ImagePullBackOff": _IMAGE_GRACE_S,
    "CreateContainerConfigError": _CREATE_GRACE_S,
    "CreateContainerError": _CREATE_GRACE_S,
    "RunContainerError": _CREATE_GRACE_S,
}


@dataclass(frozen=True, slots=True)
class PodProblem:
    """A reason why a pod is not ready; final once it has lasted for `grace_s` seconds."""

    where: str
    what: str
    grace_s: float = inf
    container: str = ""
    """Whose log explains more, if any does."""
    previous: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


FindProblems = Callable[[Object], Iterable[PodProblem]]


class Grace:
    """Decides which problems have lasted too long, from the problems that each look at the cluster finds."""

    def __init__(self, scale: float = 1.0) -> None:
        """`scale` makes every grace longer or shorter."""
        self._scale = scale
        self._since: dict[tuple[str, float], float] = {}

    def final(self, problems: Iterable[PodProblem], *, now: float) -> PodProblem | None:
        """Return the first problem that is permanent; `now` in seconds on a monotonic clock."""
        there = list(problems)
        # An image's reason changes back and forth; container and grace show that it is still the same problem.
        keys = [(problem.where, problem.grace_s) for problem in there]
        self._since = {key: self._since.get(key, now) for key in keys}
        lasting = (
            problem
            for problem, key in zip(there, keys, strict=True)
            if now - self._since[key] >= problem.grace_s * self._scale
        )
        return next(lasting, None)


def is_of_job(pod: Object) -> bool:
    """Return whether a pod is a Job's, which ends before the load."""
    return any(one.get("kind") == "Job" for one in pod["metadata"].get("ownerReferences") or ())


def find_problems(thing: Object) -> tuple[PodProblem, ...]:
    """Return the problems of a pod, a Deployment or a Job; none for other kinds. Those of a Job's pods are never final,
    since it makes others until it has failed itself."""
    finders = {"Pod": _find_pod_problems, "Deployment": _find_deployment_problems, "Job": _find_job_problems}
    finder = finders.get(thing["kind"])
    found = tuple(finder(thing)) if finder else ()
    return tuple(replace(one, grace_s=inf) for one in found) if is_of_job(thing) else found


def _find_pod_problems(pod: Object) -> Iterator[PodProblem]:
    status = pod.get("status", {})
    if "deletionTimestamp" in pod["metadata"]:
        return
    where = f"Pod {pod['metadata']['name']}"
    if status.get("phase") == "Failed":
        yield PodProblem(where, _join_parts("has failed", status.get("reason"), status.get("message")), grace_s=0.0)
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield PodProblem(where, _join_parts("waits for a node", condition.get("reason"), condition.get("message")))
    spec = pod.get("spec", {})
    once = spec.get("restartPolicy") == "Never"
    sidecars = {one["name"] for one in spec.get("initContainers", ()) if one.get("restartPolicy") == "Always"}
    containers = (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ()))
    if not containers:
        yield PodProblem(where, _join_parts("its containers have no status yet", status.get("phase")))
    for container in containers:
        name = f"{where}, container {container['name']}"
        if container["name"] in sidecars and "terminated" in container.get("state", {}):
            yield _make_sidecar_problem(name, container)
        else:
            yield from _find_container_problems(name, container, once=once)
    if is_of_job(pod) and (what := _describe_hanging(containers)):
        yield PodProblem(where, what)


def _describe_hanging(containers: Iterable[dict[str, Any]]) -> str:
    """Describe what keeps the pod of a Job from its end, of which some containers have ended well; empty if nothing."""
    states = {one["name"]: one.get("state", {}) for one in containers}
    ended = [name for name, state in states.items() if state.get("terminated", {}).get("exitCode") == 0]
    running = [name for name, state in states.items() if "running" in state]
    if not (ended and running):
        return ""
    still = f"{', '.join(ended)} completed, and {', '.join(running)} still runs"
    return f"{still}: a sidecar has to be a native one, or to be ended by the Job"


def _make_sidecar_problem(where: str, container: dict[str, Any]) -> PodProblem:
    """Make the problem of a native sidecar that ended. Kubernetes restarts it also after exit code 0, and shows no
    back-off."""
    restarts = container["restartCount"]
    what = f"{_format_termination(container['state']['terminated'])}; {restarts} restarts"
    return PodProblem(where, what, 0.0 if restarts >= _RESTARTS else inf, container["name"])


def _find_container_problems(where: str, container: dict[str, Any], *, once: bool) -> Iterator[PodProblem]:
    state, name = container.get("state", {}), container["name"]
    before = container.get("lastState", {}).get("terminated")
    restarted = f"{_format_termination(before)}; {container['restartCount']} restarts" if before else ""
    if waiting := state.get("waiting"):
        reason = waiting.get("reason", "")
        image = f"image {container['image']}" if "Image" in reason else ""
        what = _join_parts(f"waits, {reason}", image, waiting.get("message"), restarted)
        yield PodProblem(where, what, _WAITING_GRACE_S.get(reason, inf), name if before else "", previous=True)
    elif ended := state.get("terminated"):
        if ended["exitCode"] != 0:
            yield PodProblem(where, _format_termination(ended), 0.0 if once else inf, name)
    elif "running" in state and not container.get("ready"):
        yield PodProblem(where, _join_parts("runs, but is not ready", restarted), container=name)


def _format_termination(terminated: dict[str, Any]) -> str:
    return _join_parts(
        f"ended with exit code {terminated['exitCode']}", terminated.get("reason"), terminated.get("message")
    )


def _find_deployment_problems(deployment: Object) -> Iterator[PodProblem]:
    where = f"Deployment {deployment['metadata']['name']}"
    for condition in deployment.get("status", {}).get("conditions", ()):
        what = _join_parts(condition.get("reason"), condition.get("message"))
        if (condition["type"], condition["status"]) == ("ReplicaFailure", "True"):
            yield PodProblem(where, what, grace_s=_CREATE_GRACE_S)
        if condition.get("reason") == "ProgressDeadlineExceeded":  # a report: Kubernetes goes on, and so do we
            yield PodProblem(where, what)


def _find_job_problems(job: Object) -> Iterator[PodProblem]:
    for condition in job.get("status", {}).get("conditions") or ():
        if (condition["type"], condition["status"]) == ("Failed", "True"):
            what = _join_parts("has failed", condition.get("reason"), condition.get("message"))
            yield PodProblem(f"Job {job['metadata']['name']}", what, grace_s=0.0)


def explain_problems(
    cluster: Cluster, namespace: str, things: Iterable[Object], find: FindProblems = find_problems
) -> str:
    """Format all problems of pods and Deployments of one namespace, line by line: states of containers, the last lines
    of their logs, and the warnings that were reported about them."""
    there = tuple(things)
    logs_left = _MOST_LOGS
    lines: list[str] = []
    for thing in there:
        for problem in find(thing):
            lines.append(f"  {problem}")
            if problem.container and logs_left:
                logs_left -= 1
                lines += _read_log(cluster, namespace, thing["metadata"]["name"], problem)
    events = cluster.list("v1", "Event", namespace=namespace)
    lines += [f"  {line}" for line in find_warnings(there, events)]
    return "\n".join(lines)


def _read_log(cluster: Cluster, namespace: str, pod: str, problem: PodProblem) -> list[str]:
    try:
        log = cluster.logs(
            pod, namespace=namespace, container=problem.container, lines=LOG_LINES, previous=problem.previous
        )
    except ClusterError as error:  # a container that was only just made has none
        log = f"(no log: {error})"
    return [f"    | {line[:_LONGEST_LINE]}" for line in redact(log).splitlines()]


def find_warnings(things: Iterable[Object], events: Iterable[Object]) -> tuple[str, ...]:
    """Return the newest warnings about these objects, about what their Deployments made, and about volumes that are
    claimed; the newest is the last."""
    names = {(thing["kind"], thing["metadata"]["name"]) for thing in things}
    owners = tuple(f"{name}-" for kind, name in names if kind == "Deployment")
    lines: dict[str, Object] = {}
    for event in sorted(events, key=_event_time):
        kind, name = (event["involvedObject"].get(key, "") for key in ("kind", "name"))
        made = kind == "ReplicaSet" and name.startswith(owners)
        ours = (kind, name) in names or made or kind == "PersistentVolumeClaim"
        if event.get("type") == "Warning" and ours:
            line = _join_parts(f"event {kind} {name}", event.get("reason"), event.get("message"))
            lines.pop(line, None)
            lines[line] = event
    return tuple(lines)[-_MOST_EVENTS:]


def _event_time(event: Object) -> str:
    return event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp") or ""


def _join_parts(*parts: str | None) -> str:
    return ": ".join(" ".join(part.split()) for part in parts if part)
