"""Evidence that a deployment is what its configuration's name says. Pure: what was seen goes in, facts come out.

Why so much of it: Bookinfo answers 200 with its back ends down, a policy that selects nothing changes nothing, and a
deployment without sidecars is the fastest mesh of all.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from bench.records import Evidence


@dataclass(frozen=True, slots=True)
class Hop:
    """One step of a page's way through the application."""

    caller: str
    callee: str

    def __str__(self) -> str:
        return f"{self.caller} -> {self.callee}"


@dataclass(frozen=True, slots=True)
class HopCount:
    """Requests on a hop, as its two proxies counted them."""

    caller_side: int
    callee_side: int


def page_evidence(problem: str | None) -> Evidence:
    """The page is whole, as the users will ask for it."""
    return Evidence(
        name="page", subject="productpage", ok=problem is None, expected="a whole page", seen=problem or "a whole page"
    )


def no_proxy_evidence(hop: Hop, *, status: int, headers: Mapping[str, str]) -> Evidence:
    """The callee itself answers at the address that the caller uses: no trace of a proxy in the answer."""
    traces = [name for name in headers if name.startswith("x-envoy")]
    server = headers.get("server", "")
    proxied = bool(traces) or "envoy" in server
    return Evidence(
        name="no proxy",
        subject=str(hop),
        ok=status == 200 and not proxied,
        expected="200 from the service itself",
        seen=f"{status} from {server or 'an unnamed server'}{' through a proxy' if proxied else ''}",
    )


def no_sidecar_evidence(running: Sequence[str]) -> Evidence:
    """No sidecar runs."""
    return Evidence(
        name="no sidecar",
        subject="application",
        ok=not running,
        expected="no sidecar process",
        seen=", ".join(running) or "no sidecar process",
    )


def proxied_evidence(hop: Hop, *, status: int, headers: Mapping[str, str]) -> Evidence:
    """A request that takes the caller's own way passes a proxy, and arrives."""
    server = headers.get("server", "no server header")
    return Evidence(
        name="through sidecars",
        subject=str(hop),
        ok=status == 200 and "envoy" in server,
        expected="200 through Envoy",
        seen=f"{status} through {server}",
    )


def mtls_evidence(
    hop: Hop, *, version: str, cipher: str, ids: tuple[str, str], expected_ids: tuple[str, str]
) -> Evidence:
    """A connection with the caller's certificate: TLS 1.3, and on both sides the identity that belongs there.

    `ids` are the caller's SPIFFE id as presented and the callee's as seen; empty where there was none.
    """
    return Evidence(
        name="mutual TLS",
        subject=str(hop),
        ok=version == "TLSv1.3" and ids == expected_ids,
        expected=f"TLSv1.3, {expected_ids[0]} to {expected_ids[1]}",
        seen=f"{version or 'no TLS'}, {cipher or 'no cipher'}, {ids[0] or 'nobody'} to {ids[1] or 'nobody'}",
    )


def plain_text_evidence(callee: str, *, status: int, told: str, allowed: bool) -> Evidence:
    """Plain text to a sidecar's inbound port: refused under STRICT, accepted under PERMISSIVE."""
    return Evidence(
        name="plain text",
        subject=callee,
        ok=(status == 200) if allowed else (status == 0),
        expected="accepted (PERMISSIVE)" if allowed else "refused without an answer (STRICT)",
        seen=told,
    )


def policy_evidence(policy: str, request: str, *, expected: int, status: int, told: str) -> Evidence:
    """A request that the policies must let through (the application's own status), deny (403) or refuse (0)."""
    denied = expected == HTTPStatus.FORBIDDEN
    return Evidence(
        name=f"policy {policy}",
        subject=request,
        ok=status == expected and ("RBAC" in told or not denied),
        expected="403 from RBAC" if denied else f"{expected}" if expected else "refused without an answer",
        seen=told,
    )


def counted_evidence(counts: Mapping[Hop, HopCount], *, requests: int, errors: int) -> Iterable[Evidence]:
    """Both proxies of each hop saw the load. Requests that failed may have been retried or cut off on the way."""
    slack = 2 * errors
    for hop, count in counts.items():
        seen = (count.caller_side, count.callee_side)
        yield Evidence(
            name="requests counted",
            subject=str(hop),
            ok=requests > 0 and all(abs(number - requests) <= slack for number in seen),
            expected=f"{requests} on both sides",
            seen=f"{seen[0]} by {hop.caller}'s sidecar, {seen[1]} by {hop.callee}'s",
        )


def handshakes_evidence(callee: str, stats: Mapping[str, int]) -> Evidence:
    """The connections of the load itself, as the callee's sidecar saw them: all TLS 1.3, all with a certificate.

    `stats` are the listener's `ssl.*` counters.
    """
    versions = {name.rpartition("ssl.versions.")[2]: n for name, n in stats.items() if "ssl.versions." in name and n}
    ciphers = [name.rpartition("ssl.ciphers.")[2] for name, n in stats.items() if "ssl.ciphers." in name and n]
    curves = [name.rpartition("ssl.curves.")[2] for name, n in stats.items() if "ssl.curves." in name and n]
    told = [f"{name} x{count}" for name, count in sorted(versions.items())]
    return Evidence(
        name="handshakes",
        subject=callee,
        ok=set(versions) == {"TLSv1.3"},
        expected="TLSv1.3 only",
        seen=", ".join([*told, *sorted(ciphers), *sorted(curves)]) or "no handshake",
    )
