"""Read Kuma's gateways: their ports and routes.

The control plane creates the pods of the built-in gateway. The delegated gateway is any proxy whose pod has a sidecar
for its outgoing requests.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from bench.application.manifests import Kind, Manifest, Source, select_kind
from bench.application.model import GATEWAY, Application, Gateway, PathRoute, Service, Workload
from bench.envoy.static_gateway import ConfigMapManifest, ProxyConfiguration, read_proxy_configuration
from bench.errors import InputError, Problem
from bench.files.yaml_source import Loc, format_suggestion
from bench.meshes.gateway_objects import CORE_KINDS, GatewayDeployment, account_problems, find_proxies, proxy_problems
from bench.meshes.kuma.gateway_manifests import (
    BUILTIN_KINDS,
    MeshGateway,
    MeshGatewayInstance,
    MeshGatewayRoute,
    RouteRule,
)
from bench.meshes.kuma.manifests import Mesh
from bench.meshes.kuma.naming import DOMAIN, service_tag

# The setting of a delegated gateway's pod, whose incoming requests bypass the sidecar.
DELEGATED: Final[Mapping[str, str]] = {"kuma.io/gateway": "enabled"}
GATEWAY_KINDS: Final[dict[str, Kind[Any]]] = {
    **BUILTIN_KINDS,
    **CORE_KINDS,
    "ConfigMap": Kind(("v1",), ConfigMapManifest),
}
_MODELS: Final = tuple(kind.model for kind in GATEWAY_KINDS.values())
_BUILTIN: Final = tuple(kind.model for kind in BUILTIN_KINDS.values())


def find_gateway(sources: Sequence[Source[Any]], application: Application) -> Gateway | None:
    """Return the gateway among a configuration's manifests, or None without one.

    Raises InputError with all problems: missing or mismatched parts, and routes to unknown services.
    """
    own = [source for source in sources if is_gateway_part(source.manifest)]
    if not own:
        return None
    builtin = [source for source in own if isinstance(source.manifest, _BUILTIN)]
    deployments = select_kind(own, GatewayDeployment)
    if builtin and deployments:
        message = "a configuration has one gateway: a built-in one, or a delegated one"
        raise InputError([deployments[0].problem(("metadata", "name"), message)])
    return _builtin_gateway(sources, application) if builtin else _delegated_gateway(own, application)


def is_gateway_part(manifest: Manifest) -> bool:
    """Return whether a manifest is of the gateway, not of the sidecars."""
    return isinstance(manifest, _MODELS)


# --- built-in ------------------------------------------------------------------------------------------------


def _builtin_gateway(sources: Sequence[Source[Any]], application: Application) -> Gateway:
    problems = [*_builtin_problems(sources, application)]
    if problems:
        raise InputError(problems)
    (instance,), (gateway,) = select_kind(sources, MeshGatewayInstance), select_kind(sources, MeshGateway)
    template, port = instance.manifest.spec.pod_template, gateway.manifest.spec.conf.listeners[0].port
    labels = template.metadata.labels
    workload = Workload(GATEWAY, labels["version"], template.spec.service_account_name, labels, port)
    rules = [rule for source in select_kind(sources, MeshGatewayRoute) for rule in source.manifest.spec.conf.http.rules]
    routes = tuple(route for rule in rules for route in _read_routes(rule, application))
    return Gateway(Service(instance.manifest.metadata.name, (port,), (workload,)), routes)


def _read_routes(rule: RouteRule, application: Application) -> Iterator[PathRoute]:
    """Yield the routes of a rule; a prefix matches whole parts of a path."""
    services = {service_tag(application, service): service for service in application.services}
    for match in rule.matches:
        kind: Literal["exact", "parts"] = "exact" if match.path.match == "EXACT" else "parts"
        yield PathRoute(kind, match.path.value, services[rule.backends[0].destination.service])


def _builtin_problems(sources: Sequence[Source[Any]], application: Application) -> Iterator[Problem]:
    for model in (MeshGateway, MeshGatewayInstance):
        for extra in select_kind(sources, model)[1:]:
            yield extra.problem(("metadata", "name"), f"a configuration has one {model.__name__}")
    for instance in select_kind(sources, MeshGatewayInstance):
        yield from _instance_problems(instance, sources)
    tags = [_tag(one.manifest, application) for one in select_kind(sources, MeshGatewayInstance)]
    for gateway in select_kind(sources, MeshGateway):
        yield from _selector_problems(gateway, tags, "no MeshGatewayInstance is of")
        if not select_kind(sources, MeshGatewayRoute):
            yield gateway.problem(("metadata", "name"), "no MeshGatewayRoute: it would answer 404 to all")
    opened = [one.manifest.spec.selectors[0].match.service for one in select_kind(sources, MeshGateway)]
    for route in select_kind(sources, MeshGatewayRoute):
        yield from _selector_problems(route, opened, "no MeshGateway is for")
        yield from _destination_problems(route, application)
    for mesh in select_kind(sources, Mesh):
        if mesh.manifest.spec.mesh_services.mode == "Exclusive":
            loc: Loc = ("spec", "meshServices", "mode")
            yield mesh.problem(loc, "a MeshGatewayRoute is translated with meshServices.mode Disabled only")


def _tag(instance: MeshGatewayInstance, application: Application) -> str:
    """Return the service tag that the control plane derives from name and namespace."""
    return f"{instance.metadata.name}_{application.namespace}_svc"


def _instance_problems(source: Source[MeshGatewayInstance], sources: Sequence[Source[Any]]) -> Iterator[Problem]:
    pod = source.manifest.spec.pod_template
    yield from account_problems(source, "podTemplate", pod.spec.service_account_name, sources)
    if pod.metadata.mesh_settings(DOMAIN):
        yield source.problem(("spec", "podTemplate", "metadata"), "must have no settings of the mesh")
    if not select_kind(sources, MeshGateway):
        yield source.problem(("metadata", "name"), "no MeshGateway opens a port of these pods")


def _selector_problems(
    source: Source[MeshGateway] | Source[MeshGatewayRoute], known: Sequence[str], lacking: str
) -> Iterator[Problem]:
    name = source.manifest.spec.selectors[0].match.service
    if name not in known:
        loc = ("spec", "selectors", 0, "match", "kuma.io/service")
        yield source.problem(loc, f"{lacking} {name!r}{format_suggestion(name, known)}")


def _destination_problems(source: Source[MeshGatewayRoute], application: Application) -> Iterator[Problem]:
    known = [service_tag(application, service) for service in application.services]
    for index, rule in enumerate(source.manifest.spec.conf.http.rules):
        name = rule.backends[0].destination.service
        if name not in known:
            loc = ("spec", "conf", "http", "rules", index, "backends", 0, "destination", "kuma.io/service")
            yield source.problem(loc, f"there is no service {name!r}{format_suggestion(name, known)}")


# --- delegated -----------------------------------------------------------------------------------------------


def _delegated_gateway(own: Sequence[Source[Any]], application: Application) -> Gateway:
    configuration = read_proxy_configuration(select_kind(own, ConfigMapManifest))
    problems = [*proxy_problems(own, DELEGATED, domain=DOMAIN), *_proxy_problems(own, configuration, application)]
    if problems or configuration is None:
        raise InputError(problems)
    (proxy,) = find_proxies(own)
    # No port: incoming requests bypass the sidecar.
    labels, account = proxy.labels, proxy.workload.account
    workload = Workload(GATEWAY, labels["version"], account, labels)
    service = Service(proxy.service.manifest.metadata.name, (proxy.port.port,), (workload,))
    return Gateway(service, configuration.routes(application), configuration.value, _envoy_options(proxy.deployment))


def _envoy_options(source: Source[GatewayDeployment]) -> tuple[str, ...]:
    """Return Envoy's options without the file of its configuration; none if it is not started with --config-path."""
    args = source.manifest.pod.spec.containers[0].args
    return tuple(map(str, args[2:])) if isinstance(args, list) and args[:1] == ["--config-path"] else ()


def _proxy_problems(
    own: Sequence[Source[Any]], configuration: ProxyConfiguration | None, application: Application
) -> Iterator[Problem]:
    proxies = find_proxies(own)
    if configuration is None:
        yield own[0].problem((), "the gateway has no ConfigMap with Envoy's configuration in envoy.yaml")
    elif proxies:
        yield from configuration.problems(application, proxies[0].container_port)
    for deployment in select_kind(own, GatewayDeployment):
        if "--concurrency" not in _envoy_options(deployment):
            loc = ("spec", "template", "spec", "containers", 0, "args")
            yield deployment.problem(loc, "must begin with --config-path and its file, and have --concurrency")
    if not select_kind(own, GatewayDeployment):
        yield own[0].problem((), "the gateway has no Deployment")
