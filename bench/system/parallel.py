"""Do the same to several configurations at once. No process may be started here: it would end with its thread."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def for_each(act: Callable[[T], R], things: Sequence[T]) -> list[R]:
    """Return the results of `act`, which is called for all things at once, each in a thread of its own; for a single
    one in this thread. Raises the error of the first thing that has one, when all have ended."""
    if len(things) < 2:
        return [act(one) for one in things]
    with ThreadPoolExecutor(len(things)) as pool:
        return list(pool.map(act, things))
