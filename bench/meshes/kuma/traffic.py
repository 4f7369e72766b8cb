"""Merge Kuma's timeouts and retries: its default policies, then those of a configuration, field by field. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from bench.application.model import Service, Workload
from bench.meshes.kuma.naming import service_tag
from bench.meshes.kuma.policies import Policies
from bench.meshes.kuma.traffic_manifests import CONDITIONS, METHOD, HttpRetries, TimeoutDefault, ToRef

_BY_STATUS: Final = "retriable-status-codes"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Timeouts as Envoy has them; those of its first four fields differ by direction."""

    connect: str
    idle: str
    request: str
    stream_idle: str
    max_stream: str = "0s"
    max_connection: str = "0s"
    request_headers: str = "0s"


OUTBOUND: Final = Timeouts(connect="5s", idle="3600s", request="15s", stream_idle="1800s")
INBOUND: Final = Timeouts(connect="10s", idle="7200s", request="0s", stream_idle="3600s")


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and when a request is sent again; by default as Kuma's default policy says."""

    number: int = 5
    per_try_timeout: str = "16s"
    base_interval: str = "0.025s"
    max_interval: str = "0.250s"
    conditions: tuple[str, ...] = ("gateway-error", "connect-failure", "refused-stream")
    codes: tuple[int, ...] = ()
    methods: tuple[str, ...] = ()


def outbound_timeouts(policies: Policies, caller: Workload, service: Service) -> Timeouts:
    """Return the timeouts of requests from a caller to a service."""
    ordered = sorted(policies.timeouts, key=policies.rank)
    found = (one for policy in ordered if policies.applies(policy, caller) for one in policy.spec.to)
    return _merge_timeouts(
        OUTBOUND, (one.default for one in found if is_to(one.target_ref, service, policies=policies))
    )


def inbound_timeouts(policies: Policies, workload: Workload) -> Timeouts:
    """Return the timeouts of requests that a workload's sidecar passes to it."""
    timeouts = INBOUND
    for policy in sorted(policies.timeouts, key=policies.rank):
        if policies.applies(policy, workload):
            timeouts = _merge_timeouts(timeouts, (one.default for one in policy.spec.from_))
            timeouts = _merge_timeouts(timeouts, (one.default for one in policy.spec.rules))
    return timeouts


def find_retry(policies: Policies, caller: Workload, service: Service) -> Retry:
    """Return the retries of requests from a caller to a service."""
    retry = Retry()
    for policy in sorted(policies.retries, key=policies.rank):
        for one in policy.spec.to if policies.applies(policy, caller) else ():
            if is_to(one.target_ref, service, policies=policies):
                retry = replace(retry, **dict(_list_changes(one.default.http)))
    return retry


def is_to(reference: ToRef, service: Service, *, policies: Policies) -> bool:
    """Return whether a policy that has the reference is about requests to a service."""
    if reference.kind == "Mesh":
        return True
    if not policies.exclusive:
        return reference.name == service_tag(policies.application, service)
    home = policies.application.namespace_of(service.workload)
    return reference.name == service.name and reference.namespace in (None, home)


def _merge_timeouts(base: Timeouts, defaults: Iterable[TimeoutDefault]) -> Timeouts:
    for one in defaults:
        given = {
            "connect": one.connection_timeout,
            "idle": one.idle_timeout,
            "request": one.http.request_timeout,
            "stream_idle": one.http.stream_idle_timeout,
            "max_stream": one.http.max_stream_duration,
            "max_connection": one.http.max_connection_duration,
            "request_headers": one.http.request_headers_timeout,
        }
        base = replace(base, **{name: value for name, value in given.items() if value is not None})
    return base


def _list_changes(http: HttpRetries) -> Iterator[tuple[str, Any]]:
    """Yield the fields of Retry that a policy changes."""
    given = {
        "number": http.num_retries,
        "per_try_timeout": http.per_try_timeout,
        "base_interval": http.back_off.base_interval,
        "max_interval": http.back_off.max_interval,
    }
    yield from ((name, value) for name, value in given.items() if value is not None)
    if http.retry_on:
        codes = tuple(int(one) for one in http.retry_on if one.isdecimal())
        methods = tuple(one.removeprefix(METHOD).upper() for one in http.retry_on if one.startswith(METHOD))
        named = tuple(CONDITIONS[one] for one in http.retry_on if one in CONDITIONS) or Retry().conditions
        yield "conditions", (*named, *((_BY_STATUS,) if codes else ()))
        yield from {"codes": codes, "methods": methods}.items()
