"""Names of workloads and containers as file names."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.results.store import make_file_name


@pytest.mark.parametrize("name", ["reviews-v2-istio-proxy.log", "productpage.json", "A_b.1"])
def test_keeps_plain_name(name: str) -> None:
    """The files of a workload have its name."""
    assert make_file_name(name) == name


@pytest.mark.parametrize(
    "name", ["../../.ssh/authorized_keys", "/etc/passwd", "..", ".", "", ".bashrc", "a\0b", "a\nb"]
)
def test_file_name_stays_in_its_folder(name: str) -> None:
    """It has no separator, no leading dot, and no character that is special to a terminal or a shell."""
    found = make_file_name(name)
    assert Path(found).name == found
    assert not found.startswith(".")
    assert found.isprintable()


@given(name=st.text(), other=st.text())
def test_different_names_are_different_files(name: str, other: str) -> None:
    """One log never replaces another, and a disk accepts every name."""
    assert (make_file_name(name) == make_file_name(other)) == (name == other)
    assert 0 < len(make_file_name(name).encode()) < 200
    assert "/" not in make_file_name(name)
