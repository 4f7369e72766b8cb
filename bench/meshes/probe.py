"""Questions whose answers show that a configuration is what its name says."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

# What Bookinfo answers to (method, path): the first of each is what its clients ask.
ENDPOINTS: Final[Mapping[str, Mapping[tuple[str, str], int]]] = {
    "productpage": {("GET", "/productpage"): 200, ("POST", "/login"): 302, ("GET", "/health"): 200},
    "details": {("GET", "/details/0"): 200, ("GET", "/health"): 200},
    "reviews": {("GET", "/reviews/0"): 200, ("GET", "/health"): 200},
    "ratings": {("GET", "/ratings/0"): 200, ("GET", "/health"): 200},
    "gateway": {("GET", "/productpage"): 200, ("POST", "/login"): 302},
}


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

    @property
    def status_through_sidecar(self) -> int:
        """What a caller behind a sidecar of its own sees: that tries a closed connection again, then gives 503."""
        if self.status == 0 and self.caller is not None:
            return HTTPStatus.SERVICE_UNAVAILABLE
        return self.status
