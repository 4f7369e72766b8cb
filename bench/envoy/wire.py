"""Define the protocols between the sidecars of a mesh, as an observer sees them."""

from dataclasses import dataclass
from typing import Literal

# What a workload's sidecar accepts: plaintext, mutual TLS, or both. Callers' sidecars use mutual TLS if accepted.
Mode = Literal["DISABLE", "PERMISSIVE", "STRICT"]


@dataclass(frozen=True, slots=True)
class Wire:
    """The protocols between two sidecars: `http` and `tls` are versions, `alpn` is what the caller's side offers."""

    http: Literal["HTTP/1.1", "HTTP/2"]
    tls: Literal["TLSv1.2", "TLSv1.3"]
    alpn: str
