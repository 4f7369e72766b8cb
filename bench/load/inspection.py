"""Load a Locust file as Locust does, without any load, and report what it has. A script that Locust's Python runs:

    python -P bench/load/inspection.py REQUEST REPORT

Both are JSON files, see `Request` and `Report` in `bench.load.locustfile_check`. The working directory is the Locust
file's folder. It needs nothing but Locust and the standard library.
"""

import difflib
import inspect
import io
import json
import os
import re
import signal
import sys
import traceback
from argparse import Action
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from pathlib import Path
from types import FrameType
from typing import Any

import gevent
from locust import User, events
from locust.argument_parser import (
    LocustArgumentParser,
    get_empty_argument_parser,
    get_parser,
    setup_parser_arguments,
)
from locust.user.task import filter_tasks_by_tags
from locust.util.load_locustfile import load_locustfile, load_locustfile_pytest

_LONGEST = 1000  # characters of a message
_HIDDEN = ("bench", "recorder")  # the recorder's package, and its name in Locust
_OWN_OPTIONS = "--meshbench-"
_TESTS = re.compile(r"^\s*(async )?def test_", re.MULTILINE)  # tests of pytest, each of which Locust makes a user class

Problem = dict[str, Any]


class Rejection(Exception):  # noqa: N818 - a report, no error of this program
    """What is wrong with the Locust file, or with what the scenario gives to it."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__(problems)
        self.problems = problems


def make_problem(message: str, *, file: str = "", line: int = 0, key: str = "load.locustfile") -> Problem:
    """Make a problem of a file's line, or where there is no file of a scenario's key."""
    return {"message": message[:_LONGEST], "file": file, "line": line, "key": key}


def inspect_locustfile(request: dict[str, Any]) -> dict[str, Any]:
    """Return the names of the Locust file's user classes, and of the options that it declares. Raises Rejection."""
    folder = Path.cwd()
    reject_hidden_modules(folder)
    known = set(list_options(get_parser(default_config_files=[])))
    users, shapes = load(folder, [request["recorder"], str(folder / request["locustfile"])])
    parser = get_empty_argument_parser(default_config_files=[])
    setup_parser_arguments(parser)
    declare_options(parser, folder)
    declared = sorted(name for name in {*list_options(parser)} - known if not name.startswith(_OWN_OPTIONS))
    problems = [
        *(describe_shape(type(shape), folder) for shape in shapes),
        *find_unknown_options(request["options"], declared, known),
        *find_read_variables(request["env"], parser, known),
    ]
    if not users:
        problems.append(make_problem("has no user class: a class that inherits from HttpUser, FastHttpUser or User"))
    if problems:
        raise Rejection(*problems)
    parse(request)
    reject_idle_users(users, folder, request)
    return {"users": sorted(users), "options": [name.removeprefix("--") for name in declared]}


def reject_hidden_modules(folder: Path) -> None:
    """Raise Rejection for a module in the folder that has the name of one of the recorder's."""
    for module in _HIDDEN:
        for name in (module, f"{module}.py"):
            if (folder / name).exists():
                raise Rejection(
                    make_problem("has the name of a module that meshbench has inside Locust; rename it", file=name)
                )


def load(folder: Path, files: list[str]) -> tuple[dict[str, Any], list[Any]]:
    """Import the recorder and the Locust file; return user classes by name, and load shapes. Raises Rejection."""
    errors = io.StringIO()
    try:
        with redirect_stderr(errors):
            loaded = [load_locustfile(file) for file in files]
            users = {name: one for found, _ in loaded for name, one in found.items()}
            if not users and _TESTS.search(Path(files[-1]).read_text("utf-8")):
                users = load_locustfile_pytest(files[-1])
    except BaseException as error:  # noqa: BLE001 - it may raise anything, SystemExit included
        raise Rejection(describe_error(error, folder, printed=errors.getvalue())) from None
    return users, [shape for _, found in loaded for shape in found]


def describe_error(error: BaseException, folder: Path, *, printed: str = "") -> Problem:
    """Describe an exception, with the innermost line of the folder's files."""
    name = type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        file, line = locate(error.filename, error.lineno or 0, folder)
        return make_problem(f"{name}: {error.msg}", file=file, line=line)
    text = " ".join(filter(None, (str(error), printed if isinstance(error, SystemExit) else ""))).strip()
    own = [one for one in traceback.extract_tb(error.__traceback__) if is_inside(one.filename, folder)]
    file, line = locate(own[-1].filename, own[-1].lineno or 0, folder) if own else ("", 0)
    found = make_problem(f"{name}: {text}" if text else name, file=file, line=line)
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    variable = error.args[0] if isinstance(error, KeyError) and "environ" in inspect_line(own) else None
    return {**found, "missing_module": missing or "", "missing_variable": str(variable or "")}


def inspect_line(frames: list[traceback.FrameSummary]) -> str:
    """Return the text of the innermost line; empty without one."""
    return (frames[-1].line or "") if frames else ""


def is_inside(filename: str, folder: Path) -> bool:
    return Path(filename).is_relative_to(folder)


def locate(filename: str, line: int, folder: Path) -> tuple[str, int]:
    """Return a file's path relative to the folder and the line; a file elsewhere keeps its path."""
    path = Path(filename)
    return (path.relative_to(folder).as_posix() if is_inside(filename, folder) else filename), line


def describe_shape(shape: type, folder: Path) -> Problem:
    """Describe a class that would choose the number of users itself."""
    message = (
        f"{shape.__name__} is a LoadTestShape, which would change the number of users during the window; meshbench"
        " keeps it as load.users says; hint: remove the class, or measure each step as a configuration with a load"
    )
    return make_problem(message, **locate_class(shape, folder))


def locate_class(found: type, folder: Path) -> dict[str, Any]:
    try:
        file, line = locate(inspect.getfile(found), inspect.getsourcelines(found)[1], folder)
    except (OSError, TypeError):  # made by code
        return {}
    return {"file": file, "line": line}


def list_options(parser: LocustArgumentParser) -> Iterator[str]:
    """Yield the long names of all options."""
    for action in list_actions(parser):
        yield from (name for name in action.option_strings if name.startswith("--"))


def list_actions(parser: LocustArgumentParser) -> list[Action]:
    actions: list[Action] = parser._actions  # noqa: SLF001 - argparse has no other way to list them
    return actions


def declare_options(parser: LocustArgumentParser, folder: Path) -> None:
    """Let the Locust file declare its options. Locust itself would only log an exception. Raises Rejection."""
    for handler in list_handlers():
        try:
            handler(parser=parser)
        except BaseException as error:  # noqa: BLE001 - as above
            raise Rejection(describe_error(error, folder)) from None


def list_handlers() -> list[Callable[..., None]]:
    return list(events.init_command_line_parser._handlers)  # noqa: SLF001 - `fire` swallows their exceptions


def find_unknown_options(given: list[str], declared: list[str], known: set[str]) -> Iterator[Problem]:
    """Yield a problem for each option of the scenario that the Locust file does not declare."""
    for name in given:
        key, option = f"load.options.{name}", f"--{name}"
        if option in known:
            yield make_problem("is an option of Locust itself; use the keys of `load`", key=key)
        elif option not in declared:
            near = "".join(
                f"; did you mean {one.removeprefix('--')}?" for one in difflib.get_close_matches(option, declared, n=1)
            )
            has = f"declares {', '.join(declared)}" if declared else "declares no options"
            yield make_problem(f"is no option of the Locust file, which {has}{near}", key=key)


def find_read_variables(given: list[str], parser: LocustArgumentParser, known: set[str]) -> Iterator[Problem]:
    """Yield a problem for each variable of the scenario that Locust reads as a setting of its own."""
    for action in list_actions(parser):
        option = next((name for name in action.option_strings if name in known), "")
        if option and (name := getattr(action, "env_var", None)) in given:
            yield make_problem(f"is read by Locust itself, as its option {option}", key=f"load.env.{name}")


def parse(request: dict[str, Any]) -> None:
    """Parse the command line of a run, with the values that the recorder offers. Raises Rejection with the parser's
    message."""
    errors = io.StringIO()
    try:
        with redirect_stderr(errors):
            get_parser(default_config_files=[]).parse_args(request["argv"])
    except Exception as error:  # noqa: BLE001 - of the Locust file's own type of an option
        raise Rejection(describe_error(error, Path.cwd())) from None
    except SystemExit:
        text = " ".join(errors.getvalue().partition("error: ")[2].split()) or errors.getvalue().strip()
        name = next((name for name in request["options"] if f"--{name}:" in text), "")
        key = f"load.options.{name}" if name else "load.locustfile"
        needed = "; hint: give it in load.options" if "are required" in text else ""
        raise Rejection(make_problem(f"Locust refuses its command line: {text}{needed}", key=key)) from None


def reject_idle_users(users: dict[str, Any], folder: Path, request: dict[str, Any]) -> None:
    """Raise Rejection for user classes that have nothing to do, by themselves or because of the tags."""
    idle = [name for name, one in users.items() if not one.tasks and is_ordinary(one)]
    if idle:
        raise Rejection(*(make_problem(f"{name} has no tasks", **locate_class(users[name], folder)) for name in idle))
    tags, excluded = set(request["tags"]), set(request["exclude_tags"])
    if not (tags or excluded):
        return
    for one in users.values():
        filter_tasks_by_tags(one, tags or None, excluded or None)
    if left := [name for name, one in users.items() if not one.tasks and is_ordinary(one)]:
        key = "load.tags" if tags else "load.exclude_tags"
        raise Rejection(make_problem(f"no task is left of {', '.join(left)}", key=key))


def is_ordinary(user: Any) -> bool:
    """Whether a user class does nothing but its tasks, which its instances do not choose themselves."""
    return bool(user.run is User.run and user.__init__.__module__.startswith("locust."))


def watch_time(limit_s: float, folder: Path, report: Path) -> None:
    """Report the line where the Locust file is when the time is over, and end this process."""

    def give_up(_: int, frame: FrameType | None) -> None:
        waiting = getattr(gevent.get_hub().parent, "gr_frame", None)  # where a sleep has led to Locust's own loop
        found = next(filter(None, (find_own_frame(one, folder) for one in (frame, waiting))), None)
        file, line = locate(found.f_code.co_filename, found.f_lineno, folder) if found else ("", 0)
        message = f"does not finish loading within {limit_s:.0f} s; Locust imports the file before it starts any user"
        write(report, {"problems": [make_problem(message, file=file, line=line)]})
        os._exit(0)

    signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, limit_s)


def find_own_frame(frame: FrameType | None, folder: Path) -> FrameType | None:
    """Find the innermost frame of the folder's files."""
    while frame is not None and not is_inside(frame.f_code.co_filename, folder):
        frame = frame.f_back
    return frame


def write(report: Path, content: dict[str, Any]) -> None:
    """Write a file atomically."""
    draft = report.with_suffix(".draft")
    draft.write_text(json.dumps(content), "utf-8")
    draft.replace(report)


def main() -> None:
    request, report = json.loads(Path(sys.argv[1]).read_text("utf-8")), Path(sys.argv[2])
    sys.argv = ["locust", *request["argv"]]  # as the recorder and the Locust file find it in a run
    watch_time(request["limit_s"], Path.cwd(), report)
    try:
        write(report, {"problems": [], **inspect_locustfile(request)})
    except Rejection as rejection:
        write(report, {"problems": rejection.problems})
    os._exit(0)  # whatever the Locust file has started


if __name__ == "__main__":
    main()
