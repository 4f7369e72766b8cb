"""Check the types of a kubeconfig's entries: many tools write kubeconfigs, and YAML reads digits as a number."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bench.errors import RefusedError


@dataclass(frozen=True, slots=True)
class Context:
    """One context of a kubeconfig, with nothing of the others; paths in it are absolute."""

    name: str
    cluster_name: str
    cluster: Mapping[str, Any]
    user_name: str
    user: Mapping[str, Any]


_Check = Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_truth(value: Any) -> bool:
    return isinstance(value, bool)


def _is_list_of_text(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_environment(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, dict) and _is_text(one.get("name")) and _is_text(one.get("value")) for one in value
    )


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


_TEXT: Final = (_is_text, "text; hint: put it in quotes")
_TRUTH: Final = (_is_truth, "true or false")
_MAPPING: Final = (_is_mapping, "a mapping")

Types = Mapping[str, tuple[_Check, str]]

CONTEXT_TYPES: Final[Types] = {"cluster": _TEXT, "user": _TEXT}
CLUSTER_TYPES: Final[Types] = {
    "server": _TEXT,
    "tls-server-name": _TEXT,
    "insecure-skip-tls-verify": _TRUTH,
    "certificate-authority": _TEXT,
    "certificate-authority-data": _TEXT,
    "proxy-url": _TEXT,
}
USER_TYPES: Final[Types] = {
    "client-certificate": _TEXT,
    "client-certificate-data": _TEXT,
    "client-key": _TEXT,
    "client-key-data": _TEXT,
    "token": _TEXT,
    "tokenFile": _TEXT,
    "username": _TEXT,
    "password": _TEXT,
    "exec": _MAPPING,
    "auth-provider": _MAPPING,
}
_PLUGIN_TYPES: Final[Types] = {
    "apiVersion": _TEXT,
    "command": _TEXT,
    "args": (_is_list_of_text, "a list of text"),
    "env": (_is_environment, "a list of names and values, each of them text"),
    "interactiveMode": _TEXT,
    "installHint": _TEXT,
    "provideClusterInfo": _TRUTH,
}


def require_types(entry: Mapping[str, Any], types: Types, where: str) -> None:
    """Raise RefusedError for a key whose value has another type than kubectl takes; it is not shown, since it may be a
    secret. A null is as good as no key."""
    for key, (check, wanted) in types.items():
        value = entry.get(key)
        if value is not None and not check(value):
            raise RefusedError(f"{where}: {key} must be {wanted}")
    plugin = entry.get("exec") if types is USER_TYPES else None
    if plugin is not None:
        require_types(plugin, _PLUGIN_TYPES, f"{where}: exec")
        if not plugin.get("command"):
            raise RefusedError(f"{where}: exec: command is missing")
