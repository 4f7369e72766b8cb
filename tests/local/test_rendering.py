"""Rendering with real tools: their output, their limits and their end."""

import os
import shutil
import sys
import time
from pathlib import Path

import psutil
import pytest

from bench.application.rendering import RENDERED, render
from bench.system.processes import run_limited

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
