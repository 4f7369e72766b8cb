"""Run a credential plugin of a kubeconfig (`exec`), as client-go does, and read the credentials that it prints.

Its own output is never in a message, since it may be a secret in another form; what it reports on standard error is.
"""

import base64
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.errors import RefusedError
from bench.system.processes import Ran, run_program
from bench.system.redaction import one_line, register_key, register_secret

API_VERSIONS: Final = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
_STATUS_KEYS: Final = ("token", "clientCertificateData", "clientKeyData")
_EXTENSION: Final = "client.authentication.k8s.io/exec"
_CLUSTER_KEYS: Final = (
    "server",
    "tls-server-name",
    "insecure-skip-tls-verify",
    "proxy-url",
    "disable-compression",
)
_START_TIMEOUT_S: Final = 300.0  # a login in a browser
_RENEWAL_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class PluginCredentials:
    """What a credential plugin printed: a token, or a certificate with its key (PEM), or both."""

    token: str = ""
    certificate: str = ""
    key: str = ""


def run_plugin(
    settings: Mapping[str, Any], cluster: Mapping[str, Any], *, where: str, in_run: bool = False
) -> PluginCredentials:
    """Run a credential plugin. On a terminal it may ask the user, but not `in_run`, which cannot wait for an
    answer. Raises RefusedError with its message."""
    what = f"{where}: no usable credentials: its credential plugin {one_line(settings['command'])}"
    on_terminal = _choose_terminal(settings, what, in_run=in_run)
    environment = _make_environment(settings, cluster, on_terminal=on_terminal, what=what)
    timeout_s = None if on_terminal else _RENEWAL_TIMEOUT_S if in_run else _START_TIMEOUT_S
    try:
        ran = run_program(
            [settings["command"], *(settings.get("args") or ())],
            env=environment,
            on_terminal=on_terminal,
            timeout_s=timeout_s,
        )
    except FileNotFoundError:
        hint = one_line(str(settings.get("installHint") or "install it, or correct `command` in the kubeconfig"))
        raise RefusedError(f"{what} is not installed, or not on PATH; hint: {hint}") from None
    except TimeoutError:
        raise RefusedError(f"{what} did not end within {timeout_s:.0f} s; hint: log in again") from None
    except (OSError, ValueError) as error:
        raise RefusedError(f"{what} does not run: {getattr(error, 'strerror', None) or type(error).__name__}") from None
    if ran.exit_code != 0:
        raise RefusedError(f"{what} {_describe_end(ran)}; hint: log in again")
    return _read_credentials(ran, str(settings.get("apiVersion")), what)


def _choose_terminal(settings: Mapping[str, Any], what: str, *, in_run: bool) -> bool:
    """Return whether the plugin may ask the user. Raises RefusedError where it has to, and cannot."""
    if settings.get("apiVersion") not in API_VERSIONS:
        raise RefusedError(f"{what}: apiVersion must be {' or '.join(API_VERSIONS)}")
    mode = settings.get("interactiveMode") or "IfAvailable"
    if mode not in ("Never", "IfAvailable", "Always"):
        raise RefusedError(f"{what}: interactiveMode must be Never, IfAvailable or Always")
    is_there = not in_run and sys.stdin is not None and sys.stdin.isatty()
    if mode == "Always" and not is_there:
        why = "a run that goes on cannot wait for answers" if in_run else "there is none"
        raise RefusedError(f"{what} needs a terminal (interactiveMode: Always), and {why}; hint: log in again")
    return is_there and mode != "Never"


def _make_environment(
    settings: Mapping[str, Any], cluster: Mapping[str, Any], *, on_terminal: bool, what: str
) -> dict[str, str]:
    spec: dict[str, Any] = {"interactive": on_terminal}
    if settings.get("provideClusterInfo"):
        spec["cluster"] = _describe_cluster(cluster, what)
    info = {"apiVersion": settings["apiVersion"], "kind": "ExecCredential", "spec": spec}
    own = {str(one["name"]): str(one["value"]) for one in settings.get("env") or ()}
    return {**os.environ, **own, "KUBERNETES_EXEC_INFO": json.dumps(info)}


def _describe_cluster(cluster: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return what a plugin receives about the cluster, with the content of the authority's file."""
    found = {key: cluster[key] for key in _CLUSTER_KEYS if cluster.get(key)}
    if file := cluster.get("certificate-authority"):
        try:
            found["certificate-authority-data"] = base64.b64encode(Path(file).read_bytes()).decode()
        except OSError as error:
            raise RefusedError(f"{what}: {file}: {error.strerror}") from None
    extensions = cluster.get("extensions")
    for one in extensions if isinstance(extensions, list) else ():
        if isinstance(one, dict) and one.get("name") == _EXTENSION:
            found["config"] = one.get("extension")
    return found


def _describe_end(ran: Ran) -> str:
    """Format how it failed, with its message."""
    code = ran.exit_code
    end = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return f"{end}: {one_line(ran.stderr) or 'without a message'}"


def _read_credentials(ran: Ran, version: str, what: str) -> PluginCredentials:
    """Read an ExecCredential. Raises RefusedError, without showing it."""
    try:
        answer = json.loads(ran.stdout) if ran.is_complete else None
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict) or answer.get("kind") != "ExecCredential":
        raise RefusedError(f"{what} printed no ExecCredential; hint: run it by hand, and see its documentation")
    if answer.get("apiVersion") != version:
        raise RefusedError(f"{what} printed another apiVersion than {version}; hint: correct it in the kubeconfig")
    status = answer.get("status")
    values = [(status or {}).get(key) or "" for key in _STATUS_KEYS] if isinstance(status, dict | None) else [None]
    if not all(isinstance(one, str) for one in values):
        raise RefusedError(f"{what} printed credentials that are not text")
    token, certificate, key = map(str, values)
    register_secret(token)
    register_key(key)
    if not token and not certificate and not key:
        raise RefusedError(f"{what} printed neither a token nor a certificate; hint: log in again")
    if bool(certificate) != bool(key):
        raise RefusedError(f"{what} printed a certificate without its key, or a key without its certificate")
    return PluginCredentials(token, certificate, key)
