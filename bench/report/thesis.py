"""The figures that the reference study prints, and only here; never mixed with a measurement.

Source: M. Manco, "Cloud Native Security in Service Mesh", thesis, Politecnico di Torino, October 2022,
table 9.1 and the three test cases of chapter 9. One OpenShift cluster, an Istio distribution of 2022 (1.9.9)
and Kuma 1.6, 20 users in a closed loop with 100 ms between requests, 3 repeats, no interval printed. Its P95
is the mean of Locust's sliding, rounded P95 over the first 120 s, then over repeats: `thesis_p95_ms` here.
"""

from typing import Final, NamedTuple

SOURCE: Final = "M. Manco, “Cloud Native Security in Service Mesh”, Politecnico di Torino, 2022"


class Level(NamedTuple):
    """One row of the thesis's user sweep, without a mesh."""

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

SWEEP: Final = (
    Level(users=10, rps=41.96, p95_ms=225.42),
    Level(users=20, rps=49.52, p95_ms=435.56),
    Level(users=100, rps=46.79, p95_ms=2454.17),
    Level(users=200, rps=44.89, p95_ms=4725.0),
    Level(users=500, rps=41.94, p95_ms=12612.5),
)


def thesis_ratio(configuration: str, reference: str | None) -> float | None:
    """The thesis's P95 of one condition over that of another; None where it has none of these names."""
    value, base = P95_MS.get(configuration), P95_MS.get(reference or "")
    return value / base if value and base and configuration != reference else None


def thesis_level(users: int) -> Level | None:
    """The sweep's row for this number of users, if the thesis has one."""
    return next((level for level in SWEEP if level.users == users), None)
