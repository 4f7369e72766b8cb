"""The answers of a report."""

import re
from typing import Any

import pytest

from bench.report.conclusions import format_exploratory, format_overview, make_answer_table, make_answers
from bench.report.text_formats import WIDTH, format_answers
from bench.results.summary_records import SummaryRecord
from tests.issues import issue
from tests.summaries import configuration, contrast, summary


def test_slower_has_size_and_certainty() -> None:
    """An answer has its size in ms and per cent, its interval, its verdict, its count and its certainty."""
    answer = make_answers(summary(contrast()))[0]
    assert (answer.size, answer.change, answer.verdict) == ("+4.20 ms", "+42 %", "slower")
    assert "istio adds +4.20 ms (+42 %, 95 % interval +20 % to +68 %) to the P95 of baseline: slower" in answer.text
    assert "3 + 3 repeats" in answer.text
    assert "within ±18 %" in answer.text
    assert "180 → 170 requests/s" in answer.text
    assert "2.40 ms CPU per request, 128 MiB memory" in answer.text


def test_inconclusive_has_detectable_effect() -> None:
    """An inconclusive answer has the effect that the run could detect and the repeats that would help."""
    text = make_answers(summary(contrast(verdict="inconclusive", ratio=1.05, ratio_low=0.9, ratio_high=1.22)))[0].text
    assert "inconclusive" in text
    assert "19 % (MDE) would be found" in text
    assert re.search(r"\b[4-9] repeats each would find one of 10 %", text)


def test_single_repeat_has_no_verdict() -> None:
    """Without an interval the answer is inconclusive, with the reason."""
    made = contrast(
        n=(1, 1),
        ratio_low=None,
        ratio_high=None,
        verdict="inconclusive",
        mde=None,
        issues=(issue("no-interval", "one repeat has no spread"),),
    )
    text = make_answers(summary(made))[0].text
    assert "inconclusive, one repeat has no spread" in text
    assert "interval +" not in text


@pytest.mark.parametrize("changes", [{"verdict": "invalid"}, {"ratio": None, "delta_ms": None}])
def test_invalid_has_no_number(changes: dict[str, Any]) -> None:
    """An invalid contrast has a reason and no difference."""
    made = contrast(**changes, issues=(issue("no-valid-repeat", "istio has no valid repeat"),))
    answer = make_answers(summary(made))[0]
    assert answer.size == "n/a"
    assert "no result, istio has no valid repeat." in answer.text
    assert "+42" not in answer.text


def test_warns_about_faster_mesh() -> None:
    """The warnings of the contrast are in the answer."""
    made = contrast(
        ratio=0.8,
        ratio_low=0.75,
        ratio_high=0.86,
        delta_ms=-2.0,
        verdict="faster",
        issues=(issue("below-reference", "treat this as noise"),),
    )
    text = make_answers(summary(made))[0].text
    assert "istio changes the P95 of baseline by −2.00 ms" in text
    assert "treat this as noise" in text


def test_other_pairs_are_exploratory() -> None:
    """A comparison with another configuration than the reference is labelled exploratory."""
    other = contrast(configuration="istio", reference="kuma", confirmatory=False)
    made = summary(contrast(), other)
    assert len(make_answers(made)) == 1
    assert "kuma" in format_exploratory(made)[0]
    assert "Exploratory: istio adds" in format_answers(made)


def test_named_pair_comes_after_the_reference() -> None:
    """A pair that the scenario names has an answer of its own, with both names, and is not exploratory."""
    other = contrast(configuration="istio", reference="kuma", confirmatory=False, named=True)
    named = {**summary().configurations, "kuma": configuration(mesh="kuma")}
    made = summary(other, contrast(), configurations=named)
    assert [answer.title for answer in make_answers(made)] == ["istio", "istio against kuma"]
    assert "to the P95 of kuma" in make_answers(made)[1].text
    assert format_exploratory(made) == ()


def test_named_pairs_without_reference_follow_each_p95() -> None:
    """Without a reference there is each configuration's own P95, then the named pair."""
    other = contrast(confirmatory=False, named=True)
    titles = [answer.title for answer in make_answers(summary(other, reference=None))]
    assert titles == ["baseline", "istio", "istio against baseline"]


@pytest.mark.parametrize("verdict", ["equivalent", "inconclusive"])
def test_comparison_with_itself_is_noise(verdict: str) -> None:
    """One configuration under two names has no difference; what is measured is labelled noise."""
    answer = make_answers(summary(contrast(alike=True, verdict=verdict)))[0]
    assert answer.verdict == "no difference"
    assert answer.sentence.startswith("No difference: istio is baseline under another name.")
    assert "are noise" in answer.sentence
    assert "+42 %" in answer.sentence


@pytest.mark.parametrize("verdict", ["slower", "faster", "different"])
def test_difference_from_itself_is_a_false_alarm(verdict: str) -> None:
    """A verdict that calls a configuration different from itself is labelled a false alarm."""
    answer = make_answers(summary(contrast(alike=True, verdict=verdict)))[0]
    assert answer.verdict == "false alarm"
    assert "A false alarm" in answer.sentence


def test_comparison_with_itself_needs_valid_repeats() -> None:
    """Without valid repeats also a configuration compared with itself has no result."""
    answer = make_answers(
        summary(
            contrast(alike=True, verdict="invalid", issues=(issue("no-valid-repeat", "istio has no valid repeat"),))
        )
    )[0]
    assert (answer.verdict, answer.size) == ("invalid", "n/a")
    assert "no result" in answer.text


def test_configurations_answer_without_reference() -> None:
    """Without a reference the answer is each configuration's own P95."""
    made = summary(reference=None)
    assert [answer.size for answer in make_answers(made)] == ["10.0 ms", "10.0 ms"]
    assert "interval [9.00, 11.0] ms; n = 3" in make_answers(made)[0].text


def test_configuration_without_numbers_has_na() -> None:
    """Without a valid trial there are n/a and the reason, not zero."""
    nothing = dict.fromkeys(("p95_ms", "p95_low_ms", "p95_high_ms", "rps"))
    empty = configuration(valid=False, n=0, no_interval="no valid repeat", **nothing)
    answer = make_answers(summary(reference=None, configurations={"baseline": empty}))[0]
    assert (answer.size, answer.verdict) == ("n/a", "invalid")
    assert answer.text == "baseline: no result with 20 users: no valid repeat."


def test_sweep_has_its_best_number_of_users() -> None:
    """With different numbers of users one sentence says which is best, and what more users cost."""
    levels = {
        "users-10": configuration(users=10, rps=94.0, p95_ms=8.0),
        "users-100": configuration(users=100, rps=400.0, p95_ms=260.0),
        "users-500": configuration(users=500, rps=370.0, p95_ms=2200.0),
    }
    assert format_overview(summary(reference=None, configurations=levels)) == (
        "Throughput is best with 100 users: 400 requests/s. From 10 to 500 users P95 changes from 8.00 to 2200 ms."
    )
    assert format_overview(summary()) == ""


def test_terminal_answers_end_with_warnings() -> None:
    """The warnings are below the answers."""
    lines = format_answers(summary(contrast(), issues=(issue("api-outage", "away"),))).splitlines()
    assert lines[-2:] == ["Warnings:", "- away"]


def test_invalid_run_is_marked_first() -> None:
    """On a terminal the mark of an invalid run is before its numbers."""
    assert format_answers(summary(contrast(), valid=False)).startswith("INVALID: ")


def many(*changes: dict[str, Any]) -> SummaryRecord:
    """A summary with one contrast for each of these changes, the last one a named pair."""
    *others, last = (contrast(**{"configuration": f"mesh-{number}", **change}) for number, change in enumerate(changes))
    made = (*others, last.model_copy(update={"confirmatory": False, "named": True, "reference": "mesh-0"}))
    names = {c.configuration: configuration(mesh="istio") for c in made}
    return summary(*made, configurations={"baseline": configuration(), **names})


def test_three_comparisons_are_prose() -> None:
    """A table of three lines adds nothing to three paragraphs; exploratory pairs do not count."""
    exploratory = contrast(configuration="istio", reference="mesh-1", confirmatory=False)
    three = many({}, {}, {})
    made = three.model_copy(update={"contrasts": (*three.contrasts, exploratory)})
    assert make_answer_table(made) is None
    assert "Comparison" not in format_answers(made)


def test_more_than_three_comparisons_are_a_table() -> None:
    """A line per comparison has size, interval, verdict, MDE and count; sentences follow below the table."""
    made = many({}, {"verdict": "inconclusive", "mde": 130.5}, {"verdict": "invalid", "ratio": None, "n": (0, 3)}, {})
    lines = format_answers(made).splitlines()
    assert lines[0] == "4 comparisons of P95:"
    assert [" ".join(line.split()) for line in lines[2:8] if "─" not in line] == [
        "Comparison P95 difference Verdict MDE n",
        "mesh-0 vs baseline +4.20 ms (+42 %) [+20 % to +68 %] slower 19 % 3 + 3",
        "mesh-1 vs baseline +4.20 ms (+42 %) [+20 % to +68 %] inconclusive ×132 3 + 3",
        "mesh-2 vs baseline no result invalid n/a 0 + 3",
        "mesh-3 vs mesh-0 +4.20 ms (+42 %) [+20 % to +68 %] slower 19 % 3 + 3",
    ]
    table_end = lines.index("", 3)
    prose = "\n".join(lines[table_end:])
    assert all(answer.text in prose for answer in make_answers(made))


@pytest.mark.parametrize(("width", "height"), [(WIDTH, 6), (70, 10)])
def test_table_fits_its_width(width: int, height: int) -> None:
    """Where a line per comparison is too wide for the terminal, reference and interval are on a line below."""
    lines = format_answers(many({}, {}, {}, {}), width).splitlines()
    table = lines[2 : lines.index("", 3)]
    assert len(table) == height
    assert max(map(len, table)) <= width


def test_longest_names_fit_100_columns() -> None:
    """Names of 40 characters, large intervals and a large MDE leave the table within 100 columns."""
    wide = {"reference": "r" * 40, "ratio_low": 0.01, "ratio_high": 1430.0, "verdict": "inconclusive", "mde": 9702.0}
    made = summary(
        *(contrast(**wide, configuration=f"{number}" * 40) for number in range(4)),
        reference="r" * 40,
        configurations={name * 40: configuration() for name in "r0123"},
    )
    lines = format_answers(made).splitlines()
    assert max(map(len, lines[: lines.index("", 3)])) <= WIDTH
