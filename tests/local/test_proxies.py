"""Proxies to an API server, for plain requests and for the streams of commands and forwarded ports; and its
certificates."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web

from bench.errors import ClusterError, ErrorKind, RefusedError, exit_code_of
from bench.k8s.client import Cluster
from bench.k8s.kubeconfig import connect_context, open_cluster
from bench.system.timing import Timing
from tests.authorities import make_server_tls
from tests.kubeconfigs import write_kubeconfig
from tests.proxies import PASSWORD, USER, Seen, serve_proxy
from tests.web_server import serve_answers

HOST = "api.internal"  # no name server knows it
QUICK = Timing(request_s=0.3)
LOGIN = f"{USER}:{quote(PASSWORD, safe='')}@"


async def _answer(request: web.Request) -> web.StreamResponse:
    """Answer as an API server: its version, a command that prints, and a port that echoes."""
    if request.path == "/version":
        return web.json_response({"gitVersion": "v1.34.2"})
    stream = web.WebSocketResponse(protocols=("v5.channel.k8s.io", "v4.channel.k8s.io"))
    await stream.prepare(request)
    if request.path.endswith("/exec"):
        await stream.send_bytes(b"\1printed")
        await stream.send_bytes(b'\3{"status": "Success"}')
        return stream
    for channel in (b"\0", b"\1"):
        await stream.send_bytes(channel + b"\x50\x00")
    async for message in stream:
        await stream.send_bytes(message.data)
    return stream


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin without the proxies of this machine."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@contextmanager
def cluster_of(folder: Path, monkeypatch: pytest.MonkeyPatch, **cluster: Any) -> Iterator[Cluster]:
    """Open the cluster of a kubeconfig with these settings."""
    monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(folder / "config", "a", **cluster)))
    with open_cluster("a", private_folder=folder / "private", timing=QUICK) as opened:
        yield opened


def use_everything(cluster: Cluster) -> None:
    """Send a plain request, run a command, and use a forwarded port."""
    assert cluster.version == "v1.34.2"
    assert cluster.exec("p", ["true"], namespace="n", container="c").stdout == b"printed"
    with cluster.forward("p", 80, namespace="n") as port, socket.create_connection(("127.0.0.1", port)) as stream:
        stream.settimeout(10)
        stream.sendall(b"echo")
        assert stream.recv(4) == b"echo"


WAYS = ["http", "http+password", "https+password", "socks5", "socks5h", "socks5+password"]


@contextmanager
def proxied(folder: Path, way: str, **options: int) -> Iterator[tuple[str, Path, Seen]]:
    """Serve an API server with TLS and a proxy in front; yield the proxy's URL, the authority and what was seen."""
    scheme, _, login = way.partition("+")
    authority, tls = make_server_tls(folder, HOST)
    kind = "socks5" if scheme.startswith("socks") else "http"
    wrapped = tls if scheme == "https" else None
    with (
        serve_answers(_answer, tls) as port,
        serve_proxy(kind, port, password=bool(login), tls=wrapped, status=options.get("status", 0)) as (address, seen),
    ):
        yield f"{scheme}://{LOGIN if login else ''}{address}", authority, seen


@pytest.mark.parametrize("way", WAYS)
def test_proxy_of_the_kubeconfig_serves_every_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Requests, commands and forwarded ports reach a server whose name only the proxy resolves; NO_PROXY is not about
    it."""
    monkeypatch.setenv("NO_PROXY", "*")
    with proxied(tmp_path, way) as (url, authority, seen):
        settings = {"server": f"https://{HOST}:6443", "certificate-authority": str(authority), "proxy-url": url}
        with cluster_of(tmp_path, monkeypatch, **settings) as cluster:
            use_everything(cluster)
    assert set(seen.hosts) == {f"{HOST}:6443"}
    assert (len(seen.hosts), seen.refused) == (3, 0)


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("way", ["http+password", "socks5+password"])
def test_proxy_of_the_environment_serves_every_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, variable: str
) -> None:
    """As for other tools; NO_PROXY names other servers."""
    with proxied(tmp_path, way) as (url, authority, seen):
        monkeypatch.setenv(variable, url)
        monkeypatch.setenv("NO_PROXY", "other.internal")
        settings = {"server": f"https://{HOST}:6443", "certificate-authority": str(authority)}
        with cluster_of(tmp_path, monkeypatch, **settings) as cluster:
            use_everything(cluster)
    assert len(seen.hosts) == 3


def test_environments_proxy_is_not_for_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster in containers is reached behind a company's proxy without NO_PROXY, as by kubectl."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with (
        serve_answers(_answer) as port,
        cluster_of(tmp_path, monkeypatch, server=f"http://127.0.0.1:{port}") as cluster,
    ):
        use_everything(cluster)


@pytest.mark.parametrize(
    ("way", "options", "message"),
    [
        ("http+password", {}, "the proxy answered 407 No Way"),
        ("http", {"status": 403}, "the proxy answered 403 No Way"),
        ("socks5+password", {}, "does not accept the user and password of its URL"),
        ("socks5", {"status": 2}, f"cannot connect to {HOST}:6443: connection not allowed by its rules"),
    ],
)
def test_refusing_proxy_is_reported_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, options: dict[str, int], message: str
) -> None:
    """A wrong password, or a host that it does not connect to: exit code 3 after one try, without the password."""
    with proxied(tmp_path, way, **options) as (url, authority, seen):
        wrong = url.replace(quote(PASSWORD, safe=""), "wr0ng-password")
        settings = {"server": f"https://{HOST}:6443", "certificate-authority": str(authority), "proxy-url": wrong}
        with pytest.raises(RefusedError) as caught, cluster_of(tmp_path, monkeypatch, **settings):
            pytest.fail("it was opened")
    assert message in str(caught.value)
    assert exit_code_of(caught.value) == 3
    assert (seen.refused, "wr0ng" in str(caught.value), "\n" in str(caught.value)) == (1, False, False)


@pytest.mark.parametrize("way", ["http", "socks5"])
def test_refused_stream_has_the_same_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """A proxy that refuses commands, though it let other requests pass, is named as well."""
    with proxied(tmp_path, way, status=403 if way == "http" else 2) as (url, authority, _):
        settings: dict[str, Any] = {"server": f"https://{HOST}:6443", "proxy-url": url}
        settings["certificate-authority"] = str(authority)
        monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "config", "a", **settings)))
        with (
            connect_context("a", private_folder=tmp_path / "private", timing=QUICK) as cluster,
            pytest.raises(ClusterError, match="the proxy") as caught,
        ):
            cluster.exec("p", ["true"], namespace="n", container="c")
    assert caught.value.kind is ErrorKind.REJECTED


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_absent_proxy_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    """Nothing listens at its address."""
    settings = {"server": f"https://{HOST}:6443", "proxy-url": f"{scheme}://{LOGIN}127.0.0.1:1"}
    with pytest.raises(RefusedError, match="refused") as caught, cluster_of(tmp_path, monkeypatch, **settings):
        pytest.fail("it was opened")
    assert PASSWORD not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_proxy_that_speaks_another_protocol_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An HTTP proxy that is written as SOCKS."""
    with proxied(tmp_path, "http") as (url, _, _):
        settings = {"server": f"https://{HOST}:6443", "proxy-url": url.replace("http:", "socks5:")}
        refused = pytest.raises(RefusedError, match=r"the proxy socks5://127\S+: is no SOCKS5 proxy")
        with refused as caught, cluster_of(tmp_path, monkeypatch, **settings):
            pytest.fail("it was opened")
    assert exit_code_of(caught.value) == 3


@pytest.fixture
def strict_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Python verify certificates as it does since 3.13."""
    create = ssl.create_default_context

    def create_strict(*args: object, **options: object) -> ssl.SSLContext:
        context = create(*args, **options)  # type: ignore[arg-type]
        context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
        return context

    monkeypatch.setattr(ssl, "create_default_context", create_strict)


@pytest.mark.usefixtures("strict_python")
def test_authority_without_key_identifier_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clusters of kubeadm's and others' older versions have such certificates, and kubectl takes them."""
    authority, tls = make_server_tls(tmp_path, key_identifier=False)
    with (
        serve_answers(_answer, tls) as port,
        cluster_of(
            tmp_path,
            monkeypatch,
            **{"server": f"https://127.0.0.1:{port}", "certificate-authority": str(authority)},
        ) as cluster,
    ):
        use_everything(cluster)


@pytest.mark.usefixtures("strict_python")
@pytest.mark.parametrize("key_identifier", [True, False])
def test_other_authority_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key_identifier: bool) -> None:
    """Verification stays."""
    (tmp_path / "other").mkdir()
    other, _ = make_server_tls(tmp_path / "other", key_identifier=key_identifier)
    _, tls = make_server_tls(tmp_path, key_identifier=key_identifier)
    with (
        serve_answers(_answer, tls) as port,
        pytest.raises(RefusedError, match="CERTIFICATE_VERIFY_FAILED"),
        cluster_of(
            tmp_path, monkeypatch, **{"server": f"https://127.0.0.1:{port}", "certificate-authority": str(other)}
        ),
    ):
        pytest.fail("it was opened")


def test_servers_name_may_differ_from_its_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`tls-server-name` is compared with the certificate, for requests and for streams, through a proxy or not."""
    authority, tls = make_server_tls(tmp_path, "kubernetes.internal")
    settings = {"certificate-authority": str(authority), "tls-server-name": "kubernetes.internal"}
    with serve_answers(_answer, tls) as port, serve_proxy("socks5", port) as (address, _):
        for more in (
            {"server": f"https://localhost:{port}"},
            {"server": f"https://{HOST}", "proxy-url": f"socks5://{address}"},
        ):
            with cluster_of(tmp_path, monkeypatch, **settings, **more) as cluster:
                use_everything(cluster)
