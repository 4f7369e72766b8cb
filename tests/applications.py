"""Bookinfo as its shipped manifests have it, or those of another folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.application.definition import find_application, read_definition
from bench.application.model import Application, read_application

BOOKINFO: Final = find_application("bookinfo")


def read_bookinfo(
    reviews: str | Sequence[str] = "v3", *, namespace: str = "", folder: Path | None = None
) -> Application:
    """Read Bookinfo with one or several versions of reviews."""
    definition = read_definition(folder / "application.yaml") if folder else BOOKINFO
    return read_application(definition, {"reviews": reviews}, namespace=namespace)
