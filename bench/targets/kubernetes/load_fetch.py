"""What Locust's recorder wrote in a pod, brought into a folder here: what is new since the last time, then verified."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.errors import ClusterError
from bench.load.merge import raw_files
from bench.samples import RAW_ROW
from bench.targets.kubernetes.client import Cluster, Object, Ran
from bench.targets.kubernetes.load_objects import FOLDER, KEEPER, NAME

ACCOUNT: Final = "generator.json"
_TIMEOUT_S: Final = 20.0
_MOST_BYTES: Final = 8 * 1024 * 1024  # of one file at a time

# For each file and how much of it is here already: its name, how much follows, and that.
_NEW_PARTS: Final = """
while [ $# -gt 0 ]; do
  if [ -f "$1" ]; then
    size=$(wc -c < "$1"); new=$((size - $2))
    [ "$new" -lt 0 ] && new=0
    [ "$new" -gt MOST ] && new=MOST
    echo "$1 $new"; tail -c "+$(($2 + 1))" "$1" | head -c "$new"
  fi
  shift 2
done
""".replace("MOST", str(_MOST_BYTES))
_CHECKSUMS: Final = 'for file; do [ -f "$file" ] && sha256sum "$file"; done; true'


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes that follow on what is here of a file."""

    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class PodFiles:
    """The recorder's files in the load pod, and where their copies go."""

    cluster: Cluster
    namespace: str
    folder: Path
    workers: int

    def pods(self) -> tuple[Object, ...]:
        """The pods beside it, and itself. Raises ClusterError."""
        return self.cluster.list("v1", "Pod", namespace=self.namespace)

    def fetch(self) -> int:
        """Brings what is new; returns how many bytes came. All of it is added, or nothing. Raises ClusterError."""
        known = [word for name in self._names() for word in (name, str(self._size(name)))]
        ran = self._run([_NEW_PARTS, "fetch", *known])
        parts = tuple(parse_parts(ran.stdout))
        for part in parts:
            with (self.folder / part.name).open("ab") as file:
                file.write(part.content)
        return sum(len(part.content) for part in parts)

    def fetch_all(self) -> None:
        """Brings everything that is there, also what is much."""
        while self.fetch() >= _MOST_BYTES:
            pass

    def whole(self) -> bool:
        """Whether Locust has given its account: nothing is written after it."""
        return (self.folder / ACCOUNT).exists()

    def differences(self) -> str:
        """Which copies are not what the pod has, in words; empty when all are alike. Raises ClusterError."""
        ran = self._run([_CHECKSUMS, "verify", *self._names()])
        there = parse_checksums(ran.stdout.decode())
        here = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in raw_files(self.folder)}
        wrong = sorted(name for name in {*there, *here} if there.get(name) != here.get(name))
        return ", ".join(f"{name} ({self._told(name)})" for name in wrong)

    def forget(self) -> None:
        """Removes the copies, so that they are fetched anew."""
        for path in raw_files(self.folder):
            path.unlink()

    def _told(self, name: str) -> str:
        size = self._size(name)
        return f"{size // RAW_ROW.itemsize} rows here" if name.startswith("samples") else f"{size} bytes here"

    def _names(self) -> tuple[str, ...]:
        """Starts first, names after the rows that use them, the account last: a fetch never lacks what it needs."""
        parts = ("",) if self.workers == 1 else tuple(f"-{worker}" for worker in range(self.workers))
        starts = dict.fromkeys(("started.json", *(f"started{part}.json" for part in parts)))
        rows = (f"samples{part}.bin" for part in parts)
        names = (f"names{part}.txt" for part in parts)
        return (*starts, *rows, *names, ACCOUNT)

    def _size(self, name: str) -> int:
        path = self.folder / name
        return path.stat().st_size if path.exists() else 0

    def _run(self, words: Sequence[str]) -> Ran:
        script, *rest = words
        argv = ["sh", "-c", f"cd {FOLDER} && {{ {script}\n}}", *rest]
        ran = self.cluster.exec(NAME, argv, namespace=self.namespace, container=KEEPER, timeout_s=_TIMEOUT_S)
        if ran.exit_code != 0:
            raise ClusterError(f"reading {FOLDER} in the load pod: {ran.stderr.strip()}", status=0)
        return ran


def parse_parts(output: bytes) -> Iterator[Part]:
    """The parts in the script's output. Raises ClusterError where it is cut."""
    rest = output
    while rest:
        head, newline, body = rest.partition(b"\n")
        name, _, size = head.decode().rpartition(" ")
        if not newline or not size.isdigit() or len(body) < int(size):
            raise ClusterError("reading the load pod's files: the answer is cut", status=0)
        content, rest = body[: int(size)], body[int(size) :]
        if content:
            yield Part(name, content)


def parse_checksums(output: str) -> dict[str, str]:
    """File -> SHA-256, from what `sha256sum` prints."""
    return {name: checksum for checksum, name in (line.split(maxsplit=1) for line in output.splitlines())}
