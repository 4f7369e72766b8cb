"""Makes the image of our own Bookinfo in the lab: what `Containerfile` says, built without a registry.

    python -m tests.cluster.lab_images

As root, with the lab up; twice does no harm, and takes a second. It needs nothing but a clean clone.
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MESHLAB = ROOT.parent / "shared" / "lab" / "meshlab"
BOOKINFO = "docker.io/meshbench/bookinfo:dev"
_HOME = "/opt/bookinfo"
_ENTRYPOINT = re.compile(r"^ENTRYPOINT (\[.*\])$", re.MULTILINE)
_PINNED = re.compile(r"^\S+==\S+", re.MULTILINE)


def build_bookinfo() -> None:
    """Builds the image, or takes it from the lab's cache, and loads it. Raises CalledProcessError."""
    with tempfile.TemporaryDirectory() as folder:
        copies = [word for copy in _copies(Path(folder)) for word in ("--copy", copy)]
        subprocess.run([*_command(), *copies], check=True)


def _command() -> Iterator[str]:
    """The lab's command without the files; packages, words and user are those of the other two files."""
    entrypoint = _ENTRYPOINT.search((ROOT / "Containerfile").read_text("utf-8"))
    assert entrypoint
    yield from (str(MESHLAB), "image", "build", BOOKINFO, "--entrypoint", entrypoint[1], "--workdir", _HOME)
    yield from ("--user", "1000", "--pip", *_PINNED.findall((ROOT / "requirements-bookinfo.lock").read_text("utf-8")))


def _copies(folder: Path) -> Iterator[str]:
    """The code, without what Python has compiled of it: that would make another image each time."""
    package = folder / "bench"
    shutil.copytree(ROOT / "bench" / "bookinfo", package / "bookinfo", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "bench" / "__init__.py", package)
    yield f"{package}:{_HOME}/bench"


if __name__ == "__main__":
    build_bookinfo()
