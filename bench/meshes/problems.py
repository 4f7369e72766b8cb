"""Find problems that manifests of every mesh can have: two of the same name, two that select the same.

An obstacle is why an object cannot be translated for an application, though a cluster may take it.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from bench.application.manifests import Manifest, Source, Untranslated
from bench.errors import Problem
from bench.files.yaml_source import Loc

M = TypeVar("M", bound=Manifest)
Obstacle = tuple[Source[Any], Problem]
Obstacles = Callable[[Sequence[Source[Any]]], Iterable[Obstacle]]


def separate_untranslated(
    sources: Sequence[Source[Any]], find_obstacles: Obstacles
) -> tuple[tuple[Source[Any], ...], tuple[Untranslated, ...]]:
    """Separate the manifests from those with an obstacle. Without the latter others may have one, too."""
    kept, left = list(sources), list[Untranslated]()
    while obstacles := list(find_obstacles(kept)):
        found = [one for one in kept if any(source is one for source, _ in obstacles)]
        left += [Untranslated(one.document, tuple(why for source, why in obstacles if source is one)) for one in found]
        kept = [one for one in kept if not any(source is one for source in found)]
    return tuple(kept), tuple(left)


def duplicate_problems(
    sources: Iterable[Source[Any]], identify: Callable[[Any], Hashable], *, alone: tuple[type, ...] = ()
) -> Iterator[Problem]:
    """Yield manifests that `identify` finds the same as an earlier one. Of the models `alone` there may be only one,
    whatever its name."""
    seen: dict[Hashable, Source[Any]] = {}
    for source in sources:
        policy = source.manifest
        first = seen.setdefault((policy.kind, None if isinstance(policy, alone) else identify(policy)), source)
        if first is not source:
            where = f"{first.document.file}:{first.document.line_of(('metadata', 'name'))}"
            what = f"{'a' if isinstance(policy, alone) else 'the same'} {policy.kind}"
            yield source.problem(("metadata", "name"), f"{what} is already defined in {where}")


def conflict_obstacles(
    sources: Sequence[Source[M]], is_conflict: Callable[[M, M], bool], loc: Loc, what: str
) -> Iterator[Obstacle]:
    """Yield manifests that conflict with an earlier one: a cluster uses the older one, files have no age."""
    for index, source in enumerate(sources):
        for other in sources[:index]:
            if is_conflict(source.manifest, other.manifest):
                where = f"{other.document.file}:{other.document.line_of(())}"
                yield source, source.problem(loc, f"{what} as the one in {where}")
