"""The pre-flight asks helm for its version."""

from pathlib import Path

import pytest

from bench.targets.cluster.preflight.mesh import examine_helm


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("v3.15.2+g1a500d5", "3.15.2+g1a500d5 (/"),
        ("v4.0.1+g12500dd", "4.0.1+g12500dd (/"),
        ("what?", "/helm; not needed"),
        (None, "not on PATH; not needed"),
    ],
)
def test_helm_is_told_and_never_missed(
    said: str | None, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks for it in the list finds it, with its version or without: no run needs it."""
    if said is not None:
        (tmp_path / "helm").write_text(f"#!/bin/sh\necho '{said}'\n", "utf-8")
        (tmp_path / "helm").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = examine_helm()
    assert finding.status == "ok"
    assert told in finding.detail
