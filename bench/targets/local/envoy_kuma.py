"""One sidecar's Envoy configuration, in the shape that Kuma's control plane gives it. Pure."""

from pathlib import Path
from typing import Any, Final

from bench.meshes.application import MESH, Service, Workload
from bench.meshes.kuma_names import inbound_tags, mesh_service_kri, service_tag, service_tags
from bench.meshes.kuma_policies import Policies
from bench.meshes.kuma_rbac import http_rbac_filters, network_rbac_filters
from bench.meshes.kuma_routing import destinations
from bench.targets.local.certificates import Certificates
from bench.targets.local.envoy_kuma_clusters import inbound_cluster, outbound_cluster
from bench.targets.local.envoy_kuma_http import inbound_manager, outbound_manager, stat_name
from bench.targets.local.envoy_kuma_tls import server_socket
from bench.targets.local.placement import Placement, WaysOut
from bench.targets.local.ports import HOST

Json = dict[str, Any]

# As Kuma's agent starts Envoy, but with two workers: Kuma gives one to each processor of the node, which two of
# a small machine also are; a fixed number keeps results of machines comparable with each other, and with Istio's.
ENVOY_OPTIONS: Final = (
    *("--concurrency", "2"),
    *("--disable-hot-restart",),  # otherwise all Envoys of a machine share one piece of memory
    *("--drain-time-s", "30"),
    *("--drain-strategy", "immediate"),
    *("--log-level", "warning"),
)
WAYS_OUT: Final[WaysOut] = "apart"

_TYPES: Final = "type.googleapis.com/envoy.extensions"
_STATS_TAGS: Final = (
    ("name", r"^grpc\.((.+)\.)"),
    ("status", r"^grpc.*streams_closed(_([0-9]+))"),
    ("kafka_name", r"^kafka(\.(\S*[0-9]))\."),
    ("kafka_type", r"^kafka\..*\.(.*?(?=_duration|$))"),
    ("worker", r"(worker_([0-9]+)\.)"),
    ("listener", r"((.+?)\.)rbac\."),
)


def sidecar_bootstrap(
    workload: Workload, *, placement: Placement, policies: Policies, certificates: Certificates, admin: Path
) -> Json:
    """See `bench.targets.local.envoy.Shape`. Every destination has a listener of its own."""
    application = placement.application
    services = sorted(application.services, key=lambda service: service.name)
    listeners = [_outbound_listener(workload, service, placement=placement, policies=policies) for service in services]
    clusters = [
        outbound_cluster(
            policies,
            workload,
            service,
            ports=[placement.inbound[one.name] for one in service.workloads],
            certificates=certificates,
        )
        for service in destinations(policies, application, workload)
    ]
    if workload.port is not None:
        listeners.append(_inbound_listener(workload, placement, policies=policies, certificates=certificates))
        clusters.append(inbound_cluster(workload, port=placement.serving[workload.name]))
    return whole_bootstrap(workload, placement, admin, listeners=listeners, clusters=clusters)


def whole_bootstrap(
    workload: Workload, placement: Placement, admin: Path, *, listeners: list[Json], clusters: list[Json]
) -> Json:
    """A proxy's configuration, with what is the same in all of Kuma's."""
    return {
        "node": _node(workload, placement),
        "admin": _admin(admin),
        "default_regex_engine": _regex_engine(),
        "layered_runtime": _runtime(),
        "stats_config": {"stats_tags": [{"tag_name": name, "regex": regex} for name, regex in _STATS_TAGS]},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    }


def _outbound_listener(workload: Workload, service: Service, *, placement: Placement, policies: Policies) -> Json:
    """What the workload sends to one service."""
    application = placement.application
    if policies.exclusive:
        tags = {"kuma.io/unified-name": mesh_service_kri(application, service)}
    else:
        tags = {"kuma.io/service": service_tag(application, service)}
    return {
        **_listener("outbound", placement.outbound[workload.name, service.name], tags),
        "filter_chains": [{"filters": [outbound_manager(policies, workload, service)]}],
    }


def _inbound_listener(
    workload: Workload, placement: Placement, *, policies: Policies, certificates: Certificates
) -> Json:
    """What reaches the workload: in plain text, or over mutual TLS with permissions."""
    application, port = placement.application, placement.inbound[workload.name]
    tags = inbound_tags(application, workload, service_tags(application, workload)[0])
    listener = _listener("inbound", port, tags)
    manager = inbound_manager(application, workload, http_rbac_filters(policies, workload))
    rbac = network_rbac_filters(policies, workload, listener=stat_name(listener["name"]))
    chain: Json = {"filters": [*rbac, manager]}
    if policies.form != "plain":
        chain["transport_socket"] = server_socket(certificates.identity(workload.account), policies.form)
    return {**listener, "enable_reuse_port": True, "filter_chains": [chain]}


def _listener(direction: str, port: int, tags: object) -> Json:
    return {
        "name": f"{direction}:{HOST}:{port}",
        "address": {"socket_address": {"address": HOST, "port_value": port}},
        "traffic_direction": direction.upper(),
        "metadata": {"filter_metadata": {"io.kuma.tags": tags}},
    }


def _node(workload: Workload, placement: Placement) -> Json:
    application = placement.application
    pod = f"{workload.app}-{workload.version}.{application.namespace}"
    return {"id": f"{MESH}.{pod}", "cluster": service_tags(application, workload)[0]}


def _admin(path: Path) -> Json:
    log = {"@type": f"{_TYPES}.access_loggers.file.v3.FileAccessLog", "path": "/dev/null"}
    return {
        "access_log": [{"name": "envoy.access_loggers.file", "typed_config": log}],
        "address": {"pipe": {"path": str(path), "mode": 0o600}},
    }


def _regex_engine() -> Json:
    return {
        "name": "envoy.regex_engines.google_re2",
        "typed_config": {"@type": f"{_TYPES}.regex_engines.v3.GoogleRE2"},
    }


def _runtime() -> Json:
    limits = {"re2.max_program_size.error_level": str(2**32 - 1), "re2.max_program_size.warn_level": 1000}
    return {"layers": [{"name": "kuma", "static_layer": limits}]}
