"""What istiod says of itself: which proxies it has told what, and which configuration it knows.

Asked inside its own container: since Istio 1.29 these pages are closed to other places.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from bench.errors import DeployError
from bench.k8s.client import Cluster, Object, Ref, ref_of
from bench.meshes.istio.policies import ROOT_NAMESPACE as NAMESPACE

ISTIOD: Final = "app=istiod"
CONTAINER: Final = "discovery"

_NEEDED: Final = ("cluster", "listener")  # without these a proxy has had no configuration at all

Status = Mapping[str, Any]
Key = tuple[str, str, str]


def unsynced(cluster: Cluster, namespace: str, pods: Sequence[str]) -> str:
    """Which of the pods' sidecars have not acknowledged what istiod sent last; empty when all have.

    No proof that a policy is in it: istiod waits for up to 10 s before it sends. `accepted`, and then a request that
    the policy decides, are.
    """
    statuses = [status for page in _ask(cluster, "/debug/syncz") for status in page]
    return told_unsynced(statuses, namespace, pods)


def told_unsynced(statuses: Sequence[Status], namespace: str, pods: Sequence[str]) -> str:
    """The same from the entries of every istiod's /debug/syncz."""
    told = [f"{pod} {said}" for pod in pods if (said := _behind(statuses, f"{pod}.{namespace}"))]
    return "; ".join(told)


def _behind(statuses: Iterable[Status], proxy: str) -> str:
    own = [status for status in statuses if status["proxy"] == proxy]
    if not own:
        return "is connected to no istiod"
    refused = {error for status in own for error in _errors(status)}
    if refused:
        return f"has refused its configuration: {' '.join(sorted(refused))}"
    waiting = {kind for status in own for kind in _unacknowledged(status)}
    return f"has not acknowledged {', '.join(sorted(waiting))}" if waiting else ""


def _errors(status: Status) -> Iterable[str]:
    """What the proxy said when it refused what was sent last."""
    return (one["lastError"] for one in status.get("resources", {}).values() if one.get("lastError"))


def _unacknowledged(status: Status) -> Iterable[str]:
    """The kinds of configuration (`listener`) whose last sending is not answered; nothing sent, nothing to answer."""
    sent = {key.removesuffix("_sent"): nonce for key, nonce in status.items() if key.endswith("_sent")}
    yield from (kind for kind, nonce in sent.items() if nonce and nonce != status.get(f"{kind}_acked"))
    yield from (kind for kind in _NEEDED if not sent.get(kind))


def accepted(cluster: Cluster, objects: Sequence[Object]) -> str:
    """Which of Istio's own objects istiod has not read yet, in the form that the cluster has now; empty when it has.

    Istio's objects have no status that would tell.
    """
    refs = [ref_of(thing) for thing in objects if ".istio.io/" in thing["apiVersion"]]
    if not refs:
        return ""
    generations = {ref: _generation(cluster, ref) for ref in refs}
    pages = _ask(cluster, "/debug/configz")
    return "; ".join(dict.fromkeys(said for page in pages for said in unread(page, generations)))


def _generation(cluster: Cluster, ref: Ref) -> int:
    found = cluster.get(ref)
    if found is None:
        raise DeployError(f"{ref} is not on the cluster, although it was applied")
    return int(found["metadata"]["generation"])


def unread(configs: Iterable[Object], generations: Mapping[Ref, int]) -> Iterable[str]:
    """The objects that one istiod's /debug/configz lacks, or has in an older generation."""
    known = {_key(ref_of(config)): config["metadata"].get("generation", 0) for config in configs}
    for ref, generation in generations.items():
        if known.get(_key(ref), 0) < generation:
            yield f"istiod has not read {ref}"


def _key(ref: Ref) -> Key:
    """Without the version: istiod keeps one, whichever it was written in."""
    return ref.kind, ref.namespace, ref.name


def _ask(cluster: Cluster, page: str) -> list[Any]:
    """What each running istiod answers; a proxy is connected to one of them. Raises DeployError without any."""
    pods = [pod for pod in cluster.list("v1", "Pod", namespace=NAMESPACE, labels=ISTIOD) if _runs(pod)]
    if not pods:
        raise DeployError(f"no istiod runs in {NAMESPACE}; its pods: kubectl get pods -n {NAMESPACE} -l {ISTIOD}")
    return [_answer(cluster, pod["metadata"]["name"], page) for pod in pods]


def _runs(pod: Object) -> bool:
    return pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]


def _answer(cluster: Cluster, pod: str, page: str) -> Any:
    argv = ["pilot-discovery", "request", "GET", page]
    ran = cluster.exec(pod, argv, namespace=NAMESPACE, container=CONTAINER)
    try:
        return json.loads(ran.stdout)
    except ValueError:
        said = ran.stderr.strip()[-300:] or f"exit code {ran.exit_code}"
        raise DeployError(f"{NAMESPACE}/{pod} does not answer {page}: {said}") from None
