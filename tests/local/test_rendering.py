"""Rendering with real tools: their output, their limits and their end."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import psutil
import pytest

from bench.application.rendering import RENDERED, render
from bench.system.processes import run_limited
from tests import go_modules
from tests.command import call

CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: b}\n"
ENV = {"PATH": os.environ["PATH"]}


@pytest.mark.skipif(not (shutil.which("kustomize") or shutil.which("kubectl")), reason="no kustomize and no kubectl")
def test_renders_with_the_real_tool(tmp_path: Path) -> None:
    """An overlay of a base beside it has its prefix."""
    for folder, text in (("base", "resources: [a.yaml]\n"), ("over", "resources: [../base]\nnamePrefix: my-\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "kustomization.yaml").write_text(text, "utf-8")
    (tmp_path / "base" / "a.yaml").write_text(CONFIG, "utf-8")
    rendered = render(tmp_path / "over")
    assert "name: my-a" in (rendered.folder / RENDERED).read_text("utf-8")
    assert rendered.label in ("kustomize build", "kubectl kustomize")


def test_tool_has_only_the_given_environment() -> None:
    """No variable of the user's reaches it; a mark finds what it started."""
    code = "import os; print(sorted(set(os.environ) - {'LC_CTYPE'}))"
    ran = run_limited([sys.executable, "-I", "-c", code], env=ENV, timeout_s=30, most_bytes=1000)
    assert (ran.returncode, ran.stdout) == (0, "['MESHBENCH_RUN_ID', 'PATH']\n")


def test_tool_that_prints_too_much_is_refused() -> None:
    """The kernel ends its write at the limit."""
    argv = [sys.executable, "-c", "print('x' * 5_000_000)"]
    with pytest.raises(OSError, match="printed more than 1 MiB"):
        run_limited(argv, env=ENV, timeout_s=30, most_bytes=1024 * 1024)


def test_tool_that_does_not_end_is_ended_with_its_children(tmp_path: Path) -> None:
    """Also what it started."""
    pid = tmp_path / "pid"
    argv = ["/bin/sh", "-c", f"sleep 300 & echo $! > {pid}; wait"]
    start = time.monotonic()
    with pytest.raises(OSError, match="did not end within 1 s"):
        run_limited(argv, env=ENV, timeout_s=1, most_bytes=1000)
    assert time.monotonic() - start < 10
    child = int(pid.read_text("utf-8"))
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


_TOOLS: Final = {
    "helm": (
        "helm.sh/helm/v3@v3.19.2",
        "h1:psQjaM8aIWrSVEly6PgYtLu/y6MRSmok4ERiGhZmtUY=",
        "./cmd/helm",
    ),
    "kustomize": (
        "sigs.k8s.io/kustomize/kustomize/v5@v5.8.0",
        "h1:CCIJK7z/xJOlkXOaDOcL2jprV53a/eloiL02wg7oJJs=",
        ".",
    ),
}


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both tools."""
    folder = tmp_path_factory.mktemp("tools")
    for module, checksum, package in _TOOLS.values():
        go_modules.build(go_modules.fetch(module, checksum), folder, package)
    return folder


@pytest.fixture
def chart(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `helm create` makes, with both tools on PATH."""
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    subprocess.run(["helm", "create", "shop"], check=True, capture_output=True, env={**os.environ, "HOME": "/"})
    return tmp_path / "shop"


@pytest.mark.soak("renderers", together=True)
@pytest.mark.timeout(1800)  # to build both tools
@pytest.mark.skipif(bool(go_modules.missing()), reason=go_modules.missing())
@pytest.mark.parametrize("folder", ["chart", "overlay"])
@pytest.mark.usefixtures("chart")
def test_application_of_helm_or_kustomize_is_ready_to_run(folder: str, tmp_path: Path) -> None:
    """From a new chart to a valid scenario: `init`, then `validate`. The chart's test is listed as not applied."""
    if folder == "overlay":  # of what the chart renders
        (tmp_path / "base").mkdir()
        rendered = subprocess.run(["helm", "template", "shop", "shop"], check=True, capture_output=True, text=True)
        (tmp_path / "base" / "all.yaml").write_text(rendered.stdout, "utf-8")
        (tmp_path / "base" / "kustomization.yaml").write_text("resources: [all.yaml]\n", "utf-8")
        (tmp_path / "overlay").mkdir()
        (tmp_path / "overlay" / "kustomization.yaml").write_text("resources: [../base]\nnamePrefix: my-\n", "utf-8")
    name = "shop" if folder == "chart" else folder
    made = call("init", name, output=tmp_path / "results")
    assert made.code == 0, made.output
    found = call("validate", f"{name}.yaml", "--target", "cluster", output=tmp_path / "results")
    assert found.code == 0, found.output
    assert "a Helm hook for test" in found.out
