"""Pairs of configurations that a scenario names: what makes one of them idle, told at its place."""

from collections.abc import Iterator, Sequence

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

Names = tuple[str, str]  # the configuration, and the one that it is compared with
Place = tuple[int | str, ...]


def refuse_idle_pairs(pairs: Sequence[Names], *, known: Sequence[str], reference: str | None) -> None:
    """Raises ValidationError with each pair that names nothing, compares one with itself, or is compared anyway."""
    wrong = [
        InitErrorDetails(type=PydanticCustomError("value_error", "{error}", {"error": text}), loc=place, input=pairs)
        for place, text in _wrong(pairs, known, reference)
    ]
    if wrong:
        raise ValidationError.from_exception_data("contrasts", wrong)


def _wrong(pairs: Sequence[Names], known: Sequence[str], reference: str | None) -> Iterator[tuple[Place, str]]:
    """What is wrong with each pair, and where; a pair is the same in either direction."""
    seen: dict[frozenset[str], int] = {}
    for number, names in enumerate(pairs):
        both = frozenset(names)
        if not both <= set(known):
            yield from _unknown(number, names, known)
        elif len(both) < 2:
            yield (number, "reference"), f"{names[0]} would be compared with itself; name another configuration"
        elif both in seen:
            yield (number,), f"contrasts[{seen[both]}] compares these two already; leave one of them out"
        elif reference in both:
            yield (number,), f"everyone is compared with the reference {reference} anyway; leave this pair out"
        seen.setdefault(both, number)


def _unknown(number: int, names: Names, known: Sequence[str]) -> Iterator[tuple[Place, str]]:
    for side, name in zip(("configuration", "reference"), names, strict=True):
        if name not in known:
            yield (number, side), f"{name} is none of the configurations: {', '.join(known)}"
