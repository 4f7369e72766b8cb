"""Reach one cluster, never another: read the user's kubeconfig once, and use a private copy of one context.

A context that the user switches to in another shell later changes nothing here. A kubeconfig can name programs to run
for credentials, so its path comes from the user's environment alone, never from a scenario.

The private copy is in a temporary folder, which a later command removes where this one is killed.
"""

import base64
import binascii
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from bench.errors import ClusterError, ErrorKind, RefusedError
from bench.k8s.client import Cluster, connect
from bench.k8s.credentials import register_user, write_private_file
from bench.k8s.in_cluster import IN_CLUSTER, read_own_context
from bench.k8s.kubeconfig_types import CLUSTER_TYPES, CONTEXT_TYPES, USER_TYPES, Context, require_types
from bench.k8s.retry import REQUEST, RetryPolicy, retry
from bench.system.cancellation import CancelToken
from bench.system.temporary import remove_abandoned, temporary_folder
from bench.system.timing import DEFAULT, Timing

DEFAULT_PATH = Path("~/.kube/config")
_PRODUCTION = re.compile(r"prod|prd|(?<![a-z])live(?![a-z])", re.IGNORECASE)
# Keys that name a file, or hold its content under `<key>-data`.
_CLUSTER_FILES = ("certificate-authority",)
_USER_FILES = ("client-certificate", "client-key")
_TLS_KEYS = ("certificate-authority", "certificate-authority-data", "insecure-skip-tls-verify", "tls-server-name")


@contextmanager
def credentials_folder() -> Iterator[Path]:
    """Make a temporary folder for this user alone, removed when the block is left; remove those of dead commands
    before."""
    remove_abandoned()
    with temporary_folder() as folder:
        yield folder


@contextmanager
def open_cluster(context: str | None, *, private_folder: Path, timing: Timing = DEFAULT) -> Iterator[Cluster]:
    """Connect to the cluster of a context that was named, and to no other. Raises RefusedError, also where it does not
    answer."""
    with connect_context(context, private_folder=private_folder, timing=timing) as cluster:
        try:
            require_server(cluster, replace(REQUEST, patience_s=timing.request_s))
        except ClusterError as error:
            raise RefusedError(f"context {cluster.context}: {error}") from error
        yield cluster


@contextmanager
def connect_context(context: str | None, *, private_folder: Path, timing: Timing = DEFAULT) -> Iterator[Cluster]:
    """Connect like `open_cluster`, without a first request to the API server."""
    chosen, read_again = _find_context(context)
    private_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="kubeconfig-", dir=private_folder))
    try:
        kubeconfig = write_private_kubeconfig(chosen, folder)
        renew = partial(_renew_credentials, read_again, chosen, folder)
        with connect(
            kubeconfig, context=chosen.name, cluster_name=chosen.cluster_name, renew=renew, timing=timing
        ) as cluster:
            yield cluster
    finally:
        shutil.rmtree(folder)


def _find_context(name: str | None) -> tuple[Context, Callable[[], Context] | None]:
    """Return a context and how to read it again, None where that cannot be done. Raises RefusedError."""
    if name == IN_CLUSTER:
        return read_own_context(os.environ), partial(read_own_context, os.environ)
    paths = kubeconfig_paths(os.environ)
    # What is read once, such as a pipe, has nothing more to read.
    lasting = tuple(path for path in paths if path.is_file())
    return read_context(paths, name), partial(read_context, lasting, name) if lasting else None


def require_server(cluster: Cluster, policy: RetryPolicy, *, watch: CancelToken | None = None) -> None:
    """Wait until the API server answers, for as long as the policy says, and raise ClusterError where it does not.
    Raises RefusedError for what waiting does not fix: nothing was started yet, so it is no failure."""
    try:
        retry(cluster.check_reachable, policy, watch=watch)
    except ClusterError as error:
        if error.is_retryable:
            raise
        why = f"{error}"
        if error.kind is ErrorKind.UNAUTHORIZED:
            why = f"{cluster.server} does not accept its credentials; hint: log in again ({error})"
        raise RefusedError(f"context {cluster.context}: {why}") from error


def _renew_credentials(read_again: Callable[[], Context] | None, pinned: Context, folder: Path) -> None:
    """Write newer credentials of the same user for the same cluster; nothing else can change during a run."""
    if read_again is None:
        return
    newer = read_again()
    if newer.cluster.get("server") == pinned.cluster.get("server") and newer.user_name == pinned.user_name:
        write_private_kubeconfig(newer, folder)


def kubeconfig_paths(environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the files that exist, of those in KUBECONFIG (or of ~/.kube/config, if it is not set). Raises
    RefusedError."""
    named = environment.get("KUBECONFIG", "")
    try:
        paths = [Path(part).expanduser() for part in named.split(os.pathsep) if part] or [DEFAULT_PATH.expanduser()]
        there = tuple(path for path in paths if _exists(path))
    except RuntimeError as error:  # the user has no home
        raise RefusedError(f"there is no kubeconfig: {error}; hint: set KUBECONFIG") from None
    if not there:
        source = "KUBECONFIG names" if named else "without KUBECONFIG it would be"
        raise RefusedError(f"there is no kubeconfig: {source} {', '.join(map(str, paths))}, which does not exist")
    return there


def _exists(path: Path) -> bool:
    """Return whether a file exists. Raises RefusedError where that cannot be known, which is no reason to go on without
    it."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise RefusedError(f"{path}: cannot be read as a kubeconfig: {why}") from None
    return True


def read_context(paths: tuple[Path, ...], name: str | None) -> Context:
    """Read the named context from one or more kubeconfigs; of entries with the same name, the first counts."""
    parsed = [(path, _parse(path)) for path in paths]
    contexts, clusters, users = (_read_entries(parsed, kind) for kind in ("contexts", "clusters", "users"))
    listed = f"contexts in {', '.join(map(str, paths))}: {', '.join(contexts) or 'none'}"
    if not name:
        raise RefusedError(f"a cluster is used only when it is named; hint: give --context NAME; {listed}")
    if name not in contexts:
        raise RefusedError(f"there is no context {name}; {listed}")
    context = contexts[name]
    require_types(context, CONTEXT_TYPES, f"context {name}")
    cluster_name, user_name = context.get("cluster") or "", context.get("user") or ""
    cluster, user = (_drop_nulls(one) for one in (clusters.get(cluster_name, {}), users.get(user_name, {})))
    register_user(user)
    require_types(cluster, CLUSTER_TYPES, f"context {name}: its cluster")
    require_types(user, USER_TYPES, f"context {name}: its user")
    if not cluster.get("server"):
        raise RefusedError(f"context {name}: its cluster {cluster_name!r} is not in {', '.join(map(str, paths))}")
    if user_name and user_name not in users:
        raise RefusedError(f"context {name}: its user {user_name!r} is not in {', '.join(map(str, paths))}")
    return Context(name, cluster_name, {**cluster, "server": _complete_server(cluster)}, user_name, user)


def _drop_nulls(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if value is not None}


def _complete_server(cluster: Mapping[str, Any]) -> str:
    """Return an API server's URL with its scheme, which kubectl takes from the other settings where it is missing."""
    server = str(cluster["server"]).strip()
    if "://" in server:
        return server
    has_tls = any(cluster.get(key) for key in _TLS_KEYS)
    return f"{'https' if has_tls else 'http'}://{server}"


def _read_entries(parsed: Sequence[tuple[Path, dict[str, Any]]], kind: str) -> dict[str, dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = {}
    for path, file in parsed:
        listed = file.get(kind) or []
        if not isinstance(listed, list):
            raise RefusedError(f"{path}: {kind} is not a list")
        for entry in listed:
            try:
                name, content = entry["name"], entry.get(kind.removesuffix("s")) or {}
                if not isinstance(name, str):
                    raise RefusedError(
                        f"{path}: an entry of {kind} has a name that is not text; hint: put it in quotes"
                    )
                entries.setdefault(name, _make_paths_absolute(content, path.absolute().parent))
            except (AttributeError, KeyError, TypeError) as error:
                raise RefusedError(f"{path}: an entry of {kind} is not one of a kubeconfig") from error
    return entries


def _parse(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except yaml.MarkedYAMLError as error:  # its text shows lines of the file, and they may be secret
        mark = error.problem_mark
        at = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"
        raise RefusedError(f"{path}: cannot be read as a kubeconfig: {at}: not valid YAML") from None
    except OSError as error:
        raise RefusedError(f"{path}: cannot be read as a kubeconfig: {error.strerror or error}") from error
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError, ValueError) as error:  # some show what they have read
        raise RefusedError(f"{path}: cannot be read as a kubeconfig: it is not valid YAML in UTF-8") from error
    if content is None:
        return {}  # an empty file, as kubectl takes it
    if not isinstance(content, dict):
        raise RefusedError(f"{path}: this is not a kubeconfig")
    return content


def _make_paths_absolute(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Resolve relative paths from the kubeconfig's folder, also in a copy elsewhere."""
    keys = (key for key in (*_CLUSTER_FILES, *_USER_FILES, "tokenFile") if isinstance(content.get(key), str))
    files: dict[str, Any] = {key: str(folder / content[key]) for key in keys if content[key]}
    plugin = content.get("exec")
    command = plugin.get("command") if isinstance(plugin, dict) else None
    if isinstance(plugin, dict) and isinstance(command, str) and "/" in command:
        files["exec"] = {**plugin, "command": str(folder / command)}
    return {**content, **files}


def write_private_kubeconfig(context: Context, folder: Path) -> Path:
    """Write a kubeconfig with this context alone, for us and for child tools; keys are separate files next to it."""
    cluster = {**context.cluster, **_write_key_files(context.cluster, _CLUSTER_FILES, folder)}
    user = {**context.user, **_write_key_files(context.user, _USER_FILES, folder)}
    if isinstance(user.get("token"), str):
        user["token"] = user["token"].strip()  # child tools would send it as it is
    for content, keys in ((cluster, _CLUSTER_FILES), (user, _USER_FILES)):
        for key in keys:
            content.pop(f"{key}-data", None)
    copy = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": context.name,
        "contexts": [{"name": context.name, "context": {"cluster": context.cluster_name, "user": context.user_name}}],
        "clusters": [{"name": context.cluster_name, "cluster": cluster}],
        "users": [{"name": context.user_name, "user": user}],
    }
    return write_private_file(folder / "config", yaml.safe_dump(copy).encode())


def _write_key_files(content: Mapping[str, Any], keys: tuple[str, ...], folder: Path) -> dict[str, str]:
    files = {}
    for key in keys:
        if data := content.get(f"{key}-data"):
            try:
                files[key] = str(write_private_file(folder / f"{key}.pem", base64.b64decode(data)))
            except binascii.Error as error:
                raise RefusedError(f"{key}-data in the kubeconfig is not base64") from error
    return files


def looks_like_production(context: str, cluster: str, server: str) -> str:
    """Return why a cluster may be in production use; empty if no name suggests it."""
    for what, name in (("context", context), ("cluster", cluster), ("server", server)):
        if match := _PRODUCTION.search(name):
            return f"the {what} {name} has {match.group()!r} in its name"
    return ""


def describe_cluster(cluster: Cluster) -> str:
    """Format one line that names the cluster, before anything is done to it."""
    return f"context {cluster.context}: {cluster.server}, Kubernetes {cluster.version}, {_describe_nodes(cluster)}"


def _describe_nodes(cluster: Cluster) -> str:
    try:
        count = len(cluster.list("v1", "Node"))
    except ClusterError as error:
        if error.kind is not ErrorKind.FORBIDDEN:
            raise
        return "its nodes may not be listed"  # the pre-flight reports the missing permission
    return "1 node" if count == 1 else f"{count} nodes"
