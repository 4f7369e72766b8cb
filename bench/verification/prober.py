"""Define the questions of proofs that every target answers, and the protocol of what sends them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from bench.verification.questions import Answer

OUTSIDE: Final = "outside"  # the caller without a sidecar or an identity


@dataclass(frozen=True, slots=True)
class Question:
    """One request of `caller` (a workload, the client, or OUTSIDE) to a workload; without a path the workload's usual
    one. With `tls` in TLS without a certificate, otherwise in plaintext, which the caller's sidecar secures."""

    caller: str
    workload: str
    method: str = "GET"
    path: str = ""
    tls: bool = False


class Prober(Protocol):
    """What answers the questions of proofs about one deployment."""

    def ask(self, questions: Sequence[Question]) -> tuple[Answer, ...]:
        """Return the answers in the questions' order. Raises ClusterError or DeployError where it cannot ask."""

    def pages(self, user: str, count: int) -> tuple[Answer, ...]:
        """Return `count` answers to the load's own question on one connection, as `user` gets them, or with an empty
        name a user who has not logged in. Fewer, the last one with the reason, where the login or the connection
        failed."""
