"""Convert records of version 1 of the format: the only module that knows them.

Version 1 stored issues as text, `code: detail; advice`, with its words of that time, and some without a code. A stored
scenario has a version of its own, and old keys of it are in `bench.scenario.renames`.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from signal import SIGKILL
from typing import Any, Final

from bench.application.definition import find_application, list_shipped_applications
from bench.errors import Interrupted, RunTimeoutError, exit_code_of
from bench.results.base import SCHEMA_VERSION, Record
from bench.results.issues import IssueCode, Severity
from bench.results.records import ProofRecord, RunRecord, TrialRecord
from bench.results.summary_records import SummaryRecord

Json = dict[str, Any]

_ADVICE: Final = (
    "a difference below the MDE may exist undetected",
    "all users were waiting; raise --users or lower --rate",
    "a process was blocked; check what else the machine ran, and run again",
    "continue with --resume",
    "failed requests are often faster than successful ones; find their cause before comparing",
    "failures are often quicker than answers; find their cause before comparing",
    "fewer than ten lie beyond P95; measure longer (--duration)",
    "for tests, not for results: run without --quick",
    "for trying out, not for results: run without --quick",
    "go on with --resume",
    "it is listed and excluded from every mean",
    "it is listed and left out of every mean",
    "its numbers are missing from every mean",
    "let the client give start_time to Locust's request event, as its measure() does",
    "look into its log below proxies/ or in the services' logs",
    "look into its log below proxies/ or in the services' logs, at a node by kubectl describe",
    "look into load.log for what the generator says",
    "look into load.log, and run again",
    "look into load.log; run again with --resume",
    "measure longer (--duration) or with more users",
    "no difference found is not the same as no difference",
    "nothing shows that the trial measured what its name says; run again",
    "read its log below proxies/ or in the services' logs; for a node, 'kubectl describe node'",
    "read load.log, and run again",
    "read the evidence of the page and the policies in proof.json; then the services' logs",
    "read the load generator's messages in load.log",
    "requests were lost or users stood still; look into load.log",
    "requests were lost or users were blocked; read load.log",
    "see what proof.json says of the page and the policies; then the services' logs",
    "see whether policies let the load generator in; then the services' logs",
    "services, sidecars and load share them: not comparable with other machines",
    "something froze; look for what else the machine did, and run again",
    "the client is busy, and so part of the latency; use fewer users or more cores",
    "the client is part of the latency; use fewer users or a larger machine",
    "the client should pass start_time to Locust's request event, as its measure() does",
    "the clock or the samples file is damaged; run the trial again",
    "the first measurement is listed and excluded from every mean",
    "the first time is listed and left out of every mean",
    "the machine slept or was paused, or its clock was set; run again",
    "the machine slept or was paused; run again",
    "the machine was suspended or paused, or its clock was set; run again",
    "the recorder lost requests; look into load.log",
    "the recorder lost requests; read load.log",
    "the trial did not measure its configuration; see proof.json",
    "the trial did not measure what its name says; see proof.json",
    "there is no proof that the trial measured its configuration; run again",
    "warm up longer (--warmup), and keep the machine to itself",
    "warm up longer (--warmup), and run nothing else on the machine",
)
_WITHOUT_CODE: Final[Mapping[str, IssueCode]] = {
    r"the state after the load could not be read: ": IssueCode.UNREAD_STATE,
    r"all \d+ requests of \d+ seconds failed": IssueCode.ENDED_EARLY,
    r"the API server was away during the load": IssueCode.API_OUTAGE,
    r"the load's node has its clock": IssueCode.CLOCK_SKEW,
    r"the kubelet of node ": IssueCode.NO_RESOURCES,
    r"resources are the kubelets' own figures: ": IssueCode.NO_PROMETHEUS,
}
_ABOUT_RESPONSES: Final = ("page", "pages", "through sidecars", "route")
_ENDS: Final = {
    exit_code_of(RunTimeoutError): IssueCode.TIMEOUT,
    exit_code_of(Interrupted(SIGKILL)): IssueCode.KILLED,
}


def convert_record(content: bytes, model: type[Record]) -> bytes:
    """Return the content of a record's file in today's format; what is not of version 1 stays as it is."""
    return _convert(content, _CONVERTERS.get(model))


def convert_line(content: bytes) -> bytes:
    """Return a line of a gate's history in today's format."""
    return _convert(content, _convert_line)


def _convert(content: bytes, convert: Callable[[Json], Json] | None) -> bytes:
    try:
        found = json.loads(content)
    except (RecursionError, ValueError):
        return content  # the model reports it
    if convert is None or not isinstance(found, dict) or found.get("schema_version") != 1:
        return content
    with suppress(AttributeError, KeyError, TypeError):  # the model reports what is missing
        found = convert(found)
    return json.dumps({**found, "schema_version": SCHEMA_VERSION}).encode()


def _convert_run(found: Json) -> Json:
    issues = [_make(_find_end(found), "reason", found["reason"])] if found.get("reason") else []
    return {**_drop(found, "reason"), "issues": issues, "services": _list_services(found), "converted_from": 1}


def _list_services(found: Json) -> tuple[str, ...]:
    """Return the services of a run's application, which version 1 did not store; none if it no longer ships."""
    name = found["scenario"]["application"]["name"]
    return find_application(name).services if name in list_shipped_applications() else ()


def _find_end(found: Json) -> IssueCode:
    """Return how a run ended, by its status and exit code."""
    if found.get("status") == "interrupted":
        return _ENDS.get(found.get("exit_code") or 0, IssueCode.INTERRUPTED)
    return IssueCode.INTERNAL_ERROR if found.get("exit_code") == exit_code_of(Exception) else IssueCode.FAILED


def _convert_trial(found: Json) -> Json:
    generator = found.get("generator")
    issues = list(_convert_issues(found))
    kept = {"issues": issues, "generator": _drop(generator, "problem") if generator else None}
    return {**_drop(found, "reasons", "warnings", "restarts"), **kept}


def _convert_proof(found: Json) -> Json:
    return {**found, **{side: [_convert_evidence(one) for one in found[side]] for side in ("before", "after")}}


def _convert_evidence(found: Json) -> Json:
    return {**found, "about": "responses" if found["name"] in _ABOUT_RESPONSES else "configuration"}


def _convert_line(found: Json) -> Json:
    issues = [_make(IssueCode.OTHER, "reason", found["reason"])] if found.get("reason") else []
    return {**_drop(found, "reason"), "issues": issues}


def _convert_summary(found: Json) -> Json:
    configurations = {
        name: {**one, "repeats": [_convert_repeat(repeat) for repeat in one["repeats"]]}
        for name, one in found["configurations"].items()
    }
    issues = [_convert_text(text, "warning") for text in found["doubts"]]
    contrasts = [
        {**_drop(one, "reason"), "issues": [_make(IssueCode.OTHER, "warning", one["reason"])] if one["reason"] else []}
        for one in found["contrasts"]
    ]
    costs = [
        {**_drop(one, "doubts"), "issues": [_make(IssueCode.OTHER, "warning", text) for text in one["doubts"]]}
        for one in found.get("hop_costs", ())
    ]
    kept = {"configurations": configurations, "contrasts": contrasts, "hop_costs": costs, "issues": issues}
    return {**_drop(found, "doubts"), **kept}


def _convert_repeat(found: Json) -> Json:
    return {**_drop(found, "reasons", "warnings"), "issues": list(_convert_issues(found))}


def _convert_issues(found: Json) -> Iterator[Json]:
    severities: tuple[Severity, Severity] = ("reason", "warning")
    for severity in severities:
        for text in found.get(f"{severity}s", ()):
            yield _convert_text(text, severity)


def _convert_text(text: str, severity: Severity) -> Json:
    """Return the issue of a text: by its code, or by how it begins."""
    code, colon, rest = text.partition(": ")
    if colon and code in tuple(IssueCode):
        advice = max((one for one in _ADVICE if rest.endswith(f"; {one}")), key=len, default=None)
        return _make(IssueCode(code), severity, rest.removesuffix(f"; {advice}"))
    known = (found for pattern, found in _WITHOUT_CODE.items() if re.match(pattern, text))
    return _make(next(known, IssueCode.OTHER), severity, text)


def _make(code: IssueCode, severity: Severity, detail: str) -> Json:
    return {"code": code, "severity": severity, "detail": detail}


def _drop(found: Json, *names: str) -> Json:
    return {name: value for name, value in found.items() if name not in names}


_CONVERTERS: Final[Mapping[type[Record], Callable[[Json], Json]]] = {
    RunRecord: _convert_run,
    TrialRecord: _convert_trial,
    ProofRecord: _convert_proof,
    SummaryRecord: _convert_summary,
}
