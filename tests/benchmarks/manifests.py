"""How long meshbench needs for manifests as large as it takes: to read them, and to check a scenario with them."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.files.objects import read_objects
from bench.files.yaml_source import KUBECTL
from tests.benchmarks.children import MESHBENCH, used_by
from tests.benchmarks.figure import Figure, format_s

_READ_S: Final = 5.0
_VALIDATE_S: Final = 30.0
_POLICY: Final = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: viewer-{number}
  labels: {{team: readers}}
spec:
  selector:
    matchLabels:
      app: productpage
  action: ALLOW
  rules:
    - from:
        - source:
            principals: ["cluster.local/ns/bookinfo/sa/bookinfo-reader-{number}"]
      to:
        - operation:
            methods: [GET]
            paths: ["/page/{number}", "/other/{number}/*"]
---
"""
_SCENARIO: Final = """\
name: large
title: Many policies
configurations:
  - {name: istio, mesh: istio, manifests: [policies]}
"""


def write_policies(folder: Path) -> tuple[int, Path, Path]:
    """Write the policies as YAML, and the same as a JSON list, each just below the limit. Return their number, and the
    files."""
    count = KUBECTL.size // len(_POLICY.format(number=99_999))
    folder.mkdir(parents=True, exist_ok=True)
    text = folder / "policies.yaml"
    text.write_text("".join(_POLICY.format(number=number) for number in range(count)), "utf-8")
    values = [one.value for one in read_objects(text)]
    listed = folder / "policies.json"
    listed.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": values}), "utf-8")
    return count, text, listed


def figures(folder: Path) -> Iterator[Figure]:
    """Yield the time to read each form, and that of `meshbench validate` for a scenario with the YAML."""
    count, text, listed = write_policies(folder / "policies")
    for file in (text, listed):
        began = time.process_time()
        found = len(read_objects(file))
        seconds = time.process_time() - began
        assert found == count
        what = f"read {count} policies, {file.stat().st_size / 1024 / 1024:.1f} MiB of {file.suffix}"
        yield Figure(what=what, value=format_s(seconds), aim=f"<= {_READ_S:.0f}s", met=seconds <= _READ_S)
    listed.unlink()
    scenario = folder / "large.yaml"
    scenario.write_text(_SCENARIO, "utf-8")
    used = used_by([MESHBENCH, "validate", str(scenario)])
    yield Figure(
        what="meshbench validate with the YAML, CPU time",
        value=format_s(used.cpu_s),
        aim=f"<= {_VALIDATE_S:.0f}s",
        met=used.cpu_s <= _VALIDATE_S,
        spread=f"{used.peak_bytes / 1024 / 1024:.0f} MiB at most",
    )
