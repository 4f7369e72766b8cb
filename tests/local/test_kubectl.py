"""Manifests have the values that the real kubectl sends. Skipped where there is no kubectl."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from bench.files.objects import read_objects

KUBECTL = shutil.which("kubectl")
SCALARS = (
    *("y", "no", "On", "0644", "0x10", "-0x10", "1_000", "0b11", "-0b11", "0o17", "0o8", "089", "00", "-0", "+1"),
    *("30:00", "2026-01-01", "2001-12-14t21:59:43.10-05:00", "1e3", "12e03", ".5", "+.5", "1.", "1.0", "1.5", ".5e3"),
    *(
        "1e+3",
        "1e400",
        "1e3_0",
        "1_0.5",
        "1__0",
        "0_1",
        "_1",
        "=",
        "~",
        "",
        "Null",
        '"y"',
        "''",
        "!!str 1",
        '!!int "3"',
    ),
)
MANIFEST = """
apiVersion: example.io/v1
kind: Thing
metadata: {name: a}
base: &base {x: 1, y2: [2]}
spec:
  <<: *base
  x: 3
  9080: a
  yes: b
  1.5: c
"""


@pytest.mark.skipif(KUBECTL is None, reason="no kubectl on PATH")
def test_values_are_those_of_kubectl(tmp_path: Path) -> None:
    """Scalars of every form, keys that are no text, merges, several documents, JSON, a List."""
    fields = "".join(f"  s{place}: {scalar}\n" for place, scalar in enumerate(SCALARS))
    thing = {"apiVersion": "example.io/v1", "kind": "Thing", "metadata": {"name": "b"}, "spec": {"a": 1e3, "b": 1.0}}
    listed = {"apiVersion": "v1", "kind": "List", "items": [{**thing, "metadata": {"name": "c"}}]}
    path = tmp_path / "a.yaml"
    path.write_text(f"{MANIFEST}{fields}---\n# empty\n---\n{json.dumps(thing)}\n---\n{json.dumps(listed)}\n", "utf-8")
    argv = [str(KUBECTL), "annotate", "--local", "-f", str(path), "a=b", "-o", "json"]
    text = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout
    theirs, end = [], 0
    while end < len(text.rstrip()):
        value, end = json.JSONDecoder().raw_decode(text, end)
        theirs.append(value)
        end += len(text[end:]) - len(text[end:].lstrip())
    ours = [one.value for one in read_objects(path)]
    assert [json.dumps(one["spec"], sort_keys=True) for one in ours] == [
        json.dumps(one["spec"], sort_keys=True) for one in theirs
    ]
