"""The port of this machine at which Locust's web page is to be seen, tried before anything is made."""

import socket
from typing import Final

from bench.findings import CheckResult

_WHAT: Final = "Locust's page"


def examine_own_port(port: int) -> CheckResult:
    """Whether `--locust-ui PORT` could listen there now; each load would only find out after a mesh was installed."""
    place = f"port {port} of this machine"
    try:
        _listen(port)
    except OSError as error:
        hint = f"another --locust-ui PORT, or end what has this one: ss -ltnp 'sport = :{port}'"
        return CheckResult(_WHAT, "error", f"{place}: {error.strerror}", hint)
    return CheckResult(_WHAT, "ok", f"{place} is free")


def _listen(port: int) -> None:
    """As the forwarded port will: one whose last connections have only just ended is free."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", port))
        held.listen()
