"""What others make is pinned: packages by hash and as wheels, base images by digest, actions by commit."""

import json
import re
from pathlib import Path

import pytest

from tests import sbom
from tests.sbom import LOCKS, ROOT, list_images, make_bill

DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
LOCK_FILES = sorted(ROOT.glob("requirements*.lock"))
IMAGES = sorted(ROOT.glob("Containerfile*"))
TEXTS = [ROOT / "Makefile", *IMAGES, ROOT / ".ci" / "run", ROOT / "README.md"]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / ".github").rglob("*.y*ml"))]


@pytest.mark.parametrize("file", [one for one in TEXTS if one.exists()], ids=lambda file: str(file.name))
def test_locks_are_installed_as_wheels_with_hashes(file: Path) -> None:
    """A source distribution would run the code of build requirements that no lock has."""
    lines = [line for line in file.read_text("utf-8").splitlines() if re.search(r"(-r|--requirement) \S*\.lock", line)]
    installs = [line for line in lines if " install " in line]
    assert all("--require-hashes" in line and "--only-binary :all:" in line for line in installs)
    assert installs or file.name == "README.md"


@pytest.mark.parametrize("file", LOCK_FILES, ids=lambda file: str(file.name))
def test_every_locked_package_has_its_hashes(file: Path) -> None:
    """pip checks each file that it installs."""
    packages = [*sbom.list_packages(file.read_text("utf-8"))]
    assert len(packages) > 5
    assert [one["name"] for one in packages if not one["hashes"]] == []


@pytest.mark.parametrize("file", IMAGES, ids=lambda file: str(file.name))
def test_base_images_have_digests(file: Path) -> None:
    """A tag can be moved; what is built today is what is built tomorrow, but for tools that the builder chooses by an
    argument."""
    bases = re.findall(r"^FROM (?!\$\{)(\S+)", file.read_text("utf-8"), re.MULTILINE)
    assert bases
    assert [base for base in bases if not DIGEST.search(base)] == []


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.name))
def test_actions_are_named_by_commit(file: Path) -> None:
    """Workflows that are shown or used name no action by a tag, and grant what a job needs alone."""
    text = file.read_text("utf-8")
    uses = re.findall(r"uses: (\S+)", text)
    others = [one for one in uses if not one.startswith("./")]
    assert [one for one in others if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", one)] == []
    assert not others or "permissions: {}" in text


@pytest.mark.parametrize("name", LOCKS)
def test_bill_of_materials_has_every_package(name: str) -> None:
    """Each package of the lock is a component with its version and the checksums of its files; so is each image."""
    lock = (ROOT / LOCKS[name]).read_text("utf-8")
    bill = make_bill(name)
    components = {one["purl"]: one for one in bill["components"]}
    assert len(components) == len(bill["components"])
    pinned = re.findall(r"^(\S+)==([^\s;]+)", lock, re.MULTILINE)
    assert {f"pkg:pypi/{package.lower()}@{version}" for package, version in pinned} <= set(components)
    assert sum(len(one["hashes"]) for one in components.values() if one["type"] == "library") == lock.count("--hash=")
    images = [one["name"] for one in components.values() if one["type"] == "container"]
    assert images == ([image.rpartition(":")[0] for image in list_images()] if name == "meshbench" else images)
    assert images
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")


def test_bill_of_materials_is_reproducible(tmp_path: Path) -> None:
    """The same locks give the same bytes."""
    sbom.main(tmp_path / "one")
    sbom.main(tmp_path / "other")
    for name in LOCKS:
        one, other = (tmp_path / folder / f"{name}.cdx.json" for folder in ("one", "other"))
        assert one.read_bytes() == other.read_bytes()
        assert json.loads(one.read_bytes())["serialNumber"].startswith("urn:uuid:")
