"""Build the image of our own Bookinfo in the lab: as in `Containerfile`, without a registry.

    python -m tests.cluster.lab_images

It also gets the names of the official images, which the lab cannot pull: so a run in the lab needs no `--image`. Run it
as root, with the lab up; a second run does no harm, and takes a second. It needs only a clean clone.
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.files.folders import find_shipped, list_manifest_files
from bench.files.yaml_source import read_documents
from tests.cluster.lab import MESHLAB, ROOT, home

__all__ = ["BOOKINFO", "MESHLAB", "build_bookinfo", "kill_container", "official_images", "tag_image"]

BOOKINFO = "docker.io/meshbench/bookinfo:dev"
_NAMES = 4  # for one image, in addition to its own: a node lists no more than five names
_HOME = "/opt/bookinfo"
_ENTRYPOINT = re.compile(r"^ENTRYPOINT (\[.*\])$", re.MULTILINE)
_COPY = re.compile(rf"^COPY (bench/\S+) {_HOME}/(\S+)$", re.MULTILINE)
_PINNED = re.compile(r"^\S+==\S+", re.MULTILINE)


def build_bookinfo() -> None:
    """Build the image, or take it from the lab's cache, and load it under all of its names. Raises
    CalledProcessError."""
    names = official_images()
    with tempfile.TemporaryDirectory() as folder:
        copies = [word for copy in _copies(Path(folder)) for word in ("--copy", copy)]
        for first in range(0, len(names), _NAMES):
            own = f"{BOOKINFO}-{first}" if first else BOOKINFO
            # Equal images would be one image with more names.
            subprocess.run([*_command(own), "--env", f"LAB_IMAGE={first}", *copies], check=True)
            subprocess.run([*_tag(), own, *names[first : first + _NAMES]], check=True, capture_output=True)


def official_images() -> tuple[str, ...]:
    """Return the images that the manifests of Bookinfo name."""
    documents = (
        one.value
        for file in list_manifest_files(find_shipped("manifests") / "bookinfo")
        for one in read_documents(file)
    )
    pods = (one["spec"]["template"]["spec"] for one in documents if one["kind"] == "Deployment")
    return tuple(sorted({container["image"] for pod in pods for container in pod["containers"]}))


@contextmanager
def tag_image(image: str, name: str) -> Iterator[Callable[[], None]]:
    """Give the image one more name; yield a function that removes the name early."""

    def take_away() -> None:
        subprocess.run([*_ctr(), "images", "remove", "--sync", name], check=True, capture_output=True)

    subprocess.run([*_tag(), image, name], check=True, capture_output=True)
    try:
        yield take_away
    finally:
        take_away()


def kill_container(container_id: str) -> None:
    """Kill a container's first process, as the kernel does; `container_id` as in a pod's status."""
    short = container_id.rpartition("//")[2]
    subprocess.run([*_ctr(), "tasks", "kill", "--signal", "SIGKILL", short], check=True, capture_output=True)


def _tag() -> tuple[str, ...]:
    """Return the command that gives an image more names."""
    return (*_ctr(), "images", "tag", "--force")


def _ctr() -> tuple[str, ...]:
    return ("ctr", "--address", str(home() / "run" / "containerd.sock"), "--namespace", "k8s.io")


def _command(name: str) -> Iterator[str]:
    """Return the lab's command without the files; packages, shell command and user are those of the other two files."""
    entrypoint = _ENTRYPOINT.search((ROOT / "Containerfile").read_text("utf-8"))
    assert entrypoint
    yield from (str(MESHLAB), "image", "build", name, "--entrypoint", entrypoint[1], "--workdir", _HOME)
    yield from ("--user", "1000", "--pip", *_PINNED.findall((ROOT / "requirements-bookinfo.lock").read_text("utf-8")))


def _copies(folder: Path) -> Iterator[str]:
    """The code that the Containerfile copies, without what Python has compiled of it: that would make another image
    each time."""
    for source, target in _COPY.findall((ROOT / "Containerfile").read_text("utf-8")):
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, folder / target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (folder / target).mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / source, folder / target)
    yield f"{folder / 'bench'}:{_HOME}/bench"


if __name__ == "__main__":
    build_bookinfo()
