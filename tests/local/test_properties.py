"""The unit tests' properties, with many more examples than each run of the unit tests draws."""

import subprocess
import sys

import pytest

from tests.command import ROOT


@pytest.mark.soak("properties")
@pytest.mark.timeout(3600)
def test_properties_hold_for_many_examples() -> None:
    """Hypothesis marks its tests; pytest's own profile of few examples is replaced."""
    asked = ["tests/unit", "-q", "-m", "hypothesis", "--hypothesis-profile=many", "--timeout=1800"]
    child = subprocess.run([sys.executable, "-m", "pytest", *asked], cwd=ROOT, capture_output=True, text=True)
    assert child.returncode == 0, child.stdout + child.stderr
