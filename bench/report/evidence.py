"""The proofs, condensed: per configuration what was asked, what had to be seen, what was seen, how often."""

from dataclasses import dataclass

from bench.records import Evidence
from bench.report.content import Report
from bench.report.table import Cell, Table, columns_of

_SHOWN = 2  # different observations of one fact that a cell holds


@dataclass(frozen=True, slots=True)
class Proven:
    """The proofs of one configuration."""

    configuration: str
    trials: int
    facts: int
    failed: int
    table: Table


def proofs(report: Report) -> tuple[Proven, ...]:
    """One per configuration that has stored trials."""
    return tuple(proven for name in report.configurations if (proven := _proven(report, name)).trials)


def _proven(report: Report, configuration: str) -> Proven:
    stored = [trial for trial in report.run.trials if trial.record.configuration == configuration]
    groups: dict[tuple[str, str, str], list[Evidence]] = {}
    for trial in stored:
        for fact in (*trial.proof.before, *trial.proof.after) if trial.proof else ():
            groups.setdefault((fact.name, fact.subject, fact.expected), []).append(fact)
    table = Table(
        name=f"proof-{configuration}",
        title=f"Proof: {configuration}",
        note="Checked before and after the window of every trial.",
        columns=columns_of("Asked | Of | Expected | Seen | Held*"),
        rows=tuple(_row(key, facts) for key, facts in groups.items()),
    )
    facts = [fact for group in groups.values() for fact in group]
    return Proven(configuration, len(stored), len(facts), sum(not fact.ok for fact in facts), table)


def _row(key: tuple[str, str, str], facts: list[Evidence]) -> tuple[Cell, ...]:
    """Failures are shown before what was seen where the fact held."""
    name, subject, expected = key
    seen = list(dict.fromkeys(fact.seen for fact in sorted(facts, key=lambda fact: fact.ok)))
    more = f" (and {len(seen) - _SHOWN} more)" if len(seen) > _SHOWN else ""
    held = sum(fact.ok for fact in facts)
    return (
        Cell(name),
        Cell(subject),
        Cell(expected),
        Cell(" · ".join(seen[:_SHOWN]) + more),
        Cell(f"{held} of {len(facts)}", verdict=held < len(facts)),
    )
