"""Define the requests of proofs on every target, and their answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from bench.application.definition import ApplicationDefinition
from bench.scenario import probes as scenario_probes

FRONT: Final = "gateway-front"  # the proxy of a delegated gateway; its sidecar has the gateway's name
OUTSIDE: Final = scenario_probes.OUTSIDE  # the caller without a sidecar or a certificate

_CLOSED: Final = "connection closed without a response"
_ERRORS: Final[Mapping[str, str]] = {
    "ConnectionResetError": _CLOSED,
    "RemoteDisconnected": _CLOSED,
    "BrokenPipeError": _CLOSED,
    "SSLEOFError": _CLOSED,
    "ConnectionRefusedError": "connection refused",
}


@dataclass(frozen=True, slots=True)
class Question:
    """One request of `caller` (a workload, the client, or OUTSIDE) to a workload; without a path the workload's usual
    one. `headers` are added to the usual ones.

    It is in plaintext, which the caller's sidecar secures. With `tls` it goes directly to the callee's sidecar, in TLS
    with the caller's certificate; OUTSIDE has none.
    """

    caller: str
    workload: str
    method: str = "GET"
    path: str = ""
    tls: bool = False
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Handshake:
    """The result of a TLS handshake, and both SPIFFE ids: the client's own and the peer's; empty for none."""

    version: str
    cipher: str
    own: str
    peer: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response; without one `status` is 0 and `refused` has the reason."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    handshake: Handshake | None = None
    refused: str = field(default="")

    @property
    def detail(self) -> str:
        """Return the text for evidence: `200`, `403 RBAC: access denied`, `connection refused`."""
        text = self.body[:40].decode("utf-8", "replace").strip() if self.status >= 400 else ""
        return self.refused or f"{self.status} {text}".strip()

    def find_problem(self, definition: ApplicationDefinition, versions: Mapping[str, str]) -> str | None:
        """Return what is wrong with it for a user who gets these versions of services; None when it is complete."""
        return self.detail if self.status != definition.ready.status else definition.check_answer(self.body, versions)


def format_error(kind: str, message: str, *, timeout_s: float) -> str:
    """Return why there was no response, from the name of Python's exception and its message."""
    if kind == "TimeoutError":
        return f"no response within {timeout_s:.0f} s"
    return _ERRORS.get(kind, f"{kind}: {message}")
