"""Asks what it is told on standard input, and tells on standard output what came back: runs inside the probe pods.

One line of JSON each way: a list of questions, a list of answers in the same order. Standard library only, since the
pods have no more. One question after another, each on a connection of its own, and none twice: asking again would
hide what a policy does.
"""

import base64
import http.client
import json
import socket
import ssl
import sys
from typing import Any, Final

TIMEOUT_S: Final = 3.0
_BODY_LIMIT: Final = 64 * 1024
_ALPN: Final = ["istio", "kuma"]  # what the client sides of sidecars offer: by it a sidecar knows one of its kind

Json = dict[str, Any]


def answer(question: Json) -> Json:
    """One request to `host`:`port`; where `tls` is set, in TLS without a certificate of our own.

    `tls` of the answer is what the handshake agreed on, also where no HTTP answer came after it.
    """
    connection = http.client.HTTPConnection(question["host"], question["port"], timeout=TIMEOUT_S)
    told: Json = {"status": 0, "headers": {}, "body": "", "tls": None, "error": "", "message": ""}
    try:
        if question["tls"]:
            connection.sock, told["tls"] = _handshake(question["host"], question["port"])
        connection.request(question["method"], question["path"], headers=question["headers"])
        came = connection.getresponse()
        told["headers"] = {name.lower(): value for name, value in came.getheaders()}
        told["body"] = base64.b64encode(_body(came)).decode()
        told["status"] = came.status  # last: an answer that broke off is none
    except (OSError, http.client.HTTPException) as error:
        told["error"], told["message"] = type(error).__name__, getattr(error, "reason", None) or str(error)
    finally:
        connection.close()
    return told


def _body(came: http.client.HTTPResponse) -> bytes:
    """The body, or as much of it as anybody looks at. Raises IncompleteRead where it broke off."""
    body = came.read(_BODY_LIMIT)
    if came.length and len(body) < _BODY_LIMIT:
        raise http.client.IncompleteRead(body, came.length)
    return body


def _handshake(host: str, port: int) -> tuple[ssl.SSLSocket, Json]:
    plain = socket.create_connection((host, port), TIMEOUT_S)
    try:
        secured = _context().wrap_socket(plain)
    except BaseException:
        plain.close()
        raise
    agreed, certificate = secured.cipher(), secured.getpeercert(binary_form=True)
    facts = {"version": secured.version() or "", "cipher": agreed[0] if agreed else ""}
    return secured, {**facts, "certificate": base64.b64encode(certificate or b"").decode()}


def _context() -> ssl.SSLContext:
    """Trusts anybody: who the server is, is looked at by whoever asked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(_ALPN)
    return context


if __name__ == "__main__":
    sys.stdout.write(json.dumps([answer(question) for question in json.loads(sys.stdin.readline())]) + "\n")
