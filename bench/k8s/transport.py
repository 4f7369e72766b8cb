"""Make the pool of connections to an API server: direct, or through a proxy."""

import warnings
from typing import Any, Final

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import InsecureRequestWarning, NewConnectionError

from bench.k8s.credentials import Credentials
from bench.k8s.socks import SocksError, SocksProxy

_MOST_IDLE: Final = 16  # connections that are kept for the next request

# A kubeconfig has to ask for it, by `insecure-skip-tls-verify`.
warnings.filterwarnings("ignore", category=InsecureRequestWarning)


def make_pool(credentials: Credentials) -> urllib3.PoolManager:
    """Return connections to the API server, which never follow a redirect and never retry. A proxy with TLS has the
    settings of the API server, as for kubectl."""
    options: dict[str, Any] = {
        "maxsize": _MOST_IDLE,
        "retries": False,
        "ssl_context": credentials.tls,
        "server_hostname": credentials.server_name,
    }
    proxy = credentials.proxy
    if proxy is not None and proxy.socks is None:
        headers, tls = proxy.headers or None, credentials.tls
        return urllib3.ProxyManager(proxy.url, proxy_headers=headers, proxy_ssl_context=tls, **options)
    pool = urllib3.PoolManager(**options)
    if proxy is not None and proxy.socks is not None:
        pool.pool_classes_by_scheme = _make_pool_classes(proxy.socks)
    return pool


def _make_pool_classes(socks: SocksProxy) -> dict[str, Any]:
    """Return pools whose connections go through a SOCKS proxy; urllib3's own need another package."""

    class Plain(HTTPConnection):
        def _new_conn(self) -> Any:
            return _connect(self, socks)

    class Secure(HTTPSConnection):
        def _new_conn(self) -> Any:
            return _connect(self, socks)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


def _connect(connection: HTTPConnection, socks: SocksProxy) -> Any:
    limit_s = connection.timeout if isinstance(connection.timeout, int | float) else None
    try:
        return socks.connect(connection.host, connection.port, timeout_s=limit_s)
    except SocksError as error:
        raise NewConnectionError(connection, str(error)) from error
