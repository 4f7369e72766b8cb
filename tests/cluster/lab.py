"""The lab: a one-node Kubernetes next to the checkout, which the cluster tests start if it is not running.

    python -m tests.cluster.lab

prints in one line what it lacks, and exits with 1; if it lacks nothing it prints nothing.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parents[2]
MESHLAB = ROOT.parent / "shared" / "lab" / "meshlab"
CONTEXT = "meshlab"
UP_TIMEOUT_S: Final = 3600  # the first time, Kubernetes and Istio are built from their sources
_DOWN_TIMEOUT_S: Final = 120
_OLDEST_GO: Final = (1, 26)
_GO_VERSION: Final = re.compile(r"\bgo(\d+)\.(\d+)")
_LAST_LINES: Final = 15


class LabError(Exception):
    """The lab did not start; the message has the end of its output."""


def home() -> Path:
    """Return the folder where the lab keeps its cache and its state."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return Path(os.environ.get("MESHLAB_HOME") or cache / "meshlab").absolute()


def kubeconfig() -> Path:
    """Return the lab's kubeconfig, which exists while the lab is up."""
    return home() / "run" / "kubeconfig"


def missing() -> str:
    """Return why the lab cannot run here, in one sentence; empty if it can."""
    if not MESHLAB.exists():
        return f"the cluster tests need a lab, and there is no {MESHLAB}"
    if os.geteuid() != 0:
        return "the cluster tests need a lab, and only root can bring it up"
    go = go_version()
    if not _is_built() and go < _OLDEST_GO:
        wanted = ".".join(map(str, _OLDEST_GO))
        there = f"Go is {'.'.join(map(str, go))}" if go > (0, 0) else "Go is not there"
        return f"the cluster tests need a lab, which is built with Go {wanted} or newer the first time, and {there}"
    return ""


def go_version() -> tuple[int, int]:
    """Return the version of the Go on PATH; (0, 0) without one."""
    go = shutil.which("go")
    if go is None:
        return 0, 0
    output = subprocess.run([go, "version"], capture_output=True, text=True, check=False).stdout
    found = _GO_VERSION.search(output)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def is_up() -> bool:
    """Return whether the lab is up and complete."""
    return subprocess.run([MESHLAB, "status"], capture_output=True, check=False).returncode == 0


@contextmanager
def running(log: Path) -> Iterator[Path]:
    """Yield the kubeconfig of the lab, which is started if it is not running, and then stopped again. Its output goes
    to `log`. Raises LabError."""
    brought_up = not is_up()
    try:
        if brought_up:
            _bring_up(log)
        yield kubeconfig()
    finally:
        if brought_up:
            subprocess.run([MESHLAB, "down"], check=True, capture_output=True, timeout=_DOWN_TIMEOUT_S)


def _bring_up(log: Path) -> None:
    with log.open("w", encoding="utf-8") as file:
        ran = subprocess.run([MESHLAB, "up"], stdout=file, stderr=subprocess.STDOUT, check=False, timeout=UP_TIMEOUT_S)
    if ran.returncode != 0:
        last = "\n".join(log.read_text("utf-8").splitlines()[-_LAST_LINES:])
        raise LabError(f"the lab did not start; its output is in {log}:\n{last}")


def _is_built() -> bool:
    """Return whether each of the lab's Go programs was built before; only the lab itself knows whether it is the
    newest."""
    return all((home() / "bin" / f"{module.name}.key").exists() for module in (MESHLAB.parent / "modules").iterdir())


if __name__ == "__main__":
    sys.exit(missing() or 0)
