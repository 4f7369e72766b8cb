"""The toy mesh's control plane: one Deployment, which is rendered without a tool."""

from collections.abc import Iterable, Mapping, Sequence

from bench.k8s.client import Cluster, Object, Ref
from bench.k8s.pod_page import fetch_page
from bench.meshes.cluster_protocol import InstallOptions, ScaleRequests, SidecarImage, SidecarSpec, Tool
from bench.meshes.rights import KEEP, Rights, make_needs
from bench.system.cancellation import CancelToken

NAME = "toy"
NAMESPACE = "toy-system"
TOOL = Tool("toyctl", ("version",), (1, 0), "https://toy.example")
SIDECAR = "toy-proxy"
GATEWAY = ""
GATEWAY_KINDS: tuple[str, ...] = ()
PODS = "app=toy"
INJECTION_LABELS: tuple[str, ...] = ("toy.example/inject",)
REVISIONS = False


def rights(revision: str = "") -> Rights:
    return Rights(run=tuple(make_needs(KEEP, "toy.example", ("toys",), "policies")))


def read_sidecar(objects: Iterable[Object]) -> SidecarSpec:
    there = any(one["kind"] == "Deployment" for one in objects)
    return SidecarSpec({"cpu": "10m", "memory": "16Mi"}, ("toy.example/proxy:1",)) if there else SidecarSpec()


def scale_sidecars(objects: Sequence[Object], _scale: ScaleRequests) -> tuple[Object, ...]:
    return tuple(objects)


def gateway_pods(_manifest: Object) -> tuple[Object, ...]:
    return ()


def find_telemetry(_objects: Sequence[Object]) -> Iterable[str]:
    return ()


def render(_options: InstallOptions) -> tuple[Object, ...]:
    template = {
        "metadata": {"labels": {"app": "toy"}},
        "spec": {"containers": [{"name": "toy", "image": "toy.example/plane:1"}]},
    }
    return (
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "toy", "namespace": NAMESPACE, "labels": {"app": "toy"}},
            "spec": {"selector": {"matchLabels": {"app": "toy"}}, "template": template},
        },
    )


def wait_ready(cluster: Cluster, *, timeout_s: float, watch: CancelToken) -> None:
    """Return at once."""


def find_installed(cluster: Cluster) -> str:
    return f"namespace {NAMESPACE}" if cluster.get(Ref("v1", "Namespace", NAMESPACE)) else ""


def find_mismatches(_cluster: Cluster, _namespace: Object) -> Sequence[str]:
    return ()


def namespace_labels(revision: str = "", run_mesh: str = "") -> Mapping[str, str]:
    return {"toy.example/inject": "enabled"}


def outside_labels() -> Mapping[str, str]:
    return {"toy.example/inject": "disabled"}


def decision_annotations() -> Mapping[str, str]:
    return {}


def pod_annotations() -> Mapping[str, str]:
    return {}


def sidecar_image(_image: str, _owner: str) -> SidecarImage | None:
    return None


def base_objects(run_mesh: str = "") -> tuple[Object, ...]:
    return ()


def list_generated(_objects: Sequence[Object]) -> tuple[Ref, ...]:
    return ()


def find_unsynced(_cluster: Cluster, _namespace: str, _pods: Sequence[str]) -> str:
    return ""


def find_unaccepted(_cluster: Cluster, _objects: Sequence[Object]) -> str:
    return ""


def admin(cluster: Cluster, pod: str, path: str, *, namespace: str) -> str:
    return fetch_page(cluster, pod, 9000, namespace=namespace, path=path, who=f"the sidecar of {pod}")


def find_leftovers(_cluster: Cluster, *, since: str) -> tuple[Object, ...]:
    return ()
