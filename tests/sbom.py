"""Write what meshbench installs as a bill of materials in CycloneDX 1.6: `make sbom`.

    python -m tests.sbom FOLDER

One file for each lock that is shipped: `meshbench.cdx.json` is the program on this machine, with the images that its
manifests name; `bookinfo.cdx.json` is the image of the Containerfile. The same locks give the same bytes.
"""

import json
import re
import sys
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bench import __version__
from bench.files.folders import find_shipped

ROOT: Final = Path(__file__).parents[1]
LOCKS: Final[Mapping[str, str]] = {"meshbench": "requirements.lock", "bookinfo": "requirements-bookinfo.lock"}
_NAMESPACE: Final = uuid.UUID("5d7c9a52-58c8-4b9e-9d4f-4f1c1f3d7a10")
_HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_IMAGE: Final = re.compile(r"^\s*(?:- )?image: (\S+/\S+)", re.MULTILINE)
_FROM: Final = re.compile(r"^FROM (\S+)", re.MULTILINE)

Component = dict[str, Any]


def list_packages(lock: str) -> Iterator[Component]:
    """Yield the packages of a lock, each with the checksums of the files that pip accepts for it."""
    for entry in lock.replace("\\\n", " ").splitlines():
        requirement = Requirement(entry.partition("--hash")[0])
        (version,) = (one.version for one in requirement.specifier)
        name = canonicalize_name(requirement.name)
        url = f"pkg:pypi/{name}@{version}"
        conditions = [{"name": "python:marker", "value": str(requirement.marker)}] if requirement.marker else []
        yield {
            "type": "library",
            "bom-ref": url,
            "name": name,
            "version": version,
            "purl": url,
            "hashes": [{"alg": "SHA-256", "content": content} for content in _HASH.findall(entry)],
            **({"properties": conditions} if conditions else {}),
        }


def make_image(reference: str) -> Component:
    """Return a container image. Its version is the digest, or where the reference has none, the tag."""
    name, _, digest = reference.partition("@")
    repository, _, tag = name.rpartition(":")
    short = repository.rpartition("/")[2]
    version = digest or tag
    url = f"pkg:oci/{short}@{version.replace(':', '%3A')}?repository_url={repository}&tag={tag}"
    hashes = [{"alg": "SHA-256", "content": digest.removeprefix("sha256:")}] if digest else []
    return {
        "type": "container",
        "bom-ref": url,
        "name": repository,
        "version": version,
        "purl": url,
        **({"hashes": hashes} if hashes else {}),
    }


def list_images() -> tuple[str, ...]:
    """Return the images that the shipped manifests name."""
    files = sorted(find_shipped("manifests").rglob("*.yaml"))
    return tuple(sorted({image for file in files for image in _IMAGE.findall(file.read_text("utf-8"))}))


def make_bill(name: str) -> dict[str, Any]:
    """Return the bill of materials of a lock."""
    components = [*list_packages((ROOT / LOCKS[name]).read_text("utf-8"))]
    bases = _FROM.findall((ROOT / "Containerfile").read_text("utf-8"))
    components += [make_image(image) for image in (list_images() if name == "meshbench" else bases)]
    content = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": name, "name": name, "version": __version__}},
        "components": components,
    }
    return {"serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, json.dumps(content, sort_keys=True))}", **content}


def main(folder: Path) -> None:
    """Write every bill of materials into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in LOCKS:
        path = folder / f"{name}.cdx.json"
        path.write_text(json.dumps(make_bill(name), indent=2) + "\n", "utf-8")
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
