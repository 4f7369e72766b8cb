"""Who we are to an API server, read from a run's private kubeconfig.

Every secret that is read here is registered, so that it is in no message and no file of a run. What cannot be a header
is refused here, since the HTTP libraries would show it.
"""

import base64
import binascii
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import urllib3
import yaml
from kubernetes.client import ApiException, Configuration
from kubernetes.config.config_exception import ConfigException
from kubernetes.config.kube_config import KubeConfigLoader

from bench.errors import RefusedError
from bench.k8s.plugin import PluginCredentials, run_plugin
from bench.k8s.proxy import Proxy, choose_proxy
from bench.system.redaction import (
    format_basic_authorization,
    one_line,
    register_key,
    register_secret,
    split_credentials,
)

_HEADER_TEXT: Final = re.compile(r"[\x20-\x7e]+")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_SECRET_NAME: Final = re.compile(r"token|secret|passw|key", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Everything that a connection needs. `headers` hold the token: they are secret, and never shown. `server_name` is
    the name that the server's certificate must have, where the kubeconfig names another than the URL's. `tls` is None
    for plain HTTP, `proxy` for a direct connection."""

    server: str
    headers: dict[str, str] = field(repr=False)
    tls: ssl.SSLContext | None = None
    server_name: str | None = None
    proxy: Proxy | None = None


def read_credentials(kubeconfig: Path, *, in_run: bool = False) -> Credentials:
    """Read the one context of a private kubeconfig; runs its credential plugin if it has one, which may ask the user,
    but not `in_run`. Raises RefusedError."""
    content = yaml.safe_load(kubeconfig.read_text("utf-8"))
    cluster = content["clusters"][0]["cluster"]
    configuration = Configuration()
    where, basic = f"context {content['current-context']}", ""
    _refuse_credentials_in(str(cluster.get("server", "")), where)
    try:
        for entry in content.get("users", ()):
            if "exec" in entry["user"]:
                found = run_plugin(entry["user"]["exec"], cluster, where=where, in_run=in_run)
                entry["user"] = _write_plugin_files(found, kubeconfig.parent)
            entry["user"], basic = _prepare_user(entry["user"], where)
        loader = KubeConfigLoader(content, config_base_path="")  # type: ignore[no-untyped-call]  # has no types
        loader.load_and_set(configuration)  # type: ignore[no-untyped-call]
    except (ConfigException, OSError) as error:
        raise RefusedError(f"{where}: no usable credentials: {one_line(str(error))}") from error
    except (ValueError, TypeError, KeyError, AttributeError, urllib3.exceptions.HTTPError, ApiException) as error:
        # Its text may have the credentials in it.
        raise RefusedError(f"{where}: no usable credentials: {type(error).__name__}") from None
    token = configuration.get_api_key_with_prefix("BearerToken")
    authorization = f"Bearer {clean_token(token.removeprefix('Bearer '), where)}" if token else basic
    server = str(configuration.host).rstrip("/")
    return Credentials(
        server,
        {"authorization": authorization} if authorization else {},
        tls=_make_tls(configuration, where) if server.startswith("https:") else None,
        server_name=configuration.tls_server_name or None,
        proxy=choose_proxy(cluster, server, os.environ, where),
    )


def _make_tls(configuration: Configuration, where: str) -> ssl.SSLContext:
    """Return the TLS settings of a kubeconfig. Certificates are verified without VERIFY_X509_STRICT, which Python sets
    since 3.13: authorities of many clusters have no key identifiers, and kubectl takes them. Raises RefusedError."""
    files = (configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file)
    try:
        for file in filter(None, files):
            Path(file).read_bytes()  # OpenSSL does not name the file that it cannot read
        if configuration.key_file:
            register_key(Path(configuration.key_file).read_text("utf-8", "replace"))
        context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if not configuration.verify_ssl:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if configuration.cert_file:
            context.load_cert_chain(configuration.cert_file, configuration.key_file, password=_refuse_passphrase)
    except ssl.SSLError as error:
        named = ", ".join(str(file) for file in files if file)
        raise RefusedError(f"{where}: its certificates or key cannot be used ({named}): {error.reason}") from None
    except (OSError, ValueError) as error:
        raise RefusedError(f"{where}: its certificates or key cannot be used: {one_line(str(error))}") from None
    return context


def _refuse_passphrase() -> str:
    """Refuse an encrypted key, for which OpenSSL would ask on the terminal."""
    raise ValueError("the client key is encrypted, which no kubeconfig has a passphrase for")


def register_user(user: Mapping[str, Any]) -> None:
    """Register every secret in a kubeconfig's user entry."""
    environment = _as_mapping(user.get("exec")).get("env")
    listed = environment if isinstance(environment, list) else []
    values = {str(one.get("name")): one.get("value") for one in listed if isinstance(one, dict)}
    named = {**values, **_as_mapping(_as_mapping(user.get("auth-provider")).get("config"))}
    secrets = [user.get("token"), user.get("password"), *(v for name, v in named.items() if _SECRET_NAME.search(name))]
    for secret in secrets:
        if isinstance(secret, str):
            register_secret(secret)
    if isinstance(data := user.get("client-key-data"), str):
        register_secret(data)
        try:
            register_key(base64.b64decode(data).decode())
        except (binascii.Error, ValueError):
            return  # an invalid key is refused where it is used


def _as_mapping(value: object) -> Mapping[str, Any]:
    """Return a mapping; empty for any other value, which is refused where it is used."""
    return {str(key): one for key, one in value.items()} if isinstance(value, dict) else {}


def clean_token(text: object, where: str) -> str:
    """Return a token as it is sent: without surrounding white space, which kubectl trims, too. Raises RefusedError for
    one that cannot be a header, without showing it."""
    if not isinstance(text, str):
        raise RefusedError(f"{where}: its token is not text; hint: put it in quotes")
    register_secret(text)
    token = text.strip()
    if not _HEADER_TEXT.fullmatch(token):
        what = "has a line break or other characters inside that no header can have" if token else "is empty"
        raise RefusedError(f"{where}: its token {what}; hint: log in again, or write the token again, on one line")
    return token


def _prepare_user(user: Mapping[str, Any], where: str) -> tuple[dict[str, Any], str]:
    """Return a user with its token trimmed and read from its file; user name and password as the header that they
    become."""
    register_user(user)
    kept = {key: value for key, value in user.items() if key not in ("token", "tokenFile", "username", "password")}
    if user.get("token"):
        kept["token"] = clean_token(user["token"], where)
    elif user.get("tokenFile"):
        kept["token"] = clean_token(Path(user["tokenFile"]).read_text("utf-8"), f"{where}: {user['tokenFile']}")
    name, password = user.get("username"), user.get("password")
    if name is None or password is None:
        return kept, ""
    if not isinstance(name, str) or not isinstance(password, str):
        raise RefusedError(f"{where}: username and password must be text; hint: put them in quotes")
    return kept, _make_basic_header(f"{name.strip()}:{password.strip()}", f"{where}: username or password")


def _make_basic_header(pair: str, what: str) -> str:
    register_secret(pair.partition(":")[2])
    if _CONTROL.search(pair):
        raise RefusedError(f"{what} has a line break or another control character inside, which no header can have")
    return format_basic_authorization(pair)


def _refuse_credentials_in(server: str, where: str) -> None:
    """Raise RefusedError for credentials in the API server's URL: it is in many messages, and neither client would send
    them."""
    try:
        _, pair = split_credentials(server)
    except ValueError as error:
        raise RefusedError(f"{where}: its server cannot be used: {error}") from None
    if pair:
        raise RefusedError(f"{where}: its server has a user in its URL; hint: put username and password under users")


def _write_plugin_files(found: PluginCredentials, folder: Path) -> dict[str, Any]:
    """Return a user as a credential plugin described it; key and certificate become private files next to the
    kubeconfig."""
    user: dict[str, Any] = {"token": found.token} if found.token else {}
    for text, entry in ((found.certificate, "client-certificate"), (found.key, "client-key")):
        if text:
            user[entry] = str(write_private_file(folder / f"plugin-{entry}.pem", text.encode()))
    return user


def write_private_file(path: Path, content: bytes) -> Path:
    """Write a file that no other user can read, not even for a moment."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600, exist_ok=False)
    path.write_bytes(content)
    return path
