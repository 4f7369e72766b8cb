"""Read istiod's debug pages: which configuration each proxy has acknowledged, and which objects istiod has read.

The requests run in istiod's own container, since Istio 1.29 denies these pages to all other clients.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from bench.errors import DeployError, reject_malformed
from bench.k8s.client import Cluster, Object, Ref, ref_of
from bench.meshes.istio.policies import ROOT_NAMESPACE as NAMESPACE
from bench.system.output import format_command

ISTIOD: Final = "app=istiod"
CONTAINER: Final = "discovery"

_REQUIRED: Final = ("cluster", "listener")  # without these a proxy has no configuration at all

Status = Mapping[str, Any]
Key = tuple[str, str, str]


def find_unsynced(cluster: Cluster, namespace: str, pods: Sequence[str]) -> str:
    """Return which of the pods' sidecars have not acknowledged what istiod sent last, as text; empty if all have.

    This does not prove that a policy is in force, since istiod waits up to 10 s before it sends. `find_unaccepted`
    proves it, followed by a request that the policy decides.
    """
    pages = _request_all(cluster, "/debug/syncz")
    with reject_malformed("istiod"):
        return format_unsynced([status for page in pages for status in page], namespace, pods)


def format_unsynced(statuses: Sequence[Status], namespace: str, pods: Sequence[str]) -> str:
    """Return the same text from the entries of every istiod's /debug/syncz."""
    return "; ".join(f"{pod} {why}" for pod in pods if (why := _explain_unsynced(statuses, f"{pod}.{namespace}")))


def _explain_unsynced(statuses: Iterable[Status], proxy: str) -> str:
    own = [status for status in statuses if status["proxy"] == proxy]
    if not own:
        return "is connected to no istiod"
    rejected = {error for status in own for error in _errors(status)}
    if rejected:
        return f"has rejected its configuration: {' '.join(sorted(rejected))}"
    waiting = {kind for status in own for kind in _list_unacknowledged(status)}
    return f"has not acknowledged {', '.join(sorted(waiting))}" if waiting else ""


def _errors(status: Status) -> Iterable[str]:
    """Return the errors with which the proxy rejected what was sent last."""
    return (one["lastError"] for one in status.get("resources", {}).values() if one.get("lastError"))


def _list_unacknowledged(status: Status) -> Iterable[str]:
    """Yield the kinds of configuration (`listener`) whose last push is not acknowledged, or that were never sent."""
    sent = {key.removesuffix("_sent"): nonce for key, nonce in status.items() if key.endswith("_sent")}
    yield from (kind for kind, nonce in sent.items() if nonce and nonce != status.get(f"{kind}_acked"))
    yield from (kind for kind in _REQUIRED if not sent.get(kind))


def find_unaccepted(cluster: Cluster, objects: Sequence[Object]) -> str:
    """Return which of Istio's own objects istiod has not read in their current generation; empty if it has read all.

    Istio's objects have no status with this information.
    """
    refs = [ref_of(one) for one in objects if ".istio.io/" in one["apiVersion"]]
    if not refs:
        return ""
    generations = {ref: _read_generation(cluster, ref) for ref in refs}
    pages = _request_all(cluster, "/debug/configz")
    with reject_malformed("istiod"):
        return "; ".join(dict.fromkeys(text for page in pages for text in format_unread(page, generations)))


def _read_generation(cluster: Cluster, ref: Ref) -> int:
    found = cluster.get(ref)
    if found is None:
        raise DeployError(f"{ref} is not on the cluster, although it was applied")
    return int(found["metadata"]["generation"])


def format_unread(configs: Iterable[Object], generations: Mapping[Ref, int]) -> Iterable[str]:
    """Yield a text for each object that one istiod's /debug/configz lacks, or has in an older generation."""
    known = {_key(ref_of(config)): config["metadata"].get("generation", 0) for config in configs}
    for ref, generation in generations.items():
        if known.get(_key(ref), 0) < generation:
            yield f"istiod has not read {ref}"


def _key(ref: Ref) -> Key:
    """Return the key of an object without its version: istiod keeps one version, whichever was applied."""
    return ref.kind, ref.namespace, ref.name


def _request_all(cluster: Cluster, page: str) -> list[Any]:
    """Return the response of each running istiod; a proxy is connected to one. Raises DeployError without any."""
    pods = [pod for pod in cluster.list("v1", "Pod", namespace=NAMESPACE, labels=ISTIOD) if _is_running(pod)]
    if not pods:
        command = format_command("kubectl", "--context", cluster.context, "get", "pods", "-n", NAMESPACE, "-l", ISTIOD)
        raise DeployError(f"no istiod runs in {NAMESPACE}; hint: {command}")
    return [_request_page(cluster, pod["metadata"]["name"], page) for pod in pods]


def _is_running(pod: Object) -> bool:
    return pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]


def _request_page(cluster: Cluster, pod: str, page: str) -> Any:
    argv = ["pilot-discovery", "request", "GET", page]
    ran = cluster.exec(pod, argv, namespace=NAMESPACE, container=CONTAINER)
    try:
        return json.loads(ran.stdout)
    except (ValueError, RecursionError):
        detail = ran.stderr.strip()[-300:] or f"exit code {ran.exit_code}"
        raise DeployError(f"{NAMESPACE}/{pod} does not answer {page}: {detail}") from None
