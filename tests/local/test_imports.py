"""What storing a trial imports, in a separate process."""

import subprocess
import sys
from pathlib import Path

from tests.bookinfo import ROOT


def test_storing_a_trial_does_not_import_pandas(tmp_path: Path) -> None:
    """Storing a trial does not import pandas, which Arrow's default functions would import."""
    code = """
import sys
from pathlib import Path
import numpy as np
from bench.results.samples import *
from tests.bookinfo import ROOT
from tests.factory import ISTIO_POLICIES, RunSpec, simulate
folder = Path(sys.argv[1])
samples = simulate(ISTIO_POLICIES[0], 2, RunSpec(duration_s=5), rng=np.random.default_rng(1))
write_parquet(samples, folder / "samples.parquet")
write_columns(folder / "table.parquet", {"process": np.array(["ratings"])})
read_parquet(folder / "samples.parquet"), read_columns(folder / "table.parquet", {"process": "string"})
sys.exit("pandas" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT).returncode == 0


def test_a_run_does_not_import_pandas() -> None:
    """Neither a run before its report nor the name `open_run` imports pandas, which takes half a second."""
    code = "import sys, bench.cli.run, bench.run.session, bench.targets.local.target; from bench import open_run"
    assert (
        subprocess.run([sys.executable, "-c", f"{code}; sys.exit('pandas' in sys.modules)"], cwd=ROOT).returncode == 0
    )
