"""The page of a gate's history: what it says of the newest night, of changes, and of nights that are missing."""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bench.analysis.history import History, append_lines
from bench.report.history_page import find_overdue, format_last_success, render_history
from bench.report.nights import make_series
from tests.nights import CONDITIONS, LAST, call, make_history

LATER = LAST + timedelta(hours=5)
VERSIONS = {0: {"versions": {"istio": "1.27.0"}}, 25: {"versions": {"istio": "1.28.0"}}}
SLOWER = make_history(40, slower_from={25: math.log(1.3)}, changes=VERSIONS)


def test_change_of_level_names_the_version_of_that_night() -> None:
    """A new version that comes with another level is beside it: the date, the size, both versions."""
    series = make_series(SLOWER.all_series()[0])
    (step,) = series.steps
    assert step.night.line == SLOWER.all_series()[0][25]
    assert step.ratio == pytest.approx(1.3, rel=0.03)
    page = render_history(SLOWER, now=LATER)
    assert f"<dt>{step.night.line.at:%Y-%m-%d}</dt><dd>level +" in page
    assert "istio: 1.27.0 / 1.28.0</dd>" in page
    assert "Regression: istio against baseline." in page
    assert "Pass: istio-policies against baseline." in page


def test_new_conditions_and_acceptance_begin_a_baseline() -> None:
    """Both are on the page with their reason, the nights before and after them keep their own limits."""
    upgraded = {"conditions": {**CONDITIONS, "cluster": "Kubernetes v1.32.0, 3 nodes"}}
    history = make_history(20, changes={8: upgraded})
    lines = [line if line.at != LAST else line.model_copy(update={"accepted": "new <Envoy>"}) for line in history.lines]
    page = render_history(History(tuple(lines)), now=LATER)
    assert "new baseline: cluster: Kubernetes v1.31.2, 3 nodes / Kubernetes v1.32.0, 3 nodes</dd>" in page
    assert "accepted (new &lt;Envoy&gt;), new baseline</dd>" in page
    nights = make_series(History(tuple(lines)).all_series()[0]).nights
    assert [number for number, night in enumerate(nights) if night.begins] == [8, 19]


def test_nights_without_a_change_have_no_event() -> None:
    """A quiet history has neither a change of level nor a baseline but its first."""
    page = render_history(make_history(12), now=LATER)
    assert page.count("Nothing so far") == 2
    assert "OVERDUE" not in page


def test_missing_nights_are_at_the_top() -> None:
    """After more than two usual distances without a valid night the page says so; before, and for two nights, not."""
    history = make_history(6)
    assert find_overdue(history, LAST + timedelta(hours=47)) == ""
    overdue = find_overdue(history, LAST + timedelta(hours=80))
    assert overdue == (
        "A night is expected every 24 hours. The last valid night began 3 days ago, 2026-11-29 03:17 UTC."
    )
    assert overdue in render_history(history, now=LAST + timedelta(hours=80))
    assert find_overdue(make_history(2), LAST + timedelta(days=90)) == ""
    invalid = History(tuple(line.model_copy(update={"valid": False}) for line in history.lines))
    assert format_last_success(invalid, LAST) == "No night was valid."
    assert find_overdue(invalid, LAST)


@pytest.mark.parametrize("nights", [0, 1, 2])
def test_short_histories_have_a_page(nights: int) -> None:
    """A page can be written from the first night on, and of a file whose lines cannot be read."""
    page = render_history(History(make_history(nights).lines, ("h.jsonl:1: this line is skipped: <x>",)), now=LATER)
    assert page.startswith("<!doctype html>")
    assert "this line is skipped: &lt;x&gt;" in page
    assert page.count("<figure") == (2 if nights else 0)


def test_invalid_nights_have_no_ratio_on_the_page() -> None:
    """A history of invalid nights alone is drawn without a point, and says that no night was valid."""
    history = make_history(3, changes={0: {"valid": False}})
    page = render_history(history, now=LATER)
    assert "no valid value" in page
    assert "No night was valid." in page
    assert "ALARM: 3 consecutive nights" in page


def test_page_is_the_same_each_time() -> None:
    """The same history makes the same bytes."""
    assert render_history(SLOWER, now=LATER) == render_history(SLOWER, now=LATER)


def test_two_scenarios_have_their_names() -> None:
    """A file with two scenarios has both names in its title and at each contrast."""
    both = (*make_history(3).lines, *make_history(3, scenario="weekly").lines)
    page = render_history(History(tuple(sorted(both, key=lambda line: line.at))), now=LATER)
    assert "<h1>Nightly history: nightly, weekly</h1>" in page
    assert "<h2>weekly: istio against baseline</h2>" in page


def test_command_writes_the_page_beside_the_history(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--html` alone names the page after the history; with a path it is written there; else text is printed."""
    path = tmp_path / "nightly.jsonl"
    append_lines(path, make_history(4).lines)
    assert call("history", path, "--html") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'nightly.html'}\n"
    assert call("history", path, "--html", tmp_path / "page.html") == 0
    assert (tmp_path / "page.html").read_text().count("<figure") == 2
    capsys.readouterr()
    assert call("history", path) == 0
    output = capsys.readouterr()
    assert output.out.startswith("nightly: istio against baseline, P95\n")
    assert output.err.startswith("nightly: The last valid night began ")


def test_command_fails_when_the_last_valid_night_is_too_old(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A watch job ends with 5 and the time of the last valid night, and with 2 for what is no duration."""
    path = tmp_path / "nightly.jsonl"
    append_lines(path, make_history(4, last=datetime(2026, 1, 9, 3, 17, tzinfo=UTC)).lines)
    assert call("history", path, "--max-age", "876000h") == 0
    assert call("history", path, "--max-age", "1s") == 5
    assert "allowed are 1s; hint: " in capsys.readouterr().err
    append_lines(path, make_history(1, scenario="weekly", last=datetime.now(UTC)).lines)
    assert call("history", path, "--max-age", "36h") == 5
    late = capsys.readouterr().err.partition("meshbench: ")[2]
    assert late.startswith("nightly: The last valid night began ")
    assert "weekly" not in late
    assert call("history", path, "--max-age", "soon") == 2
    assert "--max-age: 'soon' is not a duration" in capsys.readouterr().err
