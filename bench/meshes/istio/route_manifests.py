"""Model Istio's routing manifests, VirtualService and DestinationRule, strictly.

Features that meshbench does not translate (rewrites, redirects, mirrors, locality) are errors with file and line, never
ignored.
"""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeVar

from pydantic import Field, model_validator

from bench.application.manifests import Kind, Manifest, Name, Part, PolicyMetadata, Port, Text
from bench.envoy.parts import Duration
from bench.files.yaml_source import Loc

MESH_GATEWAY: Final = "mesh"  # the name of all sidecars in `gateways`

# Equivalent API versions.
NETWORKING_VERSIONS: Final = tuple(f"networking.istio.io/{version}" for version in ("v1", "v1beta1", "v1alpha3"))

T = TypeVar("T")
Some = Annotated[tuple[T, ...], Field(min_length=1)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Share = Annotated[int, Field(ge=0, le=100)]
HeaderName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]


class StringMatch(Part):
    """An exact string, or a prefix."""

    untranslated: ClassVar[frozenset[str]] = frozenset({"regex"})

    exact: Text | None = None
    prefix: Text | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.exact is None) == (self.prefix is None):
            raise ValueError("must have one of exact and prefix")
        return self

    def matches(self, value: str) -> bool:
        """Return whether `value` fulfils the condition."""
        return value == self.exact if self.exact is not None else value.startswith(self.prefix or "")


class HttpMatch(Part):
    """Requests that have this path and all of these headers."""

    untranslated: ClassVar[frozenset[str]] = frozenset(
        [
            "name",
            "scheme",
            "method",
            "authority",
            "port",
            "sourceLabels",
            "gateways",
            "queryParams",
            "ignoreUriCase",
            "withoutHeaders",
            "sourceNamespace",
            "statPrefix",
        ]
    )

    uri: StringMatch | None = None
    headers: dict[HeaderName, StringMatch] = Field(default={})

    @model_validator(mode="after")
    def _check_not_empty(self) -> Self:
        if self.uri is None and not self.headers:
            raise ValueError("must name uri or headers; leave `match` out for every request")
        return self


class PortSelector(Part):
    number: Port


class Destination(Part):
    """A service, or its workloads with the labels of a subset."""

    host: Text
    subset: Name | None = None
    port: PortSelector | None = None


class RouteDestination(Part):
    """A destination, and its share of the requests; of one alone the weight has no effect."""

    untranslated: ClassVar[frozenset[str]] = frozenset({"headers"})

    destination: Destination
    weight: Annotated[int, Field(ge=0)] = 0


class HttpRetry(Part):
    """When a failed request is sent again; without attempts never."""

    untranslated: ClassVar[frozenset[str]] = frozenset({"retryRemoteLocalities"})

    attempts: Annotated[int, Field(ge=0)] = 0
    per_try_timeout: Duration | None = None
    retry_on: Text | None = None
    retry_ignore_previous_hosts: bool = True
    backoff: Duration | None = None


class Percent(Part):
    value: Annotated[float, Field(ge=0, le=100)]


class Delay(Part):
    """A share of requests that wait before they are sent on."""

    untranslated: ClassVar[frozenset[str]] = frozenset({"exponentialDelay", "percent"})

    fixed_delay: Duration
    percentage: Percent


class Abort(Part):
    """A share of requests that the caller's sidecar answers itself, with this status."""

    untranslated: ClassVar[frozenset[str]] = frozenset({"grpcStatus", "http2Error"})

    http_status: Annotated[int, Field(ge=200, le=599)]
    percentage: Percent


class Fault(Part):
    delay: Delay | None = None
    abort: Abort | None = None

    @model_validator(mode="after")
    def _check_not_empty(self) -> Self:
        if self.delay is None and self.abort is None:
            raise ValueError("must have delay or abort")
        return self


class HttpRoute(Part):
    """The destinations of requests that fulfil one of `match`; without `match`, of all requests."""

    untranslated: ClassVar[frozenset[str]] = frozenset(
        [
            "redirect",
            "directResponse",
            "delegate",
            "rewrite",
            "mirror",
            "mirrors",
            "mirrorPercentage",
            "corsPolicy",
            "headers",
        ]
    )

    name: Text | None = None
    match: tuple[HttpMatch, ...] = ()
    route: Some[RouteDestination]
    timeout: Duration | None = None
    retries: HttpRetry | None = None
    fault: Fault | None = None

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        if len(self.route) > 1 and not self.used:
            raise ValueError("one of several destinations must have a weight")
        return self

    @property
    def used(self) -> tuple[RouteDestination, ...]:
        """The destinations that get requests: of several only those with a weight."""
        return self.route if len(self.route) == 1 else tuple(one for one in self.route if one.weight)


class VirtualServiceSpec(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset({"tls", "tcp", "exportTo"})

    hosts: Some[Text]
    gateways: tuple[Text, ...] = ()
    http: Some[HttpRoute]


class VirtualService(Manifest):
    """The routes of requests to some hosts, from sidecars or through gateways."""

    metadata: PolicyMetadata
    spec: VirtualServiceSpec

    @property
    def in_sidecars(self) -> bool:
        """Return whether the mesh's sidecars use it; without gateways only sidecars do."""
        return not self.spec.gateways or MESH_GATEWAY in self.spec.gateways

    def destinations(self) -> Iterator[tuple[Loc, Destination]]:
        """Yield each destination with its position."""
        for index, route in enumerate(self.spec.http):
            for number, one in enumerate(route.route):
                yield ("spec", "http", index, "route", number, "destination"), one.destination


class TcpKeepalive(Part):
    probes: Count | None = None
    time: Duration | None = None
    interval: Duration | None = None


class TcpSettings(Part):
    max_connections: Count | None = None
    connect_timeout: Duration | None = None
    tcp_keepalive: TcpKeepalive | None = None
    max_connection_duration: Duration | None = None
    idle_timeout: Duration | None = None


class HttpSettings(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset({"h2UpgradePolicy", "maxConcurrentStreams", "useClientProtocol"})

    http1_max_pending_requests: Count | None = None
    http2_max_requests: Count | None = None
    max_requests_per_connection: Count | None = None
    max_retries: Count | None = None
    idle_timeout: Duration | None = None


class ConnectionPool(Part):
    """The limits of connections and requests to a service, for each of its callers."""

    tcp: TcpSettings = TcpSettings()
    http: HttpSettings = HttpSettings()


class OutlierDetection(Part):
    """When a workload that fails gets no requests for a while."""

    untranslated: ClassVar[frozenset[str]] = frozenset({"consecutiveErrors"})

    consecutive_5xx_errors: Annotated[int, Field(ge=0)] | None = Field(default=None, alias="consecutive5xxErrors")
    consecutive_gateway_errors: Annotated[int, Field(ge=0)] | None = None
    consecutive_local_origin_failures: Annotated[int, Field(ge=0)] | None = None
    split_external_local_origin_errors: bool = False
    interval: Duration | None = None
    base_ejection_time: Duration | None = None
    max_ejection_percent: Share | None = None
    min_health_percent: Share = 0


class ClientTls(Part):
    """Whether callers use mutual TLS; without it, wherever the callee takes it."""

    untranslated: ClassVar[frozenset[str]] = frozenset(
        {
            "caCertificates",
            "caCrl",
            "clientCertificate",
            "credentialName",
            "insecureSkipVerify",
            "privateKey",
            "sni",
            "subjectAltNames",
        }
    )

    mode: Literal["ISTIO_MUTUAL", "DISABLE"]


class LoadBalancer(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset(
        {"consistentHash", "localityLbSetting", "warmup", "warmupDurationSecs"}
    )

    simple: Literal["UNSPECIFIED", "LEAST_REQUEST", "LEAST_CONN", "RANDOM", "ROUND_ROBIN"] = "UNSPECIFIED"


class TrafficPolicy(Part):
    """How requests to a service are sent."""

    untranslated: ClassVar[frozenset[str]] = frozenset({"portLevelSettings", "proxyProtocol", "retryBudget", "tunnel"})

    tls: ClientTls | None = None
    connection_pool: ConnectionPool | None = None
    outlier_detection: OutlierDetection | None = None
    load_balancer: LoadBalancer | None = None

    def override(self, other: "TrafficPolicy | None") -> "TrafficPolicy":
        """Return the policy with the fields that another one, of a subset, has."""
        return self.model_copy(update={name: getattr(other, name) for name in other.model_fields_set} if other else {})


class Subset(Part):
    """The workloads of a host that have all of these labels."""

    name: Name
    labels: Annotated[dict[str, str], Field(min_length=1)]
    traffic_policy: TrafficPolicy | None = None


class DestinationRuleSpec(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset({"exportTo", "workloadSelector"})

    host: Text
    subsets: tuple[Subset, ...] = ()
    traffic_policy: TrafficPolicy = TrafficPolicy()

    @model_validator(mode="after")
    def _check_not_empty(self) -> Self:
        if not self.subsets and "traffic_policy" not in self.model_fields_set:
            raise ValueError("must have subsets or trafficPolicy")
        return self


class DestinationRule(Manifest):
    """The subsets of a service, and how requests to it are sent."""

    metadata: PolicyMetadata
    spec: DestinationRuleSpec


ROUTE_KINDS: Final[dict[str, Kind[Any]]] = {
    model.__name__: Kind(NETWORKING_VERSIONS, model) for model in (VirtualService, DestinationRule)
}
