"""What `equalise` sets alike in all meshes, and the proof that it is.

The common values are those that both meshes can be told on a cluster, too. TLS: version 1.3 alone; which of its
ciphers and curves is taken is Envoy's own choice, since neither mesh has a setting for the curve of mutual TLS.
Retries: none, since a retry hides an error and lengthens the tail; Istio's sidecars still try again towards their own
application when that closed a kept connection, for which Istio has no switch.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Final, Literal

from bench.data_path import DataPath
from bench.meshes.wire import Wire
from bench.records import Evidence
from bench.settings import Equal

TLS: Final[Literal["TLSv1.3"]] = "TLSv1.3"
WORKERS: Final = 2
SAID: Final[Mapping[Equal, str]] = {
    "tls": "TLS 1.3 only",
    "workers": f"{WORKERS} workers in each sidecar",
    "retries": "no retries between sidecars",
}


def said(equalise: Collection[Equal]) -> str:
    """What is set alike, in words; empty for nothing."""
    return ", ".join(text for what, text in SAID.items() if what in equalise)


def wire_of(wire: Wire, equalise: Collection[Equal]) -> Wire:
    """What two sidecars of a mesh agree on then."""
    return replace(wire, tls=TLS) if "tls" in equalise else wire


def equal_evidence(path: DataPath | None, equalise: Collection[Equal]) -> Iterator[Evidence]:
    """What was to be set alike is so in the data path; nothing without a mesh."""
    if path is None:
        return
    if "tls" in equalise:
        spoken = {", ".join(way.seen.tls) or _NO_TLS for way in path.ways}
        yield _evidence("TLS", spoken, {TLS, _NO_TLS})
    if "workers" in equalise:
        yield _evidence("workers", {f"{count} in a sidecar" for count in path.workers.values()}, {_IN_EACH})
    if "retries" in equalise:
        yield _evidence("retries", {str(way.retries.number) if way.retries else _NONE for way in path.ways}, {_NONE})


_NO_TLS: Final = "no TLS"
_NONE: Final = "none between sidecars"
_IN_EACH: Final = f"{WORKERS} in a sidecar"


def _evidence(what: str, seen: Collection[str], wanted: Collection[str]) -> Evidence:
    return Evidence(
        name=f"set alike: {what}",
        subject="all sidecars",
        ok=bool(seen) and set(seen) <= set(wanted),
        expected=" or ".join(sorted(wanted)),
        seen=", ".join(sorted(seen)) or "no sidecar on a request's way",
    )
