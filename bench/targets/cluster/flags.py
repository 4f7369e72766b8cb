"""The command line's options for a cluster, unchecked; `bench.targets.cluster.options` checks them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFlags:
    """One field for each option; `context` None stands for this machine."""

    context: str | None
    yes: bool
    yes_this_cluster: str | None
    image: tuple[str, ...]
    registry: str
    mesh_values: tuple[str, ...]
    mesh_hub: str
    mesh_tag: str
    mesh_revision: str
    use_existing_mesh: bool
    keep: bool
    locust_ui: int | None
    prometheus: str
