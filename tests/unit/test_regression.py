"""The gate's rule, and its commands."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from scipy import stats

from bench.analysis.history import HistoryLine, append_lines, hash_conditions
from bench.analysis.night import make_lines, read_conditions
from bench.analysis.regression import (
    FEWEST_NIGHTS,
    Decision,
    GateRecord,
    compute_first_limits,
    compute_limits,
    decide,
    find_error,
)
from bench.report.gate import format_markdown, format_reason, write_junit
from bench.results.store import StoredRun
from tests.benchmarks import gate
from tests.factory import ENVIRONMENT, STARTED_AT, make_run
from tests.nights import call
from tests.unit.test_history import SHORT, TWO, changed, line

QUIET = (0.00, 0.03, -0.03, 0.02, -0.02, 0.01, -0.01, 0.00)


def outcomes(nights: Sequence[HistoryLine]) -> list[str]:
    return [decision.outcome for decision in decide(nights)]


def nights(*shifts: float, **changes: Any) -> list[HistoryLine]:
    """Nights whose ln ratio is off the usual one by these shifts."""
    return [line(n, ln_ratio=math.log(1.4) + shift, **changes) for n, shift in enumerate(shifts)]


def simulated(rng: np.random.Generator, count: int, *, shift: float = 0.0, since: int = 0) -> list[HistoryLine]:
    """Nights of 3 repeats a side: repeats differ by 5 %, each configuration by 2 % from night to night."""
    sides = rng.normal(0, 0.05, (count, 2, 3)).mean(axis=2) + rng.normal(0, 0.02, (count, 2))
    ratios = sides[:, 1] - sides[:, 0]
    ratios[since:] += shift
    return nights(*ratios.tolist())


def test_false_alarms_are_rare() -> None:
    """Without a change, at most 1 night in 100 ends as a regression, and about 1 in 100 with a warning."""
    rng = np.random.default_rng(20261123)
    found = [outcome for _ in range(60) for outcome in outcomes(simulated(rng, 100))]
    assert 0 < found.count("regression") / len(found) <= 0.01
    assert 0 < found.count("warning") / len(found) <= 0.02


def test_detects_real_change() -> None:
    """Of injected changes of +20 %, 9 in 10 fail the job within 5 nights, and most warn in the first."""
    rng = np.random.default_rng(7)
    found = [outcomes(simulated(rng, 25, shift=math.log(1.2), since=20))[20:] for _ in range(100)]
    assert sum("regression" in five for five in found) >= 90
    assert sum(five[0] == "warning" for five in found) >= 60


@pytest.mark.parametrize("count", [FEWEST_NIGHTS, 12, 20])
def test_limits_are_prediction_limits(count: int) -> None:
    """A further night of the same kind is beyond the 95 % limit in 1 case of 20, beyond the 99 % limit in 1 of 100."""
    rng = np.random.default_rng(count)
    beyond_95 = beyond_99 = 0
    for night, *usual in rng.normal(0.3, 0.05, (4000, count + 1)).tolist():
        found = compute_limits(usual)
        assert found
        beyond_95 += night > found.limit_95
        beyond_99 += night > found.limit_99
    assert stats.binomtest(beyond_95, 4000, 0.05).pvalue > 0.001
    assert stats.binomtest(beyond_99, 4000, 0.01).pvalue > 0.001


@pytest.mark.parametrize("before", gate.BEFORE)
def test_few_nights_have_few_false_alarms(before: int) -> None:
    """In histories without a change, at most 1 night in 50 is a regression, however few nights there are before."""
    found = gate.measure(before, change=1.0, night_sd=0.02, histories=80)
    assert found.of_nights <= gate.MOST_FALSE


def test_large_change_is_found_after_one_night() -> None:
    """With one night before, a night that is 40 % slower is a regression at once in three histories of four."""
    assert gate.measure(1, change=1.4, night_sd=0.02, histories=80).first >= 0.75


def test_uses_the_last_20_nights() -> None:
    """Older nights do not change the limits."""
    recent = [0.01 * (n % 5) for n in range(20)]
    assert compute_limits([9.0, -9.0, *recent]) == compute_limits(recent)


def test_first_night_warns_and_second_fails() -> None:
    """+30 % is a warning, and a regression while the next nights have it, too."""
    assert outcomes(nights(*QUIET, 0.26, 0.26, 0.27, 0.0))[8:] == ["warning", "regression", "regression", "pass"]


def test_single_high_night_is_no_regression() -> None:
    """A night beyond the limit, then a usual one, then another high one: two warnings, no regression."""
    assert outcomes(nights(*QUIET, 0.2, 0.0, 0.6))[8:] == ["warning", "pass", "warning"]


def test_small_change_is_no_warning() -> None:
    """A night beyond the 99 % limit but less than 5 % above the usual passes, and reports the change."""
    decision = decide(nights(*(shift / 10 for shift in QUIET), 0.04))[-1]
    assert decision.limit_99 is not None
    assert decision.ratio is not None
    assert decision.ratio > decision.limit_99
    assert decision.outcome == "pass"
    assert "+4.1 %" in decision.reason


def test_regression_never_becomes_the_baseline() -> None:
    """A month of regression still fails, the first usual night passes, and the limit stays where it was."""
    decisions = decide(nights(*QUIET, *[0.2] * 30, 0.0, 0.2))[-3:]
    assert [decision.outcome for decision in decisions] == ["regression", "pass", "warning"]
    assert decisions[2].usual == pytest.approx(1.4, rel=0.001)


def test_invalid_night_neither_counts_nor_interrupts() -> None:
    """Two high nights with an invalid night in between are still two valid nights in a row."""
    high, gap, again = nights(*QUIET, 0.26, 9.0, 0.26)[8:]
    unmeasured = gap.model_copy(update={"valid": False})
    assert outcomes([*nights(*QUIET), high, unmeasured, again])[8:] == ["warning", "invalid", "regression"]


def test_invalid_nights_are_not_in_the_baseline() -> None:
    """Invalid nights do not count towards the minimum number of nights."""
    bad = nights(*QUIET, valid=False)
    assert outcomes([*bad, line(20)])[-1] == "no baseline"


def test_three_invalid_nights_in_a_row_fail() -> None:
    """The third invalid night is reported, the first two are not, and a valid one resets the count."""
    series = [line(n, valid=n == 3) for n in range(7)]
    assert ["ALARM: 3 consecutive nights" in decision.reason for decision in decide(series)] == [
        n in (2, 6) for n in range(7)
    ]


def test_other_conditions_begin_new_baseline() -> None:
    """The first night under other conditions is only recorded, with what changed; earlier ones stay stored."""
    new = line(8, ln_ratio=2.0, fingerprint="g", conditions={"cpus": "16"})
    back = line(9, ln_ratio=math.log(1.4))
    decisions = decide([*nights(*QUIET), new, back])[8:]
    assert [decision.outcome for decision in decisions] == ["no baseline", "pass"]
    assert "cpus: 8 / 16" in decisions[0].reason


def test_accepting_begins_new_baseline() -> None:
    """After a regression is accepted, the next nights are compared with its level."""
    level = nights(*QUIET, 0.26, 0.26, *(0.26 + shift for shift in QUIET))
    level[9] = level[9].model_copy(update={"accepted": "new Envoy"})
    found = outcomes(level)
    assert found[8:10] == ["warning", "no baseline"]
    assert set(found[10:]) == {"pass"}


def precise(number: int, shift: float, **changes: Any) -> HistoryLine:
    """A night whose repeats differ by 1 %, so that its ln ratio has a standard error of 0.8 %."""
    sides = {"ln_p95_ms": (2.19, 2.20, 2.21), "ln_reference_p95_ms": (1.89, 1.90, 1.91)}
    return line(number, ln_ratio=math.log(1.4) + shift, **sides, **changes)


@pytest.mark.parametrize("before", [1, 2, 4])
@pytest.mark.parametrize(
    ("shift", "outcome", "reason"),
    [
        (0.0, "pass", ""),
        (-0.3, "pass", ""),
        (0.06, "pass", r"\+6\.2 % against .* before: more than chance, but not surely beyond the margin of 10 %"),
        (0.16, "regression", r"\+17 % against .* before, at least \+1[45] % with 95 % confidence, beyond the margin"),
    ],
)
def test_first_nights_are_judged_by_errors_and_margin(before: int, shift: float, outcome: str, reason: str) -> None:
    """From one night on, a night that is surely slower than those before by more than the margin is a regression."""
    found = decide([*(precise(n, 0.0) for n in range(before)), precise(9, shift)])[-1]
    assert found.outcome == outcome
    assert re.match(reason, found.reason) if reason else not found.reason
    assert found.ratio is not None
    assert found.limit_95 is not None
    assert (found.ratio > found.limit_95) == (outcome == "regression")
    assert found.nights == before
    assert found.usual == pytest.approx(1.4)


def test_limit_of_first_nights_is_that_of_a_welch_test() -> None:
    """With one night before and equal spreads, the difference of both has the error of four means, 8 degrees."""
    found = compute_first_limits(precise(1, 0.0), [precise(0, 0.0)])
    assert found is not None
    error = math.sqrt(4 * 0.01**2 / 3)
    assert found.chance - found.mean == pytest.approx(stats.t.ppf(0.95, 8) * error)
    assert found.limit_95 - found.chance == pytest.approx(math.log(1.1))


def test_margin_is_that_of_the_scenario() -> None:
    """A night that is 17 % slower is a regression with a margin of 10 %, and none with one of 20 %."""
    assert outcomes([precise(0, 0.0), precise(1, 0.16)])[-1] == "regression"
    assert outcomes([precise(0, 0.0), precise(1, 0.16, margin=0.2)])[-1] == "pass"


def test_regression_of_first_nights_never_becomes_the_baseline() -> None:
    """Ten slow nights after one usual night are ten regressions, and the next usual night passes."""
    series = [precise(0, 0.0), *(precise(n, 0.2) for n in range(1, 11)), precise(11, 0.01)]
    found = decide(series)
    assert [one.outcome for one in found] == ["no baseline", *["regression"] * 10, "pass"]
    assert found[-1].nights == 1


def test_first_nights_without_an_interval_are_recorded_only() -> None:
    """Runs of one repeat have no error, so that five of them are needed."""
    single = {"ln_p95_ms": (2.2,), "ln_reference_p95_ms": (1.9,)}
    found = decide(nights(*QUIET[:6], **single))
    assert [one.outcome for one in found] == [*["no baseline"] * 5, "pass"]
    assert found[4].reason.endswith("4 valid nights before this one, and not every run has an interval; 5 nights are"
                                    " judged without")  # fmt: skip


def test_error_of_a_paired_night_is_that_of_its_blocks() -> None:
    """What both sides of a block have in common is no error of their ratio, unless the design is sequential."""
    common = (0.0, 0.5, 1.0, 0.2)
    sides = {
        "ln_p95_ms": tuple(2.2 + shared + own for shared, own in zip(common, (0.01, -0.01, 0.02, 0.0), strict=True)),
        "ln_reference_p95_ms": tuple(1.9 + shared for shared in common),
    }
    paired, sequential = (find_error(line(0, conditions=known, **sides)) for known in ({"design": "duet"}, {}))
    assert paired is not None
    assert sequential is not None
    assert paired.se == pytest.approx(stats.sem((0.01, -0.01, 0.02, 0.0)))
    assert paired.df == 3
    assert sequential.se > 10 * paired.se


HOSTED = {"cpus": "4", "cpu_model": "EPYC", "kernel": "6.8.0-1015-azure", "memory_bytes": "16373452800"}


def hosted(number: int, **changes: str) -> HistoryLine:
    """A night on a hosted runner, which is another machine each time."""
    conditions = {**HOSTED, "address_host": f"m{number}", **changes}
    return precise(number, 0.01 * (number % 3), conditions=conditions, fingerprint=hash_conditions(conditions))


def test_machines_of_one_kind_have_a_baseline_with_an_issue() -> None:
    """A hosted runner is judged by the nights of others of its kind, and the decision names what they differ in."""
    found = decide([*map(hosted, range(8)), hosted(8, kernel="6.8.0-1017-azure", memory_bytes="16373444608")])
    assert [one.outcome for one in found] == ["no baseline", *["pass"] * 8]
    (issue,) = found[-1].issues
    assert (issue.code, issue.severity) == ("other-machine", "warning")
    assert issue.detail == "8 of the 8 nights before had another machine, kernel, memory of the same kind"
    assert "8 of the 8 nights before" in format_reason(found[-1])


@pytest.mark.parametrize(
    "changes", [{"cpu_model": "Xeon"}, {"cpus": "8"}, {"kernel": "6.11.0-1017-azure"}, {"memory_bytes": "33000000000"}]
)
def test_another_kind_of_machine_begins_a_new_baseline(changes: dict[str, str]) -> None:
    """Another CPU, number of CPUs, series of the kernel or size of memory is another kind."""
    found = decide([*map(hosted, range(6)), hosted(6, **changes), hosted(7)])
    assert [one.outcome for one in found[-2:]] == ["no baseline", "pass"]
    assert found[-2].reason.startswith("new conditions (")
    assert [issue.detail.split(" had")[0] for issue in found[-1].issues] == ["6 of the 6 nights before"]


def test_nights_on_one_machine_have_no_issue() -> None:
    """Where all nights had the same machine, nothing is stated."""
    assert not any(one.issues for one in decide([precise(n, 0.0) for n in range(9)]))


def test_equal_nights_have_no_limits() -> None:
    """Nights that do not differ at all have too coarse a measurement."""
    decision = decide(nights(*[0.0] * 9))[-1]
    assert (decision.outcome, decision.limit_95) == ("no baseline", None)
    assert "all equal" in decision.reason


DECISIONS = tuple(
    Decision(run_id="r", at=STARTED_AT, configuration=name, reference="base", outcome=outcome, reason="a|b <i> & *c*")
    for name, outcome in (
        ("one", "pass"),
        ("two", "warning"),
        ("three", "regression"),
        ("four", "no baseline"),
        ("five", "inconclusive"),
        ("six", "invalid"),
    )
)
FOUND = GateRecord(run_id="r", scenario="nightly", fingerprint="f", exit_code=6, decisions=DECISIONS)


def test_junit_has_a_case_per_contrast(tmp_path: Path) -> None:
    """A regression fails, an invalid contrast is an error, an undecided one is skipped, others pass; counts agree."""
    write_junit(FOUND, tmp_path / "gate.xml")
    suite = ET.parse(tmp_path / "gate.xml").getroot()  # noqa: S314  # our own file
    tags = [[child.tag for child in case] for case in suite.iter("testcase")]
    assert tags == [["system-out"], ["system-out"], ["failure"], ["skipped"], ["skipped"], ["error"]]
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["6", "1", "1", "2"]
    failure = suite.find(".//failure")
    assert failure is not None
    assert failure.get("message") == "a|b <i> & *c*"


def test_markdown_is_escaped() -> None:
    """The table has a row per contrast, and a reason is text: no tag, no markup."""
    text = format_markdown(FOUND)
    assert [row.count("|") for row in text.splitlines() if row.startswith("|")] == [7] * 8
    assert r"a\|b \<i\> & \*c\*" in text
    assert "**regression**" in text
    hostile = DECISIONS[0].model_copy(update={"configuration": "<img src=x>|\x1b[2J"})
    text = format_markdown(FOUND.model_copy(update={"run_id": "[r](x)", "scenario": "`s`", "decisions": (hostile,)}))
    assert text.startswith(r"## \`s\`: \[r\](x)")
    assert text.count(r"\<img src=x\>\|\\u001b\[2J against base") == 2


# Through the command: faults.md's cases are a nightly job's first weeks.


def night(output: Path, number: int, *, istio_ms: float = 9.0) -> StoredRun:
    """The run of one night, after the synthetic history of `remember`."""
    configurations = (TWO[0], replace(TWO[1], median_ms=istio_ms))
    run = make_run(output / str(number), replace(SHORT, configurations=configurations, run_sd=0.01, seed=number))
    return changed(run, run_id=f"night-{number}", started_at=STARTED_AT + timedelta(days=number))


def remember(history: Path, like: StoredRun) -> None:
    """Eight nights before `like`, under its conditions, about as slow."""
    (model,) = make_lines(like)
    assert model.ln_ratio is not None
    append_lines(
        history,
        [
            model.model_copy(
                update={
                    "run_id": f"old-{n}",
                    "at": model.at - timedelta(days=20 - n),
                    "ln_ratio": model.ln_ratio + shift,
                }
            )
            for n, shift in enumerate(QUIET)
        ],
    )


def test_run_without_history_is_only_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No history, and one under other conditions, both mean no baseline yet, exit code 0."""
    run, history = night(tmp_path, 1), tmp_path / "history.jsonl"
    assert call("gate", run.path, "--history", history) == 0
    assert "**no baseline**" in capsys.readouterr().out
    other = changed(night(tmp_path, 2), environment=ENVIRONMENT.model_copy(update={"kernel": "7.0.0"}))
    assert read_conditions(other) != read_conditions(run)
    assert call("gate", other.path, "--history", history) == 0
    assert "kernel: 6.1.0 / 7.0.0" in capsys.readouterr().out
    assert len(history.read_bytes().splitlines()) == 2


def test_second_night_fails_the_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A regression warns with exit code 0 on its first night and ends with 6 on its second, also on a second call."""
    usual, history, junit = night(tmp_path, 1), tmp_path / "history.jsonl", tmp_path / "gate.xml"
    remember(history, usual)
    assert call("gate", usual.path, "--history", history) == 0
    assert "**pass**" in capsys.readouterr().out
    first, second = night(tmp_path, 2, istio_ms=12.5), night(tmp_path, 3, istio_ms=12.5)
    assert call("gate", first.path, "--history", history) == 0
    assert "**warning**" in capsys.readouterr().out
    assert [call("gate", second.path, "--history", history, "--junit", junit) for _ in range(2)] == [6, 6]
    output = capsys.readouterr()
    assert "**regression**" in output.out
    assert "2 consecutive nights beyond the 95 % limit" in output.err
    assert "<failure" in junit.read_text()
    assert call("gate", first.path, "--history", history) == 0
    capsys.readouterr()
    assert call("history", history) == 0
    assert [text.split()[5].rstrip(":") for text in capsys.readouterr().out.splitlines()[-3:]] == [
        "pass",
        "warning",
        "regression",
    ]
    assert call("gate", second.path, "--history", history, "--accept", "Istio 2 costs that") == 0
    assert "accepted: Istio 2 costs that" in capsys.readouterr().out


@pytest.mark.parametrize(("code", "exit_code"), [(5, 5), (4, 4), (130, 5)])
def test_invalid_run_is_recorded_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], code: int, exit_code: int
) -> None:
    """An invalid run ends with 5, or with 4 after a failed proof, and is in the history."""
    run, history = night(tmp_path, 1), tmp_path / "history.jsonl"
    cut = changed(run, trials=run.record.trials[:-2], status="invalid", exit_code=code)
    assert call("gate", cut.path, "--history", history, "--json") == exit_code
    found = json.loads(capsys.readouterr().out)
    assert (found["exit_code"], found["decisions"][0]["outcome"]) == (exit_code, "invalid")
    assert [json.loads(text)["valid"] for text in history.read_bytes().splitlines()] == [False]


def test_damaged_history_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both commands report a torn line on standard error and continue."""
    run, history = night(tmp_path, 1), tmp_path / "history.jsonl"
    history.write_text('{"schema_version": 1, "run')
    assert call("gate", run.path, "--history", history) == 0
    assert call("history", history) == 0
    assert capsys.readouterr().err.count(f"warning: {history}:1: this line is skipped") == 2


def test_another_design_begins_a_new_epoch_with_its_reason() -> None:
    """A night of another design is not judged by those before it, and the reason names both designs; so is the way
    back."""
    before = nights(*QUIET)
    conditions = before[0].conditions | {"design": "duet"}
    other = line(20, ln_ratio=math.log(2.8), conditions=conditions, fingerprint="other")
    back = line(21, ln_ratio=math.log(1.4))
    *_, there, again = decide([*before, other, back])
    assert there.outcome == "no baseline"
    assert there.reason.startswith("new conditions (design: sequential / duet); recorded only")
    assert again.outcome == "pass"
