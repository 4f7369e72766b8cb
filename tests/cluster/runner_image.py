"""Build the image of a nightly job in the lab, as `Containerfile.runner` says, without a registry."""

import subprocess
from functools import cache
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

from tests.cluster.lab import MESHLAB, ROOT, home

RUNNER: Final = "docker.io/meshbench/runner:lab"
_BUILD_S: Final = 600.0


@cache
def build_runner() -> None:
    """Build the wheel and the image, and load it; the lab's istioctl is in it, kumactl is not. Raises
    CalledProcessError."""
    subprocess.run(["make", "--silent", "-C", str(ROOT), "wheel"], check=True, capture_output=True, timeout=_BUILD_S)
    (wheel,) = (ROOT / "dist").glob("meshbench-*.whl")
    subprocess.run(
        [
            *(str(MESHLAB), "image", "build", RUNNER, "--pip", *_list_pinned(ROOT / "requirements.lock"), str(wheel)),
            *(
                "--copy",
                f"{(home() / 'cli' / 'istioctl').resolve()}:/usr/local/bin/istioctl",
                "--entrypoint",
                '["meshbench"]',
            ),
            *("--user", "1000", "--env", "HOME=/tmp"),
        ],
        check=True,
        timeout=_BUILD_S,
    )


def _list_pinned(lock: Path) -> list[str]:
    """Return the packages of a lock for this Python on this system; hashes are for pip's own check."""
    lines = (line.removesuffix(" \\") for line in lock.read_text("utf-8").splitlines() if "==" in line)
    parsed = [Requirement(line) for line in lines if not line.startswith((" ", "#"))]
    return [f"{one.name}{one.specifier}" for one in parsed if one.marker is None or one.marker.evaluate()]
