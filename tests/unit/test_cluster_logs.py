"""Logs and configurations of pods as files of a trial: with safe names and without secrets."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from bench.k8s.client import Cluster, Object
from bench.k8s.logs import save_logs
from bench.system.private_files import PrivateFolder
from bench.system.redaction import register_secret


@dataclass
class Logs:
    """A cluster whose containers all have this log."""

    text: str = "started"
    asked: list[str] = field(default_factory=list)

    def logs(self, pod: str, *, container: str, **_: Any) -> str:
        self.asked.append(f"{pod}/{container}")
        return self.text


def pod(name: str, *containers: str, **labels: str) -> Object:
    spec = {"containers": [{"name": one} for one in containers]}
    return {"metadata": {"name": name, "namespace": "here", "labels": labels}, "spec": spec}


def make_private(output: Path) -> PrivateFolder:
    """The private folder of a run below `output`."""
    (output / "run").mkdir()
    return PrivateFolder.of_run(output / "run", "run")


def test_each_container_has_a_file(tmp_path: Path) -> None:
    """A file has the name of its workload."""
    private = make_private(tmp_path)
    save_logs(cast("Cluster", Logs()), [pod("web-1", "main", "istio-proxy", app="web")], private)
    files = {path.name: path.read_text("utf-8") for path in (private.path / "services").iterdir()}
    assert files == {"web-main.log": "started", "web-istio-proxy.log": "started"}


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "..", "a/b", "", "a\0b"])  # noqa: S108  # never written
def test_name_from_cluster_stays_in_the_folder(tmp_path: Path, name: str) -> None:
    """Labels, pods and containers cannot choose a path outside of the trial's folder."""
    pods = [pod("web-1", name or "c", app=name or "web"), pod(f"{name}-2", "main")]
    private = make_private(tmp_path)
    save_logs(cast("Cluster", Logs()), pods, private)
    made = [path for path in tmp_path.rglob("*") if path.is_file() and path.name not in ("private.json", ".gitignore")]
    assert {path.parent for path in made} == {private.path / "services"}
    assert len(made) == 2


def test_log_has_no_secret(tmp_path: Path) -> None:
    """Registered secrets, and texts that look like one, are redacted."""
    register_secret("pl4in-t0ken")
    private = make_private(tmp_path)
    save_logs(cast("Cluster", Logs("pl4in-t0ken; Bearer abcdef123456")), [pod("web", "main", app="web")], private)
    assert (private.path / "services" / "web-main.log").read_text("utf-8") == "REDACTED; Bearer REDACTED"
