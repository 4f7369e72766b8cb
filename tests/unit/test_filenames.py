"""Names from elsewhere as file names."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.results.store import file_name


@pytest.mark.parametrize("name", ["reviews-v2-istio-proxy.log", "productpage.json", "A_b.1"])
def test_keeps_a_plain_name(name: str) -> None:
    """What a workload is called is how its files are called."""
    assert file_name(name) == name


@pytest.mark.parametrize(
    "name", ["../../.ssh/authorized_keys", "/etc/passwd", "..", ".", "", ".bashrc", "a\0b", "a\nb"]
)
def test_makes_a_name_that_leads_nowhere_else(name: str) -> None:
    """No separator, no leading dot, nothing that a terminal or a shell would take for something else."""
    found = file_name(name)
    assert Path(found).name == found
    assert not found.startswith(".")
    assert found.isprintable()


@given(name=st.text(), other=st.text())
def test_two_names_are_two_files(name: str, other: str) -> None:
    """One log never replaces another, and every name is one that a disk takes."""
    assert (file_name(name) == file_name(other)) == (name == other)
    assert 0 < len(file_name(name).encode()) < 200
    assert "/" not in file_name(name)
