"""Ask Kuma's control plane what it knows of its sidecars: the objects that it keeps, and its own API.

The admin pages of sidecars come through it; directly, a sidecar
would give statistics as text and without zeros.

Envoy's admin interface is a socket inside the sidecar's container, and nothing in Kuma's image can ask there. The
control plane can, and hands out statistics, clusters and the configuration, as to `kumactl inspect dataplane`, which
would give statistics as text and without zeros. What `bench.envoy.admin` finds in them (seen with Kuma 2.14, both
sides of a hop):

- requests, by cluster: at the caller `details_NAMESPACE_svc_9080`, or `default_details_NAMESPACE_default_msvc_9080`
  where MeshServices are exclusive; at the callee `localhost:9080`. Retries and TLS are there as they come: Kuma
  selects no statistics.
- the kubelet's probes are not among them: Kuma turns them to kuma-dp, which asks the application past Envoy.
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
from bench.errors import DeployError
from bench.k8s.client import Cluster, Object, Ref, ref_of
from bench.k8s.pod_page import page_of
from bench.meshes.kuma.namespacing import API_VERSION, MESH_LABEL, mesh_label
from bench.meshes.kuma.naming import ROOT_NAMESPACE


def certificates(dump: Mapping[str, Any]) -> dict[str, Any]:
    """Whose certificates a sidecar holds, from its configuration dump. Private keys are not in one."""
    chains = [[_names(leaf)] for leaf in _leaves(dump)]
    return {"certificates": [{"cert_chain": chain} for chain in chains]}


def _leaves(dump: Mapping[str, Any]) -> Iterator[x509.Certificate]:
    for part in dump["configs"]:
        for entry in part.get("dynamic_active_secrets") or ():
            chain = entry["secret"].get("tls_certificate", {}).get("certificate_chain", {}).get("inline_bytes")
            if chain:
                yield x509.load_pem_x509_certificates(base64.b64decode(chain))[0]


def _names(leaf: x509.Certificate) -> dict[str, Any]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return {"subject_alt_names": []}
    return {"subject_alt_names": [{"uri": uri} for uri in names.get_values_for_type(x509.UniformResourceIdentifier)]}


CONTROL_PLANE: Final = "kuma-control-plane"

_API_PORT: Final = 5681
# The listener at which the control plane itself asks, in TLS of its own.
_ADMIN_LISTENER: Final = re.compile(r"listener\..*_9901\.")


def unsynced(cluster: Cluster, namespace: str, pods: Sequence[str]) -> str:
    """Which sidecars have not acknowledged what the control plane sent last, or wait for their certificates; empty
    when all have.

    No proof that a policy is in it: the control plane looks for changes once a second. A request that the policy
    decides is.
    """
    insights = cluster.list(API_VERSION, "DataplaneInsight", namespace=namespace)
    identified = _issues_certificates(cluster, mesh_of(cluster, namespace))
    services = cluster.list(API_VERSION, "MeshService", namespace=namespace) if identified else ()
    return told_unsynced(insights, services, pods, identified=identified)


def mesh_of(cluster: Cluster, namespace: str) -> str:
    """The mesh that a namespace's pods are in."""
    found = cluster.get(Ref("v1", "Namespace", namespace)) or {"metadata": {}}
    return str((found["metadata"].get("labels") or {}).get(MESH_LABEL, MESH))


def _issues_certificates(cluster: Cluster, mesh: str) -> bool:
    """Whether everybody in the mesh is to have a certificate, in either form of mutual TLS."""
    found = cluster.get(Ref(API_VERSION, "Mesh", mesh)) or {}
    builtin = ((found.get("spec") or {}).get("mtls") or {}).get("enabledBackend")
    identities = cluster.list(API_VERSION, "MeshIdentity", namespace=ROOT_NAMESPACE)
    return bool(builtin or any(mesh_label(one) == mesh for one in identities))


def told_unsynced(
    insights: Sequence[Object], services: Sequence[Object], pods: Sequence[str], *, identified: bool
) -> str:
    """The same from the control plane's objects; `identified`: everybody is to have a certificate."""
    states = {insight["metadata"]["name"]: insight.get("status") or {} for insight in insights}
    behind = (f"{pod} {why}" for pod in pods if (why := _behind(states.get(pod, {}), identified=identified)))
    plain = (f"{service['metadata']['name']} is called in plain text" for service in services if not _secured(service))
    return "; ".join((*behind, *plain))


def _behind(state: Mapping[str, Any], *, identified: bool) -> str:
    """Why a sidecar is not where the control plane wants it; empty when it is."""
    subscriptions = state.get("subscriptions") or ()
    if not subscriptions or subscriptions[-1].get("disconnectTime"):
        return "is not connected to the control plane"
    counts = subscriptions[-1].get("status") or {}
    if _number(counts.get("total"), "responsesRejected"):
        return "has refused its configuration"
    if not _number(counts.get("lds"), "responsesAcknowledged"):
        return "has no configuration"
    waiting = [kind for kind in ("cds", "eds", "lds", "rds") if _waits(counts.get(kind))]
    if waiting:
        return f"has not acknowledged {', '.join(waiting)}"
    return "has no certificate" if identified and not state.get("mTLS") else ""


def _waits(counts: Mapping[str, Any] | None) -> bool:
    """More acknowledged than sent is fine: Envoy asks again when its own needs change."""
    return _number(counts, "responsesAcknowledged") < _number(counts, "responsesSent")


def _number(counts: Mapping[str, Any] | None, key: str) -> int:
    return int((counts or {}).get(key, 0))


def _secured(service: Object) -> bool:
    """Whether callers use mutual TLS: as long as one pod has no certificate, the control plane lets nobody begin."""
    status = service.get("status") or {}
    unused = not (status.get("dataplaneProxies") or {}).get("total")
    return unused or (status.get("tls") or {}).get("status") == "Ready"


def accepted(cluster: Cluster, objects: Sequence[Object]) -> str:
    """Which identities the control plane cannot issue yet, and why; empty when it can. No other object of ours has a
    status."""
    refs = [ref_of(thing) for thing in objects if thing["kind"] == "MeshIdentity"]
    told = ((ref, unready(cluster.get(ref) or {})) for ref in refs)
    return "; ".join(f"{ref}: {why}" for ref, why in told if why)


def unready(identity: Mapping[str, Any]) -> str:
    """Why a MeshIdentity is not ready; empty when it is."""
    conditions = (identity.get("status") or {}).get("conditions") or ()
    states = {condition["type"]: condition for condition in conditions}
    if states.get("Ready", {}).get("status") == "True":
        return ""
    reasons = [one["message"] for name, one in states.items() if name != "Ready" and one["status"] != "True"]
    return " ".join(reasons) or "not looked at by the control plane"


def admin(cluster: Cluster, pod: str, path: str, *, namespace: str) -> str:
    """The answer to a GET on the admin interface of the pod's sidecar, as far as the control plane hands it out:
    /stats and /clusters as JSON, /certs, and /config_dump. Raises DeployError."""
    parts = urlsplit(path)
    query = {key: values[0] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
    place = f"/meshes/{mesh_of(cluster, namespace)}/dataplanes/{pod}.{namespace}"
    match parts.path:
        case "/stats":
            answer = _ask(cluster, f"{place}/stats?format=json&usedonly=false")
            return json.dumps(selected(json.loads(answer), query.get("filter", "")))
        case "/clusters":
            return _ask(cluster, f"{place}/clusters?format=json")
        case "/certs":
            return json.dumps(certificates(json.loads(_ask(cluster, f"{place}/xds"))))
        case "/config_dump":
            return _ask(cluster, f"{place}/xds")
    raise DeployError(f"Kuma's control plane hands out no {parts.path} of a sidecar")


def selected(stats: Mapping[str, Any], pattern: str) -> dict[str, Any]:
    """The statistics whose name has the pattern in it, as Envoy's own `filter` does; none of the control plane's own
    questions."""
    entries = (stat for stat in stats["stats"] if "name" in stat)
    return {"stats": [stat for stat in entries if _is_meant(stat["name"], pattern)]}


def _is_meant(name: str, pattern: str) -> bool:
    return re.search(pattern, name) is not None and _ADMIN_LISTENER.match(name) is None


def _ask(cluster: Cluster, path: str) -> str:
    """A page of the API of a running control plane."""
    pods = [*_running(cluster)]
    if not pods:
        raise DeployError(f"no control plane of Kuma runs in {ROOT_NAMESPACE}")
    who = "Kuma's control plane"
    return page_of(cluster, pods[0], _API_PORT, namespace=ROOT_NAMESPACE, path=path, who=who)


def _running(cluster: Cluster) -> Iterator[str]:
    for pod in cluster.list("v1", "Pod", namespace=ROOT_NAMESPACE, labels=f"app={CONTROL_PLANE}"):
        ready = [status["ready"] for status in pod.get("status", {}).get("containerStatuses") or ()]
        if ready and all(ready) and "deletionTimestamp" not in pod["metadata"]:
            yield pod["metadata"]["name"]
