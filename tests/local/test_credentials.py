"""Credentials of a kubeconfig, from a plugin that is run and from other sources."""

import json
import traceback
from pathlib import Path
from typing import Any

import pytest

from bench.errors import RefusedError, exit_code_of
from bench.k8s.kubeconfig import open_cluster
from tests.kubeconfigs import HIDDEN, read_user, write_kubeconfig


def test_refused_context_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing credential plugin is named, and the private copy of the kubeconfig is removed."""
    user = {"exec": {"command": "meshbench-no-such-plugin", "apiVersion": "client.authentication.k8s.io/v1"}}
    monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "config", "a", user=user)))
    refused = pytest.raises(RefusedError, match=r"context a: no usable credentials: .*meshbench-no-such-plugin is not")
    with refused, open_cluster("a", private_folder=tmp_path / "private"):
        pytest.fail("it was opened")
    assert list((tmp_path / "private").iterdir()) == []


INSIDE = [
    f"{HIDDEN}\n{HIDDEN}",
    f"{HIDDEN}\0",
    f"{HIDDEN}\x1b[2J",
    f"{HIDDEN}\r\nx-other: 1",
    f"{HIDDEN}é",
    f"{HIDDEN}\u2028{HIDDEN}",
]


def plugin(folder: Path, status: Any) -> dict[str, Any]:
    """A user whose credentials come from a program."""
    version = "client.authentication.k8s.io/v1"
    answer = json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": status})
    (folder / "login").write_text(f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\n", "utf-8")
    (folder / "login").chmod(0o700)
    return {"exec": {"apiVersion": version, "command": "./login", "interactiveMode": "Never"}}


def user_with(folder: Path, source: str, token: str) -> dict[str, Any]:
    """A user who has a token from this source."""
    if source == "plugin":
        return plugin(folder, {"token": token})
    if source == "tokenFile":
        (folder / "token").write_bytes(token.encode())
        return {"tokenFile": "token"}
    if source == "provider":
        return {"auth-provider": {"name": "gcp", "config": {"access-token": token}}}
    return {"token": token}


SOURCES = ("token", "tokenFile", "plugin", "provider")


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("token", [f"{HIDDEN}\n", f"{HIDDEN}\r\n", f"  {HIDDEN}\t\n\n"])
def test_token_is_trimmed_from_every_source(tmp_path: Path, source: str, token: str) -> None:
    """A token is trimmed as by kubectl, because `kubectl create token > file` ends in a newline."""
    credentials = read_user(tmp_path, user_with(tmp_path, source, token))
    assert credentials.headers == {"authorization": f"Bearer {HIDDEN}"}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("token", INSIDE)
def test_unsendable_token_is_refused_and_not_shown(tmp_path: Path, source: str, token: str) -> None:
    """A token that no header can carry ends with exit code 3 before the HTTP libraries print it; the chain of causes
    has no part of it."""
    with pytest.raises(RefusedError, match=r"context a: .*no header can have") as caught:
        read_user(tmp_path, user_with(tmp_path, source, token))
    assert exit_code_of(caught.value) == 3
    assert HIDDEN not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("status", [None, [], 3, "a", {"token": 3}, {"token": ["a"]}, {"clientKeyData": 3}, {}])
def test_malformed_plugin_output_is_refused(tmp_path: Path, status: Any) -> None:
    """Malformed output of a plugin is refused whatever its exit status."""
    with pytest.raises(RefusedError, match="context a: "):
        read_user(tmp_path, plugin(tmp_path, status))
