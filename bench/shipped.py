"""Where the files that ship with meshbench are: beside the package in a checkout, inside it when installed."""

from pathlib import Path
from typing import Literal

Kind = Literal["scenarios", "manifests", "locustfiles"]

_PACKAGE = Path(__file__).resolve().parent


def shipped(kind: Kind) -> Path:
    """The folder of the shipped scenarios, manifests or locustfiles."""
    installed = _PACKAGE / "shipped_files" / kind
    return installed if installed.is_dir() else _PACKAGE.parent / kind
