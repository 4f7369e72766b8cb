"""An API server that goes away in the middle of a run: what it interrupts is begun anew when it is back."""

from collections.abc import Callable
from typing import Final, TypeVar

from bench.errors import ClusterError, DeployError
from bench.targets.kubernetes.client import Cluster
from bench.waiting import Watch, wait_until

T = TypeVar("T")

_ATTEMPTS: Final = 3


def outlasting(cluster: Cluster, act: Callable[[], T], *, watch: Watch) -> T:
    """What `act` gives, which done twice must be the same as done once. Raises what it raises where the API server
    answers, or does not answer again in time."""
    timing = cluster.timing
    for _ in range(_ATTEMPTS - 1):
        try:
            return act()
        except (ClusterError, DeployError) as error:
            if not _is_of_an_outage(cluster, error):
                raise
            back = wait_until(
                lambda: _is_there(cluster), timeout_s=timing.away_s, watch=watch, poll_s=timing.away_poll_s
            )
            if not back:
                raise
    return act()


def _is_of_an_outage(cluster: Cluster, error: ClusterError | DeployError) -> bool:
    """What came through the API server from somebody else, such as a page, fails in words of its own."""
    return error.is_passing if isinstance(error, ClusterError) else not _is_there(cluster)


def _is_there(cluster: Cluster) -> bool:
    """Whether the API server answers, be it with a refusal."""
    try:
        cluster.read("/version")
    except ClusterError as error:
        return not error.is_passing
    return True
