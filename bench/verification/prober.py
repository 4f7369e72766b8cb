"""Define the protocol by which a target answers the questions of proofs: requests, counters, and what it reports."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol, TypeVar

from bench.meshes.protocols import RequestPage
from bench.verification.questions import Answer, Question

T = TypeVar("T")


_REPLICA: Final = "~"  # which no name of Kubernetes has


def name_replica(workload: str, index: int) -> str:
    """Name the proxy of one of a workload's pods; that of the first pod has the workload's own name."""
    return f"{workload}{_REPLICA}{index + 1}" if index else workload


def workload_of(proxy: str) -> str:
    """Return the workload of a proxy that `name_replica` has named."""
    return proxy.partition(_REPLICA)[0]


def pages_of(workload: str, proxies: Mapping[str, RequestPage]) -> tuple[RequestPage, ...]:
    """Return the interfaces of all proxies of a workload."""
    return tuple(page for name, page in proxies.items() if workload_of(name) == workload)


class Topic(StrEnum):
    """What not every target can be asked about."""

    NAMESPACE = "labels and webhooks of the namespace"
    PODS = "sidecars that are ready in all pods, and restarts"
    SYNCED = "acknowledged configuration"
    SIDECAR_CERTIFICATES = "certificates of the sidecars"
    CALLER_CERTIFICATES = "requests with a workload's certificate at the callee's sidecar"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What a target reports of a deployment without a request to it; what is wrong is listed.

    `others` are the parts that exist of meshes that must be absent, by mesh. `running` are sidecars, which only a mesh
    has. `missing` are those of `pods` pods without a ready `sidecar`; where one was never created, not all sidecars are
    `askable`. `image` is the sidecars' own image in this configuration, if it has one, and `other_images` are sidecars
    that have another.
    """

    others: Mapping[str, str] = field(default_factory=dict)
    namespace: str = ""
    labels: tuple[str, ...] = ()
    webhooks: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    sidecar: str = ""
    pods: int = 0
    missing: tuple[str, ...] = ()
    image: str = ""
    other_images: tuple[str, ...] = ()
    restarts: tuple[str, ...] = ()
    unsynced: str = ""
    askable: bool = True


class Prober(Protocol):
    """What answers the questions of proofs about one deployment. Raises ClusterError or DeployError where it cannot."""

    @property
    def omitted(self) -> Mapping[Topic, str]:
        """The topics that do not apply to the target, each with the reason; their proofs are left out."""

    def ask(self, questions: Sequence[Question]) -> tuple[Answer, ...]:
        """Return the answers in the questions' order."""

    def pages(self, user: str, count: int) -> tuple[Answer, ...]:
        """Return `count` answers to the load's own question on one connection, as `user` gets them, or with an empty
        name a user who has not logged in. Fewer, the last one with the reason, where the login or the connection
        failed."""

    def read_state(self) -> State:
        """Return what the target reports of the deployment."""

    def proxies(self) -> Mapping[str, RequestPage]:
        """Return the own interface of each proxy on the load's path, named as `name_replica` does; empty without a
        mesh. It raises DeployError without a response."""

    def read_configurations(self, kept: Path) -> Mapping[str, str]:
        """Return the configuration of each workload's proxy, which the folder `kept` then has."""

    def retry(self, act: Callable[[], T]) -> T:
        """Return the result of `act`, which must be idempotent, and run it again where the target was unreachable for a
        while."""
