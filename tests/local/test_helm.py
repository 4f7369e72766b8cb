"""The pre-flight reads helm's version."""

from pathlib import Path

import pytest

from bench.targets.cluster.preflight.mesh import examine_helm


@pytest.mark.parametrize(
    ("output", "detail"),
    [
        ("v3.15.2+g1a500d5", "3.15.2+g1a500d5 (/"),
        ("v4.0.1+g12500dd", "4.0.1+g12500dd (/"),
        ("what?", "/helm; not needed"),
        (None, "not on PATH; not needed"),
    ],
)
def test_helm_is_listed_and_optional(
    output: str | None, detail: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list has helm with or without a version: no run needs it."""
    if output is not None:
        (tmp_path / "helm").write_text(f"#!/bin/sh\necho '{output}'\n", "utf-8")
        (tmp_path / "helm").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = examine_helm()
    assert finding.status == "ok"
    assert detail in finding.detail
