"""Questions whose answers show that a configuration is what its name says."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Probe:
    """One request to one sidecar, and the answer that the configuration demands.

    `caller` is the service account whose certificate asks, or None for plain text; `status` is the HTTP
    status, or 0 where the connection has to be closed without an answer. `policy` says what is shown by it.
    """

    policy: str
    workload: str
    caller: str | None
    method: str
    path: str
    status: int
