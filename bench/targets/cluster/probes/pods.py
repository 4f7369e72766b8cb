"""Probe pods: one for each service account whose calls prove something, and one outside the mesh.

A probe pod stands in for the workload of its account: the same account and labels, so every policy takes it for that
workload. It is never Ready, so no Service sends it a request.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from bench.application.model import Application, Workload
from bench.files.folders import find_shipped
from bench.files.yaml_source import read_documents
from bench.k8s.client import Object
from bench.meshes.probe import Probe
from bench.targets.cluster.probes import agent
from bench.verification.questions import OUTSIDE

CONTAINER: Final = "probe-agent"
ARGV: Final = ("python3", "/meshbench/agent.py")
_SCRIPT: Final = "meshbench-probe-agent"
_UID: Final = 1000  # the image names its user, and Kubernetes accepts only a number as not root
_WEEK_S: Final = 7 * 24 * 3600


def find_callers(application: Application, probes: Iterable[Probe], own: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the callers of the application's own calls, those of the probes, and the scenario's `own` ones, all with a
    pod inside the mesh."""
    names, hops = application.stand_ins, application.askable_hops
    probing = (names[probe.caller] for probe in probes if probe.caller is not None and probe.caller in names)
    inside = (caller for caller in own if caller != OUTSIDE)
    return tuple(dict.fromkeys((*(hop.caller for hop in hops), *probing, *inside)))


def probe_objects(
    application: Application, callers: Iterable[str], *, image: str, uid: int | None = _UID
) -> tuple[Object, ...]:
    """Return the probe pods of these workloads, each in the namespace of its workload, with their script and the
    client's account. They are new for each deployment, since a sidecar is injected only when a pod is created.

    `image` is the load's, which has Python; `uid` as in `uid_for`.
    """
    usual = application.services[0].port
    places = {application.workload(caller): probe_namespace(application, caller) for caller in callers}
    pods = [
        _stand_in(workload, _pod(workload.name, namespace, image, uid), port=workload.port or usual)
        for workload, namespace in places.items()
    ]
    scripts = (_script(namespace) for namespace in dict.fromkeys((application.namespace, *places.values())))
    return (_account(application.namespace), *scripts, *pods)


def probe_namespace(application: Application, caller: str) -> str:
    """Return the namespace of the probe pod of `caller`."""
    return application.namespace_of(application.workload(caller))


def outside_objects(namespace: str, *, image: str, uid: int | None = _UID) -> tuple[Object, ...]:
    """Return the pod outside the mesh, for a namespace of its own, and its script."""
    pod = _pod(OUTSIDE, namespace, image, uid)
    spec = {**pod["spec"], "automountServiceAccountToken": False}
    return (_script(namespace), {**pod, "spec": spec})


def is_probe_ready(pod: Object) -> bool:
    """Return whether a probe pod is up: its own container runs, and every sidecar is ready."""
    status = pod.get("status", {})
    own = [one for one in status.get("containerStatuses") or () if one["name"] == CONTAINER]
    others = [
        one
        for key in ("containerStatuses", "initContainerStatuses")
        for one in status.get(key) or ()
        if one["name"] != CONTAINER
    ]
    return bool(own) and "running" in own[0]["state"] and all(map(_is_done_or_ready, others))


def _is_done_or_ready(status: Mapping[str, Any]) -> bool:
    return bool(status["ready"])  # an init container that has to end is ready once it has ended well


def pod_name(caller: str) -> str:
    """Return the name of the probe pod of `caller`."""
    return f"probe-{caller}"


def _script(namespace: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": _SCRIPT, "namespace": namespace},
        "data": {"agent.py": Path(agent.__file__).read_text("utf-8")},
    }


def _account(namespace: str) -> Object:
    """Return the load's account, which the client's probe pod needs before there is a load."""
    (document,) = read_documents(find_shipped("manifests") / "load" / "account.yaml")
    return {**document.value, "metadata": {**document.value["metadata"], "namespace": namespace}}


def _stand_in(workload: Workload, pod: Object, *, port: int) -> Object:
    """Return a pod that a mesh takes for the workload's: account, labels and port are the same."""
    (container,) = pod["spec"]["containers"]
    listening = {
        **container,
        "ports": [{"name": "http", "containerPort": port}],
        # Not checked in its first week, so never ready: neither kube-proxy nor a mesh sends it requests.
        "readinessProbe": {"exec": {"command": ["false"]}, "initialDelaySeconds": _WEEK_S},
    }
    return {
        **pod,
        "metadata": {**pod["metadata"], "labels": dict(workload.labels)},
        "spec": {
            **pod["spec"],
            "serviceAccountName": workload.account,
            "automountServiceAccountToken": True,  # a mesh's sidecars may show it to their control plane
            "containers": [listening],
        },
    }


def _pod(caller: str, namespace: str, image: str, uid: int | None) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pod_name(caller), "namespace": namespace},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [_container(image, uid)],
            "volumes": [{"name": "script", "configMap": {"name": _SCRIPT}}],
        },
    }


def _container(image: str, uid: int | None) -> dict[str, Any]:
    """Return the container, which waits for commands. That it is not root is set here, not for the pod: a mesh's init
    container is."""
    user = {} if uid is None else {"runAsUser": uid}
    rights = {"runAsNonRoot": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    return {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "infinity"],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": {**rights, **user},
        "volumeMounts": [{"name": "script", "mountPath": "/meshbench", "readOnly": True}],
    }
