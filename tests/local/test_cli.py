"""The command line in a separate process: what it imports, and how it ends."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


HEAVY = ("pandas", "scipy", "numpy", "matplotlib", "pyarrow", "locust", "gevent", "pydantic", "rich", "aiohttp")


def test_help_imports_no_heavy_modules() -> None:
    """`meshbench --help` imports nothing that only a run or a report needs."""
    program = "import sys, bench.cli.main; print(*[name for name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert [name for name in HEAVY if name in loaded] == []


def test_validate_checks_manifests(tmp_path: Path) -> None:
    """A scenario is valid only when the manifests that it names are valid."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/policy.yaml").write_text(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a}\nspec:\n  selctor: {}\n",
        "utf-8",
    )
    scenario = (ROOT / "scenarios/smoke.yaml").read_text("utf-8").replace("istio/policies", "mine")
    (tmp_path / "mine.yaml").write_text(scenario, "utf-8")
    program = [sys.executable, "-m", "bench.cli.main", "validate", str(tmp_path / "mine.yaml")]
    answer = subprocess.run(program, capture_output=True, text=True, cwd=ROOT)
    assert answer.returncode == 2
    assert "policy.yaml:5: spec.selctor: " in answer.stderr
    assert "did you mean selector?" in answer.stderr
