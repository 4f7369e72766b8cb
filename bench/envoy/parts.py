"""Build parts of an Envoy's configuration that are the same in every mesh. Pure."""

from pathlib import Path
from typing import Any, Final

Json = dict[str, Any]

TYPES: Final = "type.googleapis.com/envoy.extensions"


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
