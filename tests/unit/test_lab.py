"""The requirements of the cluster tests."""

import os
import shutil
from pathlib import Path

import pytest

from tests.cluster import lab
from tests.cluster.lab_images import official_images


def test_lab_has_every_image_of_the_manifests() -> None:
    """Each service in each version, by the full name that a node would pull."""
    names = [f"{service}-v1" for service in ("details", "productpage", "ratings", "reviews")]
    assert [image.partition("examples-bookinfo-")[2].partition(":")[0] for image in official_images()] == [
        *names,
        "reviews-v2",
        "reviews-v3",
    ]
    assert all("." in image.partition("/")[0] for image in official_images())


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of a lab that was not built yet, as root."""
    (tmp_path / "lab" / "modules" / "kubernetes").mkdir(parents=True)
    (tmp_path / "lab" / "meshlab").touch()
    monkeypatch.setattr(lab, "MESHLAB", tmp_path / "lab" / "meshlab")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setenv("MESHLAB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_reports_missing_lab(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout has no lab of its own."""
    monkeypatch.setattr(lab, "MESHLAB", Path("/nowhere/meshlab"))
    assert lab.missing() == "the cluster tests need a lab, and there is no /nowhere/meshlab"


def test_lab_needs_root(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It creates namespaces and containers."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert lab.missing() == "the cluster tests need a lab, and only root can bring it up"


@pytest.mark.parametrize(
    ("go", "expected"), [((0, 0), "Go is not there"), ((1, 25), "Go is 1.25"), ((1, 26), ""), ((2, 0), "")]
)
def test_first_build_needs_go(there: Path, monkeypatch: pytest.MonkeyPatch, go: tuple[int, int], expected: str) -> None:
    """A lab that was never built needs a compiler of a minimum version."""
    monkeypatch.setattr(lab, "go_version", lambda: go)
    assert lab.missing().endswith(expected)
    assert bool(lab.missing()) == bool(expected)


def test_built_lab_needs_no_go(there: Path) -> None:
    """Everything is in its cache."""
    assert lab.missing().endswith("Go is not there")
    (there / "bin").mkdir(parents=True)
    (there / "bin" / "kubernetes.key").touch()
    assert lab.missing() == ""
