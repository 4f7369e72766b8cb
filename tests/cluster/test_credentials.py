"""Credentials on a real API server: plugins, expiring tokens, missing rights, and no trace afterwards."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.errors import ClusterError, ErrorKind, RefusedError, exit_code_of
from bench.k8s.client import Cluster
from bench.k8s.kubeconfig import open_cluster
from bench.system.cancellation import CancelToken, wait_until
from tests.cluster.accounts import Account, account, token_user, write_kubeconfig

EXEC_API = "client.authentication.k8s.io/v1"


@pytest.fixture(scope="module")
def account_without_rights(cluster: Cluster) -> Iterator[Account]:
    """A service account without rights."""
    with account(cluster) as made:
        yield made


def _plugin(path: Path, status: dict[str, str]) -> dict[str, Any]:
    """A user whose credentials come from a program next to the kubeconfig."""
    answer = json.dumps({"apiVersion": EXEC_API, "kind": "ExecCredential", "status": status})
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\n", "utf-8")
    path.chmod(0o700)
    return {"exec": {"apiVersion": EXEC_API, "command": f"./{path.name}", "interactiveMode": "Never"}}


def test_credential_plugin_provides_a_certificate(
    lab_kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plugin works as those of the large providers do for tokens; nothing of it stays on disk."""
    user = yaml.safe_load(lab_kubeconfig.read_text("utf-8"))["users"][0]["user"]
    decoded = {key: base64.b64decode(user[f"{key}-data"]).decode() for key in ("client-certificate", "client-key")}
    status = {"clientCertificateData": decoded["client-certificate"], "clientKeyData": decoded["client-key"]}
    write_kubeconfig(tmp_path / "config", _plugin(tmp_path / "login", status))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    with open_cluster("meshlab", private_folder=tmp_path / "private") as cluster:
        assert cluster.allowed("delete", "namespaces")
        files = list(cluster.kubeconfig.parent.iterdir())
        assert len(files) > 1
        assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert list((tmp_path / "private").iterdir()) == []


def test_missing_rights_are_named(
    account_without_rights: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A review of the rights says no; a request without them gets a message with verb and resource."""
    write_kubeconfig(tmp_path / "config", _plugin(tmp_path / "login", token_user(account_without_rights.token("poor"))))
    namespace = account_without_rights.namespace
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    thing = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": namespace}}
    with open_cluster("meshlab", private_folder=tmp_path / "private") as opened:
        assert not opened.allowed("create", "pods/exec", namespace=namespace)
        assert not opened.allowed("patch", "deployments", group="apps", namespace=namespace)
        with pytest.raises(ClusterError, match='cannot patch resource "configmaps"') as caught:
            opened.apply(thing)
        with pytest.raises(ClusterError, match='cannot get resource "pods/exec"'):
            opened.exec("a", ["true"], namespace=namespace, container="b")
    assert caught.value.kind is ErrorKind.FORBIDDEN


def test_rejected_token_is_refused_before_the_start(
    lab_kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 3 with the context and a hint."""
    write_kubeconfig(tmp_path / "config", token_user("of-yesterday"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    refused = pytest.raises(
        RefusedError, match=r"context meshlab: .* does not accept its credentials; hint: log in again"
    )
    with refused as caught, open_cluster("meshlab", private_folder=tmp_path / "private"):
        pytest.fail("it was opened")
    assert exit_code_of(caught.value) == 3
    assert list((tmp_path / "private").iterdir()) == []


def test_expired_token_is_replaced_from_the_kubeconfig(
    account_without_rights: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new token is used for calls and for streams, while a switch of the current context changes nothing."""
    config = tmp_path / "config"
    write_kubeconfig(config, token_user(account_without_rights.token("old")))
    monkeypatch.setenv("KUBECONFIG", str(config))
    with open_cluster("meshlab", private_folder=tmp_path / "private") as short:
        assert not short.allowed("delete", "nodes")
        newer = account_without_rights.token("new")
        account_without_rights.revoke("old")
        assert wait_until(lambda: _is_refused(short), timeout_s=60, watch=CancelToken(), poll_s=0.5)
        write_kubeconfig(config, token_user(newer))
        config.write_text(config.read_text("utf-8").replace("current-context: meshlab", "current-context: x"), "utf-8")
        with pytest.raises(ClusterError, match='cannot get resource "pods/exec"'):
            short.exec("a", ["true"], namespace=account_without_rights.namespace, container="b")
        assert not short.allowed("delete", "nodes")
        assert newer in short.kubeconfig.read_text("utf-8")


def _is_refused(cluster: Cluster) -> bool:
    try:
        cluster.allowed("delete", "nodes")
    except ClusterError as error:
        return error.kind is ErrorKind.UNAUTHORIZED
    return False


def test_server_with_another_certificate_is_refused(
    lab_kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is refused at once, with the reason."""
    content = yaml.safe_load(lab_kubeconfig.read_text("utf-8"))
    del content["clusters"][0]["cluster"]["certificate-authority-data"]
    (tmp_path / "config").write_text(yaml.safe_dump(content), "utf-8")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    refused = pytest.raises(RefusedError, match="certificate verify failed")
    with refused, open_cluster("meshlab", private_folder=tmp_path / "private"):
        pytest.fail("it was opened")
