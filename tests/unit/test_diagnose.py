"""Why pods are not ready, as messages."""

from math import inf
from typing import Any

from bench.k8s.diagnose import Grace, PodProblem, find_problems, find_warnings
from bench.k8s.wait import describe_blockers, describe_unavailable

IMAGE = "example/details:1"


def _pod(*containers: dict[str, Any], restart: str = "Always", **status: Any) -> dict[str, Any]:
    return {
        "kind": "Pod",
        "metadata": {"name": "details-1"},
        "spec": {"restartPolicy": restart},
        "status": {"containerStatuses": list(containers), **status},
    }


def _container(name: str = "details", *, restarts: int = 0, ready: bool = False, **state: Any) -> dict[str, Any]:
    last = {"lastState": {"terminated": {"exitCode": 3, "reason": "Error"}}} if restarts else {}
    return {"name": name, "image": IMAGE, "restartCount": restarts, "ready": ready, "state": state, **last}


def test_image_pull_failure_is_final_within_a_minute() -> None:
    """Although its reason alternates between two."""
    grace = Grace()
    for second, reason in enumerate(("ErrImagePull", "ImagePullBackOff") * 30):
        found = find_problems(_pod(_container(waiting={"reason": reason, "message": "no such host"})))
        if final := grace.final(found, now=float(second)):
            assert second == 30
            assert str(final) == (f"Pod details-1, container details: waits, ErrImagePull: image {IMAGE}: no such host")
            return
    raise AssertionError("it was never final")


def test_crash_loop_is_final_at_once() -> None:
    """The message has the exit code, the number of restarts, and the container whose log to read."""
    (trouble,) = find_problems(_pod(_container("istio-proxy", restarts=4, waiting={"reason": "CrashLoopBackOff"})))
    assert Grace().final([trouble], now=0) is trouble
    assert "ended with exit code 3: Error; 4 restarts" in str(trouble)
    assert (trouble.container, trouble.previous) == ("istio-proxy", True)


def test_checks_native_sidecars() -> None:
    """They are among the init containers."""
    waiting = _container("kuma-sidecar", waiting={"reason": "ErrImagePull"})
    (trouble,) = find_problems(_pod(initContainerStatuses=[waiting]))
    assert trouble.where == "Pod details-1, container kuma-sidecar"


def test_ended_native_sidecar_is_final() -> None:
    """Kubernetes shows no back-off for it; a completed init container is no problem."""

    def of(restarts: int) -> dict[str, Any]:
        ended = _container("istio-proxy", restarts=restarts, terminated={"exitCode": 0, "reason": "Completed"})
        done = _container("istio-init", restarts=1, terminated={"exitCode": 0, "reason": "Completed"})
        pod = _pod(initContainerStatuses=[done, ended])
        pod["spec"]["initContainers"] = [{"name": "istio-init"}, {"name": "istio-proxy", "restartPolicy": "Always"}]
        return pod

    (first,) = find_problems(of(1))
    assert Grace().final([first], now=1e9) is None
    (second,) = find_problems(of(2))
    assert Grace().final([second], now=0) is second
    assert str(second) == "Pod details-1, container istio-proxy: ended with exit code 0: Completed; 2 restarts"
    assert second.container == "istio-proxy"


def test_starting_pod_is_never_final() -> None:
    """It is reported, but never final; a ready or terminating pod is not reported."""
    (starting,) = find_problems(_pod(_container(waiting={"reason": "ContainerCreating"})))
    assert str(starting) == "Pod details-1, container details: waits, ContainerCreating"
    assert Grace().final([starting], now=1e9) is None
    assert find_problems(_pod(_container(ready=True, running={}))) == ()
    leaving = _pod(_container(terminated={"exitCode": 137}))
    leaving["metadata"]["deletionTimestamp"] = "now"
    assert find_problems(leaving) == ()


def test_ended_container_is_final_without_restarts() -> None:
    """A pod that is never restarted stays as it is."""
    ended = _container(terminated={"exitCode": 1, "reason": "OOMKilled"})
    (again,), (never,) = find_problems(_pod(ended)), find_problems(_pod(ended, restart="Never"))
    assert Grace().final([again], now=1e9) is None
    assert Grace().final([never], now=0) is never
    assert "exit code 1: OOMKilled" in str(never)


def test_unschedulable_pod_is_never_final() -> None:
    """Nodes may be added; the timeout decides."""
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes: cpu"}
    trouble, _ = find_problems(_pod(conditions=[condition]))
    assert str(trouble) == "Pod details-1: waits for a node: Unschedulable: 0/1 nodes: cpu"
    assert Grace().final([trouble], now=1e9) is None


def test_reports_eviction() -> None:
    """With the node's reason."""
    trouble, _ = find_problems(_pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory."))
    assert str(trouble) == "Pod details-1: has failed: Evicted: The node was low on resource: memory."


def test_missing_pods_are_final_after_a_while() -> None:
    """A quota, or a webhook that refuses, shows on the Deployment."""
    condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}
    deployment = {"kind": "Deployment", "metadata": {"name": "details"}, "status": {"conditions": [condition]}}
    grace, troubles = Grace(), find_problems(deployment)
    assert grace.final(troubles, now=0) is None
    assert grace.final(troubles, now=19) is None
    assert grace.final(troubles, now=20) is troubles[0]
    hasty = Grace(0.2)
    assert [hasty.final(troubles, now=now) for now in (0, 3, 4)] == [None, None, troubles[0]]
    assert str(troubles[0]) == "Deployment details: FailedCreate: exceeded quota"


def test_problem_that_returns_starts_anew() -> None:
    """Its grace period counts from its return."""
    grace, trouble = Grace(), PodProblem("Pod a", "x", grace_s=10)
    assert grace.final([trouble], now=0) is None
    assert grace.final([], now=9) is None
    assert grace.final([trouble], now=11) is None
    assert grace.final([trouble], now=21) is trouble


def _event(kind: str, name: str, message: str, *, at: str, what: str = "Warning") -> dict[str, Any]:
    about = {"kind": kind, "name": name}
    return {
        "metadata": {},
        "type": what,
        "involvedObject": about,
        "reason": "R",
        "message": message,
        "lastTimestamp": at,
    }


def test_reports_warnings_of_the_workloads_objects() -> None:
    """Each once, the newest last; normal events and those of other objects are left out."""
    things = [
        {"kind": "Deployment", "metadata": {"name": "details"}},
        {"kind": "Pod", "metadata": {"name": "details-7f-a"}},
    ]
    events = [
        _event("Pod", "details-7f-a", "probe failed", at="3"),
        _event("ReplicaSet", "details-7f", "exceeded quota", at="1"),
        _event("Pod", "details-7f-a", "probe failed", at="2"),
        _event("Pod", "details-7f-a", "pulled", at="2", what="Normal"),
        _event("Pod", "details-7f-old", "of an earlier pod", at="2"),
        _event("ReplicaSet", "reviews-7f", "of others", at="2"),
    ]
    assert find_warnings(things, events) == (
        "event ReplicaSet details-7f: R: exceeded quota",
        "event Pod details-7f-a: R: probe failed",
    )


def _deployment(generation: int = 1, **status: int) -> dict[str, Any]:
    metadata = {"name": "details", "namespace": "shop", "generation": generation}
    spec, seen = {"replicas": 1}, {"observedGeneration": 1, **status}
    return {"kind": "Deployment", "metadata": metadata, "spec": spec, "status": seen}


def test_rollout_needs_new_available_pods_only() -> None:
    """Observed, updated, available, and no old pod left."""
    whole = {"replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}
    assert describe_unavailable(_deployment(**whole)) == ""
    assert describe_unavailable(_deployment(generation=2, **whole)).endswith("its newest version was not processed yet")
    assert describe_unavailable(_deployment(replicas=1, updatedReplicas=1)).endswith("0 of 1 pods available")
    assert describe_unavailable(_deployment(**{**whole, "replicas": 2})).endswith("1 old pods are still there")


def test_daemon_set_needs_new_pod_on_every_node() -> None:
    """It has no replica count of its own: the nodes decide."""
    whole = {"desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberAvailable": 2}
    daemons = {**_deployment(), "kind": "DaemonSet", "spec": {}}

    def lacking(**status: int) -> str:
        return describe_unavailable({**daemons, "status": {"observedGeneration": 1, **whole, **status}})

    assert lacking() == ""
    assert lacking(numberAvailable=1) == "DaemonSet shop/details: 1 of 2 pods available"
    assert lacking(updatedNumberScheduled=0) == "DaemonSet shop/details: 0 of 2 pods available"


def test_reports_deletion_blockers_of_namespace() -> None:
    """Foreign finalizers and true conditions; not what every namespace has."""
    namespace = {
        "kind": "Namespace",
        "metadata": {"name": "shop", "deletionTimestamp": "now"},
        "spec": {"finalizers": ["kubernetes"]},
        "status": {
            "conditions": [
                {"type": "NamespaceFinalizersRemaining", "status": "True", "message": "example.com/hold in 1 resource"},
                {"type": "NamespaceContentRemaining", "status": "False", "message": "none"},
            ]
        },
    }
    assert describe_blockers(namespace) == "terminating; NamespaceFinalizersRemaining: example.com/hold in 1 resource"
    held = {"kind": "ConfigMap", "metadata": {"deletionTimestamp": "now", "finalizers": ["example.com/hold"]}}
    assert describe_blockers(held) == "terminating; finalizer example.com/hold"
    assert describe_blockers({"kind": "ConfigMap", "metadata": {}}) == "its deletion was not requested"


def test_explains_a_job_whose_sidecar_goes_on() -> None:
    """Its own container has completed; the pods of a Job that fail are not final, since it makes others."""
    ended = {"name": "seed", "state": {"terminated": {"exitCode": 0}}, "ready": False, "restartCount": 0}
    proxy = {"name": "proxy", "state": {"running": {}}, "ready": True, "restartCount": 0}
    owner = {"kind": "Job", "name": "seed"}
    pod = {
        "kind": "Pod",
        "metadata": {"name": "seed-x", "ownerReferences": [owner]},
        "status": {"phase": "Running", "containerStatuses": [ended, proxy]},
    }
    (problem,) = find_problems(pod)
    assert "seed completed, and proxy still runs" in problem.what
    failed = {**pod, "status": {"phase": "Failed", "containerStatuses": [ended]}}
    assert [one.grace_s for one in find_problems(failed)] == [inf]
    job = {
        "kind": "Job",
        "metadata": {"name": "seed"},
        "status": {"conditions": [{"type": "Failed", "status": "True"}]},
    }
    assert [one.grace_s for one in find_problems(job)] == [0.0]
