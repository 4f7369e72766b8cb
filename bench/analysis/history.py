"""Store the history of a gate: one line of JSON per run and contrast, appended and never changed.

A line records how much slower a configuration was than the reference of the same run, and under which conditions.
Only lines with the same fingerprint are comparable.
"""

import fcntl
import hashlib
import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError

from bench.analysis.run_summary import summarise
from bench.errors import InputError, StoreError
from bench.results import version_1
from bench.results.base import SCHEMA_VERSION, Record
from bench.results.environment import COMPARED
from bench.results.issues import Issue
from bench.results.records import ANY_NODE
from bench.results.store import StoredRun
from bench.results.summary_records import Contrast, SummaryRecord, Verdict
from bench.scenario.loader import read_stored_checksums
from bench.scenario.model import Load
from bench.system.redaction import redact

# None of these changes what a valid trial measures.
_EXCLUDED: Final = {"title", "description", "seed", "margin", "contrasts", "rerun_invalid"}
_OPTIONAL: Final = {"users_each", "options", "env", "tags", "exclude_tags"}


class HistoryLine(Record):
    """One run's contrast on P95 with the reference of the same run."""

    schema_version: Literal[2] = SCHEMA_VERSION
    run_id: str
    at: datetime
    scenario: str
    configuration: str
    reference: str
    metric: Literal["p95_ms"] = "p95_ms"
    conditions: Annotated[dict[str, str], Field(description="what has to be equal for two runs to be comparable")]
    fingerprint: Annotated[str, Field(description="a hash of the conditions")]
    valid: bool
    issues: Annotated[tuple[Issue, ...], Field(description="why it is not valid, or has no ratio")] = ()
    ln_ratio: float | None
    ln_p95_ms: Annotated[tuple[float, ...], Field(description="of each valid repeat")]
    ln_reference_p95_ms: tuple[float, ...]
    verdict: Annotated[Verdict, Field(description="of the run alone, against its reference")]
    seed: int
    order: tuple[tuple[str, ...], ...]
    run_exit_code: int | None
    accepted: Annotated[str, Field(description="why a new baseline begins with this run, if one does")] = ""

    @property
    def key(self) -> tuple[str, str, str]:
        return self.run_id, self.configuration, self.reference


@dataclass(frozen=True, slots=True)
class History:
    """The lines from the oldest run to the newest; `problems` lists the lines that cannot be read."""

    lines: tuple[HistoryLine, ...]
    problems: tuple[str, ...] = ()

    def series(self, line: HistoryLine) -> tuple[HistoryLine, ...]:
        """Return the nights of the same contrast of the same scenario, under any conditions."""
        same = (line.scenario, line.configuration, line.reference)
        return tuple(x for x in self.lines if (x.scenario, x.configuration, x.reference) == same)


def make_lines(run: StoredRun, *, accepted: str = "") -> tuple[HistoryLine, ...]:
    """Return a run's lines, one for each configuration except the reference.

    Raises InputError where the run has not ended or compares nothing.
    """
    if run.record.status == "running":
        raise InputError(f"{run.path}: this run has not ended; hint: if it was killed, run 'meshbench cleanup'")
    summary, _ = summarise(run)
    contrasts = [contrast for contrast in summary.contrasts if contrast.confirmatory]
    if not contrasts:
        raise InputError(f"{run.path}: compares nothing; hint: a gate needs a scenario with a `reference`")
    known = read_conditions(run)
    return tuple(_make_line(run, summary, contrast, known=known, accepted=accepted) for contrast in contrasts)


def read_conditions(run: StoredRun) -> dict[str, str]:
    """Return everything that has to be equal for two runs to be comparable: scenario, files, target, environment."""
    record = run.record
    scenario = record.scenario.model_dump(mode="json", exclude=_EXCLUDED)
    # Keys of later versions, which no scenario had when the first nights were hashed.
    scenario["application"] = {key: value for key, value in scenario["application"].items() if value is not None}
    scenario["application"] |= scenario["application"].pop("versions")  # its place when the first nights were hashed
    del scenario["design"]  # a condition of its own, with the number of windows
    del scenario["placement"]  # likewise, with the load's nodes
    scenario["load"] = _describe_load(record.scenario.load)
    for one in (scenario, *scenario["configurations"]):
        for key in ("images", "probes"):
            if key in one and not one[key]:
                del one[key]
    environment = {name: str(getattr(record.environment, name)) for name in COMPARED}
    files = "".join(f"{name} {digest}\n" for name, digest in sorted(read_stored_checksums(record.scenario, run.path)))
    known = {"scenario": _hash(scenario), "files": _hash(files), "target": record.target.kind, **environment}
    # The first nights were all sequential with whole requests on any node, and are known by conditions without these.
    if record.plan.is_paired:
        known["design"] = record.plan.design_text
    if record.cluster is not None and record.cluster.scale_requests != 1:
        known["share of requests"] = f"{record.cluster.scale_requests:g}"
    if (placement := record.placement_text) != ANY_NODE:
        known["placement"] = placement
    return known


def _describe_load(load: Load) -> dict[str, Any]:
    """Return a load without what the first nights did not have and it does not use. A variable whose value is not
    recorded is known by its name alone: another place to read it from is no other load."""
    known = load.model_dump(mode="json")
    known["env"] = {name: one.value for name, one in load.env.items()}
    return {key: value for key, value in known.items() if key not in _OPTIONAL or value not in (None, {}, [])}


def read_history(path: Path) -> History:
    """Read a history. Raises InputError where there is none."""
    try:
        return _parse(path, path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; hint: 'meshbench gate RUN --history {path}' creates it") from error


def append_lines(path: Path, lines: Sequence[HistoryLine]) -> History:
    """Append the lines that are missing, flush them to disk, and return the history with them.

    An incomplete line, as left by a power failure, stays as it is, on a line of its own.
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
    """Parse a history. Of two lines about the same contrast of a run the later one counts."""
    lines: dict[tuple[str, str, str], HistoryLine] = {}
    problems = []
    for number, text in enumerate(content.split(b"\n"), start=1):
        try:
            if text.strip():
                line = HistoryLine.model_validate_json(version_1.convert_line(text))
                lines[line.key] = line
        except ValidationError as error:
            first = error.errors()[0]
            field = "".join(f"{part}: " for part in first["loc"])
            problems.append(f"{path}:{number}: this line is skipped: {field}{first['msg']}")
    return History(tuple(sorted(lines.values(), key=lambda line: (line.at, line.run_id))), tuple(problems))


def _make_line(
    run: StoredRun, summary: SummaryRecord, contrast: Contrast, *, known: dict[str, str], accepted: str
) -> HistoryLine:
    record, sides = run.record, (contrast.configuration, contrast.reference)
    measured, reference = (summary.configurations[name] for name in sides)
    valid = measured.valid and reference.valid
    return HistoryLine(
        run_id=record.run_id,
        at=record.started_at,
        scenario=record.scenario.name,
        configuration=contrast.configuration,
        reference=contrast.reference,
        conditions=known,
        fingerprint=hash_conditions(known),
        valid=valid,
        issues=contrast.issues if valid else (*contrast.issues, *record.issues),
        ln_ratio=None if contrast.ratio is None else math.log(contrast.ratio),
        ln_p95_ms=tuple(math.log(r.p95_ms) for r in measured.repeats if r.valid and r.p95_ms),
        ln_reference_p95_ms=tuple(math.log(r.p95_ms) for r in reference.repeats if r.valid and r.p95_ms),
        verdict=contrast.verdict,
        seed=record.plan.seed,
        order=record.plan.order,
        run_exit_code=record.exit_code,
        accepted=keep_printable(accepted),
    )


def hash_conditions(conditions: dict[str, str]) -> str:
    """Return the fingerprint of conditions."""
    return _hash(conditions)


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def keep_printable(text: str) -> str:
    """Return a text on one line of printable characters, since XML forbids some others."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
