"""Whether a run confirms the 2022 study's ranking."""

import pytest

from bench.report.conclusions import find_ranking_steps, format_ranking
from bench.results.summary_records import Contrast
from tests.summaries import contrast, summary

PAIRS = (
    ("istio", "baseline"),
    ("kuma", "istio"),
    ("istio-policies", "istio"),
    ("kuma-policies", "kuma"),
    ("kuma-policies", "istio-policies"),
)


def contrasts(**verdicts: str) -> list[Contrast]:
    """All five steps slower, except for those that are named: `kuma_istio="equivalent"`."""
    ratios = {"faster": 0.8, "equivalent": 1.02, "inconclusive": 1.1}
    made = []
    for name, reference in PAIRS:
        verdict = verdicts.get(f"{name}_{reference}".replace("-", ""), "slower")
        changes = {"configuration": name, "reference": reference, "verdict": verdict}
        made.append(contrast(**changes, ratio=ratios.get(verdict, 1.3)))
    return made


def test_five_slower_steps_confirm_the_ranking() -> None:
    """If each step is slower, one sentence says that the ranking shows."""
    assert format_ranking(summary(*contrasts())) == (
        "The 2022 study's ranking (baseline < Istio < Kuma, and policies add more) shows here: each step is slower "
        "than the one before."
    )


def test_slower_by_unknown_size_counts() -> None:
    """A step that is slower with certainty counts, whatever its size; the margin does not matter for the ranking."""
    assert "shows here" in format_ranking(summary(*contrasts(kuma_istio="different")))


@pytest.mark.parametrize("verdict", ["equivalent", "faster"])
def test_step_that_is_not_slower_refutes_the_ranking(verdict: str) -> None:
    """One equivalent or faster step decides, whatever else is undecided, and the step is named."""
    sentence = format_ranking(summary(*contrasts(kuma_istio=verdict, istiopolicies_istio="inconclusive")))
    assert "does not show here" in sentence
    assert "not slower: kuma against istio; undecided: istio-policies against istio" in sentence


@pytest.mark.parametrize("verdict", ["inconclusive", "invalid"])
def test_undecided_step_leaves_ranking_open(verdict: str) -> None:
    """So does a step without a valid repeat."""
    sentence = format_ranking(summary(*contrasts(kumapolicies_istiopolicies=verdict)))
    assert "cannot be decided at this precision" in sentence
    assert sentence.endswith("undecided: kuma-policies against istio-policies).")


def test_undecided_steps_are_not_listed() -> None:
    """Where every step is undecided the sentence has no names."""
    named = {f"{one}_{other}".replace("-", ""): "inconclusive" for one, other in PAIRS}
    assert format_ranking(summary(*contrasts(**named))).endswith("at this precision (each step is undecided).")


def test_direction_of_a_contrast_does_not_matter() -> None:
    """istio against kuma, faster, is the same step as kuma against istio, slower."""
    straight = contrasts()
    turned = contrast(configuration="istio", reference="kuma", verdict="faster", ratio=0.8)
    assert find_ranking_steps([straight[0], turned, *straight[2:]]) == find_ranking_steps(straight)


def test_ranking_needs_all_comparisons() -> None:
    """A run that lacks one of the pairs has no statement about the ranking."""
    assert format_ranking(summary(*contrasts()[:-1])) == ""
    assert format_ranking(summary(contrast())) == ""
