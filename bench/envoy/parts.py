"""Build parts of an Envoy's configuration that are the same in every mesh. Pure."""

from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator

from bench.units import NANOSECONDS, parse_go_duration

Json = dict[str, Any]

TYPES: Final = "type.googleapis.com/envoy.extensions"
STATUS_CODES: Final = frozenset(str(status.value) for status in HTTPStatus)  # that a retry may name


def format_duration(text: str) -> str:
    """Return a duration of a manifest, `1m30s`, as Envoy's JSON has it: `90s`, `0.500s`. Raises ValueError."""
    whole, rest = divmod(round(parse_go_duration(text) * NANOSECONDS), NANOSECONDS)
    if not rest:
        return f"{whole}s"
    digits = f"{rest:09}"
    shortest = next(length for length in (3, 6, 9) if not digits[length:].strip("0"))
    return f"{whole}.{digits[:shortest]}s"


Duration = Annotated[str, AfterValidator(format_duration)]
"""A duration of a manifest, kept as Envoy's JSON has it."""


def admin_interface(path: Path) -> Json:
    """Build the admin interface on the Unix socket `path`, without an access log."""
    log = {"@type": f"{TYPES}.access_loggers.file.v3.FileAccessLog", "path": "/dev/null"}
    return {
        "access_log": [{"name": "envoy.access_loggers.file", "typed_config": log}],
        "address": {"pipe": {"path": str(path), "mode": 0o600}},
    }


def tls_socket(context: str, config: Json) -> Json:
    """Build the transport socket of a TLS context, `UpstreamTlsContext` or `DownstreamTlsContext`."""
    kind = f"{TYPES}.transport_sockets.tls.v3.{context}"
    return {"name": "envoy.transport_sockets.tls", "typed_config": {"@type": kind, **config}}
