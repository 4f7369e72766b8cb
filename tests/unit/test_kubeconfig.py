"""Which cluster is used: the one that was named, out of the user's own kubeconfig, and no other."""

import base64
import traceback
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.errors import RefusedError
from bench.k8s.credentials import Credentials, read_credentials
from bench.k8s.kubeconfig import kubeconfig_paths, looks_like_production, read_context, write_private
from bench.system.redaction import redact


def _kubeconfig(path: Path, *names: str, user: dict[str, Any] | None = None, **cluster: str) -> Path:
    content = {
        "current-context": names[0],
        "contexts": [{"name": name, "context": {"cluster": f"{name}-c", "user": f"{name}-u"}} for name in names],
        "clusters": [
            {"name": f"{name}-c", "cluster": {"server": f"https://{name}.example:6443", **cluster}} for name in names
        ],
        "users": [{"name": f"{name}-u", "user": user or {"token": f"secret-of-{name}"}} for name in names],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content), "utf-8")
    return path


def test_the_current_context_is_never_used_by_itself(tmp_path: Path) -> None:
    """Without a name nothing happens, and the message lists the names."""
    path = _kubeconfig(tmp_path / "config", "kind-a", "kind-b")
    with pytest.raises(RefusedError, match=r"give --context NAME; contexts in .*config: kind-a, kind-b"):
        read_context((path,), None)


def test_a_context_that_is_not_there_lists_those_that_are(tmp_path: Path) -> None:
    """So that a misspelt name is seen at once."""
    path = _kubeconfig(tmp_path / "config", "kind-a", "kind-b")
    with pytest.raises(RefusedError, match=r"no context kind-x; contexts in .*: kind-a, kind-b"):
        read_context((path,), "kind-x")


def test_a_context_whose_cluster_is_missing_is_refused(tmp_path: Path) -> None:
    """The message names the cluster that the context asks for."""
    path = tmp_path / "config"
    path.write_text("contexts: [{name: a, context: {cluster: lost, user: b}}]\n", "utf-8")
    with pytest.raises(RefusedError, match="context a: its cluster 'lost' is not in"):
        read_context((path,), "a")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"- a\n", "is not a kubeconfig"),
        (b"contexts: [\n", "cannot be read as a kubeconfig"),
        (b"\xff\xfe\x00", "cannot be read as a kubeconfig"),
        (b"contexts: [a, b]\n", "an entry of contexts is not one of a kubeconfig"),
    ],
)
def test_a_file_that_is_no_kubeconfig_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    """In one line with its path, and as a refusal before the start."""
    path = tmp_path / "config"
    path.write_bytes(content)
    with pytest.raises(RefusedError, match=message) as caught:
        read_context((path,), "a")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3


def test_an_unreadable_kubeconfig_is_named(tmp_path: Path) -> None:
    """A folder in its place is as unreadable as a file without rights, also for root."""
    with pytest.raises(RefusedError, match=f"{tmp_path}: cannot be read as a kubeconfig: .*directory"):
        read_context((tmp_path,), "a")


def test_a_missing_kubeconfig_says_where_it_was_looked_for(tmp_path: Path) -> None:
    """And that the place came from KUBECONFIG."""
    with pytest.raises(RefusedError, match=f"KUBECONFIG names {tmp_path}/none, which does not exist"):
        kubeconfig_paths({"KUBECONFIG": f"{tmp_path}/none"})


def test_several_kubeconfigs_are_one_and_the_first_wins(tmp_path: Path) -> None:
    """As for kubectl, which also passes over files that are not there."""
    first = _kubeconfig(tmp_path / "first", "a", user={"token": "first"})
    second = _kubeconfig(tmp_path / "second", "a", "b")
    paths = kubeconfig_paths({"KUBECONFIG": f"{first}:{tmp_path}/none:{second}"})
    assert paths == (first, second)
    assert read_context(paths, "a").user == {"token": "first"}
    assert read_context(paths, "b").user == {"token": "secret-of-b"}


def test_the_private_copy_holds_one_context_and_is_private(tmp_path: Path) -> None:
    """Nothing of the other contexts is in it, and nobody else can read it or the keys beside it."""
    key = base64.b64encode(b"the key").decode()
    path = _kubeconfig(tmp_path / "config", "a", "b", user={"client-key-data": key})
    folder = tmp_path / "private"
    folder.mkdir()
    copy = write_private(read_context((path,), "b"), folder)
    text = copy.read_text("utf-8")
    assert yaml.safe_load(text)["current-context"] == "b"
    assert "a-u" not in text
    assert key not in text
    assert (folder / "client-key.pem").read_bytes() == b"the key"
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}


def test_relative_paths_count_from_the_kubeconfig(tmp_path: Path) -> None:
    """Certificates, token files and credential plugins are found from a copy elsewhere; plugins on PATH stay so."""
    settings = {"command": "./bin/login", "apiVersion": "v1"}
    path = _kubeconfig(
        tmp_path / "kube" / "config", "a", user={"exec": settings}, **{"certificate-authority": "ca.crt"}
    )
    context = read_context((path,), "a")
    assert context.cluster["certificate-authority"] == str(tmp_path / "kube" / "ca.crt")
    assert context.user["exec"]["command"] == str(tmp_path / "kube" / "bin" / "login")
    path = _kubeconfig(path, "a", user={"exec": {"command": "aws"}, "tokenFile": "/run/token"})
    assert read_context((path,), "a").user == {"exec": {"command": "aws"}, "tokenFile": "/run/token"}


def test_data_that_is_not_base64_is_a_refusal(tmp_path: Path) -> None:
    """And no traceback."""
    path = _kubeconfig(tmp_path / "config", "a", user={"client-key-data": "abc"})
    with pytest.raises(RefusedError, match="client-key-data in the kubeconfig is not base64"):
        write_private(read_context((path,), "a"), tmp_path)


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
def test_a_name_can_say_that_people_depend_on_a_cluster(names: tuple[str, str, str], reason: str) -> None:
    """Context, cluster and server are looked at; the reason says which one it was."""
    assert looks_like_production(*names) == reason


HIDDEN = "hidden-t0ken"


def read_user(folder: Path, user: dict[str, Any], **cluster: str) -> Credentials:
    """The credentials of a private copy with this user."""
    path = _kubeconfig(folder / "config", "a", user=user, **cluster)
    (folder / "private").mkdir()
    return read_credentials(write_private(read_context((path,), "a"), folder / "private"))


@pytest.mark.parametrize("user", [{"token": 12345678}, {"tokenFile": "none"}, {"username": "me", "password": 12345678}])
def test_credentials_that_are_no_text_are_refused(tmp_path: Path, user: dict[str, Any]) -> None:
    """YAML reads digits as a number."""
    with pytest.raises(RefusedError, match="context a: ") as caught:
        read_user(tmp_path, user)
    assert "12345678" not in str(caught.value)


@pytest.mark.parametrize(
    "user", [{"exec": "aws"}, {"exec": {"command": "x", "env": 5}}, {"tokenFile": 5}, ["a"], "abc", 5]
)
def test_a_user_of_an_odd_shape_is_one_refusal(tmp_path: Path, user: Any) -> None:
    """A kubeconfig is written by many tools: what is no user of one is refused, not a traceback."""
    content = {
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "clusters": [{"name": "a", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "a", "user": user}],
    }
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(content), "utf-8")
    with pytest.raises(RefusedError):
        read_credentials(write_private(read_context((path,), "a"), tmp_path))


def test_a_token_file_that_is_empty_is_refused(tmp_path: Path) -> None:
    """Rather than sending none, and being taken for another user."""
    (tmp_path / "token").write_text("\n", "utf-8")
    with pytest.raises(RefusedError, match="token is empty"):
        read_user(tmp_path, {"tokenFile": "token"})


@pytest.mark.parametrize("password", ["p4ss:wörd", " p4ss:wörd\n"])
def test_a_password_is_a_header_in_utf_8(tmp_path: Path, password: str) -> None:
    """Without the white space around it."""
    headers = read_user(tmp_path, {"username": "me", "password": password}).headers
    assert base64.b64decode(headers["authorization"].removeprefix("Basic ")).decode() == "me:p4ss:wörd"


def test_a_password_with_a_line_break_is_refused(tmp_path: Path) -> None:
    """And not shown."""
    with pytest.raises(RefusedError, match="username or password has a line break") as caught:
        read_user(tmp_path, {"username": "me", "password": f"{HIDDEN}\nx"})
    assert HIDDEN not in str(caught.value)


@pytest.mark.parametrize("url", [f"http://me:{HIDDEN}@proxy.example:3128", f" http://me:{HIDDEN}@proxy.example:3128\n"])
def test_a_proxy_s_password_is_a_header_and_not_in_its_url(tmp_path: Path, url: str) -> None:
    """Of the API client and of the streams: the URL is in the libraries' messages."""
    credentials = read_user(tmp_path, {"token": "t"}, **{"proxy-url": url})
    expected = {"proxy-authorization": f"Basic {base64.b64encode(f'me:{HIDDEN}'.encode()).decode()}"}
    assert credentials.proxy == credentials.configuration.proxy == "http://proxy.example:3128"
    assert credentials.proxy_headers == credentials.configuration.proxy_headers == expected
    assert HIDDEN not in repr(credentials)


@pytest.mark.parametrize(
    ("key", "url"),
    [
        ("proxy-url", f"http://me:{HIDDEN}@proxy.example:port"),
        ("proxy-url", f"ftp://me:{HIDDEN}@proxy.example"),
        ("proxy-url", f"http://me:{HIDDEN}@proxy.ex\nample"),
        ("proxy-url", f"http://me:{HIDDEN}%0A@proxy.example"),
        ("server", f"https://me:{HIDDEN}@there.example"),
        ("server", f"https://me:{HIDDEN}@[there"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_and_not_shown(tmp_path: Path, key: str, url: str) -> None:
    """Of the proxy and of the API server."""
    with pytest.raises(RefusedError, match=r"context a: its (proxy-url|server) ") as caught:
        read_user(tmp_path, {"token": "t"}, **{key: url})
    assert HIDDEN not in "".join(traceback.format_exception(caught.value))


def test_a_file_that_is_no_yaml_is_not_shown(tmp_path: Path) -> None:
    """The line is named; what stands there may be a secret."""
    (tmp_path / "config").write_text(f"users:\n- user:\n    token: {HIDDEN}: x\n", "utf-8")
    with pytest.raises(RefusedError, match="cannot be read as a kubeconfig: line 3, column") as caught:
        read_context((tmp_path / "config",), "a")
    assert HIDDEN not in "".join(traceback.format_exception(caught.value))


def test_the_private_copy_has_the_token_as_it_is_sent(tmp_path: Path) -> None:
    """Child tools get it, too."""
    path = _kubeconfig(tmp_path / "config", "a", user={"token": f"{HIDDEN}\n"})
    (tmp_path / "private").mkdir()
    copy = write_private(read_context((path,), "a"), tmp_path / "private")
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
def test_every_secret_of_a_user_is_known_once_it_was_read(tmp_path: Path, user: dict[str, Any]) -> None:
    """Whatever happens afterwards, no message has it."""
    read_context((_kubeconfig(tmp_path / "config", "a", user=user),), "a")
    assert HIDDEN not in redact(f"it said {HIDDEN}-and-more, {HIDDEN}")
