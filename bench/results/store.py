"""Write a run's folder once, trial by trial, and read it for reports.

A trial is written below `trials/<name>.partial` and renamed when it is complete; `run.json` then gets the checksums of
its files. Only `run.json` (atomically) and the files of `report` are ever overwritten.
"""

import errno
import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from bench.errors import StoreError
from bench.results import version_1
from bench.results.base import SCHEMA_VERSION, Record
from bench.results.records import ProofRecord, RunRecord, TrialEntry, TrialRecord
from bench.results.resources import ResourceTrace, read_resources
from bench.results.samples import Samples, read_parquet
from bench.scenario.loader import list_secret_texts, register_secret_texts
from bench.scenario.model import Scenario
from bench.scenario.plan import Trial
from bench.system.bounded import read_bounded
from bench.system.journal import NAME as JOURNAL
from bench.system.journal import Journal
from bench.system.open_folder import OpenFolder, open_folder
from bench.system.private_files import Content, PrivateFolder, read_private
from bench.system.processes import identify_process
from bench.system.redaction import redact, redact_values

_OTHER: Final = re.compile(r"[^A-Za-z0-9._-]")
_LONGEST: Final = 150
_DIGEST: Final = 8


def make_file_name(text: str) -> str:
    """Return the text where it is a plain file name, else a name made from it: without separators and leading dots, of
    limited length, and different for each text."""
    plain = _OTHER.sub("_", text).lstrip(".")[:_LONGEST]
    if plain == text and plain:
        return text
    return f"{plain or 'unnamed'}-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:_DIGEST]}"


# Space that is freed when the disk is full, so that the run can still record how it ended.
_RESERVE_BYTES = 256 * 1024
_RESERVE = ".reserve"
_RESERVED_FOR_STATUS = (errno.ENOSPC, errno.EDQUOT)
_OF_PATH: Final = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
    errno.ELOOP,
)

RECORD = "run.json"
TRIALS = "trials"
_SCENARIO = "scenario.json"
_RUN_ID = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")

R = TypeVar("R", bound=Record)


def make_run_id(scenario: str, now: datetime) -> str:
    """Make an id of UTC time, scenario and 4 random characters: `20261123T031500Z-smoke-7f3a`."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{scenario}-{secrets.token_hex(2)}"


class RunFolder:
    """The folder of a run that is being measured."""

    def __init__(self, path: Path, record: RunRecord) -> None:
        self.path = path
        self.record = record
        self.journal = Journal(path / JOURNAL)
        self._kept: Scenario | None = None

    @classmethod
    def create(
        cls, output: Path, record: RunRecord, *, fill: Callable[[Path], None] = lambda _path: None
    ) -> "RunFolder":
        """Create `output/<run-id>`; `fill` writes the run's inputs into it, so that a run can always be resumed once it
        has started. Raises StoreError where it cannot be created or written."""
        path = output / record.run_id
        with _explain_disk_errors(path):
            output.mkdir(parents=True, exist_ok=True)
            path.mkdir()
            fill(path)
        _reserve(path)
        folder = cls(path, record)
        folder._begin()
        return folder

    @classmethod
    def reopen(cls, path: Path, **changes: Any) -> "RunFolder":
        """Open the folder of an interrupted run to continue it."""
        record = read_complete_record(path)
        _reserve(path)
        folder = cls(path, record)
        folder._begin(**changes)
        return folder

    def _begin(self, **changes: Any) -> None:
        self.update(**changes)
        self.journal.write("begin", **identify_process(os.getpid()))

    def update(self, **changes: Any) -> None:
        """Change fields of `run.json`, atomically. A scenario with secrets is kept complete among the private files."""
        self.record = self.record.model_copy(update=changes)
        if self.record.scenario is not self._kept and list_secret_texts(self.record.scenario):
            content = self.record.scenario.model_dump_json(indent=2).encode()
            PrivateFolder.of_run(self.path, self.record.run_id).keep([Content(_SCENARIO, content)])
        self._kept = self.record.scenario
        write_record(self.path / RECORD, self.record)

    @contextmanager
    def draft(self, trial: Trial) -> Iterator[Path]:
        """Create the `.partial` folder of a trial; it keeps this name when the trial is interrupted."""
        path = self.path / TRIALS / f"{trial.folder}.partial"
        with _explain_disk_errors(path):
            if path.exists():
                self._rename(path, f"{path.name}-{secrets.token_hex(2)}")
            path.mkdir()
            yield path

    def keep(self, draft: Path, record: TrialRecord, proof: ProofRecord) -> None:
        """Complete a trial: write its records, sync its files to disk, then rename its draft."""
        write_record(draft / "trial.json", record)
        write_record(draft / "proof.json", proof)
        checksums = {
            str(file.relative_to(draft)): _sync_and_hash(file) for file in sorted(draft.rglob("*")) if file.is_file()
        }
        self._rename(draft, record.trial)
        self.update(trials=(*self.record.trials, TrialEntry(folder=record.trial, sha256=checksums)))

    def trial_records(self) -> tuple[TrialRecord, ...]:
        """Read the records of all complete trials."""
        return tuple(
            read_record(self.path / TRIALS / entry.folder / "trial.json", TrialRecord) for entry in self.record.trials
        )

    def set_aside_broken_blocks(self) -> None:
        """Rename the trials of incomplete blocks to `.superseded-*`, to measure these blocks again: half a block would
        break the balance of the order."""
        complete = {entry.folder: entry for entry in self.record.trials}
        blocks = {trial.block for trial in self.record.plan.trials if trial.folder not in complete}
        broken = {trial.folder for trial in self.record.plan.trials if trial.block in blocks}
        for path in (self.path / TRIALS / name for name in sorted(broken)):
            if path.exists():  # also one that was renamed, but is not in run.json yet
                self._rename(path, f"{path.name}.superseded-{secrets.token_hex(2)}")
        self.update(trials=tuple(entry for name, entry in complete.items() if name not in broken))

    def _rename(self, trial: Path, name: str) -> None:
        """Rename the folder of a trial, and the private one with it."""
        trial.rename(trial.with_name(name))
        private = PrivateFolder.of_run(self.path, self.record.run_id)
        private.rename(f"{trial.parent.name}/{trial.name}", f"{trial.parent.name}/{name}")

    def finish(self, **changes: Any) -> None:
        """Record the end of the run: status, exit code, issues. This works on a full disk, too."""
        (self.path / _RESERVE).unlink(missing_ok=True)
        self.update(ended_at=datetime.now(UTC), **changes)
        self.journal.write("end", status=self.record.status, exit_code=self.record.exit_code)
        self.journal.close()


def _reserve(path: Path) -> None:
    """Reserve space for the end of a run, and make the folder of its trials. Raises StoreError, also for a link."""
    with _explain_disk_errors(path), open_folder(path) as folder, folder.enter(TRIALS):
        folder.write(_RESERVE, b"\0" * _RESERVE_BYTES)


@dataclass(frozen=True, slots=True)
class StoredTrial:
    """A complete trial in a run's folder."""

    path: Path
    record: TrialRecord
    proof: ProofRecord | None

    def samples(self) -> Samples:
        """Read all its samples, warm-up included. Raises StoreError where the file is incomplete."""
        return read_parquet(self.path / "samples.parquet")

    def resources(self) -> ResourceTrace:
        """Read CPU and memory of its processes. Raises StoreError where the file is incomplete."""
        return read_resources(self.path / "resources.parquet")


@dataclass(frozen=True, slots=True)
class StoredRun:
    """The contents of a run's folder; `problems` has a message for each trial that is left out."""

    path: Path
    record: RunRecord
    trials: tuple[StoredTrial, ...]
    problems: tuple[str, ...] = field(default=())


def list_digests(run: StoredRun, configuration: str) -> dict[str, frozenset[str]]:
    """Return the images that ran in a configuration, with their digests, by container."""
    found: dict[str, set[str]] = {}
    for trial in run.trials:
        if trial.record.configuration == configuration:
            for container, image in trial.record.images.items():
                found.setdefault(container, set()).add(image)
    return {container: frozenset(images) for container, images in found.items()}


def read_run(path: Path, *, strict: bool = False) -> StoredRun:
    """Read a run's folder. Trials whose files are missing or changed are left out, with a problem each.

    Raises StoreError where there is no run, for another version of the format, or, if `strict`, for a damaged trial.
    """
    if not (path / RECORD).is_file():
        raise StoreError(f"{path}: not a run's folder: it has no run.json")
    record = read_record(path / RECORD, RunRecord)
    planned = {trial.folder: trial for trial in record.plan.trials}
    found = [_read_trial(path, planned.get(entry.folder), entry) for entry in record.trials]
    problems = tuple(trial for trial in found if isinstance(trial, str))
    if problems and strict:
        raise StoreError("\n".join(problems))
    return StoredRun(path, record, tuple(t for t in found if isinstance(t, StoredTrial)), problems)


def read_complete_record(run: Path) -> RunRecord:
    """Read `run.json` to resume a run: with the secrets of its scenario, which are private. Raises StoreError, and
    InputError where the private file is missing or changed."""
    record = read_record(run / RECORD, RunRecord)
    content = read_private(run, _SCENARIO)
    if content is None:
        return record
    scenario = Scenario.model_validate_json(content)
    register_secret_texts(scenario)
    return record.model_copy(update={"scenario": scenario})


def read_run_id(path: Path) -> str:
    """Read the id of a folder's run, whatever the folder's name, from a run.json of any version.

    Raises StoreError where run.json is missing or damaged.
    """
    file = path / RECORD
    try:
        run_id = json.loads(read_bounded(file))["run_id"]
    except OSError as error:
        raise StoreError(f"{file}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise StoreError(f"{file}: is damaged: it has no valid run_id") from error
    if not isinstance(run_id, str) or not is_run_id(run_id):
        raise StoreError(f"{file}: is damaged: it has no valid run_id")
    return run_id


def is_run_id(text: str) -> bool:
    """Check whether a text can be a run's id, which is the value of a label on its objects on a cluster."""
    return _RUN_ID.fullmatch(text) is not None


def format_record(record: Record) -> str:
    """Format a record as redacted JSON."""
    text = record.model_dump_json(indent=2)
    content = json.loads(text)
    if (clean := redact_values(content)) != content:
        text = json.dumps(clean, indent=2, ensure_ascii=False)
    return text + "\n"


def write_record(path: Path, record: Record) -> None:
    """Write a record as redacted JSON, atomically."""
    write_text(path, format_record(record))


def write_text(path: Path, text: str) -> None:
    """Write a redacted text file atomically, into a folder that the user chose or that meshbench made."""
    with _explain_disk_errors(path), open_folder(path.parent) as folder:
        folder.write(path.name, _encode(text))


def write_text_inside(folder: OpenFolder, name: str, text: str) -> Path:
    """Write a redacted text file atomically into a folder of a run, and return its path."""
    return write_bytes_inside(folder, name, _encode(text))


def write_bytes_inside(folder: OpenFolder, name: str, data: bytes) -> Path:
    """Write a file atomically into a folder of a run, and return its path."""
    with _explain_disk_errors(folder.path / name):
        return folder.write(name, data)


def _encode(text: str) -> bytes:
    return redact(text).encode("utf-8", "backslashreplace")


def read_record(path: Path, model: type[R]) -> R:
    """Read and validate one of meshbench's JSON files. Raises StoreError with the first problem."""
    try:
        return model.model_validate_json(version_1.convert_record(read_bounded(path), model))
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        if first["loc"] == ("schema_version",):
            message = f"has format version {first['input']}; this meshbench reads versions 1 and {SCHEMA_VERSION}"
            raise StoreError(f"{path}: {message}") from error
        raise StoreError(f"{path}: {place + ': ' if place else ''}{first['msg']}") from error


def _read_trial(run: Path, planned: Trial | None, entry: TrialEntry) -> StoredTrial | str:
    path = run / TRIALS / entry.folder
    damaged = [name for name, expected in entry.sha256.items() if _hash_file(path / name) != expected]
    if damaged:
        return f"trial {entry.folder} is left out: {', '.join(damaged)}: missing, or changed since the run"
    proof = path / "proof.json"
    trial = read_record(path / "trial.json", TrialRecord)
    known = Trial(number=trial.number, configuration=trial.configuration, block=trial.block)
    if known != planned or trial.trial != entry.folder:
        return f"trial {entry.folder} is left out: its trial.json is of another trial than the plan's"
    return StoredTrial(path, trial, read_record(proof, ProofRecord) if proof.exists() else None)


def _hash_file(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_and_hash(path: Path) -> str:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _explain_disk_errors(path: Path) -> Iterator[None]:
    """Turn disk errors into StoreError with a hint."""
    try:
        yield
    except OSError as error:
        if error.errno in _RESERVED_FOR_STATUS:
            raise StoreError(f"{path}: the disk is full; complete trials are kept") from error
        if error.errno in _OF_PATH:
            raise StoreError(f"{path}: cannot be written: {error.strerror}; choose another --output") from error
        raise
