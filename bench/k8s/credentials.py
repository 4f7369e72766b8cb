"""Who we are to an API server, read from a run's private kubeconfig.

Every secret that is read here is registered, so that it is in no message and no file of a run. What cannot be a header
is refused here, since the HTTP libraries would show it.
"""

import base64
import binascii
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import urllib3
import yaml
from kubernetes.client import ApiException, Configuration
from kubernetes.client.rest import should_bypass_proxies
from kubernetes.config.config_exception import ConfigException
from kubernetes.config.exec_provider import ExecProvider
from kubernetes.config.kube_config import ConfigNode, KubeConfigLoader

from bench.errors import RefusedError
from bench.system.redaction import format_basic_authorization, register_key, register_secret, split_credentials

_HEADER_TEXT: Final = re.compile(r"[\x20-\x7e]+")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_SECRET_NAME: Final = re.compile(r"token|secret|passw|key", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Everything that a connection needs. `headers` hold the token: they are secret, and never shown."""

    configuration: Configuration
    headers: dict[str, str] = field(repr=False)
    proxy_headers: dict[str, str] = field(repr=False)

    @property
    def server(self) -> str:
        return str(self.configuration.host).rstrip("/")

    @property
    def server_name(self) -> str | None:
        """The name that the server's certificate must have, where the kubeconfig names another than the URL's."""
        return self.configuration.tls_server_name or None

    @property
    def proxy(self) -> str | None:
        configuration = self.configuration
        if not configuration.proxy or should_bypass_proxies(self.server, configuration.no_proxy or ""):
            return None
        return str(configuration.proxy)

    def tls(self) -> ssl.SSLContext | bool:
        """Return the TLS context for the WebSockets, which the package's own client does not open; True for plain
        HTTP."""
        if not self.server.startswith("https:"):
            return True
        context = ssl.create_default_context(cafile=self.configuration.ssl_ca_cert)
        if not self.configuration.verify_ssl:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.configuration.cert_file:
            context.load_cert_chain(self.configuration.cert_file, self.configuration.key_file)
        return context


def read_credentials(kubeconfig: Path) -> Credentials:
    """Read the one context of a private kubeconfig; runs its credential plugin if it has one. Raises RefusedError."""
    content = yaml.safe_load(kubeconfig.read_text("utf-8"))
    configuration = Configuration()
    configuration.retries = False  # we retry ourselves, and only what is safe
    where, basic = f"context {content['current-context']}", ""
    _refuse_credentials_in(str(content["clusters"][0]["cluster"].get("server", "")), where)
    try:
        for entry in content.get("users", ()):
            if "exec" in entry["user"]:
                cluster = content["clusters"][0]["cluster"]
                entry["user"] = _run_credential_plugin(entry["user"]["exec"], cluster, kubeconfig.parent)
            entry["user"], basic = _prepare_user(entry["user"], where)
        loader = KubeConfigLoader(content, config_base_path="")  # type: ignore[no-untyped-call]  # has no types
        loader.load_and_set(configuration)  # type: ignore[no-untyped-call]
    except (ConfigException, OSError) as error:
        raise RefusedError(f"{where}: no usable credentials: {_format_error(error)}") from error
    except (ValueError, TypeError, KeyError, AttributeError, urllib3.exceptions.HTTPError, ApiException) as error:
        # Its text may have the credentials in it.
        raise RefusedError(f"{where}: no usable credentials: {type(error).__name__}") from None
    if configuration.key_file:
        _register_key_file(Path(configuration.key_file))
    token = configuration.get_api_key_with_prefix("BearerToken")
    authorization = f"Bearer {clean_token(token.removeprefix('Bearer '), where)}" if token else basic
    return Credentials(
        configuration, {"authorization": authorization} if authorization else {}, _proxy_headers(configuration, where)
    )


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


def _proxy_headers(configuration: Configuration, where: str) -> dict[str, str]:
    """Move a proxy's password from its URL, which is in messages of the HTTP libraries, into a header."""
    if not configuration.proxy:
        return {}
    url = str(configuration.proxy).strip()
    url = url if "://" in url else f"http://{url}"  # as in HTTPS_PROXY, for many tools
    try:
        clean, pair = split_credentials(url)
    except ValueError as error:
        raise RefusedError(f"{where}: its proxy-url cannot be used: {error}") from None
    if should_bypass_proxies(str(configuration.host), configuration.no_proxy or ""):
        return {}
    if _CONTROL.search(url) or not re.match(r"https?://[^/?#@]", clean):
        raise RefusedError(f"{where}: its proxy-url cannot be used: write http://HOST:PORT or https://HOST:PORT")
    headers = {"proxy-authorization": _make_basic_header(pair, f"{where}: its proxy-url")} if pair else {}
    configuration.proxy, configuration.proxy_headers = clean, headers or None
    return headers


def _register_key_file(path: Path) -> None:
    """Register a private key; one that is not readable is refused where it is used."""
    try:
        register_key(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError):
        return


def _run_credential_plugin(settings: dict[str, Any], cluster: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a user as the credential plugin describes it; keys and certificates become private files next to the
    kubeconfig."""
    provider = ExecProvider(  # type: ignore[no-untyped-call]
        ConfigNode("exec", settings),  # type: ignore[no-untyped-call]
        None,
        ConfigNode("cluster", cluster),  # type: ignore[no-untyped-call]
    )
    status: dict[str, str] = provider.run()  # type: ignore[no-untyped-call]
    user: dict[str, Any] = {"token": status["token"]} if status.get("token") else {}
    for key, entry in (("clientCertificateData", "client-certificate"), ("clientKeyData", "client-key")):
        if status.get(key):
            user[entry] = str(write_private_file(folder / f"plugin-{entry}.pem", status[key].encode()))
    if not user:
        raise ConfigException(f"{settings['command']} answered with neither a token nor a certificate")
    return user


def write_private_file(path: Path, content: bytes) -> Path:
    """Write a file that no other user can read, not even for a moment."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600, exist_ok=False)
    path.write_bytes(content)
    return path


def _format_error(error: Exception) -> str:
    return " ".join(str(error).split())
