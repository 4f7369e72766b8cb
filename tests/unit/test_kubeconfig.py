"""Only the named cluster of the user's kubeconfig is used."""

import base64
import errno
import os
import traceback
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.errors import RefusedError, exit_code_of
from bench.k8s.credentials import read_credentials
from bench.k8s.kubeconfig import kubeconfig_paths, looks_like_production, read_context, write_private_kubeconfig
from bench.k8s.proxy import Proxy, choose_proxy
from bench.k8s.socks import SocksProxy
from bench.system.redaction import redact
from tests.kubeconfigs import HIDDEN, read_user, write_kubeconfig


def test_never_uses_the_current_context(tmp_path: Path) -> None:
    """Without a name the error lists the contexts."""
    path = write_kubeconfig(tmp_path / "config", "kind-a", "kind-b")
    with pytest.raises(RefusedError, match=r"give --context NAME; contexts in .*config: kind-a, kind-b"):
        read_context((path,), None)


def test_unknown_context_lists_the_others(tmp_path: Path) -> None:
    """A misspelt name is visible at once."""
    path = write_kubeconfig(tmp_path / "config", "kind-a", "kind-b")
    with pytest.raises(RefusedError, match=r"no context kind-x; contexts in .*: kind-a, kind-b"):
        read_context((path,), "kind-x")


def test_refuses_context_without_its_cluster(tmp_path: Path) -> None:
    """The message names the missing cluster."""
    path = tmp_path / "config"
    path.write_text("contexts: [{name: a, context: {cluster: lost, user: b}}]\n", "utf-8")
    with pytest.raises(RefusedError, match="context a: its cluster 'lost' is not in"):
        read_context((path,), "a")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a\n", "is not a kubeconfig"),
        (b"contexts: [\n", "cannot be read as a kubeconfig"),
        (b"\xff\xfe\x00", "cannot be read as a kubeconfig"),
        (b"contexts: [a, b]\n", "an entry of contexts is not one of a kubeconfig"),
        (b"contexts: 5\n", "contexts is not a list"),
        (b"users: {a: b}\n", "users is not a list"),
        (b"clusters: [{name: 5, cluster: {}}]\n", "an entry of clusters has a name that is not text"),
        (b"clusters: [{name: a, cluster: 5}]\n", "an entry of clusters is not one of a kubeconfig"),
        (b"[" * 100_000, "cannot be read as a kubeconfig"),
    ],
)
def test_reports_file_that_is_no_kubeconfig(tmp_path: Path, content: bytes, message: str) -> None:
    """One line with its path, as a refusal before the start."""
    path = tmp_path / "config"
    path.write_bytes(content)
    with pytest.raises(RefusedError, match=message) as caught:
        read_context((path,), "a")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert exit_code_of(caught.value) == 3


def test_reports_unreadable_kubeconfig(tmp_path: Path) -> None:
    """A folder in its place is as unreadable as a file without permissions, also for root."""
    with pytest.raises(RefusedError, match=f"{tmp_path}: cannot be read as a kubeconfig: .*directory"):
        read_context((tmp_path,), "a")


def test_reports_where_it_searched(tmp_path: Path) -> None:
    """The message says that the path came from KUBECONFIG."""
    with pytest.raises(RefusedError, match=f"KUBECONFIG names {tmp_path}/none, which does not exist"):
        kubeconfig_paths({"KUBECONFIG": f"{tmp_path}/none"})


def test_merges_kubeconfigs_and_the_first_wins(tmp_path: Path) -> None:
    """As kubectl does, which also ignores missing files."""
    first = write_kubeconfig(tmp_path / "first", "a", user={"token": "first"})
    second = write_kubeconfig(tmp_path / "second", "a", "b")
    paths = kubeconfig_paths({"KUBECONFIG": f"{first}:{tmp_path}/none:{second}"})
    assert paths == (first, second)
    assert read_context(paths, "a").user == {"token": "first"}
    assert read_context(paths, "b").user == {"token": "secret-of-b"}


def test_empty_kubeconfigs_are_merged_like_any_other(tmp_path: Path) -> None:
    """As kubectl takes them: a file may be empty, or have a comment only; alone it has no context."""
    (tmp_path / "empty").touch()
    (tmp_path / "comment").write_text("# nothing yet\n---\n", "utf-8")
    real = write_kubeconfig(tmp_path / "real", "a")
    paths = kubeconfig_paths({"KUBECONFIG": f"{tmp_path}/empty::{tmp_path}/comment:{real}:"})
    assert read_context(paths, "a").user == {"token": "secret-of-a"}
    with pytest.raises(RefusedError, match=r"no context a; contexts in .*empty: none"):
        read_context(kubeconfig_paths({"KUBECONFIG": f"{tmp_path}/empty"}), "a")


def test_context_user_and_cluster_may_be_in_different_files(tmp_path: Path) -> None:
    """Relative paths count from the file of their own entry."""
    (tmp_path / "one").mkdir()
    context = {"contexts": [{"name": "a", "context": {"cluster": "c", "user": "u"}}]}
    cluster = {"clusters": [{"name": "c", "cluster": {"server": "https://x", "certificate-authority": "ca.pem"}}]}
    user = {"users": [{"name": "u", "user": {"tokenFile": "token"}}]}
    files = [tmp_path / "contexts", tmp_path / "one" / "clusters", tmp_path / "users"]
    for file, content in zip(files, (context, cluster, user), strict=True):
        file.write_text(yaml.safe_dump(content), "utf-8")
    found = read_context(tuple(files), "a")
    assert found.cluster["certificate-authority"] == str(tmp_path / "one" / "ca.pem")
    assert found.user["tokenFile"] == str(tmp_path / "token")
    with pytest.raises(RefusedError, match="context a: its user 'u' is not in"):
        read_context(tuple(files[:2]), "a")


def test_each_kubeconfig_is_read_once(tmp_path: Path) -> None:
    """A shell's `<(...)` is a pipe, which has nothing more after that."""
    write_kubeconfig(tmp_path / "config", "a")
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as file:
        file.write((tmp_path / "config").read_bytes())
    try:
        assert read_context((Path(f"/dev/fd/{reader}"),), "a").user == {"token": "secret-of-a"}
    finally:
        os.close(reader)


def test_folder_that_may_not_be_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have the very context: one sentence, and no other file is used in its place."""

    def refuse(path: Path, **_: bool) -> os.stat_result:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(
        RefusedError, match=r"^locked/config: cannot be read as a kubeconfig: Permission denied$"
    ) as caught:
        kubeconfig_paths({"KUBECONFIG": "locked/config:other"})
    assert exit_code_of(caught.value) == 3


@pytest.mark.parametrize("key", ["tokenFile", "client-certificate", "client-key"])
def test_file_that_cannot_be_read_is_named(tmp_path: Path, key: str) -> None:
    """Certificates, keys and tokens beside a kubeconfig: exit code 3 before the first request."""
    (tmp_path / "there").touch()
    user = {"client-certificate": "there", "client-key": "there"} if key != "tokenFile" else {}
    with pytest.raises(RefusedError, match=r"context a: .*/absent'?$") as caught:
        read_user(tmp_path, {**user, key: "absent"})
    assert exit_code_of(caught.value) == 3


def test_authority_that_is_none_is_named(tmp_path: Path) -> None:
    """OpenSSL itself names no file."""
    (tmp_path / "ca.pem").write_text("no certificate", "utf-8")
    with pytest.raises(RefusedError, match=rf"its certificates or key cannot be used \({tmp_path}/ca.pem\): "):
        read_user(tmp_path, {"token": "t"}, **{"certificate-authority": "ca.pem"})


@pytest.mark.parametrize("named", ["{0}/file/config", "{0}/" + "x" * 300, "{0}/a\0b"])
def test_path_that_cannot_be_looked_up(tmp_path: Path, named: str) -> None:
    """One sentence: below a file there is nothing, and an impossible name is no missing file."""
    (tmp_path / "file").touch()
    with pytest.raises(RefusedError) as caught:
        kubeconfig_paths({"KUBECONFIG": named.format(tmp_path)})
    assert exit_code_of(caught.value) == 3
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("cluster", "server"),
    [
        ({"server": "api.example:6443"}, "http://api.example:6443"),
        ({"server": "api.example:6443", "insecure-skip-tls-verify": True}, "https://api.example:6443"),
        ({"server": "10.0.0.1", "certificate-authority-data": "YQ=="}, "https://10.0.0.1"),
        ({"server": "https://api.example/"}, "https://api.example/"),
    ],
)
def test_scheme_of_the_server_may_be_missing(tmp_path: Path, cluster: dict[str, Any], server: str) -> None:
    """It then follows from the other settings, as for kubectl."""
    path = write_kubeconfig(tmp_path / "config", "a", **cluster)
    assert read_context((path,), "a").cluster["server"] == server


@pytest.mark.parametrize(
    ("cluster", "user", "message"),
    [
        ({"server": 5}, {}, "its cluster: server must be text; hint: put it in quotes"),
        ({"insecure-skip-tls-verify": "yes"}, {}, "its cluster: insecure-skip-tls-verify must be true or false"),
        ({"certificate-authority": ["a"]}, {}, "its cluster: certificate-authority must be text"),
        ({"certificate-authority-data": 5}, {}, "its cluster: certificate-authority-data must be text"),
        ({"proxy-url": 8080}, {}, "its cluster: proxy-url must be text"),
        ({"tls-server-name": True}, {}, "its cluster: tls-server-name must be text"),
        ({}, {"token": 12345678}, "its user: token must be text"),
        ({}, {"tokenFile": 5}, "its user: tokenFile must be text"),
        ({}, {"client-key-data": 5}, "its user: client-key-data must be text"),
        ({}, {"exec": "aws"}, "its user: exec must be a mapping"),
        ({}, {"exec": {"command": ["aws"]}}, "its user: exec: command must be text"),
        ({}, {"exec": {"command": ""}}, "its user: exec: command is missing"),
        ({}, {"exec": {"command": "aws", "args": "eks"}}, "its user: exec: args must be a list of text"),
        ({}, {"exec": {"command": "aws", "args": [1]}}, "its user: exec: args must be a list of text"),
        ({}, {"exec": {"command": "aws", "env": {"A": "b"}}}, "its user: exec: env must be a list of names and values"),
        ({}, {"exec": {"command": "aws", "env": [{"name": "A", "value": 1}]}}, "its user: exec: env must be a list"),
        (
            {},
            {"exec": {"command": "aws", "provideClusterInfo": "yes"}},
            "exec: provideClusterInfo must be true or false",
        ),
        ({}, {"auth-provider": "gcp"}, "its user: auth-provider must be a mapping"),
    ],
)
def test_reports_value_of_another_type(
    tmp_path: Path, cluster: dict[str, Any], user: dict[str, Any], message: str
) -> None:
    """As kubectl refuses them; the value is not shown, since it may be a secret."""
    path = write_kubeconfig(tmp_path / "config", "a", user=user or {"token": "t"}, **cluster)
    with pytest.raises(RefusedError) as caught:
        read_context((path,), "a")
    assert str(caught.value).startswith("context a: ")
    assert message in str(caught.value)
    assert "12345678" not in str(caught.value)


def test_null_is_as_good_as_no_key(tmp_path: Path) -> None:
    """Tools write them for what is not set."""
    user = {"token": "t", "exec": None, "tokenFile": None, "client-key-data": None}
    path = write_kubeconfig(tmp_path / "config", "a", user=user, **{"proxy-url": None, "certificate-authority": None})
    assert read_context((path,), "a").user == {"token": "t"}
    (tmp_path / "private").mkdir()
    write_private_kubeconfig(read_context((path,), "a"), tmp_path / "private")


def test_private_copy_has_one_context(tmp_path: Path) -> None:
    """It has nothing of the other contexts, and no other user can read it or its keys."""
    key = base64.b64encode(b"the key").decode()
    path = write_kubeconfig(tmp_path / "config", "a", "b", user={"client-key-data": key})
    folder = tmp_path / "private"
    folder.mkdir()
    copy = write_private_kubeconfig(read_context((path,), "b"), folder)
    text = copy.read_text("utf-8")
    assert yaml.safe_load(text)["current-context"] == "b"
    assert "a-u" not in text
    assert key not in text
    assert (folder / "client-key.pem").read_bytes() == b"the key"
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}


def test_relative_paths_count_from_the_kubeconfig(tmp_path: Path) -> None:
    """The copy finds certificates, token files and credential plugins; plugins on PATH stay unchanged."""
    settings = {"command": "./bin/login", "apiVersion": "v1"}
    path = write_kubeconfig(
        tmp_path / "kube" / "config", "a", user={"exec": settings}, **{"certificate-authority": "ca.crt"}
    )
    context = read_context((path,), "a")
    assert context.cluster["certificate-authority"] == str(tmp_path / "kube" / "ca.crt")
    assert context.user["exec"]["command"] == str(tmp_path / "kube" / "bin" / "login")
    path = write_kubeconfig(path, "a", user={"exec": {"command": "aws"}, "tokenFile": "/run/token"})
    assert read_context((path,), "a").user == {"exec": {"command": "aws"}, "tokenFile": "/run/token"}


def test_refuses_invalid_base64(tmp_path: Path) -> None:
    """The error is no traceback."""
    path = write_kubeconfig(tmp_path / "config", "a", user={"client-key-data": "abc"})
    with pytest.raises(RefusedError, match="client-key-data in the kubeconfig is not base64"):
        write_private_kubeconfig(read_context((path,), "a"), tmp_path)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("kind-a", "kind-a", "https://127.0.0.1:6443"), ""),
        (("olive", "delivery", "https://10.0.0.1"), ""),
        (("eks-PROD-1", "x", "https://10.0.0.1"), "the context eks-PROD-1 has 'PROD' in its name"),
        (("a", "shop-prd", "https://10.0.0.1"), "the cluster shop-prd has 'prd' in its name"),
        (("a", "b", "https://api.live.example"), "the server https://api.live.example has 'live' in its name"),
    ],
)
def test_recognises_production_names(names: tuple[str, str, str], reason: str) -> None:
    """Context, cluster and server are checked; the reason names the one that matched."""
    assert looks_like_production(*names) == reason


@pytest.mark.parametrize("user", [{"token": 12345678}, {"tokenFile": "none"}, {"username": "me", "password": 12345678}])
def test_refuses_credentials_that_are_no_text(tmp_path: Path, user: dict[str, Any]) -> None:
    """YAML reads digits as a number."""
    with pytest.raises(RefusedError, match="context a: ") as caught:
        read_user(tmp_path, user)
    assert "12345678" not in str(caught.value)


@pytest.mark.parametrize(
    "user", [{"exec": "aws"}, {"exec": {"command": "x", "env": 5}}, {"tokenFile": 5}, ["a"], "abc", 5]
)
def test_refuses_user_of_unexpected_shape(tmp_path: Path, user: Any) -> None:
    """Many tools write kubeconfigs: an invalid user is refused, without a traceback."""
    content = {
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "clusters": [{"name": "a", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "a", "user": user}],
    }
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(content), "utf-8")
    with pytest.raises(RefusedError):
        read_credentials(write_private_kubeconfig(read_context((path,), "a"), tmp_path))


def test_refuses_empty_token_file(tmp_path: Path) -> None:
    """A request without a token would be one of another user."""
    (tmp_path / "token").write_text("\n", "utf-8")
    with pytest.raises(RefusedError, match="token is empty"):
        read_user(tmp_path, {"tokenFile": "token"})


@pytest.mark.parametrize("password", ["p4ss:wörd", " p4ss:wörd\n"])
def test_sends_password_as_utf8_header(tmp_path: Path, password: str) -> None:
    """Surrounding white space is removed."""
    headers = read_user(tmp_path, {"username": "me", "password": password}).headers
    assert base64.b64decode(headers["authorization"].removeprefix("Basic ")).decode() == "me:p4ss:wörd"


def test_refuses_password_with_line_break(tmp_path: Path) -> None:
    """The error does not show it."""
    with pytest.raises(RefusedError, match="username or password has a line break") as caught:
        read_user(tmp_path, {"username": "me", "password": f"{HIDDEN}\nx"})
    assert HIDDEN not in str(caught.value)


@pytest.mark.parametrize("url", [f"http://me:{HIDDEN}@proxy.example:3128", f" http://me:{HIDDEN}@proxy.example:3128\n"])
def test_sends_proxy_password_as_header(tmp_path: Path, url: str) -> None:
    """Neither the API client nor the streams have it in the URL, which is in the libraries' messages."""
    credentials = read_user(tmp_path, {"token": "t"}, **{"proxy-url": url})
    expected = {"proxy-authorization": f"Basic {base64.b64encode(f'me:{HIDDEN}'.encode()).decode()}"}
    assert credentials.proxy == Proxy("http://proxy.example:3128", expected)
    assert HIDDEN not in repr(credentials)


@pytest.mark.parametrize(
    ("key", "url"),
    [
        ("proxy-url", f"http://me:{HIDDEN}@proxy.example:port"),
        ("proxy-url", f"ftp://me:{HIDDEN}@proxy.example"),
        ("proxy-url", f"socks4://me:{HIDDEN}@proxy.example"),
        ("proxy-url", f"http://me:{HIDDEN}@proxy.example/path"),
        ("proxy-url", f"socks5://me:{HIDDEN * 30}@proxy.example"),
        ("proxy-url", f"socks5://:{HIDDEN}@proxy.example"),
        ("proxy-url", f"http://me:{HIDDEN}@"),
        ("proxy-url", f"http://me:{HIDDEN}@proxy.ex\nample"),
        ("proxy-url", f"http://me:{HIDDEN}%0A@proxy.example"),
        ("server", f"https://me:{HIDDEN}@there.example"),
        ("server", f"https://me:{HIDDEN}@[there"),
    ],
)
def test_refuses_unusable_url_without_showing_it(tmp_path: Path, key: str, url: str) -> None:
    """Both of the proxy and of the API server."""
    with pytest.raises(RefusedError, match=r"context a: its (proxy-url|server) ") as caught:
        read_user(tmp_path, {"token": "t"}, **{key: url})
    assert HIDDEN not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("written", "environment", "url"),
    [
        ("", {}, None),
        ("", {"HTTPS_PROXY": "proxy.example:3128"}, "http://proxy.example:3128"),
        ("", {"https_proxy": "http://small.example", "HTTPS_PROXY": "http://large.example"}, "http://small.example"),
        ("", {"HTTP_PROXY": "http://proxy.example"}, None),
        ("", {"ALL_PROXY": "socks5://proxy.example"}, "socks5://proxy.example"),
        ("", {"ALL_PROXY": "socks5://all.example", "HTTPS_PROXY": "http://one.example"}, "http://one.example"),
        ("", {"HTTPS_PROXY": "http://proxy.example", "NO_PROXY": "a.example"}, None),
        ("", {"HTTPS_PROXY": "http://proxy.example", "no_proxy": ".example"}, None),
        ("", {"HTTPS_PROXY": "http://proxy.example", "NO_PROXY": "b.example"}, "http://proxy.example"),
        ("", {"HTTPS_PROXY": " "}, None),
        ("http://own.example", {"HTTPS_PROXY": "http://proxy.example", "NO_PROXY": "*"}, "http://own.example"),
        ("SOCKS5H://own.example:1081", {}, "SOCKS5H://own.example:1081"),
    ],
)
def test_chooses_proxy_as_kubectl(written: str, environment: dict[str, str], url: str | None) -> None:
    """That of the kubeconfig wins, and NO_PROXY is not about it; of the environment that of the scheme."""
    cluster = {"proxy-url": written} if written else {}
    found = choose_proxy(cluster, "https://a.example:6443", environment, "context a")
    assert (found and found.url) == url


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.9.9.9"])
def test_environments_proxy_is_not_for_this_machine(host: str) -> None:
    """A cluster in containers on this machine, behind a company's proxy."""
    assert choose_proxy({}, f"https://{host}:6443", {"HTTPS_PROXY": "http://proxy.example"}, "context a") is None


def test_socks_proxy_has_its_password_elsewhere(tmp_path: Path) -> None:
    """Its URL is in messages."""
    found = read_user(tmp_path, {"token": "t"}, **{"proxy-url": f"socks5://me:{HIDDEN}@proxy.example"}).proxy
    assert found is not None
    assert found.socks == SocksProxy("socks5://proxy.example", "proxy.example", 1080, (b"me", HIDDEN.encode()))
    assert HIDDEN not in repr(found)


def test_does_not_show_invalid_yaml(tmp_path: Path) -> None:
    """The error has the line number; the line may have a secret."""
    (tmp_path / "config").write_text(f"users:\n- user:\n    token: {HIDDEN}: x\n", "utf-8")
    with pytest.raises(RefusedError, match="cannot be read as a kubeconfig: line 3, column") as caught:
        read_context((tmp_path / "config",), "a")
    assert HIDDEN not in "".join(traceback.format_exception(caught.value))


def test_private_copy_has_the_sent_token(tmp_path: Path) -> None:
    """Child processes get it, too."""
    path = write_kubeconfig(tmp_path / "config", "a", user={"token": f"{HIDDEN}\n"})
    (tmp_path / "private").mkdir()
    copy = write_private_kubeconfig(read_context((path,), "a"), tmp_path / "private")
    assert yaml.safe_load(copy.read_text("utf-8"))["users"][0]["user"] == {"token": HIDDEN}


@pytest.mark.parametrize(
    "user",
    [
        {"token": HIDDEN},
        {"password": HIDDEN},
        {"client-key-data": base64.b64encode(f"-----BEGIN PRIVATE KEY-----\n{HIDDEN}-and-more\n".encode()).decode()},
        {"exec": {"command": "x", "env": [{"name": "SOME_TOKEN", "value": HIDDEN}]}},
        {"auth-provider": {"name": "oidc", "config": {"refresh-token": HIDDEN}}},
    ],
)
def test_registers_every_secret_of_a_user(tmp_path: Path, user: dict[str, Any]) -> None:
    """No later message has a secret that was read."""
    read_context((write_kubeconfig(tmp_path / "config", "a", user=user),), "a")
    assert HIDDEN not in redact(f"it has {HIDDEN}-and-more, {HIDDEN}")
