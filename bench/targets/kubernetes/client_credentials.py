"""Who we are to an API server, read from a run's private kubeconfig."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubernetes.client import Configuration
from kubernetes.client.rest import should_bypass_proxies
from kubernetes.config.config_exception import ConfigException
from kubernetes.config.exec_provider import ExecProvider
from kubernetes.config.kube_config import ConfigNode, KubeConfigLoader

from bench.errors import RefusedError


@dataclass(frozen=True, slots=True)
class Credentials:
    """Everything that a connection needs. `headers` hold the token: they are secret, and never shown."""

    configuration: Configuration
    headers: dict[str, str]

    @property
    def server(self) -> str:
        return str(self.configuration.host).rstrip("/")

    @property
    def server_name(self) -> str | None:
        """What the server's certificate has to be for, where the kubeconfig names something else than the URL."""
        return self.configuration.tls_server_name or None

    @property
    def proxy(self) -> str | None:
        configuration = self.configuration
        if not configuration.proxy or should_bypass_proxies(self.server, configuration.no_proxy or ""):
            return None
        return str(configuration.proxy)

    def tls(self) -> ssl.SSLContext | bool:
        """For the web sockets, which the package's own client does not open; True for plain http."""
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
    """Reads the one context of a private kubeconfig; runs its credential plugin if it has one. Raises RefusedError."""
    content = yaml.safe_load(kubeconfig.read_text("utf-8"))
    configuration = Configuration()
    configuration.retries = False  # we repeat ourselves, and only what is safe
    try:
        for entry in content.get("users", ()):
            if "exec" in entry["user"]:
                cluster = content["clusters"][0]["cluster"]
                entry["user"] = _from_plugin(entry["user"]["exec"], cluster, kubeconfig.parent)
        loader = KubeConfigLoader(content, config_base_path="")  # type: ignore[no-untyped-call]  # has no types
        loader.load_and_set(configuration)  # type: ignore[no-untyped-call]
    except (ConfigException, OSError) as error:
        raise RefusedError(f"context {content['current-context']}: no usable credentials: {_line(error)}") from error
    token = configuration.get_api_key_with_prefix("BearerToken")
    return Credentials(configuration, {"authorization": token} if token else {})


def _from_plugin(settings: dict[str, Any], cluster: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A user as the plugin's answer describes it; keys and certificates become private files beside the kubeconfig."""
    provider = ExecProvider(  # type: ignore[no-untyped-call]
        ConfigNode("exec", settings),  # type: ignore[no-untyped-call]
        None,
        ConfigNode("cluster", cluster),  # type: ignore[no-untyped-call]
    )
    status: dict[str, str] = provider.run()  # type: ignore[no-untyped-call]
    user: dict[str, Any] = {"token": status["token"]} if "token" in status else {}
    for key, entry in (("clientCertificateData", "client-certificate"), ("clientKeyData", "client-key")):
        if key in status:
            user[entry] = str(private_file(folder / f"plugin-{entry}.pem", status[key].encode()))
    if not user:
        raise ConfigException(f"{settings['command']} answered with neither a token nor a certificate")
    return user


def private_file(path: Path, content: bytes) -> Path:
    """Writes a file that nobody else can read, not even for a moment."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600, exist_ok=False)
    path.write_bytes(content)
    return path


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
