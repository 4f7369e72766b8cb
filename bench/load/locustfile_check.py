"""Check a Locust file before anything starts: Locust loads it once, in a process of its own, and sends nothing."""

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.errors import InputError, Problem
from bench.files.folders import find_shipped
from bench.load import inspection_path, recorder_path
from bench.load.environment import make_bare_environment, make_load_environment
from bench.load.generator import LoadSpec, make_load_spec
from bench.meshes.resolved import ResolvedScenario
from bench.scenario.load_settings import read_environment
from bench.system.processes import run_limited
from bench.system.temporary import temporary_folder

LIMIT_S: Final = 20.0
_GRACE_S: Final = 5.0  # to start Locust, and for a file whose code cannot be interrupted
_LAST_LINES: Final = 3
_MOST_BYTES: Final = 64 * 1024 * 1024  # that it may write into one file


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. `file` is relative to the Locust file's folder, or empty where it is the scenario's
    `key`. `missing_module` and `missing_variable` are what an import did not find."""

    message: str
    file: str = ""
    line: int = 0
    key: str = "load.locustfile"
    missing_module: str = ""
    missing_variable: str = ""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What Locust finds in a Locust file: names of user classes, and of the options that it declares, or problems."""

    findings: tuple[Finding, ...] = ()
    users: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


_inspected: dict[str, Inspection] = {}


def inspect_locustfile(spec: LoadSpec, *, is_bare: bool = False, limit_s: float = LIMIT_S) -> Inspection:
    """Let Locust load the Locust file of a load, with the command line and the variables of a run. `is_bare` is without
    any other variable of this machine, as in a pod. The same content is loaded once in a process.

    Raises InputError where a variable has no value.
    """
    variables = read_environment(spec.env)
    known = _digest(spec, variables, is_bare=is_bare)
    if known not in _inspected:
        with temporary_folder("check") as work:
            _inspected[known] = _inspect(spec, work, variables, is_bare=is_bare, limit_s=limit_s)
    return _inspected[known]


def _digest(spec: LoadSpec, variables: Mapping[str, str], *, is_bare: bool) -> str:
    """Return a hash of everything that decides what is found."""
    files = [(name, hashlib.sha256(path.read_bytes()).hexdigest()) for name, path in spec.locust.files]
    argv = spec.argv("", locustfile="", recorder="", folder="")
    return hashlib.sha256(json.dumps([files, argv, sorted(variables.items()), is_bare]).encode()).hexdigest()


def _inspect(spec: LoadSpec, work: Path, variables: Mapping[str, str], *, is_bare: bool, limit_s: float) -> Inspection:
    """Load a copy of the files that travel, since what does not travel must not be found."""
    home, report = work / "home", work / "report.json"
    home.mkdir()
    locustfile = spec.locust.copy_to(work / "locust")
    recorder = str(recorder_path())
    _, _, _, _, *words = spec.argv("", locustfile=str(locustfile), recorder=recorder, folder=str(home))
    request = {
        "locustfile": locustfile.name,
        "recorder": recorder,
        "argv": words,
        "options": list(spec.options),
        "env": list(spec.env),
        "tags": spec.tags,
        "exclude_tags": spec.exclude_tags,
        "limit_s": limit_s,
    }
    (work / "request.json").write_text(json.dumps(request), "utf-8")
    changes = {**(make_bare_environment if is_bare else make_load_environment)(home), **variables}
    env = {name: value for name, value in {**os.environ, **changes}.items() if value is not None}
    argv = [sys.executable, "-P", str(inspection_path()), str(work / "request.json"), str(report)]
    try:
        ran = run_limited(argv, env=env, timeout_s=limit_s + _GRACE_S, most_bytes=_MOST_BYTES, cwd=locustfile.parent)
    except OSError as error:
        return Inspection((Finding(f"cannot be loaded: {error}"),))
    if report.exists():
        return _parse(json.loads(report.read_bytes()))
    last = " / ".join(f"{ran.stdout}{ran.stderr}".strip().splitlines()[-_LAST_LINES:]) or "none"
    return Inspection((Finding(f"ends Locust while it is loaded (exit code {ran.returncode}); last output: {last}"),))


def _parse(content: Mapping[str, Any]) -> Inspection:
    findings = tuple(Finding(**one) for one in content["problems"])
    return Inspection(findings, tuple(content.get("users", ())), tuple(content.get("options", ())))


def check_locustfile(
    resolved: ResolvedScenario, *, on_cluster: bool = False, own_image: bool = False
) -> Inspection | None:
    """Inspect the Locust file of a scenario; None for a shipped one that is given nothing. With an `own_image` of the
    load, a package that is missing here is a finding of the result. Raises InputError with a problem for any other: of
    a line of its files, or of a key of the scenario."""
    load = resolved.scenario.load
    if is_shipped(resolved.inputs.locustfile) and not (load.options or load.env or load.tags or load.exclude_tags):
        return None
    spec = _make_spec(resolved)
    found = inspect_locustfile(spec, is_bare=on_cluster)
    if own_image and any(one.missing_module for one in found.findings):
        return found
    folder = resolved.inputs.locustfile.parent
    problems = [_make_problem(one, spec.locustfile, on_cluster=on_cluster) for one in found.findings]
    if spec.logged_in and not problems and "logged-in" not in found.options:
        users = ", ".join(spec.logged_in)
        text = f"declares no option --logged-in, but routes give users versions of their own ({users})"
        problems.append(Problem(str(folder / spec.locustfile.name), 0, "", text))
    if problems:
        raise InputError(problems)
    return found


def is_shipped(locustfile: Path) -> bool:
    """Return whether a Locust file, or its copy in a run's folder, is a shipped one."""
    shipped = find_shipped("locustfiles").glob("*.py")
    return any(one.read_bytes() == locustfile.read_bytes() for one in shipped)


def _make_spec(resolved: ResolvedScenario) -> LoadSpec:
    """Return the load of a configuration; of one with users that log in, where there is one."""
    configuration = next(
        (one for one in resolved.configurations if any(group.user for group in one.groups)), resolved.configurations[0]
    )
    return make_load_spec(
        configuration.load,
        configuration.application.definition,
        configuration.groups,
        address="127.0.0.1:1",
        virtual_host="127.0.0.1:1",
        locust=resolved.inputs.locust,
        namespaces=(),
        seed=0,
        scenario=resolved.scenario,
    )


def _make_problem(found: Finding, locustfile: Path, *, on_cluster: bool) -> Problem:
    """Return a finding with its hint; one without a file and of the Locust file itself has the file's name."""
    message = found.message
    if found.missing_module and not found.file.startswith("/"):
        message += f"; hint: {_hint_for_module(found.missing_module, on_cluster=on_cluster)}"
    if found.missing_variable:
        message += f"; hint: give it in load.env: {{{found.missing_variable}: {{env: {found.missing_variable}}}}}"
    if found.file or found.key == "load.locustfile":
        file = found.file or locustfile.name
        return Problem(str(locustfile.parent / file), found.line, "", message)
    return Problem("", 0, found.key, message)


def _hint_for_module(name: str, *, on_cluster: bool) -> str:
    """Return where a module that was not found has to be."""
    beside = "put it beside the Locust file"
    if on_cluster:
        return f"{beside}, or install it here and in an image of the load (--image load=IMAGE)"
    return f"{beside}, or install it: {os.path.relpath(sys.executable)} -m pip install {name.partition('.')[0]}"
