"""Store the history of a gate: one line of JSON per run and contrast, appended and never changed.

A line records how much slower a configuration was than the reference of the same run, and under which conditions.
Only lines whose conditions are equal, machines by their kind, are comparable.
"""

import fcntl
import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from bench.errors import InputError, StoreError
from bench.results import version_1
from bench.results.base import SCHEMA_VERSION, Logarithm, Record, Time
from bench.results.issues import Issue
from bench.results.records import ANY_NODE
from bench.results.summary_records import Verdict
from bench.system.output import format_command
from bench.system.redaction import redact

# The conditions of nights whose lines do not name them.
_FIRST: Final = {"design": "sequential", "share of requests": "1", "placement": ANY_NODE}
# What another machine of the same kind may have otherwise.
_OWN: Final = {"address_host": "machine", "kernel": "kernel", "memory_bytes": "memory"}
_WITHOUT_VALUES: Final = {"scenario": "the scenario", "files": "the scenario's files", "address_host": "the machine"}
_SERIES: Final = re.compile(r"(?:^|, )([0-9]+\.[0-9]+)")  # of each kernel
_GIB: Final = 1024**3
_BEGIN: Final = b'{"schema_version":'  # of each line, also of one that a power failure cut


class HistoryLine(Record):
    """One run's contrast on P95 with the reference of the same run."""

    schema_version: Literal[2] = SCHEMA_VERSION
    run_id: str
    at: Time
    scenario: str
    configuration: str
    reference: str
    metric: Literal["p95_ms"] = "p95_ms"
    conditions: Annotated[dict[str, str], Field(description="what has to be equal for two runs to be comparable")]
    versions: dict[str, str] = Field({}, description="meshes and images that were measured; a baseline outlasts them")
    fingerprint: Annotated[str, Field(description="a hash of the conditions")]
    margin: Annotated[float, Field(description="of the scenario: the smallest change that matters")] = 0.10
    valid: bool
    issues: Annotated[tuple[Issue, ...], Field(description="why it is not valid, or has no ratio")] = ()
    ln_ratio: Logarithm | None
    ln_p95_ms: Annotated[
        tuple[Logarithm, ...], Field(description="of each valid repeat; paired: of the blocks that both sides have")
    ]
    ln_reference_p95_ms: tuple[Logarithm, ...]
    verdict: Annotated[Verdict, Field(description="of the run alone, against its reference")]
    seed: int
    order: tuple[tuple[str, ...], ...]
    run_exit_code: int | None
    accepted: Annotated[str, Field(description="why a new baseline begins with this run, if one does")] = ""

    @property
    def key(self) -> tuple[str, str, str]:
        return self.run_id, self.configuration, self.reference

    @property
    def contrast(self) -> tuple[str, str, str]:
        return self.scenario, self.configuration, self.reference

    @property
    def is_paired(self) -> bool:
        """Whether the values of both sides are those of the same blocks."""
        return "design" in self.conditions and len(self.ln_p95_ms) == len(self.ln_reference_p95_ms)

    @property
    def is_success(self) -> bool:
        """Whether the night measured what it should, whatever came out."""
        return self.valid and self.ln_ratio is not None

    @cached_property
    def kind(self) -> str:
        """A hash of the conditions with the kind of machine in place of the machine: no identity, the kernel's series,
        memory in GiB. Nights of one kind share a baseline."""
        known = {name: value for name, value in self.conditions.items() if name != "address_host"}
        if series := _SERIES.findall(known.get("kernel", "")):
            known["kernel"] = ", ".join(sorted(set(series)))
        if (memory := known.get("memory_bytes", "")).isdecimal():
            known["memory_bytes"] = str(math.ceil(int(memory) / _GIB))
        return hash_conditions(known)


@dataclass(frozen=True, slots=True)
class History:
    """The lines from the oldest run to the newest; `problems` lists the lines that cannot be read."""

    lines: tuple[HistoryLine, ...]
    problems: tuple[str, ...] = ()

    def series(self, line: HistoryLine) -> tuple[HistoryLine, ...]:
        """Return the nights of the same contrast of the same scenario, under any conditions."""
        return tuple(one for one in self.lines if one.contrast == line.contrast)

    def by_scenario(self) -> "dict[str, History]":
        """Return the nights of each scenario; scenarios in the order of their first nights."""
        names = dict.fromkeys(line.scenario for line in self.lines)
        return {name: History(tuple(line for line in self.lines if line.scenario == name)) for name in names}

    def all_series(self) -> tuple[tuple[HistoryLine, ...], ...]:
        """Return the nights of each contrast; contrasts in the order of their first nights."""
        found: dict[tuple[str, str, str], list[HistoryLine]] = {}
        for line in self.lines:
            found.setdefault(line.contrast, []).append(line)
        return tuple(map(tuple, found.values()))


def find_last_success(nights: Iterable[HistoryLine]) -> datetime | None:
    """Return when the last night began that measured what it should; None where none did."""
    return max((night.at for night in nights if night.is_success), default=None)


def is_recent(history: History, now: datetime, seconds: float) -> bool:
    """Check whether a night that measured what it should began at most so long ago."""
    last = find_last_success(history.lines)
    return last is not None and (now - last).total_seconds() <= seconds


def list_new_conditions(before: HistoryLine, night: HistoryLine) -> tuple[str, ...]:
    """List the conditions that differ between two nights: `cpus: 2 / 8`."""
    return tuple(_format_changes(_FIRST | before.conditions, _FIRST | night.conditions))


def list_new_versions(before: HistoryLine, night: HistoryLine) -> tuple[str, ...]:
    """List the versions that differ between two nights, of those that both recorded: `envoy: 1.39.0 / 1.40.0`."""
    shared = before.versions.keys() & night.versions.keys()
    return tuple(_format_changes(before.versions, {name: night.versions[name] for name in sorted(shared)}))


def _format_changes(was: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for name, value in now.items():
        if was.get(name) != value:
            yield _WITHOUT_VALUES.get(name, f"{name}: {was.get(name)} / {value}")


def list_other_machines(nights: Iterable[HistoryLine], night: HistoryLine) -> tuple[int, tuple[str, ...]]:
    """Return how many of the nights, of the kind of `night`, were on another machine, and in what such ones differ."""
    found = [[name for name in _OWN if one.conditions.get(name) != night.conditions.get(name)] for one in nights]
    return sum(map(bool, found)), tuple(word for name, word in _OWN.items() if any(name in one for one in found))


def read_history(path: Path) -> History:
    """Read a history. Raises InputError where there is none."""
    try:
        return _parse(path, path.read_bytes())
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror}; hint: to create it: meshbench gate RUN {format_command('--history', path)}"
        ) from error


def append_lines(path: Path, lines: Sequence[HistoryLine]) -> History:
    """Append the lines that are missing, flush them to disk, and return the history with them.

    An incomplete line, as left by a power failure, stays as it is, on a line of its own. Raises InputError for a file
    that is no history, and leaves it as it is.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
            file.seek(0)
            content = file.read()
            new = _select_new(_parse(path, content), lines)
            torn = b"\n" if content and not content.endswith(b"\n") else b""
            added = b"".join(redact(line.model_dump_json()).encode() + b"\n" for line in new)
            if added:
                file.write(torn + added)
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror}") from error
    return _parse(path, content + torn + added)


def _select_new(history: History, lines: Iterable[HistoryLine]) -> list[HistoryLine]:
    """Return the lines to append: a run has one line, and a second one when it is accepted afterwards."""
    known = {line.key: line.accepted for line in history.lines}
    return [line for line in lines if line.key not in known or line.accepted not in ("", known[line.key])]


def _parse(path: Path, content: bytes) -> History:
    """Parse a history. Of two lines about the same contrast of a run the later one counts. Raises InputError where not
    even a damaged line of a history is in the content."""
    lines: dict[tuple[str, str, str], HistoryLine] = {}
    problems = []
    texts = [(number, text) for number, text in enumerate(content.split(b"\n"), start=1) if text.strip()]
    for number, text in texts:
        try:
            line = HistoryLine.model_validate_json(version_1.convert_line(text))
            lines[line.key] = line
        except ValidationError as error:
            problems.append(f"{path}:{number}: this line is skipped: {_explain(error)}")
    if texts and not any(text.startswith(_BEGIN) for _, text in texts):
        raise InputError(f"{path}: is no history of a gate; hint: name a new file, and it is created")
    return History(tuple(sorted(lines.values(), key=lambda line: (line.at, line.run_id))), tuple(problems))


def _explain(error: ValidationError) -> str:
    """Return why a line cannot be read."""
    first = error.errors()[0]
    if first["loc"] == ("schema_version",):
        known = f"this meshbench reads versions 1 and {SCHEMA_VERSION}"
        return f"it has format version {first['input']}, {known}; hint: use the version of meshbench that wrote it"
    return "".join((*(f"{part}: " for part in first["loc"]), first["msg"]))


def hash_conditions(conditions: dict[str, str]) -> str:
    """Return the fingerprint of conditions."""
    return hash_value(conditions)


def hash_value(value: object) -> str:
    """Return 16 hexadecimal digits that stand for a value of JSON's types."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def keep_printable(text: str) -> str:
    """Return a text on one line of printable characters, since XML forbids some others."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
