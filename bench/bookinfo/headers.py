"""Which headers of a request go along with the calls that it causes."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

_ALWAYS: Final = (
    "x-request-id",
    "x-ot-span-context",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "traceparent",
    "tracestate",
    "x-cloud-trace-context",
    "grpc-trace-bin",
    "sw8",
    "user-agent",
    "cookie",
    "authorization",
    "jwt",
)
_B3: Final = ("x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags")
_TRACE_ID: Final = re.compile(r"[0-9a-fA-F]{16}(?:[0-9a-fA-F]{16})?")
_SPAN_ID: Final = re.compile(r"[0-9a-fA-F]{16}")


def productpage_headers(incoming: Mapping[str, str], user: str) -> dict[str, str]:
    """The front end's list: B3 is read and written anew, `end-user` comes from the login and nowhere else."""
    end_user = {"end-user": user} if user else {}
    return b3_headers(incoming) | end_user | _present(incoming, _ALWAYS)


def reviews_headers(incoming: Mapping[str, str]) -> dict[str, str]:
    """The back end's list: everything as it came."""
    return _present(incoming, (*_ALWAYS, *_B3, "end-user"))


def b3_headers(incoming: Mapping[str, str]) -> dict[str, str]:
    """Trace and span of B3 in its several-headers form; nothing where the ids are missing or malformed.

    A single `b3` header wins over the others, even a malformed one; the parent's id is dropped. Both are
    what the original's tracing library does.
    """
    flags = ""
    if single := incoming.get("b3"):
        trace_id, span_id, sampled = [*single.split("-"), "", ""][:3]
    else:
        trace_id, span_id, _, sampled, flags = (incoming.get(name, "") for name in _B3)
    if not (_TRACE_ID.fullmatch(trace_id) and _SPAN_ID.fullmatch(span_id)):
        return {}
    decision = "1" if sampled in {"1", "True", "true", "d"} or flags == "1" else "0"
    trace_id = trace_id.lower().zfill(32)
    return {"x-b3-traceid": trace_id, "x-b3-spanid": span_id.lower(), "x-b3-sampled": decision}


def _present(incoming: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    return {name: incoming[name] for name in names if name in incoming}
