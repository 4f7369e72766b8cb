"""Which share of others' manifests `meshbench validate --mesh` takes: samples and test data that a mesh publishes.

Fetch them first, for example the folder `samples` of istio/istio, and name it: `--samples istio=FOLDER`. With
`--context NAME` only those objects count that the API server there accepts in a dry run, where the CRDs of the mesh and
of the Gateway API are installed. Files that are no manifests, such as a chart's templates, and objects of other
projects do not count.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from bench.application.manifests import KINDS, sort_documents
from bench.errors import ClusterError, InputError
from bench.files.folders import list_manifest_files
from bench.files.objects import ManifestReader
from bench.files.yaml_source import Document
from bench.k8s.client import Cluster
from bench.k8s.kubeconfig import open_cluster
from bench.meshes import MESHES
from bench.units import format_percent
from tests.benchmarks.figure import Figure

_CLUSTER: Final = 0.98
_LOCAL: Final = 0.9  # of the objects that have listed fields alone

# The fields that one machine is to translate, by kind: all keys below `spec` of an object that counts. Keys of labels
# and headers are free.
_LISTED: Final[Mapping[str, str]] = {
    "PeerAuthentication": "selector mtls mode portLevelMtls",
    "AuthorizationPolicy": "selector action rules from source principals notPrincipals namespaces notNamespaces"
    " requestPrincipals notRequestPrincipals ipBlocks notIpBlocks to operation hosts notHosts ports notPorts methods"
    " notMethods paths notPaths when key values notValues",
    "RequestAuthentication": "selector jwtRules issuer jwks audiences forwardOriginalToken",
    "VirtualService": "hosts http match uri exact prefix regex headers name route destination host subset port number"
    " weight timeout retries attempts perTryTimeout retryOn fault delay abort fixedDelay percentage value httpStatus",
    "DestinationRule": "host subsets name labels trafficPolicy tls mode connectionPool tcp http maxConnections"
    " connectTimeout http1MaxPendingRequests http2MaxRequests maxRequestsPerConnection outlierDetection"
    " consecutive5xxErrors interval baseEjectionTime maxEjectionPercent loadBalancer simple",
    "MeshTrafficPermission": "targetRef kind name tags from default action rules allow deny allowWithShadowDeny"
    " spiffeID type value",
    "MeshTimeout": "targetRef kind name from to rules default connectionTimeout idleTimeout http requestTimeout"
    " streamIdleTimeout maxStreamDuration maxConnectionDuration requestHeadersTimeout",
    "MeshRetry": "targetRef kind name to rules default http numRetries perTryTimeout backOff baseInterval maxInterval"
    " retryOn",
}
_FREE: Final = frozenset({"matchLabels", "labels", "headers", "tags", "portLevelMtls"})


def figures(samples: Sequence[str], context: str | None) -> Iterator[Figure]:
    """Yield for each `MESH=FOLDER` the number of objects, and the shares that a cluster and this machine take."""
    with ExitStack() as stack:
        private = Path(stack.enter_context(TemporaryDirectory()))
        cluster = stack.enter_context(open_cluster(context, private_folder=private)) if context else None
        for one in samples:
            mesh, _, folder = one.partition("=")
            documents = list(_read(mesh, Path(folder)))
            yield Figure(what=f"{mesh}: objects in {folder}", value=str(len(documents)))
            if cluster is not None:
                documents = [document for document in documents if _is_accepted(cluster, document.value)]
                yield Figure(what=f"{mesh}: of them accepted by the API server", value=str(len(documents)))
            yield from _shares(mesh, documents)


def _shares(mesh: str, documents: Sequence[Document]) -> Iterator[Figure]:
    manifests, _ = sort_documents(documents, {**MESHES[mesh].policies.KINDS, **KINDS})
    local = {id(one.document) for one in manifests.sources}
    cluster = (len(local) + len(manifests.untranslated)) / len(documents)
    listed = [one for one in documents if _is_listed(one.value)]
    translated = sum(id(one) in local for one in listed) / len(listed) if listed else 0.0
    yield Figure(
        what=f"{mesh}: taken for a cluster",
        value=format_percent(cluster),
        aim=f">= {_CLUSTER:.0%}",
        met=cluster >= _CLUSTER,
    )
    yield Figure(
        what=f"{mesh}: translated for this machine, of {len(listed)} with listed fields alone",
        value=format_percent(translated),
        aim=f">= {_LOCAL:.0%}",
        met=translated >= _LOCAL,
    )
    yield Figure(what=f"{mesh}: translated for this machine, of all", value=format_percent(len(local) / len(documents)))


def _read(mesh: str, folder: Path) -> Iterator[Document]:
    """Yield the objects of Kubernetes and of the mesh."""
    reader = ManifestReader()
    for file in list_manifest_files(folder):
        try:
            documents = [MESHES[mesh].policies.convert(one) for one in reader.read(file)]
        except InputError:
            continue  # no manifest: a template, or data of a program
        yield from (one for one in documents if _is_counted(one.value, MESHES[mesh].domain))


def _is_counted(value: Any, domain: str) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
        return False
    group = str(value.get("apiVersion")).rpartition("/")[0]
    return "." not in group or group.endswith((domain, ".k8s.io"))


def _is_accepted(cluster: Cluster, value: Any) -> bool:
    """Whether a strict dry run takes the object, in a namespace that exists."""
    try:
        cluster.apply({**value, "metadata": {**value["metadata"], "namespace": "default"}}, dry_run=True)
    except (ClusterError, KeyError, TypeError):  # it has no name, or metadata of another type
        return False
    return True


def _is_listed(value: Mapping[str, Any]) -> bool:
    """Whether its kind and the fields of its spec are listed, and no label of its mesh makes it another thing."""
    listed = _LISTED.get(value["kind"])
    labels = value["metadata"].get("labels") or {}
    special = {key for key in labels if "kuma.io/" in key} - {"kuma.io/mesh"} or labels.get(
        "kuma.io/mesh", "default"
    ) != "default"
    return listed is not None and not special and set(_keys(value.get("spec"))) <= set(listed.split())


def _keys(value: object) -> Iterator[str]:
    """Yield the keys of all mappings, but those that a user chooses."""
    for key, item in value.items() if isinstance(value, dict) else ():
        yield key
        yield from () if key in _FREE else _keys(item)
    for item in value if isinstance(value, list) else ():
        yield from _keys(item)
