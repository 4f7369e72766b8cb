"""An edge: a place where something from outside is read."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

Case = Any
Cases = st.SearchStrategy[Case]
Read = Callable[[Case], object]


@dataclass(frozen=True)
class Edge:
    """What comes in at one place: `prepare` returns the cases, and how the product reads one, in a folder of its own.
    `errors` is what the product may raise; anything else, and more memory or time than a case may have, is a fault."""

    name: str
    errors: type[Exception]
    prepare: Callable[[Path], tuple[Cases, Read]]

    def try_case(self, read: Read, case: Case) -> None:
        """Read a case, which is a value or the one error."""
        with suppress(self.errors):
            read(case)
