"""HTTP for the services: responses, forwarded headers, and calls to other services."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, web

from bench.application.bookinfo.settings import Peer


def json_response(data: Any, *, status: int = 200, compact: bool = False) -> web.Response:
    """Return JSON without a charset in its content type; `compact` leaves out blanks, as Ruby and Node do."""
    text = json.dumps(data, separators=(",", ":") if compact else None)
    return web.Response(body=text.encode(), status=status, content_type="application/json")


def html_response(text: str, *, status: int = 200) -> web.Response:
    """Return a page or a text for browsers."""
    return web.Response(body=text.encode(), status=status, content_type="text/html", charset="utf-8")


_ALWAYS: Final = (
    "x-request-id",
    "x-ot-span-context",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "traceparent",
    "tracestate",
    "x-cloud-trace-context",
    "grpc-trace-bin",
    "sw8",
    "user-agent",
    "cookie",
    "authorization",
    "jwt",
)
_B3: Final = ("x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags")
_TRACE_ID: Final = re.compile(r"[0-9a-fA-F]{16}(?:[0-9a-fA-F]{16})?")
_SPAN_ID: Final = re.compile(r"[0-9a-fA-F]{16}")


def productpage_headers(incoming: Mapping[str, str], user: str) -> dict[str, str]:
    """Return the headers that productpage forwards: B3 is parsed and rebuilt, `end-user` comes only from the login."""
    end_user = {"end-user": user} if user else {}
    return b3_headers(incoming) | end_user | _select_headers(incoming, _ALWAYS)


def reviews_headers(incoming: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that reviews forwards, unchanged."""
    return _select_headers(incoming, (*_ALWAYS, *_B3, "end-user"))


def b3_headers(incoming: Mapping[str, str]) -> dict[str, str]:
    """Return trace and span in B3's form with several headers; nothing where the ids are missing or malformed.

    A single `b3` header overrides the others, even a malformed one; the parent's id is dropped. Both as in the
    original's tracing library.
    """
    flags = ""
    if single := incoming.get("b3"):
        trace_id, span_id, sampled = [*single.split("-"), "", ""][:3]
    else:
        trace_id, span_id, _, sampled, flags = (incoming.get(name, "") for name in _B3)
    if not (_TRACE_ID.fullmatch(trace_id) and _SPAN_ID.fullmatch(span_id)):
        return {}
    decision = "1" if sampled in {"1", "True", "true", "d"} or flags == "1" else "0"
    trace_id = trace_id.lower().zfill(32)
    return {"x-b3-traceid": trace_id, "x-b3-spanid": span_id.lower(), "x-b3-sampled": decision}


def _select_headers(incoming: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    return {name: incoming[name] for name in names if name in incoming}


# `Connection: keep-alive` although the caller may close, as in the original: a proxy on the path sees the difference.
# The encodings are fixed so that requests have the same size everywhere.
_OWN_HEADERS = {"Connection": "keep-alive", "Accept-Encoding": "gzip, deflate"}


@dataclass(frozen=True, slots=True)
class Reply:
    """A back end's response: `data` is its JSON; without a response the status is 500 and there is no data."""

    status: int
    data: Any = None

    @property
    def ok(self) -> bool:
        """Whether the status is 200."""
        return self.status == 200


def open_fresh_session(timeout_s: float) -> ClientSession:
    """Return a session that opens and closes a connection per call, as productpage does to spread its load."""
    return _open_session(TCPConnector(force_close=True, use_dns_cache=False, limit=0), timeout_s)


def open_kept_session(timeout_s: float) -> ClientSession:
    """Return a session that reuses idle connections, as the Java client of reviews, for less than its server's 5 s."""
    return _open_session(TCPConnector(keepalive_timeout=4.0, use_dns_cache=False, limit=0), timeout_s)


def _open_session(connector: TCPConnector, timeout_s: float) -> ClientSession:
    return ClientSession(
        connector=connector,
        timeout=ClientTimeout(total=None, connect=timeout_s, sock_read=timeout_s),
        cookie_jar=DummyCookieJar(),
        headers=_OWN_HEADERS,
    )


async def call(session: ClientSession, peer: Peer, *, path: str, headers: Mapping[str, str]) -> Reply:
    """Send GET `path` to `peer`; any failure is a reply with status 500.

    That includes a 200 without JSON, and a header that cannot be sent (both ValueError).
    """
    try:
        async with session.get(
            f"http://{peer.address}{path}", headers={**headers, "Host": peer.authority}, allow_redirects=False
        ) as response:
            body = await response.read()
            return Reply(200, json.loads(body)) if response.status == 200 else Reply(response.status)
    except (ClientError, OSError, TimeoutError, ValueError):
        return Reply(500)
