"""Sidecars' configuration with what a scenario sets alike in all meshes. Pure."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from bench.equal import WORKERS
from bench.settings import Equal

Json = dict[str, Any]

_TLS_VERSIONS: Final = {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"}
_CONCURRENCY: Final = "--concurrency"


def equalised(bootstrap: Json, equalise: Collection[Equal], *, own: str) -> Json:
    """The bootstrap of a sidecar or gateway, whichever mesh it is of, with TLS and retries as `bench.equal` says; `own`
    is the cluster of the sidecar's own application."""
    resources = bootstrap["static_resources"]
    if "retries" in equalise:
        resources = _changed(resources, "route", lambda route: _tried_once(route, own=own))
    if "tls" in equalise:
        resources = _changed(resources, "common_tls_context", _in_one_version)
    return {**bootstrap, "static_resources": resources}


def with_workers(options: Sequence[str], equalise: Collection[Equal]) -> list[str]:
    """Envoy's options, which have a number of workers, with the common one."""
    if "workers" not in equalise:
        return list(options)
    place = options.index(_CONCURRENCY) + 1
    return [*options[:place], str(WORKERS), *options[place + 1 :]]


def _tried_once(route: Json, *, own: str) -> Json:
    """What a sidecar sends to others is; towards its own application nothing changes."""
    if route.get("cluster") == own:
        return route
    return {name: part for name, part in route.items() if name != "retry_policy"}


def _in_one_version(context: Json) -> Json:
    return {**context, "tls_params": {**context.get("tls_params", {}), **_TLS_VERSIONS}}


def _changed(value: Any, key: str, change: Callable[[Json], Json]) -> Any:
    """A copy of JSON in which every object below `key` is changed."""
    if isinstance(value, dict):
        return {name: change(part) if name == key else _changed(part, key, change) for name, part in value.items()}
    return [_changed(part, key, change) for part in value] if isinstance(value, list) else value
