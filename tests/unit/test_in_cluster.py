"""The cluster of the pod that a command runs in, with the pod's own account."""

from pathlib import Path

import pytest

from bench.errors import RefusedError
from bench.k8s.credentials import read_credentials
from bench.k8s.in_cluster import read_own_context
from bench.k8s.kubeconfig import write_private_kubeconfig
from tests.authorities import make_server_tls

POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "6443"}


@pytest.fixture
def account(tmp_path: Path) -> Path:
    """The files of a pod's account."""
    folder = tmp_path / "account"
    folder.mkdir()
    (folder / "token").write_text("t0ken-of-the-pod\n", "utf-8")
    made, _ = make_server_tls(tmp_path)
    made.rename(folder / "ca.crt")
    return folder


def test_token_is_read_from_its_file_each_time(account: Path, tmp_path: Path) -> None:
    """The kubelet renews it; the private kubeconfig has its path alone."""
    copy = write_private_kubeconfig(read_own_context(POD, account), tmp_path)
    assert "t0ken" not in copy.read_text("utf-8")
    found = read_credentials(copy)
    assert (found.server, found.headers) == ("https://10.0.0.1:6443", {"authorization": "Bearer t0ken-of-the-pod"})
    (account / "token").write_text("newer", "utf-8")
    assert read_credentials(copy).headers == {"authorization": "Bearer newer"}


def test_address_of_version_six_has_brackets(account: Path) -> None:
    """As in a URL."""
    found = read_own_context({"KUBERNETES_SERVICE_HOST": "fd00::1"}, account)
    assert found.cluster["server"] == "https://[fd00::1]:443"


def test_outside_of_a_pod_it_is_refused(account: Path) -> None:
    """The message says what to give instead."""
    with pytest.raises(RefusedError, match=r"--in-cluster: no pod: .* hint: give --context NAME"):
        read_own_context({}, account)


def test_pod_without_an_account_is_refused(account: Path) -> None:
    """The message names the file and the key of the pod."""
    (account / "token").unlink()
    with pytest.raises(RefusedError, match=r"there is no .*token; hint: give the pod a serviceAccountName"):
        read_own_context(POD, account)
