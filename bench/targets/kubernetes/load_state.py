"""How the containers of a load are, from their pods' status: what has ended, and why. Pure."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from bench.targets.kubernetes.client import Object
from bench.targets.kubernetes.load_objects import KEEPER, NAME


def load_trouble(pod: Object | None) -> str:
    """Why the load pod does no more what it should, in words; empty while Locust runs and can be read."""
    if pod is None:
        return "the load pod is gone"
    for name, what in ((NAME, "Locust"), (KEEPER, "the container that keeps Locust's samples")):
        ended = terminated(pod, name)
        if ended is not None:
            return f"{what} ended during the load ({how_ended(ended)})"
    status = pod.get("status") or {}
    if status.get("phase") == "Failed":
        return f"the load pod failed: {status.get('reason', '')} {status.get('message', '')}".strip()
    if pod["metadata"].get("deletionTimestamp"):
        return "the load pod is being deleted"
    return next((f"container {one['name']} of the load pod was restarted" for one in _again(pod)), "")


def terminated(pod: Object, container: str) -> Object | None:
    """How a container ended; None while it runs, or has not begun."""
    states = (one.get("state") or {} for one in statuses(pod) if one["name"] == container)
    ended: Object | None = next((state.get("terminated") for state in states), None)
    return ended


def how_ended(ended: Mapping[str, Any]) -> str:
    """`exit code 137, OOMKilled`."""
    reason = ended.get("reason", "")
    told = "" if reason in ("", "Error", "Completed") else f", {reason}"
    return f"exit code {ended.get('exitCode')}{told}"


def load_pod_in(pods: Sequence[Object]) -> Object | None:
    """The load pod among the pods of its namespace."""
    return next((pod for pod in pods if pod["metadata"]["name"] == NAME), None)


def missing(before: Collection[str], pods: Sequence[Object]) -> str:
    """The pods that were there before and are no more: whatever took their place is new, and was not warm."""
    gone = sorted(set(before) - {pod["metadata"]["name"] for pod in pods})
    return f"no longer there: Pod {', Pod '.join(gone)}" if gone else ""


def _again(pod: Object) -> Iterator[Object]:
    """The sidecars that did not last."""
    yield from (status for status in statuses(pod) if status.get("restartCount"))


def statuses(pod: Object) -> Iterator[Object]:
    """Of all containers; native sidecars are among the init containers."""
    status = pod.get("status") or {}
    yield from status.get("initContainerStatuses") or ()
    yield from status.get("containerStatuses") or ()
