"""Fetch a page from an HTTP server inside a pod, through a forwarded port."""

from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import Final

from bench.errors import BadAnswerError, DeployError
from bench.k8s.client import Cluster

_TIMEOUT_S: Final = 10.0
_ATTEMPTS: Final = 3
_MOST_BYTES: Final = 64 * 1024 * 1024  # the configuration of a large sidecar is a tenth of it


def fetch_page(cluster: Cluster, pod: str, port: int, *, namespace: str, path: str, who: str) -> str:
    """Return the answer to a GET on a port of the pod, retried where the connection breaks. Raises DeployError where
    there is no answer, or one that is not OK; `who` names the server in its message."""
    with cluster.forward(pod, port, namespace=namespace) as local_port:
        status, body = _get_with_retries(local_port, path, who)
    if status != HTTPStatus.OK:
        raise DeployError(f"{who} answered GET {path} with {status}: {body[:200]}")
    return body


def _get_with_retries(port: int, path: str, who: str) -> tuple[int, str]:
    broken: Exception | None = None
    for _ in range(_ATTEMPTS):
        try:
            return _get(port, path)
        except TimeoutError as error:  # no retry: the server accepted the request and had enough time
            raise DeployError(f"{who} does not answer GET {path} within {_TIMEOUT_S:.0f} s") from error
        except (OSError, HTTPException) as error:
            broken = error
    raise DeployError(f"{who} does not answer GET {path}: {broken}") from broken


def _get(port: int, path: str) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read(_MOST_BYTES + 1)
        if len(body) > _MOST_BYTES:
            raise BadAnswerError(f"the answer to GET {path} is larger than {_MOST_BYTES} bytes")
        return answer.status, body.decode("utf-8", "replace")
    finally:
        connection.close()
