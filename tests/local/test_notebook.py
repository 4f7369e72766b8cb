"""The notebook in notebooks/."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from the notebook's own libraries
def test_notebook_runs_on_the_example_run() -> None:
    """Every cell of the notebook runs on the example run in the repository."""
    notebook = nbformat.reads((ROOT / "notebooks/read_a_run.ipynb").read_text("utf-8"), as_version=4)  # type: ignore[no-untyped-call]  # ships no types
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(ROOT / "notebooks")}}).execute()
    assert any("p95_ms" in str(cell.get("outputs")) for cell in notebook.cells)
