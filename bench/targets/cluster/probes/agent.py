"""The probe agent: reads questions on standard input and writes the answers to standard output, inside a probe pod.

One line of JSON each way: a list of questions, a list of answers in the same order. Standard library only, since the
pods have no more. Questions are sent one after another, each on a connection of its own, and none twice: a retry would
hide what a policy does.
"""

import base64
import http.client
import json
import socket
import ssl
import sys
from typing import Any, Final
from urllib.parse import urlencode

TIMEOUT_S: Final = 3.0
_BODY_LIMIT: Final = 64 * 1024

Json = dict[str, Any]

_NOTHING: Final[Json] = {"status": 0, "headers": {}, "body": "", "tls": None, "error": "", "message": ""}


def answer(question: Json) -> Json:
    """Send one request to `host`:`port` and return its answer; where `tls` is set, in TLS without a certificate of our
    own, offering the protocols `alpn`: by them a sidecar recognises another.

    `tls` of the answer is what the handshake agreed on, also where no HTTP answer came after it.
    """
    connection = http.client.HTTPConnection(question["host"], question["port"], timeout=TIMEOUT_S)
    result: Json = dict(_NOTHING)
    try:
        if question["tls"]:
            connection.sock, result["tls"] = _handshake(question)
        connection.request(question["method"], question["path"], headers=question["headers"])
        response = connection.getresponse()
        result["headers"] = {name.lower(): value for name, value in response.getheaders()}
        result["body"] = base64.b64encode(_body(response)).decode()
        result["status"] = response.status  # last: an answer that broke off is none
    except (OSError, http.client.HTTPException) as error:
        result["error"], result["message"] = type(error).__name__, getattr(error, "reason", None) or str(error)
    finally:
        connection.close()
    return result


def pages(question: Json) -> Json:
    """Request `times` pages on one connection, after a `login` if there is one; return each different answer once, with
    its `count`. Where the login or the connection fails, the last answer holds the reason."""
    connection = http.client.HTTPConnection(question["host"], question["port"], timeout=TIMEOUT_S)
    headers, counted = dict(question["headers"]), dict[tuple[int, bytes], int]()
    try:
        if question["login"]:
            headers["Cookie"] = _log_in(connection, question["login"], headers)
        for _ in range(question["times"]):
            connection.request("GET", question["path"], headers=headers)
            response = connection.getresponse()
            key = (response.status, _body(response))
            counted[key] = counted.get(key, 0) + 1
    except (OSError, http.client.HTTPException) as error:
        broken = [{**_NOTHING, "count": 1, "error": type(error).__name__, "message": str(error)}]
    else:
        broken = []
    finally:
        connection.close()
    received = [
        {**_NOTHING, "status": status, "body": base64.b64encode(body).decode(), "count": count}
        for (status, body), count in counted.items()
    ]
    return {"answers": [*received, *broken]}


def _log_in(connection: http.client.HTTPConnection, login: Json, headers: Json) -> str:
    """Send the `form` of a login, and return the cookie of the session. Raises HTTPException where there is none."""
    form = {**headers, "Content-Type": "application/x-www-form-urlencoded"}
    connection.request("POST", login["path"], body=urlencode(login["form"]), headers=form)
    response = connection.getresponse()
    response.read()
    cookie = response.getheader("Set-Cookie", "").partition(";")[0]
    if not cookie.startswith(f"{login['cookie']}="):
        raise http.client.HTTPException(f"the login as {login['user']} was answered with {response.status}")
    return cookie


def _body(response: http.client.HTTPResponse) -> bytes:
    """Return the body, or as much of it as is used. Raises IncompleteRead where it broke off."""
    body = response.read(_BODY_LIMIT)
    if response.length and len(body) < _BODY_LIMIT:
        raise http.client.IncompleteRead(body, response.length)
    return body


def _handshake(question: Json) -> tuple[ssl.SSLSocket, Json]:
    plain = socket.create_connection((question["host"], question["port"]), TIMEOUT_S)
    try:
        secured = _context(question["alpn"]).wrap_socket(plain)
    except BaseException:
        plain.close()
        raise
    agreed, certificate = secured.cipher(), secured.getpeercert(binary_form=True)
    facts = {"version": secured.version() or "", "cipher": agreed[0] if agreed else ""}
    return secured, {**facts, "certificate": base64.b64encode(certificate or b"").decode()}


def _context(alpn: list[str]) -> ssl.SSLContext:
    """Make a TLS context that trusts every server: the prober checks the certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(alpn)
    return context


if __name__ == "__main__":
    questions = json.loads(sys.stdin.readline())
    answers = [pages(question) if question.get("times") else answer(question) for question in questions]
    sys.stdout.write(json.dumps(answers) + "\n")
