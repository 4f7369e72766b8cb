"""Fetch a page from an HTTP server inside a pod, through a forwarded port."""

from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import Final

from bench.errors import BadAnswerError, DeployError
from bench.k8s.client import Cluster
from bench.k8s.retry import PAGE, retry

_TIMEOUT_S: Final = 10.0
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
    try:
        return retry(lambda: _get(port, path), PAGE, may_retry=_is_broken)
    except TimeoutError as error:
        raise DeployError(f"{who} does not answer GET {path} within {_TIMEOUT_S:.0f} s") from error
    except (OSError, HTTPException) as error:
        raise DeployError(f"{who} does not answer GET {path}: {error}") from error


def _is_broken(error: Exception) -> bool:
    """Return whether the connection broke; after a timeout, the server had accepted the request and had enough time."""
    return isinstance(error, (OSError, HTTPException)) and not isinstance(error, TimeoutError)


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
