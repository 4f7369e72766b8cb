"""Whether this run shows the ranking that the reference study found: baseline < Istio < Kuma, and policies add more."""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple

from bench.records import Contrast, SummaryRecord

Outcome = Literal["shown", "not shown", "open"]


class Step(NamedTuple):
    """One step of the ranking: `slower` should be slower than `than`."""

    slower: str
    than: str
    outcome: Outcome


_STEPS: Final = (
    ("istio", "baseline"),
    ("kuma", "istio"),
    ("istio-policies", "istio"),
    ("kuma-policies", "kuma"),
    ("kuma-policies", "istio-policies"),
)
_ANSWERS: Final[Mapping[Outcome, str]] = {
    "shown": "shows here: each step is slower than the one before",
    "not shown": "does not show here",
    "open": "cannot be decided at this precision",
}
_WORDS: Final[Mapping[Outcome, str]] = {
    "shown": "slower for certain",
    "not shown": "not slower",
    "open": "undecided",
}


def ranking(summary: SummaryRecord) -> str:
    """The answer in one sentence; empty where the run lacks one of the comparisons.

    One step that is not slower, and the ranking does not show; else one that is undecided leaves it open.
    """
    steps = ranking_steps(summary.contrasts)
    if len(steps) < len(_STEPS):
        return ""
    outcomes = {step.outcome for step in steps}
    found: Outcome = "not shown" if "not shown" in outcomes else "open" if "open" in outcomes else "shown"
    parts = "" if found == "shown" else f" ({_told(steps)})"
    return f"The thesis's ranking (baseline < Istio < Kuma, and policies add more) {_ANSWERS[found]}{parts}."


def ranking_steps(contrasts: Sequence[Contrast]) -> tuple[Step, ...]:
    """The steps that these contrasts on P95 compare, whichever side they call the reference."""
    known = {(c.configuration, c.reference): c for c in contrasts if c.metric == "p95_ms"}
    found = ((pair, known.get(pair), known.get(pair[::-1])) for pair in _STEPS)
    return tuple(
        Step(*pair, _outcome(straight, slower=True) if straight else _outcome(reverse, slower=False))
        for pair, straight, reverse in found
        if (straight or reverse) is not None
    )


def _outcome(contrast: Contrast | None, *, slower: bool) -> Outcome:
    """`slower`: whether a larger P95 of the contrast's configuration is what the ranking says."""
    if contrast is None or contrast.ratio is None or contrast.verdict in ("inconclusive", "invalid"):
        return "open"
    if contrast.verdict == "equivalent":
        return "not shown"
    return "shown" if (contrast.ratio > 1) is slower else "not shown"


def _told(steps: Sequence[Step]) -> str:
    """The steps by what was found; where that is the same for all, without their names."""
    by_outcome = {o: [f"{s.slower} against {s.than}" for s in steps if s.outcome == o] for o in _WORDS}
    found = [f"{_WORDS[outcome]}: {', '.join(pairs)}" for outcome, pairs in by_outcome.items() if pairs]
    return "; ".join(found) if len(found) > 1 else f"each step is {_WORDS[steps[0].outcome]}"
