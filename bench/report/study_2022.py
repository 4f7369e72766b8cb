"""Hold the figures of the 2022 study, and compare a run with them in separate columns.

Source: M. Manco, "Cloud Native Security in Service Mesh", thesis, Politecnico di Torino, October 2022,
table 9.1 and the three test cases of chapter 9. One OpenShift cluster, an Istio distribution of 2022 (1.9.9)
and Kuma 1.6, 20 users in a closed loop with 100 ms between requests, 3 repeats, no interval printed. Its P95
is the mean of Locust's sliding, rounded P95 over the first 120 s, then over repeats: `thesis_p95_ms` here.
"""

from typing import Final, NamedTuple

from bench.report.model import Report, Table, divide, make_table
from bench.results.summary_records import SummaryRecord
from bench.units import format_count, format_ms, format_percent, format_ratio, format_rps

SOURCE: Final = "M. Manco, “Cloud Native Security in Service Mesh”, Politecnico di Torino, 2022"


class Level(NamedTuple):
    """One row of the study's user sweep, without a mesh."""

    users: int
    rps: float
    p95_ms: float


# P95 in ms at 20 users, by the names that the shipped scenarios give to the same conditions.
P95_MS: Final = {
    "baseline": 435.56,
    "istio": 486.25,
    "istio-policies": 659.17,
    "kuma": 505.83,
    "kuma-policies": 680.42,
}

# Its ranking: the first of each pair is slower than the second.
RANKING: Final = (
    ("istio", "baseline"),
    ("kuma", "istio"),
    ("istio-policies", "istio"),
    ("kuma-policies", "kuma"),
    ("kuma-policies", "istio-policies"),
)
RANKING_TEXT: Final = "baseline < Istio < Kuma, and policies add more"

SWEEP: Final = (
    Level(users=10, rps=41.96, p95_ms=225.42),
    Level(users=20, rps=49.52, p95_ms=435.56),
    Level(users=100, rps=46.79, p95_ms=2454.17),
    Level(users=200, rps=44.89, p95_ms=4725.0),
    Level(users=500, rps=41.94, p95_ms=12612.5),
)


def is_comparable(summary: SummaryRecord) -> bool:
    """Return whether one configuration was under load at a time, as in the study."""
    return summary.design != "duet"


def study_ratio(configuration: str, reference: str | None) -> float | None:
    """Return the study's P95 of one condition divided by that of another; None where it lacks one of them."""
    value, base = P95_MS.get(configuration), P95_MS.get(reference or "")
    return value / base if value and base and configuration != reference else None


def study_level(users: int) -> Level | None:
    """Return the sweep's row for this number of users, if the study has one."""
    return next((level for level in SWEEP if level.users == users), None)


def compare_with_study(report: Report) -> Table:
    """Return the table that compares this run with the 2022 study, in the study's own statistic."""
    return _compare_sweep(report) if report.is_sweep else _compare_conditions(report)


def _compare_conditions(report: Report) -> Table:
    reference = report.summary.reference
    base = report.configurations.get(reference or "")
    return make_table(
        "study-2022",
        "Compared with the 2022 study",
        "The study ran on another cluster, with other versions, at its saturation point: compare "
        "ratios, never milliseconds. Its P95 is another statistic: Locust's sliding, rounded P95, averaged "
        "over the first 120 s (warm-up included), then over the repeats. “Study's statistic” is that same "
        f"statistic from this run (thesis_p95_ms); it is used nowhere else. Source: {SOURCE}.",
        rows=[(name, c) for name, c in report.configurations.items() if name in P95_MS],
        columns={
            "Configuration": lambda r: r[0],
            "Here: P95 ms*": lambda r: format_ms(r[1].p95_ms),
            "Here: ratio*": lambda r: format_ratio(divide(r[1].p95_ms, base.p95_ms if base else None)),
            "Here, study's statistic: ms*": lambda r: format_ms(r[1].thesis_p95_ms),
            "Here, study's statistic: ratio*": lambda r: format_ratio(
                divide(r[1].thesis_p95_ms, base.thesis_p95_ms if base else None)
            ),
            "2022 study: ms*": lambda r: format_ms(P95_MS[r[0]]),
            "2022 study: ratio*": lambda r: format_ratio(
                study_ratio(r[0], reference) or (1.0 if r[0] == reference else None)
            ),
        },
    )


def _compare_sweep(report: Report) -> Table:
    best = max((c.rps for c in report.configurations.values() if c.rps), default=None)
    study_best = max(level.rps for level in SWEEP)
    return make_table(
        "study-2022",
        "Compared with the 2022 study: more users",
        "The study ran on another cluster that saturated at about 50 requests/s: compare the shape "
        "(share of the best throughput, growth of the P95), never the values. Its P95 is another statistic "
        f"than ours. Source: {SOURCE}.",
        rows=[
            (name, c, study_level(c.users) if c.mesh == "none" else None) for name, c in report.configurations.items()
        ],
        columns={
            "Configuration": lambda r: r[0],
            "Users*": lambda r: format_count(r[1].users),
            "Here: RPS*": lambda r: format_rps(r[1].rps),
            "Here: share of best*": lambda r: format_percent(divide(r[1].rps, best)),
            "Here: P95 ms*": lambda r: format_ms(r[1].p95_ms),
            "2022 study: RPS*": lambda r: format_rps(r[2] and r[2].rps),
            "2022 study: share of best*": lambda r: format_percent(divide(r[2] and r[2].rps, study_best)),
            "2022 study: P95 ms*": lambda r: format_ms(r[2] and r[2].p95_ms),
        },
    )
