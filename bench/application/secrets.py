"""Withhold the values of Secrets, and what looks like a secret, from copies of manifests that others may see."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import yaml

from bench.files.yaml_source import KUBECTL, read_documents
from bench.system.redaction import REPLACEMENT, redact

_VALUES: Final = ("data", "stringData")
_KEPT: Final = ("apiVersion", "kind", "type", "immutable")
_KEPT_METADATA: Final = ("name", "namespace", "labels")


def withhold_secrets(file: Path) -> bytes | None:
    """Return a file of manifests without the values of its Secrets and without what looks like a secret; None where it
    has neither. Comments and the layout are lost with them.

    Raises InputError where it cannot be read.
    """
    values = [one.value for one in read_documents(file, KUBECTL)]
    withheld = [_withhold(one) for one in values]
    text = file.read_bytes().decode("utf-8", "replace")
    if withheld == values and redact(text) == text:
        return None
    return redact(_dump(withheld, is_json=file.suffix.lower() == ".json")).encode()


def _withhold(value: Any) -> Any:
    """Copy plain data, with names in place of the values of each Secret in it."""
    if isinstance(value, list):
        return [_withhold(one) for one in value]
    if not isinstance(value, dict):
        return value
    if value.get("kind") == "Secret":
        return _withhold_secret(value)
    if value.get("kind") == "SecretList" and isinstance(items := value.get("items"), list):
        return {**value, "items": [_withhold_secret(one) for one in items]}
    return {key: _withhold(one) for key, one in value.items()}


def _withhold_secret(secret: Any) -> Any:
    """Return what identifies a Secret, and the keys of its values. Its annotations may repeat all of it."""
    if not isinstance(secret, dict):
        return REPLACEMENT
    metadata = secret.get("metadata")
    kept = {key: secret[key] for key in _KEPT if key in secret}
    named = {key: metadata[key] for key in _KEPT_METADATA if key in metadata} if isinstance(metadata, dict) else {}
    values = {key: dict.fromkeys(_list_keys(secret[key]), REPLACEMENT) for key in _VALUES if key in secret}
    return {**kept, "metadata": named, **values}


def _list_keys(values: Any) -> Iterable[str]:
    return values if isinstance(values, dict) else ()


def _dump(values: list[Any], *, is_json: bool) -> str:
    if is_json:
        return "".join(f"{json.dumps(one, indent=2)}\n" for one in values)
    return yaml.safe_dump_all(values, sort_keys=False, allow_unicode=True)
