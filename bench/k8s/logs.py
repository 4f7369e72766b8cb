"""Save the last lines of pods' logs in the folder of a trial."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from bench.errors import ClusterError
from bench.k8s.client import Cluster, Object
from bench.k8s.objects import names_of
from bench.results.store import make_file_name, write_text

_LINES: Final = 200


def save_logs(cluster: Cluster, pods: Iterable[Object], folder: Path) -> None:
    """Write a file for each container, sidecars included, named by the workload of its pod, or by the pod where the
    workload has several; where there is no log, the file holds the reason."""
    folder.mkdir(exist_ok=True)
    pods = tuple(pods)
    names = names_of(pods)
    for pod in pods:
        name = names[pod["metadata"]["name"]]
        is_single = list(names.values()).count(name) == 1
        for container in _lasting_containers(pod):
            text = _read_log(cluster, pod["metadata"], container)
            file = f"{name if is_single else pod['metadata']['name']}-{container}.log"
            write_text(folder / make_file_name(file), text)


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
