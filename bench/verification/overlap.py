"""Prove from what was recorded that the loads of a block ran at the same time, as those of a duet have to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from bench.results.records import Evidence, Window
from bench.results.samples import Samples
from bench.units import NANOSECONDS, format_percent

OVERLAP: Final = "windows of the block"
LEAST_SHARED: Final = 0.95  # of the window, in which all configurations have to send requests


@dataclass(frozen=True, slots=True)
class RecordedWindow:
    """The samples of one configuration and its window, both on its own clock, whose zero is `zero_ns` on the common
    one."""

    samples: Samples
    window: Window
    zero_ns: int


def prove_overlap(recorded: Mapping[str, RecordedWindow]) -> Evidence:
    """Return whether requests of all configurations were sent during the whole window, on the common clock.

    The time that they share reaches from the latest first request to the earliest last one. At each edge of the window
    a load may be as silent as it is between two of its requests: users that wait for each other's answers, or that
    began together, send in bunches.
    """
    subject = f"{len(recorded)} configurations"
    expected = f"requests of all in at least {format_percent(LEAST_SHARED)} of the window"
    counted = {name: one.samples.counted([one.window]) for name, one in recorded.items()}
    silent = [name for name, samples in counted.items() if not len(samples)]
    if silent:
        seen = f"no request of {', '.join(silent)}"
        return Evidence(name=OVERLAP, subject=subject, ok=False, expected=expected, seen=seen)
    first_ns = max(int(samples.started_ns.min()) + recorded[name].zero_ns for name, samples in counted.items())
    last_ns = min(int(samples.started_ns.max()) + recorded[name].zero_ns for name, samples in counted.items())
    length_ns = max(one.window.end_ns - one.window.start_ns for one in recorded.values())
    silence_ns = max(_longest_silence_ns(samples) for samples in counted.values())
    shared_ns = max(0, last_ns - first_ns)
    ok = shared_ns >= LEAST_SHARED * length_ns - 2 * silence_ns
    seen = f"requests of all in {format_percent(shared_ns / length_ns)} of {length_ns / NANOSECONDS:g} s"
    return Evidence(name=OVERLAP, subject=subject, ok=ok, expected=expected, seen=seen)


def _longest_silence_ns(samples: Samples) -> int:
    """The longest time between the starts of two requests that follow each other; 0 for a single one."""
    return int(np.diff(np.sort(samples.started_ns)).max(initial=0))
