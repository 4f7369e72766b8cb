"""The command line's options for a cluster: one table, by the fields of `ClusterOptions`, from which the command line
and its messages are made."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal


@dataclass(frozen=True, slots=True)
class Flag:
    """One option: its text, help, what stands for its value, and what that is. The value of a secret may be in this
    `variable` of the environment instead, since others see the processes of a machine."""

    text: str
    help: str
    value: str = ""
    kind: Literal["text", "switch", "list", "port"] = "text"
    variable: str = ""


CLUSTER_FLAGS: Final[Mapping[str, Flag]] = {
    "context": Flag("--context", "Use this cluster: a context of the kubeconfig.", "NAME"),
    "agreed": Flag("--yes", "Do not ask before changing the cluster.", kind="switch"),
    "yes_this_cluster": Flag("--yes-this-cluster", "Confirm a cluster that looks like production.", "NAME"),
    "images": Flag("--image", "Image of a workload, or of the load. Repeatable.", "NAME=REF", "list"),
    "registry": Flag("--registry", "Pull application and load from this registry.", "MIRROR"),
    "mesh_values": Flag("--mesh-values", "Values on top of meshbench's. Repeatable.", "[MESH=]FILE", "list"),
    "hub": Flag("--mesh-hub", "Registry of the mesh's images.", "HUB"),
    "tag": Flag("--mesh-tag", "Version of the mesh's images.", "TAG"),
    "revision": Flag("--mesh-revision", "Revision of the control plane, of a mesh that has revisions.", "REV"),
    "existing_mesh": Flag(
        "--use-existing-mesh", "Measure the mesh that is installed, and do not change it.", kind="switch"
    ),
    "scale_requests": Flag(
        "--scale-requests", "Scale what pods request of CPU and memory, so that more fit. Limits stay.", "25%"
    ),
    "load_selector": Flag(
        "--load-node", "Run the load on nodes with this label; a taint of the same name is tolerated.", "LABEL=VALUE"
    ),
    "keep": Flag("--keep", "Keep meshes, and a failed trial, for inspection.", kind="switch"),
    "locust_ui": Flag("--locust-ui", "Serve Locust's web page on this local port.", "PORT", "port"),
    "prometheus": Flag(
        "--prometheus",
        "Read CPU and memory from this Prometheus.",
        "URL|NS/SERVICE:PORT",
        variable="MESHBENCH_PROMETHEUS",
    ),
}

Given = Mapping[str, Any]
"""The options that a user gave, by their names in the table, as the command line parsed them."""
