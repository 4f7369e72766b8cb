"""Define the probes that show that a policy is in force."""

from dataclasses import dataclass
from http import HTTPStatus


@dataclass(frozen=True, slots=True)
class Outcome:
    """What policies make of a request without a token.

    `status` is that of the response: the application's own, 403, 0 where the connection is closed, and None where it is
    not known before a run. A request that `needs_token` is denied, and may be allowed with a token.
    """

    status: int | None
    needs_token: bool = False


@dataclass(frozen=True, slots=True)
class Probe:
    """One request to one sidecar, and the response that the configuration requires.

    `caller` is the service account whose certificate the request has, or None for plaintext. `status` is the HTTP
    status, or 0 where the sidecar must close the connection without a response. `headers` are those that it has beside
    the usual ones. `policy` names the policy that the response proves.
    """

    policy: str
    workload: str
    caller: str | None
    method: str
    path: str
    status: int
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def status_through_sidecar(self) -> int:
        """Return the status for a caller with a sidecar, which retries a closed connection and then returns 503."""
        if self.status == 0 and self.caller is not None:
            return HTTPStatus.SERVICE_UNAVAILABLE
        return self.status
