"""The interval of a paired run holds the true ratio, whatever the noise: a smaller `tests.benchmarks coverage`."""

import pytest

from tests.benchmarks.coverage import BLOCKS, NOISES, Noise, measure

CAMPAIGNS = 500
SLACK = 0.025  # 2.5 standard errors of a coverage from 500 campaigns


@pytest.mark.parametrize("noise", [noise for noise in NOISES if noise.is_promised], ids=lambda noise: noise.name)
def test_paired_interval_has_its_coverage(noise: Noise) -> None:
    """In every kind of noise at least 93 % of intervals hold the true ratio, and at most 97 % where noise is normal."""
    for blocks in BLOCKS:
        found = measure(noise, blocks, campaigns=CAMPAIGNS)
        assert found.paired >= 0.93 - SLACK, blocks
        assert not noise.is_normal or found.paired <= 0.97 + SLACK, blocks


def test_pairing_is_several_times_narrower_than_separate_repeats() -> None:
    """Where most noise is common to a block, Welch's interval is over three times as wide."""
    found = measure(NOISES[0], 8, campaigns=CAMPAIGNS)
    assert found.welch_width > 3 * found.paired_width
