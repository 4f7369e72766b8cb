"""Write the answers: one sentence per configuration and named pair, with size, certainty and repeats needed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from bench.analysis.run_summary import compute_blocks_for_margin, compute_repeats_for_margin
from bench.analysis.validity import format_issues
from bench.report.model import Cell, Table, make_table
from bench.report.study_2022 import RANKING, RANKING_TEXT
from bench.results.summary_records import ConfigurationSummary, Contrast, SummaryRecord
from bench.scenario.types import Design
from bench.units import (
    format_bytes,
    format_change,
    format_change_interval,
    format_count,
    format_counted,
    format_delta,
    format_effect,
    format_interval,
    format_ms,
    format_percent,
    format_rps,
    format_within,
)

Outcome = Literal["shown", "not shown", "open"]

MOST_SENTENCES: Final = 3


class Step(NamedTuple):
    """One step of the ranking: according to the study, `slower` is slower than `than`."""

    slower: str
    than: str
    outcome: Outcome


_ANSWERS: Final[Mapping[Outcome, str]] = {
    "shown": "shows here: each step is slower than the one before",
    "not shown": "does not show here",
    "open": "cannot be decided at this precision",
}
_OUTCOMES: Final[Mapping[Outcome, str]] = {
    "shown": "slower",
    "not shown": "not slower",
    "open": "undecided",
}
_VERDICTS: Final = {
    "slower": "slower, by more than the margin of {margin}",
    "faster": "faster, by more than the margin of {margin}",
    "different": "different, but the interval crosses the margin of {margin}, so the size is undecided",
    "equivalent": "equivalent, any difference is within the margin of {margin}",
    "inconclusive": "inconclusive, these {units} exclude neither zero difference nor one beyond {margin}",
}
_NO_DIFFERENCE: Final = ("equivalent", "inconclusive")  # where both sides are one configuration


def format_ranking(summary: SummaryRecord) -> str:
    """Return the answer in one sentence; empty where the run lacks one of the comparisons.

    One step that is not slower refutes the ranking; otherwise one undecided step leaves it undecided.
    """
    steps = find_ranking_steps(summary.contrasts)
    if len(steps) < len(RANKING):
        return ""
    outcomes = {step.outcome for step in steps}
    found: Outcome = "not shown" if "not shown" in outcomes else "open" if "open" in outcomes else "shown"
    parts = "" if found == "shown" else f" ({_format_steps(steps)})"
    return f"The 2022 study's ranking ({RANKING_TEXT}) {_ANSWERS[found]}{parts}."


def find_ranking_steps(contrasts: Sequence[Contrast]) -> tuple[Step, ...]:
    """Return the steps that these contrasts on P95 compare, with either side as reference."""
    known = {(c.configuration, c.reference): c for c in contrasts if c.metric == "p95_ms"}
    found = ((pair, known.get(pair), known.get(pair[::-1])) for pair in RANKING)
    return tuple(
        Step(*pair, _find_outcome(straight, slower=True) if straight else _find_outcome(reverse, slower=False))
        for pair, straight, reverse in found
        if (straight or reverse) is not None
    )


def _find_outcome(contrast: Contrast | None, *, slower: bool) -> Outcome:
    """Return the outcome of a step. `slower`: whether the ranking expects a larger P95 of the configuration."""
    if contrast is None or contrast.ratio is None or contrast.verdict in ("inconclusive", "invalid"):
        return "open"
    if contrast.verdict == "equivalent":
        return "not shown"
    return "shown" if (contrast.ratio > 1) is slower else "not shown"


def _format_steps(steps: Sequence[Step]) -> str:
    """Format the steps by outcome; where all have the same one, without their names."""
    by_outcome = {o: [f"{s.slower} against {s.than}" for s in steps if s.outcome == o] for o in _OUTCOMES}
    found = [f"{_OUTCOMES[outcome]}: {', '.join(pairs)}" for outcome, pairs in by_outcome.items() if pairs]
    return "; ".join(found) if len(found) > 1 else f"each step is {_OUTCOMES[steps[0].outcome]}"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer for one configuration or pair: `title`, `size` and `change` are the headline."""

    title: str
    verdict: str  # empty without a reference
    size: str
    change: str
    sentence: str
    certainty: str
    addition: str

    @property
    def text(self) -> str:
        return " ".join(part for part in (self.sentence, self.certainty, self.addition) if part)


def make_answers(summary: SummaryRecord) -> tuple[Answer, ...]:
    """Return an answer per contrast on P95 with the reference, or else per configuration; then one per named pair."""
    contrasts = select_contrasts(summary)
    named = tuple(_answer_contrast(summary, contrast) for contrast in contrasts if contrast.named)
    direct = tuple(_answer_contrast(summary, contrast) for contrast in contrasts if not contrast.named)
    alone = (_answer_alone(name, configuration) for name, configuration in summary.configurations.items())
    return (*(direct or alone), *named)


def select_contrasts(summary: SummaryRecord) -> tuple[Contrast, ...]:
    """Return the confirmatory and planned contrasts on P95: with the reference, then the named pairs."""
    found = [c for c in sort_contrasts(summary, "p95_ms") if c.standing != "exploratory"]
    return tuple(sorted(found, key=lambda contrast: contrast.named))


def format_exploratory(summary: SummaryRecord) -> tuple[str, ...]:
    """Return a sentence for each exploratory contrast on P95."""
    others = [c for c in sort_contrasts(summary, "p95_ms") if c.standing == "exploratory"]
    return tuple(_format_sentence(summary, contrast) for contrast in others)


def format_overview(summary: SummaryRecord) -> str:
    """Return the whole run's result in a sentence: the 2022 study's ranking, or the best throughput. Empty where it has
    neither the study's five configurations nor different numbers of users."""
    return format_ranking(summary) or _format_saturation(summary)


def _format_saturation(summary: SummaryRecord) -> str:
    known = [c for c in summary.configurations.values() if c.rps is not None and c.p95_ms is not None]
    levels = sorted(known, key=lambda configuration: configuration.users)
    if len({level.users for level in levels}) < 2 or len({level.mesh for level in levels}) > 1:
        return ""
    best = max(levels, key=lambda level: level.rps or 0)
    few, many = levels[0], levels[-1]
    return (
        f"Throughput is best with {format_count(best.users)} users: {format_rps(best.rps)} requests/s. "
        f"From {format_count(few.users)} to {format_count(many.users)} users P95 changes from "
        f"{format_ms(few.p95_ms)} to {format_ms(many.p95_ms)} ms."
    )


def sort_contrasts(summary: SummaryRecord, metric: str) -> tuple[Contrast, ...]:
    """Return the contrasts on one metric: with the run's reference first, then the named pairs."""
    found = [contrast for contrast in summary.contrasts if contrast.metric == metric]
    return tuple(sorted(found, key=lambda contrast: (contrast.reference != summary.reference, not contrast.named)))


def format_title(contrast: Contrast, reference: str | None) -> str:
    """Return the configuration's name, with the contrast's reference where that is not the run's."""
    name = contrast.configuration
    return name if contrast.reference == reference else f"{name} against {contrast.reference}"


def _answer_contrast(summary: SummaryRecord, contrast: Contrast) -> Answer:
    known = _is_known(contrast)
    return Answer(
        title=format_title(contrast, summary.reference),
        verdict=format_verdict(contrast),
        size=f"{format_delta(contrast.delta_ms)} ms" if known else "n/a",
        change=format_change(contrast.ratio) if known else "",
        sentence=_format_sentence(summary, contrast),
        certainty="; ".join(_format_certainty(summary, contrast)) + "." if known else "",
        addition=_format_addition(summary, contrast),
    )


def format_verdict(contrast: Contrast) -> str:
    """Return the verdict in a word or two; an A/A comparison has no difference or a false alarm."""
    if not contrast.alike or contrast.verdict == "invalid":
        return contrast.verdict
    return "no difference" if contrast.verdict in _NO_DIFFERENCE else "false alarm"


def _format_sentence(summary: SummaryRecord, contrast: Contrast) -> str:
    name, reference, reason = contrast.configuration, contrast.reference, format_issues(contrast.issues)
    if contrast.verdict == "invalid" or contrast.ratio is None:
        return f"{name} against {reference}: {', '.join(filter(None, ('no result', reason)))}."
    change = format_change(contrast.ratio) + _format_level_interval(summary, contrast)
    amount = f"{format_delta(contrast.delta_ms)} ms ({change})"
    verdict = _VERDICTS[contrast.verdict].format(
        margin=format_percent(summary.margin), units="repeats" if not summary.is_paired else "blocks"
    )
    if contrast.ratio_low is None:
        verdict = f"inconclusive, {reason or 'there is no interval'}"
    if contrast.alike:
        return _format_noise(contrast, amount)
    if contrast.ratio >= 1:
        return f"{name} adds {amount} to the P95 of {reference}: {verdict}."
    return f"{name} changes the P95 of {reference} by {amount}: {verdict}."


def _format_noise(contrast: Contrast, amount: str) -> str:
    """Return the sentence of an A/A comparison: any measured difference is noise."""
    same = f"{contrast.configuration} is {contrast.reference} under another name"
    if contrast.verdict in ("equivalent", "inconclusive"):
        return (
            f"No difference: {same}. The measured {amount} of P95 are noise, and show the amount of noise in this run."
        )
    return f"A false alarm: {same}, so the {amount} of P95 are noise. Do not rely on the other comparisons of this run."


def _format_level_interval(summary: SummaryRecord, contrast: Contrast) -> str:
    if contrast.ratio_low is None:
        return ""
    level = format_percent(summary.confidence)
    return f", {level} interval {format_change_interval(contrast.ratio_low, contrast.ratio_high)}"


def _format_certainty(summary: SummaryRecord, contrast: Contrast) -> Iterator[str]:
    yield f"From {format_n(contrast, summary.design)}"
    if contrast.ratio_low is not None:
        yield f"the ratio is known to within {format_within(contrast.ratio_low, contrast.ratio_high)}"
    if contrast.verdict in ("different", "inconclusive") and contrast.mde is not None:
        yield f"a difference of {format_effect(contrast.mde)} (MDE) would be found 4 times out of 5"
        needed = _count_needed(summary, contrast)
        if needed and needed > min(contrast.n):
            units = "repeats each" if not summary.is_paired else "blocks"
            yield f"{format_count(needed)} {units} would find one of {format_percent(summary.margin)}"
    if contrast.issues and contrast.ratio_low is not None:
        yield format_issues(contrast.issues)


def format_n(contrast: Contrast, design: Design) -> str:
    """Return how much evidence a contrast has: `3 + 3 repeats`, or `8 blocks` of a paired run."""
    if design == "sequential":
        return f"{contrast.n[0]} + {contrast.n[1]} repeats"
    return format_counted(contrast.n[0], "block")


def _count_needed(summary: SummaryRecord, contrast: Contrast) -> int | None:
    """Return how many repeats or blocks would find a difference as large as the margin; None if unknown."""
    if summary.is_paired:
        return compute_blocks_for_margin(contrast, summary.margin)
    sides = (summary.configurations[name] for name in (contrast.configuration, contrast.reference))
    return compute_repeats_for_margin(sides, summary.margin)


def _format_addition(summary: SummaryRecord, contrast: Contrast) -> str:
    """Return throughput and the sidecars' CPU and memory: the rest of the cost."""
    configuration = summary.configurations[contrast.configuration]
    reference = summary.configurations[contrast.reference]
    parts = []
    if reference.rps is not None and configuration.rps is not None:
        parts.append(f"throughput {format_rps(reference.rps)} → {format_rps(configuration.rps)} requests/s")
    if configuration.sidecar_cpu_ms_per_request:
        parts.append(f"sidecars use {format_ms(configuration.sidecar_cpu_ms_per_request)} ms CPU per request")
    if configuration.sidecar_rss_bytes:
        parts.append(f"{format_bytes(configuration.sidecar_rss_bytes)} memory")
    return f"In addition: {', '.join(parts)}." if parts else ""


def _answer_alone(name: str, configuration: ConfigurationSummary) -> Answer:
    interval = format_interval(configuration.p95_low_ms, configuration.p95_high_ms)
    certain = f"interval {interval} ms" if interval != "n/a" else configuration.no_interval or "no interval"
    known = configuration.p95_ms is not None
    return Answer(
        title=name,
        verdict="" if configuration.valid else "invalid",
        size=f"{format_ms(configuration.p95_ms)} ms" if known else "n/a",
        change="",
        sentence=f"{name}: P95 {format_ms(configuration.p95_ms)} ms ({certain}; n = {configuration.n}) and "
        f"{format_rps(configuration.rps)} requests/s with {format_count(configuration.users)} users."
        if known
        else f"{name}: no result with {format_count(configuration.users)} users: {certain}.",
        certainty="",
        addition="",
    )


def make_answer_table(summary: SummaryRecord) -> Table | None:
    """Return the table of the comparisons that the scenario names; None where they are few enough for sentences."""
    contrasts = select_contrasts(summary)
    if len(contrasts) <= MOST_SENTENCES:
        return None
    is_paired = summary.is_paired
    evidence, explained = (
        ("Blocks", "those in which both are valid") if is_paired else ("n", "valid repeats of both sides")
    )
    return make_table(
        "answer",
        f"{format_counted(len(contrasts), 'comparison')} of P95",
        f"Difference of P95 with its {format_percent(summary.confidence)} interval; verdict against a margin "
        f"of {format_percent(summary.margin)}. MDE: minimum detectable effect, the smallest difference found with "
        f"80 % power. {evidence}: {explained}.",
        rows=contrasts,
        columns={
            "Comparison": lambda c: Cell(c.configuration, f"vs {c.reference}"),
            "P95 difference*": lambda c: _make_difference_cell(c) if _is_known(c) else "no result",
            "Verdict": lambda c: Cell(format_verdict(c), verdict=True),
            "MDE*": lambda c: format_effect(c.mde).replace("a factor of ", "×") if _is_known(c) else "n/a",
            f"{evidence}*": lambda c: format_n(c, summary.design).removesuffix(" repeats").split(" block")[0],
        },
    )


def _is_known(contrast: Contrast) -> bool:
    return contrast.ratio is not None and contrast.verdict != "invalid"


def _make_difference_cell(contrast: Contrast) -> Cell:
    interval = format_change_interval(contrast.ratio_low, contrast.ratio_high)
    return Cell(
        f"{format_delta(contrast.delta_ms)} ms ({format_change(contrast.ratio)})",
        "[no interval]" if interval == "n/a" else f"[{interval}]",
    )
