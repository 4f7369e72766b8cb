"""A page of something that serves HTTP inside a pod, through a forwarded port."""

from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import Final

from bench.errors import DeployError
from bench.targets.kubernetes.client import Cluster

_TIMEOUT_S: Final = 10.0


def page_of(cluster: Cluster, pod: str, port: int, *, namespace: str, path: str, who: str) -> str:
    """The answer to a GET on a port of the pod. Raises DeployError where there is none, or not a good one; `who` is
    what its message calls the one that was asked."""
    with cluster.forward(pod, port, namespace=namespace) as local_port:
        connection = HTTPConnection("127.0.0.1", local_port, timeout=_TIMEOUT_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            status, body = answer.status, answer.read().decode("utf-8")
        except (OSError, HTTPException) as error:
            raise DeployError(f"{who} does not answer GET {path}: {error}") from error
        finally:
            connection.close()
    if status != HTTPStatus.OK:
        raise DeployError(f"{who} answers GET {path} with {status}: {body[:200]}")
    return body
