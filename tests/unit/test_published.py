"""Reports are copied to the folder that is served, and nothing else of a run is."""

from pathlib import Path

import pytest

from bench.errors import StoreError
from bench.report.published import publish_reports


def make_report(output: Path, name: str) -> Path:
    """Write a run's folder with a report and something that stays private."""
    run = output / name
    (run / "report").mkdir(parents=True)
    (run / "report" / "index.html").write_text(f"report of {name}", "utf-8")
    (run / "secret.txt").write_text("secret", "utf-8")
    return run


def test_only_reports_are_published(tmp_path: Path) -> None:
    """Each kept run has a copy; the newest has a name that stays; a run that has ended without a report has none."""
    runs = [make_report(tmp_path, name) for name in ("a", "b")]
    (tmp_path / "c").mkdir()
    publish_reports([*runs, tmp_path / "c"], tmp_path / "pages")
    found = {path.name: path.read_text("utf-8") for path in (tmp_path / "pages").iterdir()}
    assert found == {
        "a.report.html": "report of a",
        "b.report.html": "report of b",
        "latest.html": "report of b",
    }


def test_reports_of_removed_runs_go(tmp_path: Path) -> None:
    """The user's own files beside them stay."""
    runs = [make_report(tmp_path, name) for name in ("a", "b")]
    publish_reports(runs, tmp_path / "pages")
    (tmp_path / "pages" / "index.html").write_text("mine", "utf-8")
    publish_reports(runs[1:], tmp_path / "pages")
    assert {path.name for path in (tmp_path / "pages").iterdir()} == {"b.report.html", "latest.html", "index.html"}


def test_place_that_is_a_file_is_reported(tmp_path: Path) -> None:
    """One message with the path."""
    (tmp_path / "pages").touch()
    with pytest.raises(StoreError, match="reports cannot be copied there"):
        publish_reports([make_report(tmp_path, "a")], tmp_path / "pages")
