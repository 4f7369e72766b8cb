"""The answer in words: one per configuration, with its size, its certainty and what would raise it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bench.records import ConfigurationSummary, Contrast, SummaryRecord
from bench.summary import repeats_for_margin
from bench.units import (
    format_bytes,
    format_change,
    format_change_interval,
    format_count,
    format_delta,
    format_interval,
    format_ms,
    format_percent,
    format_rps,
    format_within,
)

_VERDICTS: Final = {
    "slower": "slower, by more than the margin of {margin}",
    "faster": "faster, by more than the margin of {margin}",
    "different": "different for certain, but the interval crosses the margin of {margin}: its size is open",
    "equivalent": "equivalent, any difference is within the margin of {margin}",
    "inconclusive": "inconclusive, these repeats cannot tell it from none, nor rule out one beyond {margin}",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """One configuration in words: `size` and `change` are the headline."""

    configuration: str
    verdict: str  # empty without a reference
    size: str
    change: str
    sentence: str
    certainty: str
    besides: str

    @property
    def text(self) -> str:
        return " ".join(part for part in (self.sentence, self.certainty, self.besides) if part)


def answers(summary: SummaryRecord) -> tuple[Answer, ...]:
    """One answer per contrast on P95 with the reference; without any, one per configuration."""
    contrasts = [c for c in contrasts_on(summary, "p95_ms") if c.reference == summary.reference]
    if contrasts:
        return tuple(_compared(summary, contrast) for contrast in contrasts)
    return tuple(_alone(name, configuration) for name, configuration in summary.configurations.items())


def further_answers(summary: SummaryRecord) -> tuple[str, ...]:
    """The contrasts on P95 between other pairs, a sentence each."""
    others = [c for c in contrasts_on(summary, "p95_ms") if c.reference != summary.reference]
    return tuple(_sentence(summary, contrast) for contrast in others)


def overview(summary: SummaryRecord) -> str:
    """Where throughput ends, in a sentence; empty where the configurations have equally many users."""
    known = [c for c in summary.configurations.values() if c.rps is not None and c.p95_ms is not None]
    levels = sorted(known, key=lambda configuration: configuration.users)
    if len({level.users for level in levels}) < 2 or len({level.mesh for level in levels}) > 1:
        return ""
    best = max(levels, key=lambda level: level.rps or 0)
    few, many = levels[0], levels[-1]
    return (
        f"Throughput is best with {format_count(best.users)} users: {format_rps(best.rps)} requests/s. "
        f"From {format_count(few.users)} to {format_count(many.users)} users P95 goes from "
        f"{format_ms(few.p95_ms)} to {format_ms(many.p95_ms)} ms."
    )


def plain_answers(summary: SummaryRecord) -> str:
    """Answers and doubts as lines of plain text, for a terminal."""
    further = (f"Exploratory: {sentence}" for sentence in further_answers(summary))
    doubts = ("", "Doubts:", *(f"- {doubt}" for doubt in summary.doubts)) if summary.doubts else ()
    marks = ("INVALID: not every configuration has all its repeats valid.",) if not summary.valid else ()
    first = (*marks, *filter(None, [overview(summary)]))
    return "\n".join((*first, *(answer.text for answer in answers(summary)), *further, *doubts))


def contrasts_on(summary: SummaryRecord, metric: str) -> tuple[Contrast, ...]:
    """The contrasts on one metric, those with the run's reference first."""
    found = [contrast for contrast in summary.contrasts if contrast.metric == metric]
    return tuple(sorted(found, key=lambda contrast: contrast.reference != summary.reference))


def _compared(summary: SummaryRecord, contrast: Contrast) -> Answer:
    known = contrast.ratio is not None and contrast.verdict != "invalid"
    return Answer(
        configuration=contrast.configuration,
        verdict=contrast.verdict,
        size=f"{format_delta(contrast.delta_ms)} ms" if known else "n/a",
        change=format_change(contrast.ratio) if known else "",
        sentence=_sentence(summary, contrast),
        certainty="; ".join(_certainty(summary, contrast)) + "." if known else "",
        besides=_besides(summary, contrast),
    )


def _sentence(summary: SummaryRecord, contrast: Contrast) -> str:
    name, reference = contrast.configuration, contrast.reference
    if contrast.verdict == "invalid" or contrast.ratio is None:
        return f"{name} against {reference}: no result. {contrast.reason}".strip()
    change = format_change(contrast.ratio) + _interval(summary, contrast)
    amount = f"{format_delta(contrast.delta_ms)} ms ({change})"
    verdict = _VERDICTS[contrast.verdict].format(margin=format_percent(summary.margin))
    if contrast.ratio_low is None:
        verdict = f"inconclusive, {contrast.reason or 'there is no interval'}"
    if contrast.ratio >= 1:
        return f"{name} adds {amount} to the P95 of {reference}: {verdict}."
    return f"{name} changes the P95 of {reference} by {amount}: {verdict}."


def _interval(summary: SummaryRecord, contrast: Contrast) -> str:
    if contrast.ratio_low is None:
        return ""
    level = format_percent(summary.confidence)
    return f", {level} interval {format_change_interval(contrast.ratio_low, contrast.ratio_high)}"


def _certainty(summary: SummaryRecord, contrast: Contrast) -> Iterator[str]:
    yield f"From {contrast.n[0]} + {contrast.n[1]} repeats"
    if contrast.ratio_low is not None:
        yield f"the ratio is known to within {format_within(contrast.ratio_low, contrast.ratio_high)}"
    if contrast.verdict in ("different", "inconclusive") and contrast.mde is not None:
        yield f"a difference of {format_percent(contrast.mde)} would be found 4 times out of 5"
        sides = (summary.configurations[name] for name in (contrast.configuration, contrast.reference))
        needed = repeats_for_margin(sides, summary.margin)
        if needed and needed > min(contrast.n):
            yield f"{format_count(needed)} repeats each would find one of {format_percent(summary.margin)}"
    if contrast.reason and contrast.ratio_low is not None:
        yield contrast.reason


def _besides(summary: SummaryRecord, contrast: Contrast) -> str:
    """Throughput and what the sidecars use: the rest of the cost."""
    configuration = summary.configurations[contrast.configuration]
    reference = summary.configurations[contrast.reference]
    parts = []
    if reference.rps is not None and configuration.rps is not None:
        parts.append(f"throughput {format_rps(reference.rps)} → {format_rps(configuration.rps)} requests/s")
    if configuration.sidecar_cpu_ms_per_request:
        parts.append(f"sidecars use {format_ms(configuration.sidecar_cpu_ms_per_request)} ms CPU per request")
    if configuration.sidecar_rss_bytes:
        parts.append(f"{format_bytes(configuration.sidecar_rss_bytes)} memory")
    return f"Besides: {', '.join(parts)}." if parts else ""


def _alone(name: str, configuration: ConfigurationSummary) -> Answer:
    interval = format_interval(configuration.p95_low_ms, configuration.p95_high_ms)
    certain = f"interval {interval} ms" if interval != "n/a" else configuration.no_interval or "no interval"
    known = configuration.p95_ms is not None
    return Answer(
        configuration=name,
        verdict="" if configuration.valid else "invalid",
        size=f"{format_ms(configuration.p95_ms)} ms" if known else "n/a",
        change="",
        sentence=f"{name}: P95 {format_ms(configuration.p95_ms)} ms ({certain}; n = {configuration.n}) and "
        f"{format_rps(configuration.rps)} requests/s with {format_count(configuration.users)} users.",
        certainty="",
        besides="",
    )
