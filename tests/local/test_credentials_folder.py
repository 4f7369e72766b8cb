"""Credentials of a command are removed at the latest by the next command."""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bench.k8s.kubeconfig import credentials_folder

HOLDER = """
import sys, tempfile
tempfile.tempdir = sys.argv[1]
from bench.k8s.kubeconfig import credentials_folder
with credentials_folder() as folder:
    (folder / "key.pem").write_text("secret")
    print(folder, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder of these tests alone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_private_folder_is_private_and_removed(place: Path) -> None:
    """Other users cannot read the folder, and it is removed completely."""
    with credentials_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
    assert list(place.iterdir()) == []


def test_next_command_removes_credentials_of_killed_ones(place: Path) -> None:
    """Keys of a command that was ended by SIGKILL are removed; those of a running command and other folders stay."""
    (place / "meshbench-others").mkdir()
    argv = [sys.executable, "-c", HOLDER, str(place)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        folder = Path(holder.stdout.readline().strip())
        with credentials_folder():
            assert (folder / "key.pem").exists()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert (folder / "key.pem").exists()
        with credentials_folder():
            assert not folder.exists()
    assert [path.name for path in place.iterdir()] == ["meshbench-others"]
