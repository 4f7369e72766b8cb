"""Whom a real API server takes us for: plugins, tokens that end, rights that are missing, and no trace afterwards."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.errors import ClusterError, RefusedError
from bench.k8s.client import Cluster
from bench.k8s.kubeconfig import open_cluster
from bench.system.cancellation import Watch, wait_until
from tests.cluster.accounts import Account, account, with_token, write_kubeconfig

EXEC_API = "client.authentication.k8s.io/v1"


@pytest.fixture(scope="module")
def poor(cluster: Cluster) -> Iterator[Account]:
    """A service account that may do nothing."""
    with account(cluster) as made:
        yield made


def _plugin(path: Path, status: dict[str, str]) -> dict[str, Any]:
    """A user whose credentials come from a program beside the kubeconfig."""
    answer = json.dumps({"apiVersion": EXEC_API, "kind": "ExecCredential", "status": status})
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\n", "utf-8")
    path.chmod(0o700)
    return {"exec": {"apiVersion": EXEC_API, "command": f"./{path.name}", "interactiveMode": "Never"}}


def test_a_credential_plugin_can_give_a_certificate(
    lab_kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the plugins of the large providers give tokens; nothing of it stays on disk."""
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


def test_a_user_without_rights_is_told_which(poor: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked before, the answer is no; done anyway, the message names verb and resource."""
    write_kubeconfig(tmp_path / "config", _plugin(tmp_path / "login", with_token(poor.token("poor"))))
    namespace = poor.namespace
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    thing = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": namespace}}
    with open_cluster("meshlab", private_folder=tmp_path / "private") as opened:
        assert not opened.allowed("create", "pods/exec", namespace=namespace)
        assert not opened.allowed("patch", "deployments", group="apps", namespace=namespace)
        with pytest.raises(ClusterError, match='cannot patch resource "configmaps"') as caught:
            opened.apply(thing)
        with pytest.raises(ClusterError, match='cannot get resource "pods/exec"'):
            opened.exec("a", ["true"], namespace=namespace, container="b")
    assert caught.value.status == 403


def test_a_token_that_is_not_accepted_is_refused_before_the_start(
    lab_kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With exit code 3, the context and what to do."""
    write_kubeconfig(tmp_path / "config", with_token("of-yesterday"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    refused = pytest.raises(RefusedError, match=r"context meshlab: .* does not accept its credentials; log in again")
    with refused as caught, open_cluster("meshlab", private_folder=tmp_path / "private"):
        pytest.fail("it was opened")
    assert caught.value.exit_code == 3
    assert list((tmp_path / "private").iterdir()) == []


def test_a_token_that_ends_in_mid_run_is_replaced_by_the_kubeconfig_s_new_one(
    poor: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For calls and for streams, while a switch of the current context changes nothing."""
    config = tmp_path / "config"
    write_kubeconfig(config, with_token(poor.token("old")))
    monkeypatch.setenv("KUBECONFIG", str(config))
    with open_cluster("meshlab", private_folder=tmp_path / "private") as short:
        assert not short.allowed("delete", "nodes")
        newer = poor.token("new")
        poor.revoke("old")
        assert wait_until(lambda: _is_refused(short), timeout_s=60, watch=Watch(), poll_s=0.5)
        write_kubeconfig(config, with_token(newer))
        config.write_text(config.read_text("utf-8").replace("current-context: meshlab", "current-context: x"), "utf-8")
        with pytest.raises(ClusterError, match='cannot get resource "pods/exec"'):
            short.exec("a", ["true"], namespace=poor.namespace, container="b")
        assert not short.allowed("delete", "nodes")
        assert newer in short.kubeconfig.read_text("utf-8")


def _is_refused(cluster: Cluster) -> bool:
    try:
        cluster.allowed("delete", "nodes")
    except ClusterError as error:
        return error.status == 401
    return False


def test_a_server_with_another_certificate_is_not_spoken_to(
    lab_kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused at once, with the reason."""
    content = yaml.safe_load(lab_kubeconfig.read_text("utf-8"))
    del content["clusters"][0]["cluster"]["certificate-authority-data"]
    (tmp_path / "config").write_text(yaml.safe_dump(content), "utf-8")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    refused = pytest.raises(RefusedError, match="certificate verify failed")
    with refused, open_cluster("meshlab", private_folder=tmp_path / "private"):
        pytest.fail("it was opened")
