"""Model Kuma's MeshTimeout and MeshRetry, strictly.

Features that meshbench does not translate (timeouts and retries of routes, retries by header, other protocols than
HTTP) are untranslated, never ignored.
"""

import re
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from bench.application.manifests import Kind, Manifest, Name, Part, Text
from bench.envoy.parts import STATUS_CODES, Duration
from bench.meshes.kuma.manifests import PolicyMetadata, TargetRef
from bench.meshes.kuma.naming import ROOT_NAMESPACE

METHOD: Final = "HttpMethod"  # the start of a condition by the method of a request
CONDITIONS: Final = {
    "5xx": "5xx",
    "GatewayError": "gateway-error",
    "Reset": "reset",
    "Retriable4xx": "retriable-4xx",
    "ConnectFailure": "connect-failure",
    "EnvoyRatelimited": "envoy-ratelimited",
    "RefusedStream": "refused-stream",
    "Http3PostConnectFailure": "http3-post-connect-failure",
}

_METHODS: Final = re.compile(f"{METHOD}(Connect|Delete|Get|Head|Options|Patch|Post|Put|Trace)")


def _is_condition(value: str) -> str:
    if value not in CONDITIONS and value not in STATUS_CODES and not _METHODS.fullmatch(value):
        raise ValueError(f"{value!r} is no condition of a retry; known: {', '.join(CONDITIONS)}, {METHOD}Get, 503")
    return value


class ToRef(Part):
    """All services, or one: the name of a MeshService, or without them its service tag."""

    untranslated: ClassVar[frozenset[str]] = frozenset({"labels", "mesh", "proxyTypes", "tags"})
    other_values: ClassVar[frozenset[str]] = frozenset({"MeshExternalService", "MeshMultiZoneService"})

    kind: Literal["Mesh", "MeshService"]
    name: Text | None = None
    namespace: Name | None = None
    section_name: Literal["http"] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.kind == "MeshService") != (self.name is not None):
            raise ValueError("a MeshService has a name, and a Mesh has none")
        return self


class FromRef(Part):
    kind: Literal["Mesh"]


class HttpTimeouts(Part):
    request_timeout: Duration | None = None
    stream_idle_timeout: Duration | None = None
    max_stream_duration: Duration | None = None
    max_connection_duration: Duration | None = None
    request_headers_timeout: Duration | None = None


class TimeoutDefault(Part):
    connection_timeout: Duration | None = None
    idle_timeout: Duration | None = None
    http: HttpTimeouts = HttpTimeouts()


class TimeoutTo(Part):
    target_ref: ToRef
    default: TimeoutDefault


class TimeoutFrom(Part):
    target_ref: FromRef
    default: TimeoutDefault


class TimeoutRule(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset({"matches"})

    default: TimeoutDefault


class MeshTimeoutSpec(Part):
    target_ref: TargetRef = TargetRef(kind="Dataplane")
    to: tuple[TimeoutTo, ...] = ()
    from_: tuple[TimeoutFrom, ...] = Field(default=(), alias="from")
    rules: tuple[TimeoutRule, ...] = ()


class MeshTimeout(Manifest):
    """How long requests and connections may take: `to` is about callers, `from` and `rules` about the workload."""

    metadata: PolicyMetadata
    spec: MeshTimeoutSpec


class Backoff(Part):
    base_interval: Duration | None = None
    max_interval: Duration | None = None


class HttpRetries(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset(
        {
            "hostSelection",
            "hostSelectionMaxAttempts",
            "rateLimitedBackOff",
            "retriableRequestHeaders",
            "retriableResponseHeaders",
        }
    )

    num_retries: Annotated[int, Field(ge=0)] | None = None
    per_try_timeout: Duration | None = None
    back_off: Backoff = Backoff()
    retry_on: tuple[Annotated[Text, AfterValidator(_is_condition)], ...] = ()


class RetryDefault(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset({"grpc", "tcp"})

    http: HttpRetries


class RetryTo(Part):
    target_ref: ToRef
    default: RetryDefault


class MeshRetrySpec(Part):
    target_ref: TargetRef = TargetRef(kind="Dataplane")
    to: Annotated[tuple[RetryTo, ...], Field(min_length=1)]


class MeshRetry(Manifest):
    """When the sidecars of callers send a failed request again."""

    metadata: PolicyMetadata
    spec: MeshRetrySpec


TRAFFIC_KINDS: Final[dict[str, Kind[Any]]] = {
    model.__name__: Kind(("kuma.io/v1alpha1",), model, ROOT_NAMESPACE) for model in (MeshTimeout, MeshRetry)
}
