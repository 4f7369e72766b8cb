"""What both targets ask of the application, and what comes back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from bench.bookinfo.pages import page_problem
from bench.meshes.probe import Probe
from bench.proofs import policy_evidence
from bench.records import Evidence

# What each workload answers with 200, for proofs.
PATHS: Final[Mapping[str, str]] = {
    "productpage": "/productpage",
    "details": "/details/0",
    "reviews": "/reviews/0",
    "ratings": "/ratings/0",
    "gateway": "/productpage",
}

_CLOSED: Final = "connection closed without an answer"
_WORDS: Final[Mapping[str, str]] = {
    "ConnectionResetError": _CLOSED,
    "RemoteDisconnected": _CLOSED,
    "BrokenPipeError": _CLOSED,
    "SSLEOFError": _CLOSED,
    "ConnectionRefusedError": "connection refused",
}


@dataclass(frozen=True, slots=True)
class Handshake:
    """What TLS agreed on, and both SPIFFE ids: the one that was presented, and the peer's; empty for none."""

    version: str
    cipher: str
    own: str
    peer: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer; `status` 0 and `refused` say that there was none."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    handshake: Handshake | None = None
    refused: str = field(default="")

    @property
    def told(self) -> str:
        """In words, for evidence: `200`, `403 RBAC: access denied`, `connection reset`."""
        text = self.body[:40].decode("utf-8", "replace").strip() if self.status >= 400 else ""
        return self.refused or f"{self.status} {text}".strip()

    def page_problem(self, reviews: str) -> str | None:
        """What is wrong with it as the product page with that version of reviews; None when it is whole."""
        return self.told if self.status != 200 else page_problem(self.body, reviews)


def in_words(kind: str, message: str, *, timeout_s: float) -> str:
    """Why there was no answer, from the name of Python's exception and its message."""
    if kind == "TimeoutError":
        return f"no answer within {timeout_s:.0f} s"
    return _WORDS.get(kind, f"{kind}: {message}")


def probe_evidence(probe: Probe, answer: Answer) -> Evidence:
    """What the answer to a probe proves of its policy."""
    return policy_evidence(
        probe.policy,
        f"{probe.method} {probe.path} at {probe.workload} as {probe.caller or 'nobody, in plain text'}",
        expected=probe.status,
        status=answer.status,
        told=answer.told,
    )
