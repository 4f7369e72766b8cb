"""Calls from one service to another: where they connect, how long they wait, what counts as an answer."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector

from bench.bookinfo.settings import Peer

# `Connection: keep-alive` although the caller may close: that is what the original asks for, and a proxy in
# between sees the difference. The encodings are fixed so that requests have one size wherever this runs.
_OWN_HEADERS = {"Connection": "keep-alive", "Accept-Encoding": "gzip, deflate"}


@dataclass(frozen=True, slots=True)
class Reply:
    """A back end's answer: `data` is its JSON; without any answer the status is 500 and there is no data."""

    status: int
    data: Any = None

    @property
    def ok(self) -> bool:
        """Whether the caller can use it."""
        return self.status == 200


def fresh_connections(timeout_s: float) -> ClientSession:
    """Every call opens a connection and closes it, as productpage does to spread its load over versions."""
    return _session(TCPConnector(force_close=True, use_dns_cache=False, limit=0), timeout_s)


def kept_connections(timeout_s: float) -> ClientSession:
    """Calls reuse idle connections, as the Java client of reviews does, for less than its server's 5 s."""
    return _session(TCPConnector(keepalive_timeout=4.0, use_dns_cache=False, limit=0), timeout_s)


def _session(connector: TCPConnector, timeout_s: float) -> ClientSession:
    return ClientSession(
        connector=connector,
        timeout=ClientTimeout(total=None, connect=timeout_s, sock_read=timeout_s),
        cookie_jar=DummyCookieJar(),
        headers=_OWN_HEADERS,
    )


async def call(session: ClientSession, peer: Peer, *, path: str, headers: Mapping[str, str]) -> Reply:
    """GET `path` from `peer`; whatever goes wrong on the way is a reply with status 500.

    That includes a 200 without JSON, and a header that can't be sent (both ValueError).
    """
    try:
        async with session.get(
            f"http://{peer.address}{path}", headers={**headers, "Host": peer.authority}, allow_redirects=False
        ) as response:
            body = await response.read()
            return Reply(200, json.loads(body)) if response.status == 200 else Reply(response.status)
    except (ClientError, OSError, TimeoutError, ValueError):
        return Reply(500)
