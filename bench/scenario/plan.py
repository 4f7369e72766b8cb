"""Order the trials of a scenario by a seed."""

import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bench.scenario.model import Scenario
from bench.scenario.types import Design

SETTLE_S: Final = 1.5  # load before each later window of an interleaved block: its P50 is steady 0.5 s after the hold
_ROUND_S: Final = 30.0
_MANY_BLOCKS: Final = 8
_ENOUGH_VALID: Final = 0.75
_MOST_BLOCKS: Final = 10_000
_MOST_ROUNDS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Overhead:
    """The seconds that start, proofs and removal take: of a deployment alone, without a mesh and in one, and of each
    further deployment of a block."""

    alone_s: float
    in_mesh_s: float
    side_by_side_s: float


ON_THIS_MACHINE: Final = Overhead(3.5, 3.5, 0.75)  # as measured on two shared CPUs
ON_A_CLUSTER: Final = Overhead(22.0, 42.0, 5.0)  # on one node with four CPUs

Order = tuple[tuple[int, ...], ...]


class Trial(BaseModel):
    """One deployment and measurement. `number` and `block` count from 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    configuration: str
    block: int

    @property
    def folder(self) -> str:
        """Folder name, in the order of the run: `01-baseline-1`."""
        return f"{self.number:02}-{self.configuration}-{self.block}"


class Plan(BaseModel):
    """`order` has one tuple per block: the configurations' names in the order in which they run. The last blocks are
    the reruns of those in `again`. `rounds` is how many windows each configuration has in a block, one per round."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int
    method: str
    order: Annotated[tuple[tuple[str, ...], ...], Field(max_length=_MOST_BLOCKS)]
    again: tuple[Annotated[int, Field(ge=1)], ...] = ()
    design: Design = "sequential"
    rounds: Annotated[int, Field(ge=1, le=_MOST_ROUNDS)] = 1

    @model_validator(mode="after")
    def _check_reruns(self) -> Self:
        if max(self.again, default=0) > len(self.order) - len(self.again):
            raise ValueError("a rerun is of a block that the plan has not")
        return self

    @property
    def is_paired(self) -> bool:
        """Whether the configurations of a block share its time."""
        return self.design != "sequential"

    @property
    def blocks(self) -> int:
        """Number of blocks, without reruns."""
        return len(self.order) - len(self.again)

    @property
    def fewest_valid(self) -> int:
        """How many blocks have to be valid for the run to be. Where configurations share eight blocks or more, each is
        a small part of the result, and on a shared machine one is invalid now and then: three of four are enough."""
        enough = self.is_paired and self.blocks >= _MANY_BLOCKS
        return ceil(_ENOUGH_VALID * self.blocks) if enough else self.blocks

    def with_rerun(self, blocks: Sequence[int]) -> "Plan":
        """Return the plan with a rerun of these blocks at the end, each in its own order."""
        order = (*self.order, *(self.order[block - 1] for block in blocks))
        return self.model_copy(update={"order": order, "again": (*self.again, *blocks)})

    @property
    def design_text(self) -> str:
        """The design as text, with the number of windows where a configuration has several in a block."""
        return f"{self.design} ({self.rounds} windows a block)" if self.rounds > 1 else self.design

    @property
    def units(self) -> tuple[tuple[Trial, ...], ...]:
        """The trials that are deployed together: those of a block, or each alone in a sequential run."""
        if not self.is_paired:
            return tuple((trial,) for trial in self.trials)
        return tuple(
            tuple(trial for trial in self.trials if trial.block == block + 1) for block in range(len(self.order))
        )

    def window_order(self, block: int) -> tuple[tuple[str, ...], ...]:
        """Return the configurations in the order of their windows, by round: each round mirrors the one before, so that
        a steady drift affects all alike. `block` counts from 1."""
        order = self.order[block - 1]
        return tuple(order if number % 2 == 0 else order[::-1] for number in range(self.rounds))

    @property
    def trials(self) -> tuple[Trial, ...]:
        pairs = [(name, block) for block, names in enumerate(self.order, start=1) for name in names]
        return tuple(
            Trial(number=number, configuration=name, block=block) for number, (name, block) in enumerate(pairs, start=1)
        )


def draw_seed() -> int:
    """Draw a seed for a scenario without one; it is stored with the run."""
    return secrets.randbelow(2**32)


def make_plan(scenario: Scenario, seed: int) -> Plan:
    """Order the configurations so that a drift of the machine affects them equally.

    The seed decides which configuration gets which position, so that a fixed order cannot coincide with something that
    happens every night.
    """
    draw = random.Random(seed)  # noqa: S311  # an order, no secret
    names = [configuration.name for configuration in scenario.configurations]
    draw.shuffle(names)
    choose = _order_in_block if scenario.is_paired else _choose_method(len(names), scenario.repeats)
    method, order = choose(scenario.repeats, len(names), draw)
    return Plan(
        seed=seed,
        method=method,
        order=tuple(tuple(names[place] for place in block) for block in order),
        design=scenario.design or "sequential",
        rounds=count_rounds(scenario.load.duration_s) if scenario.design == "interleaved" else 1,
    )


def count_rounds(duration_s: float) -> int:
    """Return into how many windows an interleaved block divides the time of each configuration: about 30 s each, and an
    even number, so that every second round can mirror the one before."""
    return 2 * max(1, round(duration_s / (2 * _ROUND_S)))


def estimate_seconds(scenario: Scenario, plan: Plan, overhead: Overhead = ON_THIS_MACHINE) -> float:
    """Return the time of windows, warm-ups and deployments in seconds."""
    alone = {
        one.name: overhead.alone_s if one.mesh == "none" else overhead.in_mesh_s for one in scenario.configurations
    }
    if plan.is_paired:
        block_s = max(alone.values()) + (len(alone) - 1) * overhead.side_by_side_s
        return len(plan.order) * (estimate_load_seconds(scenario, plan) + block_s)
    loads = {name: scenario.load_of(name) for name in alone}
    names = [trial.configuration for trial in plan.trials]
    return sum(loads[name].warmup_s + loads[name].duration_s + alone[name] for name in names)


def estimate_load_seconds(scenario: Scenario, plan: Plan) -> float:
    """Return the time of windows and warm-ups of a block in seconds; in a duet all configurations have the same."""
    load = scenario.load
    if plan.design == "duet":
        return load.warmup_s + load.duration_s
    settling_s = (plan.rounds - 1) * SETTLE_S
    return len(scenario.configurations) * (load.warmup_s + load.duration_s + settling_s)


def find_most_users(scenario: Scenario) -> int:
    """Return the users of the configuration that has most."""
    return max(scenario.load_of(configuration.name).users for configuration in scenario.configurations)


def _choose_method(count: int, blocks: int) -> Callable[[int, int, random.Random], tuple[str, Order]]:
    if count == 1:
        return _order_one
    if count == 2:
        return _order_two
    return _order_balanced if count % 2 and blocks % 3 == 0 else _order_at_random


def _order_one(blocks: int, _count: int, _draw: random.Random) -> tuple[str, Order]:
    return "one configuration: nothing to order", ((0,),) * blocks


def _order_two(blocks: int, _count: int, _draw: random.Random) -> tuple[str, Order]:
    method = "two configurations in turn, each block the mirror of the one before (ABBAAB)"
    return method, tuple((block % 2, 1 - block % 2) for block in range(blocks))


def _order_balanced(blocks: int, count: int, _draw: random.Random) -> tuple[str, Order]:
    """Return three orders in which the positions of every configuration have the same sum: a steady drift cancels.

    The second order moves every position by just over half a turn. The third takes the rest of the sum, which is a
    permutation for every odd count. For three it is ABC BCA CAB. No configuration follows itself, so that each repeat
    is a new deployment. Names are shuffled by the caller.
    """
    half, first = count // 2, list(range(count))
    second = [(place + half + 1) % count for place in first]
    third = [3 * half - a - b for a, b in zip(first, second, strict=True)]
    square = tuple(tuple(sorted(range(count), key=places.__getitem__)) for places in (first, second, third))
    return "three balanced orders: every configuration has the same mean position", square * (blocks // 3)


def _order_in_block(blocks: int, count: int, draw: random.Random) -> tuple[str, Order]:
    _, order = _order_at_random(blocks, count, draw)
    return "the configurations of a block are deployed together, started in random order", order


def _order_at_random(blocks: int, count: int, draw: random.Random) -> tuple[str, Order]:
    return "random within each block", tuple(tuple(draw.sample(range(count), count)) for _ in range(blocks))
