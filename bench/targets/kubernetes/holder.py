"""Who holds a cluster's lock, and whether it still lives. Pure, except for a look at this machine's processes."""

import hashlib
import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import psutil

from bench.targets.kubernetes.client import Object
from bench.units import format_duration

DURATION_S: Final = 45  # a holder that was silent for so long is dead
_SURELY_DEAD_S: Final = 3600.0  # no two machines' clocks differ by so much
_START_SLACK_S: Final = 2.0

Verdict = Literal["alive", "dead", "unknown"]


@dataclass(frozen=True, slots=True)
class Holder:
    """What a lease says of its holder. `host` is a hash; `process` 0 where the lease was not written by meshbench."""

    run_id: str
    host: str
    process: int
    since: datetime
    renewed: datetime

    def silent_s(self, now: datetime) -> float:
        """Seconds since it last said that it lives, by two machines' clocks."""
        return (now - self.renewed).total_seconds()

    def told(self, now: datetime) -> str:
        """Its name and age for messages."""
        age = format_duration(max(1, round((now - self.since).total_seconds())))
        return f"{self.run_id} (host {self.host}, process {self.process}, for {age})"


def holder_of(lease: Object) -> Holder | None:
    """Reads a Lease; None for one that nobody holds."""
    spec = lease.get("spec") or {}
    words = (spec.get("holderIdentity") or "").split()
    if not words:
        return None
    host, process = (words[1], int(words[2])) if len(words) == 3 and words[2].isdecimal() else ("unknown", 0)
    renewed = spec.get("renewTime") or lease["metadata"]["creationTimestamp"]
    return Holder(words[0], host, process, _time(spec.get("acquireTime") or renewed), _time(renewed))


def here() -> str:
    """This process as a lease names it: `<host hash> <pid>`. The hash tells machines, boots and containers apart."""
    return f"{_host()} {os.getpid()}"


def judged(holder: Holder, *, here: str, now: datetime) -> Verdict:
    """What can be said without watching it: by its process if it is on this machine, by its silence if that is long."""
    if holder.host == here.partition(" ")[0]:
        return "alive" if _runs(holder) else "dead"
    return "dead" if holder.silent_s(now) > _SURELY_DEAD_S else "unknown"


def seems_dead(holder: Holder) -> bool:
    """Whether it will surely, or most likely, not go on: who asks for its cleanup has that looked at again."""
    now = datetime.now(UTC)
    return judged(holder, here=here(), now=now) == "dead" or holder.silent_s(now) > DURATION_S


def _runs(holder: Holder) -> bool:
    """Whether its process is there, and not a later one with the same number."""
    try:
        process = psutil.Process(holder.process)
        began = process.create_time()
        return process.status() != psutil.STATUS_ZOMBIE and began <= holder.since.timestamp() + _START_SLACK_S
    except psutil.NoSuchProcess:
        return False


def _host() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii")
    container = os.readlink("/proc/self/ns/pid")  # noqa: PTH115  # no path, a number of the kernel's
    return hashlib.sha256(f"meshbench {platform.node()} {boot} {container}".encode()).hexdigest()[:8]


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
