"""What storing a trial imports, in a process of its own."""

import subprocess
import sys
from pathlib import Path

from tests.bookinfo import ROOT


def test_writing_and_reading_load_no_pandas(tmp_path: Path) -> None:
    """Storing a trial does not wait for a library that it does not need: Arrow's usual ways would load pandas."""
    code = """
import sys
from pathlib import Path
import numpy as np
from bench.results.samples import *
from tests.bookinfo import ROOT
from tests.factory import ISTIO_POLICIES, Made, simulate
folder = Path(sys.argv[1])
samples = simulate(ISTIO_POLICIES[0], 2, Made(duration_s=5), rng=np.random.default_rng(1))
write_parquet(samples, folder / "samples.parquet")
write_columns(folder / "table.parquet", {"process": np.array(["ratings"])})
read_parquet(folder / "samples.parquet"), read_columns(folder / "table.parquet")
sys.exit("pandas" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT).returncode == 0
