"""Build the images of two applications that were not written for meshbench, from their own packages, in the lab."""

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from tests import go_modules
from tests.cluster.lab import MESHLAB

PODINFO_IMAGE: Final = "ghcr.io/stefanprodan/podinfo:6.9.2"  # as its manifests name it
HTTPBIN_IMAGE: Final = "docker.io/kennethreitz/httpbin:0.10.4"
_PODINFO: Final = "github.com/stefanprodan/podinfo@v1.8.1-0.20250910200901-e86405a8674e"
_PODINFO_SUM: Final = "h1:ikpMMm5HbQT/1DehrPM+Lpwk3WAw/1Hg540eR+jsXus="
_HTTPBIN: Final = (
    "httpbin==0.10.4", "gunicorn==27.0.1", "flask==3.1.3", "werkzeug==3.1.9", "jinja2==3.1.6", "markupsafe==3.0.4",
    "itsdangerous==2.2.0", "click==8.5.1", "blinker==1.9.0", "decorator==5.3.1", "six==1.17.0", "greenlet==2.0.2",
    "brotlicffi==1.2.1.0", "cffi==2.1.1", "pycparser==3.12", "packaging==26.4",
)  # fmt: skip


def fetch_podinfo() -> Path:
    """Fetch podinfo's sources and manifests; return their folder. Raises CalledProcessError."""
    return go_modules.fetch(_PODINFO, _PODINFO_SUM)


def build_podinfo(sources: Path) -> None:
    """Build podinfo and its probing tool as its Dockerfile does, and load the image. Raises CalledProcessError."""
    with tempfile.TemporaryDirectory() as folder:
        program, tool, pages = Path(folder, "podinfo"), Path(folder, "podcli"), Path(folder, "ui")
        go_modules.build(sources, Path(folder), "./cmd/podinfo", "./cmd/podcli")
        shutil.copytree(sources / "ui", pages)
        _build(
            PODINFO_IMAGE,
            *("--copy", f"{program}:/home/app/podinfo", "--copy", f"{tool}:/usr/local/bin/podcli"),
            *("--copy", f"{pages}:/home/app/ui", "--workdir", "/home/app", "--cmd", '["./podinfo"]'),
        )


def build_httpbin() -> None:
    """Put httpbin and a server for it together from wheels, and load the image. Raises CalledProcessError."""
    _build(HTTPBIN_IMAGE, "--pip", *_HTTPBIN, "--entrypoint", '["gunicorn"]')


def _build(image: str, *options: str) -> None:
    subprocess.run([str(MESHLAB), "image", "build", image, "--user", "1000", *options], check=True)
