"""Define what an application is, as its `application.yaml` says: read once, frozen, checked with file and line."""

import importlib
import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Protocol, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from bench.errors import InputError, Problem
from bench.files.folders import DEFINITION, find_shipped, is_definition
from bench.files.validation import (
    ENDPOINT_PATTERN,
    ENTRY_PATTERN,
    LABEL_PATTERN,
    MODULE_PATTERN,
    NAME_PATTERN,
    PATH_PATTERN,
    PATTERN_MESSAGES,
    PLACE_PATTERN,
    format_value,
    list_invalid_fields,
)
from bench.files.yaml_source import Document, format_suggestion, read_documents
from bench.units import DURATION_PATTERN, parse_duration

_PACKAGE: Final = "bench.application"
_DEFAULT_NAMESPACES: Final = ("default",)


def _require_module(name: str) -> str:
    path = Path(__file__).parent.joinpath(*name.split("."))
    if not (path.is_dir() or path.with_suffix(".py").is_file()):
        raise ValueError(f"no module {name} below {_PACKAGE}")
    return name


Module = Annotated[str, Field(pattern=MODULE_PATTERN), AfterValidator(_require_module)]
Label = Annotated[str, Field(pattern=LABEL_PATTERN)]
RequestPath = Annotated[str, Field(pattern=PATH_PATTERN)]
RequestLine = Annotated[str, Field(pattern=ENDPOINT_PATTERN)]
Status = Annotated[int, Field(strict=True, ge=100, le=599)]
Seconds = Annotated[
    float,
    BeforeValidator(lambda value: parse_duration(value) if isinstance(value, str) else value),
    WithJsonSchema({"type": "string", "title": "duration", "pattern": f"^{DURATION_PATTERN}$"}, mode="validation"),
]
Namespaces = Annotated[
    tuple[Label, ...],
    Field(min_length=1, max_length=20),
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
]
Entry = Annotated[str, Field(pattern=ENTRY_PATTERN)]


class AnswerCheck(Protocol):
    """A module below `bench.application` that knows more about a valid answer than its status."""

    def find_problem(self, body: bytes, versions: Mapping[str, str]) -> str | None:
        """Return what is wrong with the body of an answer to a user who gets these versions of the services that have
        several; None where it is complete. It is called for every response under load."""


class Section(BaseModel):
    """Base of the parts of a definition: frozen, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)


class Ready(Section):
    """The request that shows that the application is ready, and what a valid answer to it is."""

    path: RequestPath = Field("/", description="Path of the request, which is a GET of the entry.")
    status: Status = Field(200, description="Status of a valid answer.")
    contains: str = Field("", description="Text that a valid answer contains.")
    timeout_s: Seconds | None = Field(
        None,
        alias="timeout",
        description="How long the application may take until its first valid answer, if longer than the default.",
    )
    check: Module | None = Field(
        None,
        description="Module below `bench.application` with a `find_problem(body, versions)`, which returns what is"
        " wrong with an answer.",
    )


class Versions(Section):
    """A service of which several versions exist. Those in `without_calls` call no other service."""

    choices: Annotated[tuple[Label, ...], Field(min_length=1)]
    default: Label
    without_calls: tuple[Label, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        for version in (self.default, *self.without_calls):
            if version not in self.choices:
                raise ValueError(f"{version} is not among the choices: {', '.join(self.choices)}")
        return self


class Login(Section):
    """How a user logs in: a form, of which `{user}` is the name, and the cookie that the answer sets. `header` is the
    one by which services tell each other the user's name, `requests` the name of the logins in the load."""

    path: RequestPath = Field(description="Path of the POST with the form.")
    form: dict[str, str] = Field(description="Fields of the form, of which `{user}` is the user's name.")
    cookie: str = Field(description="The cookie that the answer sets.")
    header: Label = Field(description="The header with the user's name between services, which routes match.")
    requests: str = Field("login", description="Name of the logins in the load.")

    def fill_form(self, user: str) -> dict[str, str]:
        """Return the form of one user."""
        return {name: value.replace("{user}", user) for name, value in self.form.items()}


class LocalProgram(Section):
    """How services run as processes: `python -m bench.application.MODULE SERVICE --port --version --connect-to`.

    `unset` are environment variables that they must not inherit.
    """

    module: Module
    unset: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        return f"{_PACKAGE}.{self.module}"


class ApplicationKeys(Section):
    """An application: its manifests, where the load enters, what a valid answer is, and who calls whom.

    These are the keys that `application` of a scenario and an `application.yaml` have in common. None is a key that is
    not given.
    """

    name: Annotated[str, Field(pattern=NAME_PATTERN, description="Name in ids, namespaces and reports.")]
    manifests: Annotated[str, Field(pattern=PLACE_PATTERN, max_length=200)] | None = Field(
        None, description="Folder of its manifests, relative to the file. Default: the folder of its name."
    )
    namespaces: Namespaces | None = Field(
        None,
        description="Namespaces that its manifests and policies name, first that of objects that name none. Default:"
        " those that the manifests name, else `default`.",
    )
    entry: Entry | None = Field(
        None,
        description="The Service and port, `SERVICE:PORT`, that the load reaches first, behind the gateway if there is"
        " one. Default: the only port of the only Service.",
    )
    ready: Ready | None = Field(None, description="The request that shows that it is ready. Default: GET / with 200.")
    calls: dict[Label, tuple[Label, ...]] | None = Field(
        None,
        description="Callees by caller: each request of the load causes one call to each. Without it the proxies of"
        " both sides of each hop have to count the same requests.",
    )
    endpoints: dict[Label, dict[RequestLine, Status]] | None = Field(
        None,
        description="Statuses by service and request, such as `GET /health`. The first is the one that callers send;"
        " proofs of policies use all. Default: `ready` for the entry.",
    )
    login: Login | None = Field(None, description="How a user logs in, where routes distinguish users.")

    @model_validator(mode="after")
    def _check_calls(self) -> Self:
        entry = () if self.entry is None else (self.entry.rpartition(":")[0],)
        for service in dict.fromkeys((*entry, *(self.calls or {}))):
            self._require_no_cycle(service, ())
        return self

    def _require_no_cycle(self, service: str, path: tuple[str, ...]) -> None:
        if service in path:
            raise ValueError(f"calls: {' -> '.join((*path, service))} is a circle; leave `calls` out")
        for callee in (self.calls or {}).get(service, ()):
            self._require_no_cycle(callee, (*path, service))


class ApplicationDefinition(ApplicationKeys):
    """An application with everything that is known of it, also what only one that ships can have.

    `calls` are callees by caller, each called once for each request of the load; None where they are unknown.
    `endpoints` are statuses by service and request (`GET /health`); the first is the one that callers request.
    """

    _file: Path = PrivateAttr()
    _folder: Path = PrivateAttr()

    default: bool = False
    """Whether scenarios that name no application mean this one."""
    manifests: str = "."
    ready: Ready = Ready()
    versions: dict[Label, Versions] = {}
    endpoints: dict[Label, dict[RequestLine, Status]] = {}
    local: LocalProgram | None = None

    def model_post_init(self, context: Any, /) -> None:
        """Keep the path of the file, which is the context of the validation."""
        self._file = context or Path()
        self._folder = self._file.parent / self.manifests

    def place(self, folder: Path, file: Path | None = None) -> "ApplicationDefinition":
        """Return the definition with its manifests in another folder, as the `file` says."""
        copy = self.model_copy()
        copy._file, copy._folder = file or self._file, folder  # noqa: SLF001  # of its own class
        return copy

    @property
    def file(self) -> Path:
        """The file that defines it."""
        return self._file

    @property
    def folder(self) -> Path:
        """The folder of its manifests."""
        return self._folder

    @property
    def home(self) -> str:
        """The namespace of objects that name none."""
        return (self.namespaces or _DEFAULT_NAMESPACES)[0]

    @property
    def entry_service(self) -> str:
        """The service that the load reaches first; empty where neither the definition nor its manifests name one."""
        return (self.entry or "").rpartition(":")[0]

    @property
    def services(self) -> tuple[str, ...]:
        """The services that the definition names: the entry first, then in the order of the calls."""
        found = list(self._follow_calls([self.entry_service]))
        return tuple(dict.fromkeys([*found, *(self.calls or {}), *self.versions, *self.endpoints]))

    def _follow_calls(self, services: list[str]) -> Iterator[str]:
        while services:
            yield from services
            services = [callee for one in services for callee in (self.calls or {}).get(one, ())]

    def check_answer(self, body: bytes, versions: Mapping[str, str]) -> str | None:
        """Return what is wrong with the body of an answer; None where it is complete."""
        if self.ready.contains and self.ready.contains.encode() not in body:
            return f"answer does not contain {self.ready.contains!r}"
        return import_check(self.ready.check).find_problem(body, versions) if self.ready.check else None

    @property
    def check_module(self) -> str:
        """The full name of the module that checks answers; empty where there is none."""
        return f"{_PACKAGE}.{self.ready.check}" if self.ready.check else ""


@cache
def import_check(name: str) -> AnswerCheck:
    """Import a module below `bench.application` that checks answers."""
    module: AnswerCheck = importlib.import_module(f"{_PACKAGE}.{name}")
    return module


@cache
def read_definition(file: Path) -> ApplicationDefinition:
    """Read the `application.yaml` of an application that ships. Raises InputError with all problems."""
    return _validate(ApplicationDefinition, _read_document(file), file)


def read_keys(file: Path) -> dict[str, Any]:
    """Read the keys of an `application.yaml` beside a scenario, as the file has them. Raises InputError with all
    problems."""
    document = _read_document(file)
    _validate(ApplicationKeys, document, file)
    keys: dict[str, Any] = document.value
    return keys


def _read_document(file: Path) -> Document:
    documents = read_documents(file)
    if len(documents) != 1:
        raise InputError([Problem(str(file), 0, "", "must contain one YAML document")])
    return documents[0]


K = TypeVar("K", bound=ApplicationKeys)


def _validate(model: type[K], document: Document, file: Path) -> K:
    try:
        return model.model_validate(document.value, context=file, by_alias=True, by_name=False)
    except ValidationError as error:
        invalid = list_invalid_fields(error, model)
        raise InputError([document.problem(one.loc, one.message) for one in invalid]) from None


def find_definition_file(given: object, folder: Path) -> Path | None:
    """Return the `application.yaml` that a scenario in this folder means by its `application`, a path or a mapping:
    the file of that path, or the one beside it or in the folder of the name that has the name. None where there is
    none, as for an application that ships. Raises ValueError for a path without a file."""
    if isinstance(given, str):
        if re.fullmatch(PLACE_PATTERN, given) is None:
            raise ValueError(f"{format_value(given)} {PATTERN_MESSAGES[PLACE_PATTERN]}")
        file = folder / given
        if not file.is_file():
            raise ValueError(f"there is no file {given} beside the scenario; hint: for a name, write {{name: {given}}}")
        if not Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder)):
            raise ValueError(f"{given} leads out of its folder through a symbolic link")
        return file
    if not isinstance(given, dict):
        return None
    name = given.get("name")
    if name in list_shipped_applications() and "manifests" not in given:
        return None
    beside = [folder / DEFINITION, *([folder / name / DEFINITION] if isinstance(name, str) else [])]
    return next((file for file in beside if is_definition(file) and name in (None, _read_name(file))), None)


def _read_name(file: Path) -> object:
    value = _read_document(file).value
    return value.get("name") if isinstance(value, dict) else None


def list_shipped_applications() -> tuple[str, ...]:
    """Return the names of the applications that ship, the default one first."""
    names = sorted(file.parent.name for file in find_shipped("manifests").glob(f"*/{DEFINITION}"))
    return tuple(sorted(names, key=lambda name: not read_definition(_locate(name)).default))


def _locate(name: str) -> Path:
    return find_shipped("manifests") / name / DEFINITION


def find_application(name: str) -> ApplicationDefinition:
    """Return the definition of a shipped application. Raises InputError for an unknown name."""
    names = list_shipped_applications()
    if name not in names:
        raise InputError(f"unknown application {name!r}{format_suggestion(name, names)}")
    definition = read_definition(_locate(name))
    if definition.name != name:
        raise InputError([Problem(str(definition.file), 0, "name", f"must be {name!r}, the name of its folder")])
    return definition
