"""Save the last lines of pods' logs in the private folder of a trial: they are of programs of others."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from bench.errors import ClusterError
from bench.k8s.client import Cluster, Object
from bench.k8s.objects import names_of
from bench.results.store import make_file_name
from bench.system.private_files import Content, PrivateFolder
from bench.system.redaction import redact

_LINES: Final = 200


_FOLDER: Final = "services"


def save_logs(cluster: Cluster, pods: Iterable[Object], private: PrivateFolder) -> None:
    """Write a file for each container into `services/`, sidecars included, named by the workload of its pod, or by the
    pod where the workload has several; where there is no log, the file holds the reason."""
    private.keep(_read_logs(cluster, tuple(pods)))


def _read_logs(cluster: Cluster, pods: tuple[Object, ...]) -> Iterator[Content]:
    names = names_of(pods)
    for pod in pods:
        name = names[pod["metadata"]["name"]]
        is_single = list(names.values()).count(name) == 1
        for container in _lasting_containers(pod):
            text = _read_log(cluster, pod["metadata"], container)
            file = f"{name if is_single else pod['metadata']['name']}-{container}.log"
            yield Content(f"{_FOLDER}/{make_file_name(file)}", redact(text).encode("utf-8", "backslashreplace"))


def _read_log(cluster: Cluster, pod: Mapping[str, str], container: str) -> str:
    try:
        return cluster.logs(pod["name"], namespace=pod["namespace"], container=container, lines=_LINES)
    except ClusterError as error:
        return f"no log: {error}\n"


def _lasting_containers(pod: Object) -> tuple[str, ...]:
    """Return the containers that keep running; native sidecars are init containers."""
    spec: Mapping[str, list[Object]] = pod["spec"]
    native = [one for one in spec.get("initContainers") or () if one.get("restartPolicy") == "Always"]
    return tuple(one["name"] for one in (*spec["containers"], *native))
