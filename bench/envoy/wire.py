"""How the sidecars of a mesh speak to each other, as far as an observer can tell."""

from dataclasses import dataclass
from typing import Literal

# What a workload's sidecar accepts: plain text, mutual TLS, or both; sidecars use mutual TLS wherever they may.
Mode = Literal["DISABLE", "PERMISSIVE", "STRICT"]


@dataclass(frozen=True, slots=True)
class Wire:
    """What two sidecars agree on: `http` and `tls` are versions, `alpn` is what the caller's side offers."""

    http: Literal["HTTP/1.1", "HTTP/2"]
    tls: Literal["TLSv1.2", "TLSv1.3"]
    alpn: str
