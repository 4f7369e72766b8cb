"""Read the state of sidecars from Kuma's control plane: from the objects that it stores, and from its API.

Envoy's admin interface is a socket inside the sidecar's container, without a client in Kuma's image. The control
plane's API has its statistics, clusters and configuration. `kumactl inspect dataplane` has them too, but its statistics
are text without zeros. What `bench.envoy.admin` finds in them (observed with Kuma 2.14, on both sides of a hop):

- requests, by cluster: at the caller `details_NAMESPACE_svc_9080`, or `default_details_NAMESPACE_default_msvc_9080`
  where MeshServices are exclusive; at the callee `localhost:9080`. Retries and TLS are complete, since Kuma selects no
  statistics.
- the kubelet's probes are not among them: Kuma sends them to kuma-dp, which bypasses Envoy.
- TLS versions and handshakes at the callee: `listener.POD-IP_9080.ssl.*`.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from cryptography import x509

from bench.application.model import MESH
from bench.errors import DeployError, reject_malformed
from bench.k8s.client import Cluster, Object, Ref, ref_of
from bench.k8s.pod_page import fetch_page
from bench.meshes.kuma.namespacing import API_VERSION, mesh_label
from bench.meshes.kuma.naming import MESH_LABEL, ROOT_NAMESPACE

CONTROL_PLANE: Final = "kuma-control-plane"

_API_PORT: Final = 5681
# The listener for the control plane's own requests, with its own TLS.
_ADMIN_LISTENER: Final = re.compile(r"listener\..*_9901\.")


def read_certificates(dump: Mapping[str, Any]) -> dict[str, Any]:
    """Return the names in a sidecar's certificates, from its configuration dump, which has no private keys."""
    chains = [[_read_names(leaf)] for leaf in _leaf_certificates(dump)]
    return {"certificates": [{"cert_chain": chain} for chain in chains]}


def _leaf_certificates(dump: Mapping[str, Any]) -> Iterator[x509.Certificate]:
    for part in dump["configs"]:
        for entry in part.get("dynamic_active_secrets") or ():
            chain = entry["secret"].get("tls_certificate", {}).get("certificate_chain", {}).get("inline_bytes")
            if chain:
                yield x509.load_pem_x509_certificates(base64.b64decode(chain))[0]


def _read_names(leaf: x509.Certificate) -> dict[str, Any]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return {"subject_alt_names": []}
    return {"subject_alt_names": [{"uri": uri} for uri in names.get_values_for_type(x509.UniformResourceIdentifier)]}


def find_unsynced(cluster: Cluster, namespace: str, pods: Sequence[str]) -> str:
    """Return which sidecars lack an acknowledgement or a certificate, as text; empty if none does.

    This does not prove that a policy is in force, since the control plane looks for changes once a second. A request
    that the policy decides proves it.
    """
    insights = cluster.list(API_VERSION, "DataplaneInsight", namespace=namespace)
    identified = _issues_certificates(cluster, mesh_of(cluster, namespace))
    services = cluster.list(API_VERSION, "MeshService", namespace=namespace) if identified else ()
    with reject_malformed("Kuma's control plane"):
        return format_unsynced(insights, services, pods, identified=identified)


def mesh_of(cluster: Cluster, namespace: str) -> str:
    """Return the mesh of a namespace's pods."""
    found = cluster.get(Ref("v1", "Namespace", namespace)) or {"metadata": {}}
    return str((found["metadata"].get("labels") or {}).get(MESH_LABEL, MESH))


def _issues_certificates(cluster: Cluster, mesh: str) -> bool:
    """Return whether all workloads of the mesh get a certificate, in either form of mutual TLS."""
    found = cluster.get(Ref(API_VERSION, "Mesh", mesh)) or {}
    builtin = ((found.get("spec") or {}).get("mtls") or {}).get("enabledBackend")
    identities = cluster.list(API_VERSION, "MeshIdentity", namespace=ROOT_NAMESPACE)
    return bool(builtin or any(mesh_label(one) == mesh for one in identities))


def format_unsynced(
    insights: Sequence[Object], services: Sequence[Object], pods: Sequence[str], *, identified: bool
) -> str:
    """Return the same text from the control plane's objects; with `identified` all sidecars need a certificate."""
    states = {insight["metadata"]["name"]: insight.get("status") or {} for insight in insights}
    behind = (f"{pod} {why}" for pod in pods if (why := _explain_unsynced(states.get(pod, {}), identified=identified)))
    plain = (f"{one['metadata']['name']} is called in plaintext" for one in services if not _is_secured(one))
    return "; ".join((*behind, *plain))


def _explain_unsynced(state: Mapping[str, Any], *, identified: bool) -> str:
    """Return why a sidecar is not in sync with the control plane; empty if it is."""
    subscriptions = state.get("subscriptions") or ()
    if not subscriptions or subscriptions[-1].get("disconnectTime"):
        return "is not connected to the control plane"
    counts = subscriptions[-1].get("status") or {}
    if _read_count(counts.get("total"), "responsesRejected"):
        return "has rejected its configuration"
    if not _read_count(counts.get("lds"), "responsesAcknowledged"):
        return "has no configuration"
    waiting = [kind for kind in ("cds", "eds", "lds", "rds") if _is_waiting(counts.get(kind))]
    if waiting:
        return f"has not acknowledged {', '.join(waiting)}"
    return "has no certificate" if identified and not state.get("mTLS") else ""


def _is_waiting(counts: Mapping[str, Any] | None) -> bool:
    """Return whether acknowledgements are missing; there can be more of them, since Envoy also sends new requests."""
    return _read_count(counts, "responsesAcknowledged") < _read_count(counts, "responsesSent")


def _read_count(counts: Mapping[str, Any] | None, key: str) -> int:
    return int((counts or {}).get(key, 0))


def _is_secured(service: Object) -> bool:
    """Return whether callers use mutual TLS, which the control plane enables once all pods have a certificate."""
    status = service.get("status") or {}
    unused = not (status.get("dataplaneProxies") or {}).get("total")
    return unused or (status.get("tls") or {}).get("status") == "Ready"


def find_unaccepted(cluster: Cluster, objects: Sequence[Object]) -> str:
    """Return which identities the control plane cannot issue yet, and why; empty if it can issue all.

    No other object of a run has a status.
    """
    refs = [ref_of(one) for one in objects if one["kind"] == "MeshIdentity"]
    found = [(ref, cluster.get(ref) or {}) for ref in refs]
    with reject_malformed("Kuma's control plane"):
        return "; ".join(f"{ref}: {why}" for ref, identity in found if (why := explain_unready(identity)))


def explain_unready(identity: Mapping[str, Any]) -> str:
    """Return why a MeshIdentity is not ready; empty if it is."""
    conditions = (identity.get("status") or {}).get("conditions") or ()
    states = {condition["type"]: condition for condition in conditions}
    if states.get("Ready", {}).get("status") == "True":
        return ""
    reasons = [one["message"] for name, one in states.items() if name != "Ready" and one["status"] != "True"]
    return " ".join(reasons) or "not yet processed by the control plane"


def admin(cluster: Cluster, pod: str, path: str, *, namespace: str) -> str:
    """Return the response to a GET on the admin interface of the pod's sidecar, through the control plane.

    It serves /stats and /clusters as JSON, /certs and /config_dump. Raises DeployError for any other page.
    """
    parts = urlsplit(path)
    query = {key: values[0] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
    base = f"/meshes/{mesh_of(cluster, namespace)}/dataplanes/{pod}.{namespace}"
    match parts.path:
        case "/stats":
            answer = _request_page(cluster, f"{base}/stats?format=json&usedonly=false")
            return json.dumps(select_stats(json.loads(answer), query.get("filter", "")))
        case "/clusters":
            return _request_page(cluster, f"{base}/clusters?format=json")
        case "/certs":
            return json.dumps(read_certificates(json.loads(_request_page(cluster, f"{base}/xds"))))
        case "/config_dump":
            return _request_page(cluster, f"{base}/xds")
    raise DeployError(f"Kuma's control plane does not serve {parts.path} of a sidecar")


def select_stats(stats: Mapping[str, Any], pattern: str) -> dict[str, Any]:
    """Select statistics whose name matches the pattern, as Envoy's own `filter` does.

    Statistics of the control plane's own requests are excluded.
    """
    entries = (stat for stat in stats["stats"] if "name" in stat)
    return {"stats": [stat for stat in entries if _is_selected(stat["name"], pattern)]}


def _is_selected(name: str, pattern: str) -> bool:
    return re.search(pattern, name) is not None and _ADMIN_LISTENER.match(name) is None


def _request_page(cluster: Cluster, path: str) -> str:
    """Return a page of the API of a running control plane. Raises DeployError without one."""
    pods = [*_list_running(cluster)]
    if not pods:
        raise DeployError(f"no control plane of Kuma runs in {ROOT_NAMESPACE}")
    who = "Kuma's control plane"
    return fetch_page(cluster, pods[0], _API_PORT, namespace=ROOT_NAMESPACE, path=path, who=who)


def _list_running(cluster: Cluster) -> Iterator[str]:
    for pod in cluster.list("v1", "Pod", namespace=ROOT_NAMESPACE, labels=f"app={CONTROL_PLANE}"):
        ready = [status["ready"] for status in pod.get("status", {}).get("containerStatuses") or ()]
        if ready and all(ready) and "deletionTimestamp" not in pod["metadata"]:
            yield pod["metadata"]["name"]
