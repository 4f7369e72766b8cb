"""Evidence that a deployment is what its configuration's name says. Pure: what was seen goes in, facts come out.

Why so much of it: Bookinfo answers 200 with its back ends down, a policy that selects nothing changes nothing, and a
deployment without sidecars is the fastest mesh of all.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from bench.application.model import Hop
from bench.results.records import Evidence


@dataclass(frozen=True, slots=True)
class HopCount:
    """Requests on a hop, as its two proxies counted them; None where the caller has no proxy, being outside of the
    mesh."""

    caller_side: int | None
    callee_side: int

    def since(self, before: "HopCount") -> "HopCount":
        """How far the counts went between two readings."""
        caller = None if self.caller_side is None else self.caller_side - (before.caller_side or 0)
        return HopCount(caller, self.callee_side - before.callee_side)

    def told(self, hop: Hop) -> str:
        """In words, for evidence."""
        if self.caller_side is None:
            return f"{self.callee_side} by {hop.callee}"
        return f"{self.caller_side} by {hop.caller}'s proxy, {self.callee_side} by {hop.callee}'s"


def page_evidence(problem: str | None) -> Evidence:
    """The page is whole, as the users will ask for it."""
    return Evidence(
        name="page", subject="productpage", ok=problem is None, expected="a whole page", seen=problem or "a whole page"
    )


def is_of_pages(fact: Evidence) -> bool:
    """Whether it says that users get answers, which the configuration's own policies may keep from them: then the load
    fails, and tells the same. All other facts are of the configuration itself."""
    return fact.name in _OF_PAGES


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


def alone_evidence(mesh: str, found: str) -> Evidence:
    """A mesh that this trial does not measure is not there; `found` is what of it is, in words."""
    absent = "not on the cluster"
    return Evidence(name="no control plane", subject=mesh, ok=not found, expected=absent, seen=found or absent)


def proxied_evidence(hop: Hop, *, status: int, headers: Mapping[str, str]) -> Evidence:
    """A request that takes the caller's own way passes a proxy, and arrives."""
    server = headers.get("server", "no server header")
    return Evidence(
        name="through sidecars",
        subject=str(hop),
        ok=status == 200 and any(name in server for name in _PROXIES),
        expected="200 through Envoy",
        seen=f"{status} through {server}",
    )


def mtls_evidence(
    hop: Hop,
    *,
    version: str,
    cipher: str,
    ids: tuple[str, str],
    expected_ids: tuple[str, str],
    tls: str = "TLSv1.3",
) -> Evidence:
    """A connection to the callee's sidecar: `tls` or newer, and on both sides the identity that belongs there.

    `ids` are the caller's SPIFFE id as presented and the callee's as seen; empty where there was none.
    """
    return Evidence(
        name="mutual TLS",
        subject=str(hop),
        ok=version >= tls and ids == expected_ids,
        expected=f"{_or_newer(tls)}, {expected_ids[0]} to {expected_ids[1]}",
        seen=f"{version or 'no TLS'}, {cipher or 'no cipher'}, {ids[0] or 'nobody'} to {ids[1] or 'nobody'}",
    )


def unrouted_evidence(path: str, *, status: int, headers: Mapping[str, str]) -> Evidence:
    """A path that no route of the gateway takes is answered by the gateway itself, and goes to nobody."""
    return Evidence(
        name="no route",
        subject=path,
        ok=status == HTTPStatus.NOT_FOUND and _ANSWERED not in headers,
        expected="404 from the gateway itself",
        seen=_answered(status, headers),
    )


def routed_evidence(path: str, *, status: int, headers: Mapping[str, str]) -> Evidence:
    """A path that a route of the gateway takes is answered by a service."""
    return Evidence(
        name="route",
        subject=path,
        ok=_ANSWERED in headers,
        expected="answered by a service",
        seen=_answered(status, headers),
    )


def _answered(status: int, headers: Mapping[str, str]) -> str:
    return f"{status} from {'a service' if _ANSWERED in headers else 'the gateway itself'}"


def plain_text_evidence(callee: str, *, status: int, told: str, allowed: bool) -> Evidence:
    """Plain text to a sidecar's inbound port: refused where only mutual TLS is accepted."""
    return Evidence(
        name="plain text",
        subject=callee,
        ok=(status == 200) if allowed else (status == 0),
        expected="accepted" if allowed else "refused without an answer",
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


def counted_evidence(counts: Mapping[Hop, HopCount], *, requests: Mapping[Hop, int], errors: int) -> Iterable[Evidence]:
    """Both proxies of each hop saw their part of the load, `requests`; the callee's sees that of all its callers. Those
    that failed may have been retried or cut off on the way."""
    slack = 2 * errors
    for hop, count in counts.items():
        reached = sum(number for other, number in requests.items() if other.callee == hop.callee)
        pairs = [(count.caller_side, requests[hop]), (count.callee_side, reached)]
        yield Evidence(
            name="requests counted",
            subject=str(hop),
            ok=any(requests.values()) and all(seen is None or abs(seen - wanted) <= slack for seen, wanted in pairs),
            expected=_counted(requests[hop], reached) if count.caller_side is not None else f"{reached}",
            seen=count.told(hop),
        )


def _counted(sent: int, reached: int) -> str:
    return f"{sent} on both sides" if sent == reached else f"{sent} of the {reached} from all callers"


def protocol_evidence(hop: Hop, connections: Mapping[str, int], *, http: str) -> Evidence:
    """What the caller's sidecar spoke to the callee's: the mesh's version of HTTP, and no other.

    `connections` were opened by the caller's sidecar, by version (`HTTP/1.1`, `HTTP/2`).
    """
    seen = [f"{version} x{count}" for version, count in sorted(connections.items()) if count]
    return Evidence(
        name="protocol between sidecars",
        subject=str(hop),
        ok=connections.get(http, 0) > 0 and len(seen) == 1,
        expected=f"{http} only",
        seen=", ".join(seen) or "no connection",
    )


def handshakes_evidence(callee: str, stats: Mapping[str, int], *, tls: str = "TLSv1.3") -> Evidence:
    """The connections of the load itself, as the callee's sidecar saw them: all with a certificate, in the version on
    which sidecars agree. Our own questions may have been in a newer one.

    `stats` are the listener's `ssl.*` counters.
    """
    versions = {name.rpartition("ssl.versions.")[2]: n for name, n in stats.items() if "ssl.versions." in name and n}
    ciphers = [name.rpartition("ssl.ciphers.")[2] for name, n in stats.items() if "ssl.ciphers." in name and n]
    curves = [name.rpartition("ssl.curves.")[2] for name, n in stats.items() if "ssl.curves." in name and n]
    told = [f"{name} x{count}" for name, count in sorted(versions.items())]
    return Evidence(
        name="handshakes",
        subject=callee,
        ok=tls in versions and min(versions) == tls,
        expected="TLSv1.3 only" if tls == _NEWEST else _or_newer(tls),
        seen=", ".join([*told, *sorted(ciphers), *sorted(curves)]) or "no handshake",
    )


def unlabelled_evidence(namespace: str, labels: Sequence[str]) -> Evidence:
    """The namespace asks no mesh for sidecars; `labels` are those by which it would."""
    return _nothing("no injection label", namespace, labels, expected="no label that asks for sidecars")


def unhooked_evidence(namespace: str, webhooks: Sequence[str]) -> Evidence:
    """No mesh would change a pod of the namespace; `webhooks` are those that would."""
    return _nothing("no mesh webhook", namespace, webhooks, expected="no webhook of a mesh for its pods")


def sidecars_evidence(sidecar: str, without: Sequence[str], *, pods: int) -> Evidence:
    """Every one of `pods` pods has its sidecar, which is ready; `without` tells of those that do not."""
    return Evidence(
        name="sidecars",
        subject="all pods",
        ok=pods > 0 and not without,
        expected=f"{sidecar} in every pod, ready",
        seen=", ".join(without) or f"{sidecar} in {pods} of {pods} pods",
    )


def restarts_evidence(restarts: Sequence[str]) -> Evidence:
    """No container has ended since it was started; `restarts` tells of those that did."""
    return _nothing("no restarts", "all pods", restarts, expected="no container that was started again")


def synced_evidence(unsynced: str) -> Evidence:
    """Every sidecar has acknowledged the newest configuration; `unsynced` tells who has not."""
    return _nothing(
        "synced", "all sidecars", [unsynced] if unsynced else [], expected="all have the newest configuration"
    )


def identity_evidence(workload: str, *, names: Sequence[str], expected: str) -> Evidence:
    """A sidecar's own certificate is for the SPIFFE id of its workload's account. It may have names besides."""
    return Evidence(
        name="identity",
        subject=workload,
        ok=expected in names,
        expected=expected,
        seen=", ".join(names) or "no certificate",
    )


def certificate_wanted_evidence(callee: str, *, status: int, told: str) -> Evidence:
    """TLS without a certificate gets no answer: the callee's sidecar wants to know who calls."""
    return Evidence(
        name="certificate wanted",
        subject=callee,
        ok=status == 0,
        expected="no answer to TLS without a certificate",
        seen=told,
    )


_OF_PAGES = ("page", "pages", "through sidecars", "route")
_NEWEST = "TLSv1.3"
_PROXIES = ("envoy", "Kuma Gateway")  # how the meshes' proxies call themselves
_ANSWERED = "x-envoy-upstream-service-time"  # a proxy adds it when somebody behind it has answered


def _or_newer(tls: str) -> str:
    return tls if tls == _NEWEST else f"{tls} or newer"


def _nothing(name: str, subject: str, found: Sequence[str], *, expected: str) -> Evidence:
    return Evidence(name=name, subject=subject, ok=not found, expected=expected, seen=", ".join(found) or "none")
