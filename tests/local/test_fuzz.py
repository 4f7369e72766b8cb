"""Minutes of mutated inputs for each edge: `make soak PART=fuzz` prints how many cases were tried, and the faults."""

import random
from pathlib import Path

import pytest

from bench.system import redaction
from tests.fuzz.edge import Edge
from tests.fuzz.edges import EDGES
from tests.fuzz.fuzzing import fuzz
from tests.fuzz.runs import REPORTS

SECONDS = 60.0


@pytest.mark.soak("fuzz")
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("edge", [*EDGES, REPORTS], ids=lambda edge: edge.name)
def test_edge_has_one_error(
    edge: Edge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No traceback, no hang and no gigabytes of memory, whatever comes in."""
    monkeypatch.setattr(redaction, "_registry", redaction._Registry())  # a mutated token may be any text
    seed = random.SystemRandom().randrange(1 << 32)
    outcome = fuzz(edge, tmp_path, seconds=SECONDS, seed=seed)
    with capsys.disabled():
        print(  # noqa: T201  # the figures of a soak
            f"\n{edge.name}: {outcome.cases} cases, {outcome.per_minute:.0f} a minute, {len(outcome.faults)} faults"
            f" (seed {seed})"
        )
    assert outcome.faults == {}
