"""The order of trials."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.scenario.plan import Plan, make_plan
from tests.factory import ConfigSpec, RunSpec, make_scenario

seeds = st.integers(0, 2**32 - 1)


def plan_of(*, count: int, blocks: int, seed: int) -> Plan:
    names = [ConfigSpec(f"c{index}") for index in range(count)]
    return make_plan(make_scenario(RunSpec(names, repeats=blocks, reference=None)), seed)


@given(count=st.integers(1, 9), blocks=st.integers(1, 9), seed=seeds)
def test_every_block_has_every_configuration_once(count: int, blocks: int, seed: int) -> None:
    """Each block is a permutation of the configurations, and there is one block per repeat."""
    plan = plan_of(count=count, blocks=blocks, seed=seed)
    assert len(plan.order) == blocks
    assert all(sorted(block) == [f"c{index}" for index in range(count)] for block in plan.order)


@given(half=st.integers(1, 5), threes=st.integers(1, 3), seed=seeds)
def test_drift_affects_all_configurations_equally(half: int, threes: int, seed: int) -> None:
    """With an odd number of configurations and 3, 6, 9 blocks, the positions of each have the same sum."""
    plan = plan_of(count=2 * half + 1, blocks=3 * threes, seed=seed)
    places = Counter[str]()
    for block in plan.order:
        places.update({name: place for place, name in enumerate(block, start=1)})
    assert len(set(places.values())) == 1
    assert "balanced" in plan.method


@given(half=st.integers(1, 5), threes=st.integers(1, 3), seed=seeds)
def test_balanced_plan_never_repeats_a_configuration(half: int, threes: int, seed: int) -> None:
    """Every repeat is a deployment of its own, also where two blocks meet."""
    plan = plan_of(count=2 * half + 1, blocks=3 * threes, seed=seed)
    assert all(a.configuration != b.configuration for a, b in pairwise(plan.trials))


def test_three_configurations_make_a_latin_square() -> None:
    """Three configurations run as ABC BCA CAB, whatever A, B and C are."""
    first, second, third = plan_of(count=3, blocks=3, seed=4).order
    a, b, c = first
    assert (second, third) == ((b, c, a), (c, a, b))


@given(blocks=st.integers(1, 8), seed=seeds)
def test_two_configurations_mirror_each_other(blocks: int, seed: int) -> None:
    """Two configurations run as AB BA AB."""
    order = plan_of(count=2, blocks=blocks, seed=seed).order
    assert all(block == following[::-1] for block, following in pairwise(order))


def test_other_numbers_are_shuffled_per_block() -> None:
    """Where no balanced order exists, blocks are drawn independently, and the method says so."""
    plan = plan_of(count=4, blocks=50, seed=1)
    assert plan.method == "random within each block"
    assert len(set(plan.order)) > 15
    assert plan_of(count=3, blocks=4, seed=1).method == "random within each block"


def test_single_configuration_runs_each_repeat() -> None:
    """A scenario with one configuration has a plan, too."""
    assert plan_of(count=1, blocks=3, seed=1).order == (("c0",),) * 3


@given(count=st.integers(1, 7), blocks=st.integers(1, 6), seed=seeds)
def test_a_seed_fixes_the_plan(count: int, blocks: int, seed: int) -> None:
    """The same scenario and seed give the same plan again."""
    plan = plan_of(count=count, blocks=blocks, seed=seed)
    assert plan == plan_of(count=count, blocks=blocks, seed=seed)
    assert plan.seed == seed


def test_seed_decides_the_first_configuration() -> None:
    """No configuration has a fixed position that could coincide with something regular."""
    assert {plan_of(count=3, blocks=3, seed=seed).order[0] for seed in range(60)} == {
        (a, b, c) for a in _NAMES for b in _NAMES for c in _NAMES if len({a, b, c}) == 3
    }


def test_folders_sort_in_run_order() -> None:
    """Trials are numbered in run order, and their folders sort that way."""
    folders = [trial.folder for trial in plan_of(count=4, blocks=3, seed=2).trials]
    assert folders == sorted(folders)
    assert len(set(folders)) == 12


_NAMES = ("c0", "c1", "c2")


@pytest.mark.parametrize("count", [3, 5, 7, 9, 11])
def test_balanced_orders_exist_for_every_odd_count(count: int) -> None:
    """The construction makes three permutations for any odd number of configurations."""
    order = plan_of(count=count, blocks=3, seed=0).order
    assert len({frozenset(block) for block in order}) == 1
    assert len(set(order)) == 3
