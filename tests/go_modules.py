"""Programs that are Go modules, pinned by the checksum of the module, whose go.sum pins what it imports."""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from tests.cluster.lab import go_version

_BUILD_S: Final = 600.0  # the first time; later Go has everything in its cache


def missing() -> str:
    """Return why no Go module can be built here, in one sentence; empty if one can."""
    return "" if go_version() > (0, 0) else "a Go module needs Go"


def fetch(module: str, checksum: str) -> Path:
    """Fetch the sources of `MODULE@VERSION`; return their folder, which is read-only. Raises CalledProcessError."""
    with tempfile.TemporaryDirectory() as elsewhere:  # not in a module of another's
        answer = subprocess.run(
            ["go", "mod", "download", "-json", module],
            cwd=elsewhere, check=True, capture_output=True, timeout=_BUILD_S,
        )  # fmt: skip
    found = json.loads(answer.stdout)
    assert found["Sum"] == checksum
    return Path(found["Dir"])


def build(sources: Path, folder: Path, *packages: str) -> None:
    """Build programs of a module into a folder. Raises CalledProcessError."""
    subprocess.run(
        ["go", "build", "-C", str(sources), "-trimpath", "-o", f"{folder}/", *packages],
        env={**os.environ, "CGO_ENABLED": "0"}, check=True, timeout=_BUILD_S,
    )  # fmt: skip
