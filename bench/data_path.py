"""What a request met on its way through a mesh, as a record: in this two meshes differ besides their name.

Everything comes from the sidecars' own configuration and counters. Times are in seconds; null is none, or no limit.
"""

from typing import Annotated

from pydantic import Field

from bench.record_base import Record


class Retries(Record):
    """Envoy's retry policy of a route."""

    number: int
    conditions: tuple[str, ...]
    per_try_timeout_s: float | None
    backoff_s: Annotated[tuple[float, float], Field(description="the first interval, and the longest")]


class Limits(Record):
    """Envoy's circuit breaker of a cluster."""

    connections: int | None
    pending: int | None
    requests: int | None
    retries: int | None


class Seen(Record):
    """What the caller's sidecar counted of its connections to the callee's; no TLS version: plain text."""

    http: tuple[str, ...]
    tls: tuple[str, ...]
    ciphers: tuple[str, ...]
    curves: tuple[str, ...]


class Way(Record):
    """What the caller's sidecar does with requests to one callee, and what it spoke to the callee's sidecar."""

    caller: str
    callee: str
    http: Annotated[str, Field(description="the version of HTTP that is configured")]
    seen: Seen
    timeout_s: float | None
    retries: Retries | None
    load_balancing: Annotated[str, Field(description="as Envoy names it")]
    limits: Limits


class Inbound(Record):
    """What a workload's own sidecar does with requests to it. Policies: entries of the RBAC filters of that tier; null
    where there is no such filter, which lets everything pass."""

    workload: str
    http_policies: int | None
    network_policies: int | None
    timeout_s: float | None
    retries: Retries | None


class DataPath(Record):
    """The data path of a trial."""

    workers: Annotated[dict[str, int], Field(description="worker threads of each sidecar")]
    ways: tuple[Way, ...]
    inbounds: tuple[Inbound, ...]
