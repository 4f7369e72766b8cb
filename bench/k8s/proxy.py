"""Choose the proxy to an API server as kubectl does: `proxy-url` of the kubeconfig, else that of the environment."""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from kubernetes.client.rest import should_bypass_proxies

from bench.errors import RefusedError
from bench.k8s.socks import PORT, SocksProxy, is_sendable
from bench.system.redaction import format_basic_authorization, register_secret, split_credentials

_CONTROL: Final = re.compile(r"[\x00-\x20\x7f]")
_FORM: Final = re.compile(r"(https?|socks5h?)://[^/?#@]+/?", re.IGNORECASE)
_WANTED: Final = "write http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT"


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy to the API server. `url` has no password; `headers` have it for an HTTP proxy. `socks` is None for
    one."""

    url: str
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    socks: SocksProxy | None = None


def choose_proxy(cluster: Mapping[str, Any], server: str, environment: Mapping[str, str], where: str) -> Proxy | None:
    """Return the proxy for a kubeconfig's cluster; None for a direct connection. Raises RefusedError."""
    if written := cluster.get("proxy-url"):
        return _parse(str(written), f"{where}: its proxy-url")
    scheme = urlsplit(server).scheme
    for name in (f"{scheme}_proxy", "all_proxy"):
        for variable in (name, name.upper()):
            if url := environment.get(variable, "").strip():
                bypassed = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
                if _is_loopback(server) or should_bypass_proxies(server, bypassed):
                    return None
                return _parse(url, f"{where}: {variable}")
    return None


def _is_loopback(server: str) -> bool:
    """Return whether a server is on this machine, to which the environment's proxies never lead."""
    host = urlsplit(server).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _parse(written: str, what: str) -> Proxy:
    """Parse a proxy's URL; the password moves out of it, since the URL is in messages of the HTTP libraries."""
    url = written.strip()
    url = url if "://" in url else f"http://{url}"  # as in HTTPS_PROXY, for many tools
    try:
        clean, pair = split_credentials(url)
    except ValueError as error:
        raise RefusedError(f"{what} cannot be used: {error}") from None
    if _CONTROL.search(url) or not _FORM.fullmatch(clean):
        raise RefusedError(f"{what} cannot be used: {_WANTED}")
    if clean.lower().startswith("socks"):
        return _make_socks(clean, pair, what)
    if not pair:
        return Proxy(clean)
    _reject_control(pair, what)
    return Proxy(clean, {"proxy-authorization": format_basic_authorization(pair)})


def _make_socks(clean: str, pair: str, what: str) -> Proxy:
    parts, credentials = urlsplit(clean), None
    if pair:
        _reject_control(pair, what)
        name, _, password = pair.partition(":")
        register_secret(password)
        if not (is_sendable(name) and is_sendable(password)):
            raise RefusedError(f"{what} cannot be used: SOCKS takes a user and a password of 1 to 255 bytes")
        credentials = (name.encode(), password.encode())
    return Proxy(clean, socks=SocksProxy(clean, parts.hostname or "", parts.port or PORT, credentials))


def _reject_control(pair: str, what: str) -> None:
    if any(ord(one) < 0x20 or ord(one) == 0x7F for one in pair):
        raise RefusedError(f"{what} has a line break or another control character inside")
