"""Whether the thesis's ranking shows."""

import pytest

from bench.report.conclusions import ranking, ranking_steps
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
    """All five steps slower, but for those that are named: `kuma_istio="equivalent"`."""
    ratios = {"faster": 0.8, "equivalent": 1.02, "inconclusive": 1.1}
    made = []
    for name, reference in PAIRS:
        verdict = verdicts.get(f"{name}_{reference}".replace("-", ""), "slower")
        changes = {"configuration": name, "reference": reference, "verdict": verdict}
        made.append(contrast(**changes, ratio=ratios.get(verdict, 1.3)))
    return made


def test_five_slower_steps_show_the_ranking() -> None:
    """Each step slower: the ranking shows, in one sentence."""
    assert ranking(summary(*contrasts())) == (
        "The thesis's ranking (baseline < Istio < Kuma, and policies add more) shows here: each step is slower than "
        "the one before."
    )


def test_a_difference_of_open_size_is_a_step() -> None:
    """What is slower for certain, by how much is open, counts; the margin is not the ranking's question."""
    assert "shows here" in ranking(summary(*contrasts(kuma_istio="different")))


@pytest.mark.parametrize("verdict", ["equivalent", "faster"])
def test_one_step_that_is_not_slower_ends_the_ranking(verdict: str) -> None:
    """Equivalent or faster: the ranking does not show, whatever else is undecided, and the step is named."""
    said = ranking(summary(*contrasts(kuma_istio=verdict, istiopolicies_istio="inconclusive")))
    assert "does not show here" in said
    assert "not slower: kuma against istio; undecided: istio-policies against istio" in said


@pytest.mark.parametrize("verdict", ["inconclusive", "invalid"])
def test_an_open_step_leaves_it_open(verdict: str) -> None:
    """A step that is not decided, or has no valid repeat, leaves the ranking open."""
    said = ranking(summary(*contrasts(kumapolicies_istiopolicies=verdict)))
    assert "cannot be decided at this precision" in said
    assert said.endswith("undecided: kuma-policies against istio-policies).")


def test_all_steps_alike_are_not_listed() -> None:
    """Where every step is undecided the sentence says so without their names."""
    named = {f"{one}_{other}".replace("-", ""): "inconclusive" for one, other in PAIRS}
    assert ranking(summary(*contrasts(**named))).endswith("at this precision (each step is undecided).")


def test_the_direction_of_a_contrast_does_not_matter() -> None:
    """istio against kuma, faster, is the same step as kuma against istio, slower."""
    straight = contrasts()
    turned = contrast(configuration="istio", reference="kuma", verdict="faster", ratio=0.8)
    assert ranking_steps([straight[0], turned, *straight[2:]]) == ranking_steps(straight)


def test_without_all_comparisons_there_is_no_ranking() -> None:
    """A run that lacks one of the pairs says nothing about the ranking."""
    assert ranking(summary(*contrasts()[:-1])) == ""
    assert ranking(summary(contrast())) == ""
