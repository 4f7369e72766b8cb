"""Send single HTTP requests on loopback, in plaintext or with mutual TLS, and product pages as a browser does."""

import http.client
import json
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from bench.application.bookinfo.login import COOKIE
from bench.envoy.certificates import Identity
from bench.verification.questions import Answer, Handshake, format_error

TIMEOUT_S = 10.0
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def call(
    port: int,
    method: str,
    path: str,
    *,
    host: str,
    identity: Identity | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send one request on a new connection to 127.0.0.1:`port`, with `host` as Host header."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        handshake = _connect(connection, port, identity)
        connection.request(method, path, headers={"Host": host, **(headers or {})})
        answer = connection.getresponse()
        lowered = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, answer.read(), lowered, handshake)
    except (OSError, http.client.HTTPException) as error:
        return Answer(0, b"", {}, refused=format_error(type(error).__name__, str(error), timeout_s=TIMEOUT_S))
    finally:
        connection.close()


def query_admin(path: Path, query: str) -> str:
    """Return the response of Envoy's admin interface on the Unix socket `path` to `query`. Raises OSError."""
    connection = http.client.HTTPConnection("localhost", timeout=TIMEOUT_S)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.sock.settimeout(TIMEOUT_S)
        connection.sock.connect(str(path))
        connection.request("GET", query)
        return connection.getresponse().read().decode("utf-8")
    finally:
        connection.close()


def query_admin_json(path: Path, query: str) -> Any:
    """Return the parsed response of Envoy's admin interface. Raises OSError or ValueError."""
    return json.loads(query_admin(path, query))


def _connect(connection: http.client.HTTPConnection, port: int, identity: Identity | None) -> Handshake | None:
    if identity is None:
        return None
    plain = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
    try:
        secured = _make_context(identity).wrap_socket(plain)
    except BaseException:
        plain.close()
        raise
    connection.sock = secured
    agreed = secured.cipher()
    names = (secured.getpeercert() or {}).get("subjectAltName", ())
    peer = next((str(name[1]) for name in names if name[0] == "URI"), "")
    return Handshake(secured.version() or "", agreed[0] if agreed else "", identity.spiffe_id, peer)


def _make_context(identity: Identity) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # SPIFFE ids are URIs, not host names: the caller compares them
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(identity.roots)
    context.load_cert_chain(identity.certificate, identity.key)
    context.maximum_version = ssl.TLSVersion[identity.tls.replace(".", "_")]
    context.set_alpn_protocols([identity.alpn])
    return context


def request_pages(port: int, *, host: str, user: str, count: int) -> tuple[Answer, ...]:
    """Request `count` pages at 127.0.0.1:`port`, logged in as `user`, or not logged in with an empty name.

    Returns fewer answers, the last one with the reason, where the login or the connection failed.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    answers: list[Answer] = []
    headers = {"Host": host}
    try:
        if user:
            login = _log_in(connection, user, headers)
            if COOKIE not in login.headers.get("set-cookie", ""):
                return (login,)
            headers["Cookie"] = login.headers["set-cookie"].partition(";")[0]
        for _ in range(count):
            connection.request("GET", "/productpage", headers=headers)
            answers.append(_read_answer(connection))
    except (OSError, http.client.HTTPException) as error:
        answers.append(Answer(0, b"", {}, refused=format_error(type(error).__name__, str(error), timeout_s=TIMEOUT_S)))
    finally:
        connection.close()
    return tuple(answers)


def _log_in(connection: http.client.HTTPConnection, user: str, headers: Mapping[str, str]) -> Answer:
    """Log in to Bookinfo, which accepts any password."""
    connection.request("POST", "/login", body=urlencode({"username": user, "passwd": ""}), headers={**headers, **_FORM})
    return _read_answer(connection)


def _read_answer(connection: http.client.HTTPConnection) -> Answer:
    answer = connection.getresponse()
    return Answer(answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()})
