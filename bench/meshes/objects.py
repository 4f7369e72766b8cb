"""The core Kubernetes objects of an application, as far as processes on one machine can stand for them.

Fields of type Any mean something to a cluster only (images, resources, probes, volumes): they are known by
name, so that a misspelt one is found, and left to the cluster.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal

from pydantic import Field, model_validator

from bench.meshes.manifests import Kind, Manifest, Metadata, Name, Part, Port, Text

_SIDECAR_KEYS: Final = ("istio.io/", "kuma.io/")


class ServicePort(Part):
    """One port of a Service; without a declared protocol a mesh may take HTTP for TCP."""

    name: Text | None = None
    port: Port
    target_port: Port | None = None
    app_protocol: Literal["http"] | None = None
    protocol: Literal["TCP"] = "TCP"


class ServiceSpec(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset({"clusterIP", "externalName", "externalIPs", "sessionAffinity"})

    ports: tuple[ServicePort]
    selector: dict[str, str]
    type: Literal["ClusterIP"] = "ClusterIP"


class ServiceManifest(Manifest):
    metadata: Metadata
    spec: ServiceSpec


class ServiceAccountManifest(Manifest):
    metadata: Metadata
    automount_service_account_token: bool = False


class ContainerPort(Part):
    container_port: Port
    name: Text | None = None
    protocol: Literal["TCP"] = "TCP"


class Container(Part):
    """The one container of a pod, with the one port that it serves."""

    name: Name
    image: Text
    ports: tuple[ContainerPort]
    image_pull_policy: Any = None
    command: Any = None
    args: Any = None
    env: Any = None
    resources: Any = None
    security_context: Any = None
    volume_mounts: Any = None
    startup_probe: Any = None
    readiness_probe: Any = None
    liveness_probe: Any = None
    lifecycle: Any = None


class PodMetadata(Part):
    """Labels and annotations of a pod; those that would change its sidecar are refused.

    `app` and `version` name the workload, here as in a mesh's telemetry.
    """

    labels: dict[str, str]
    annotations: dict[str, str] = Field(default={})

    @model_validator(mode="after")
    def _check(self) -> "PodMetadata":
        for key in (*self.labels, *self.annotations):
            if any(domain in key for domain in _SIDECAR_KEYS):
                raise ValueError(f"{key} changes the sidecar; meshbench does not translate it")
        missing = {"app", "version"} - self.labels.keys()
        if missing:
            raise ValueError(f"lacks the label {' and '.join(sorted(missing))}")
        return self


class PodSpec(Part):
    containers: tuple[Container]
    service_account_name: Name
    security_context: Any = None
    volumes: Any = None
    affinity: Any = None
    topology_spread_constraints: Any = None
    termination_grace_period_seconds: Any = None
    automount_service_account_token: Any = None
    enable_service_links: Any = None


class Template(Part):
    metadata: PodMetadata
    spec: PodSpec


class LabelSelector(Part):
    """The labels that must all be there; expressions are not translated."""

    untranslated: ClassVar[frozenset[str]] = frozenset({"matchExpressions"})

    match_labels: dict[str, str]

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is meant."""
        return self.match_labels.items() <= labels.items()


class DeploymentSpec(Part):
    replicas: Literal[1] = 1  # the local target runs one process of each
    selector: LabelSelector
    template: Template
    strategy: Any = None
    revision_history_limit: Any = None
    progress_deadline_seconds: Any = None
    min_ready_seconds: Any = None


class DeploymentManifest(Manifest):
    metadata: Metadata
    spec: DeploymentSpec


KINDS: Final[dict[str, Kind[Any]]] = {
    "Service": Kind(("v1",), ServiceManifest),
    "ServiceAccount": Kind(("v1",), ServiceAccountManifest),
    "Deployment": Kind(("apps/v1",), DeploymentManifest),
}
