"""Some mutated inputs for each edge; the soak part `fuzz` tries many."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bench.system import redaction
from tests.fuzz.edge import Case, Edge
from tests.fuzz.edges import EDGES
from tests.fuzz.mutations import MOST_BYTES, SlowError, limited, mutate

RECORDED = {"a": [1, {"b": "text"}], "c": None}


@pytest.mark.parametrize("edge", EDGES, ids=lambda edge: edge.name)
def test_any_input_is_a_value_or_the_one_error(edge: Edge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing from outside ends in a traceback, a hang or gigabytes of memory."""
    monkeypatch.setattr(redaction, "_registry", redaction._Registry())  # a mutated token may be any text
    cases, read = edge.prepare(tmp_path)

    @settings(
        max_examples=15, phases=[Phase.generate], deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(case=cases)
    def read_all(case: Case) -> None:
        with limited():
            edge.try_case(read, case)

    read_all()


@given(data=st.data())
def test_mutations_leave_the_recording_as_it_is(data: st.DataObject) -> None:
    """Cases do not depend on those before them."""
    data.draw(mutate(RECORDED))
    assert RECORDED == {"a": [1, {"b": "text"}], "c": None}


def test_case_that_needs_gigabytes_is_a_fault() -> None:
    """The limits are those of a case, not of the tests."""
    with pytest.raises(MemoryError), limited():
        bytearray(2 * MOST_BYTES)


def test_case_that_does_not_end_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is of the process's own CPU time, which a busy machine does not use up."""
    monkeypatch.setattr("tests.fuzz.mutations.MOST_CPU_S", 0.05)
    with pytest.raises(SlowError), limited():
        _spin()


def _spin() -> None:
    while True:
        pass
