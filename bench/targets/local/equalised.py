"""Sidecars' configuration with what a scenario sets alike in all meshes. Pure."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from bench.equal import WORKERS
from bench.settings import Equal

Json = dict[str, Any]

_TLS_VERSIONS: Final = {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"}
_CONCURRENCY: Final = "--concurrency"


def equalised(bootstrap: Json, equalise: Collection[Equal]) -> Json:
    """A sidecar's bootstrap, whichever mesh it is of, with TLS and retries as `bench.equal` says."""
    resources = bootstrap["static_resources"]
    if "retries" in equalise:
        resources = {**resources, "listeners": [_without_retries(one) for one in resources["listeners"]]}
    if "tls" in equalise:
        resources = _changed(resources, "common_tls_context", _in_one_version)
    return {**bootstrap, "static_resources": resources}


def with_workers(options: Sequence[str], equalise: Collection[Equal]) -> list[str]:
    """Envoy's options, which have a number of workers, with the common one."""
    if "workers" not in equalise:
        return list(options)
    place = options.index(_CONCURRENCY) + 1
    return [*options[:place], str(WORKERS), *options[place + 1 :]]


def _without_retries(listener: Json) -> Json:
    """What a sidecar sends to others is tried once; towards its own application nothing changes."""
    if listener["traffic_direction"] != "OUTBOUND":
        return listener
    tried_once: Json = _changed(listener, "route", lambda route: _without(route, "retry_policy"))
    return tried_once


def _without(value: Json, key: str) -> Json:
    return {name: part for name, part in value.items() if name != key}


def _in_one_version(context: Json) -> Json:
    return {**context, "tls_params": {**context.get("tls_params", {}), **_TLS_VERSIONS}}


def _changed(value: Any, key: str, change: Callable[[Json], Json]) -> Any:
    """A copy of JSON in which every object below `key` is changed."""
    if isinstance(value, dict):
        return {name: change(part) if name == key else _changed(part, key, change) for name, part in value.items()}
    return [_changed(part, key, change) for part in value] if isinstance(value, list) else value
