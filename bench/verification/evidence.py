"""Make evidence that a deployment is the configuration of its name. Pure: observations in, facts out.

Why it is needed: an application may respond with 200 while its back ends are down, a policy that selects nothing
changes nothing, and a deployment without sidecars is the fastest mesh.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from bench.application.definition import ApplicationDefinition
from bench.application.model import Hop
from bench.meshes.probe import Probe
from bench.meshes.protocols import DataPlane
from bench.meshes.user_groups import UserGroup
from bench.results.records import Evidence
from bench.verification.questions import Answer, Handshake

_NEWEST = "TLSv1.3"


@dataclass(frozen=True, slots=True)
class HopCount:
    """Requests on a hop, as its two proxies counted them; None where the caller is outside of the mesh."""

    caller_side: int | None
    callee_side: int

    def format(self, hop: Hop) -> str:
        """Format the counts for evidence."""
        if self.caller_side is None:
            return f"{self.callee_side} by {hop.callee}"
        return f"{self.caller_side} by {hop.caller}'s proxy, {self.callee_side} by {hop.callee}'s"


def page_evidence(definition: ApplicationDefinition, group: UserGroup, answer: Answer) -> Evidence:
    """Prove that the page is complete, as users will request it."""
    complete, problem = "a complete page", answer.find_problem(definition, group.versions)
    return Evidence(
        name="page",
        subject=definition.entry_service,
        ok=problem is None,
        expected=complete,
        seen=problem or complete,
        about="responses",
    )


def pages_evidence(
    definition: ApplicationDefinition, group: UserGroup, answers: Sequence[Answer], *, count: int
) -> Evidence:
    """Prove that each of `count` pages shows the versions of this user group."""
    problems = [problem for answer in answers if (problem := answer.find_problem(definition, group.versions))]
    right = len(answers) - len(problems)
    return Evidence(
        name="pages",
        subject=group.request,
        ok=right == count and not problems,
        expected=f"{count} of {count} with {group.title}",
        seen=f"{right} of {count} with {group.title}" + (f"; {problems[0]}" if problems else ""),
        about="responses",
    )


def no_proxy_evidence(hop: Hop, answer: Answer) -> Evidence:
    """Prove that the callee itself responds at the address that the caller uses, without a trace of a proxy."""
    traces = [name for name in answer.headers if name.startswith("x-envoy")]
    server = answer.headers.get("server", "")
    proxied = bool(traces) or "envoy" in server
    return Evidence(
        name="no proxy",
        subject=str(hop),
        ok=answer.status == 200 and not proxied,
        expected="200 from the service itself",
        seen=f"{answer.status} from {server or 'an unnamed server'}{' through a proxy' if proxied else ''}",
    )


def no_sidecar_evidence(running: Sequence[str]) -> Evidence:
    """Prove that no sidecar runs."""
    return Evidence(
        name="no sidecar",
        subject="application",
        ok=not running,
        expected="no sidecar process",
        seen=", ".join(running) or "no sidecar process",
    )


def alone_evidence(mesh: str, found: str) -> Evidence:
    """Prove that a mesh that this trial does not measure is absent; `found` describes the parts of it that exist."""
    absent = "not on the cluster"
    return Evidence(name="no control plane", subject=mesh, ok=not found, expected=absent, seen=found or absent)


def proxied_evidence(hop: Hop, proxy: DataPlane, answer: Answer) -> Evidence:
    """Prove that a request on the caller's own path passes a proxy, and succeeds."""
    server = answer.headers.get("server", "no server header")
    return Evidence(
        name="through sidecars",
        subject=str(hop),
        ok=answer.status == 200 and any(name in server for name in proxy.servers),
        expected=f"200 through {proxy.title}",
        seen=f"{answer.status} through {server}",
        about="responses",
    )


def mtls_evidence(
    hop: Hop, expected: tuple[str, str], answer: Answer, *, tls: str = _NEWEST, own: Sequence[str] = ()
) -> Evidence:
    """Prove that a connection to the callee's sidecar has `tls` or newer, and the `expected` SPIFFE ids on both sides.

    `own` are the names in the certificate of the caller's sidecar, where the request had not the certificate itself.
    """
    agreed = answer.handshake or Handshake("", "", "", "")
    # of several names the wanted one, else the first, which shows what is wrong
    caller = agreed.own or (expected[0] if expected[0] in own else next(iter(own), ""))
    return Evidence(
        name="mutual TLS",
        subject=str(hop),
        ok=agreed.version >= tls and (caller, agreed.peer) == expected,
        expected=f"{_or_newer(tls)}, {expected[0]} to {expected[1]}",
        seen=f"{agreed.version or 'no TLS'}, {agreed.cipher or 'no cipher'}, "
        f"{caller or 'no identity'} to {agreed.peer or 'no identity'}",
    )


def unrouted_evidence(path: str, proxy: DataPlane, answer: Answer) -> Evidence:
    """Prove that the gateway itself responds on a path without a route, and forwards it to no service."""
    return Evidence(
        name="no route",
        subject=path,
        ok=answer.status == HTTPStatus.NOT_FOUND and proxy.upstream_header not in answer.headers,
        expected="404 from the gateway itself",
        seen=_format_source(proxy, answer),
    )


def routed_evidence(path: str, proxy: DataPlane, answer: Answer) -> Evidence:
    """Prove that a service responds on a path that has a route of the gateway."""
    return Evidence(
        name="route",
        subject=path,
        ok=proxy.upstream_header in answer.headers,
        expected="a response from a service",
        seen=_format_source(proxy, answer),
        about="responses",
    )


def _format_source(proxy: DataPlane, answer: Answer) -> str:
    return f"{answer.status} from {'a service' if proxy.upstream_header in answer.headers else 'the gateway itself'}"


def plaintext_evidence(callee: str, allowed: bool, answer: Answer) -> Evidence:
    """Prove that plaintext to a sidecar's inbound port is refused where only mutual TLS is accepted."""
    return Evidence(
        name="plaintext",
        subject=callee,
        ok=answer.status == (200 if allowed else 0),
        expected="accepted" if allowed else "refused without a response",
        seen=answer.detail,
    )


def policy_evidence(probe: Probe, answer: Answer) -> Evidence:
    """Prove that the policies allow a request (the application's own status), deny it (403) or refuse it (0)."""
    expected, denied = probe.status, probe.status == HTTPStatus.FORBIDDEN
    return Evidence(
        name=f"policy {probe.policy}",
        subject=f"{probe.method} {probe.path} at {probe.workload} as {probe.caller or 'no identity, in plaintext'}",
        ok=answer.status == expected and (b"RBAC" in answer.body or not denied),
        expected="403 from RBAC" if denied else f"{expected}" if expected else "refused without a response",
        seen=answer.detail,
    )


def counted_evidence(counts: Mapping[Hop, HopCount], *, requests: Mapping[Hop, int], errors: int) -> Iterable[Evidence]:
    """Prove that both proxies of each hop counted their part of the load, `requests`; the callee's counts that of all
    its callers. Failed requests may have been retried or closed on the path."""
    slack = 2 * errors
    for hop, count in counts.items():
        reached = sum(number for other, number in requests.items() if other.callee == hop.callee)
        pairs = [(count.caller_side, requests[hop]), (count.callee_side, reached)]
        yield Evidence(
            name="requests counted",
            subject=str(hop),
            ok=any(requests.values()) and all(seen is None or abs(seen - wanted) <= slack for seen, wanted in pairs),
            expected=_format_counts(requests[hop], reached) if count.caller_side is not None else f"{reached}",
            seen=count.format(hop),
        )


def agreement_evidence(
    sent: Mapping[str, int], received: Mapping[str, int], *, load: tuple[str, int] | None, errors: int
) -> Evidence:
    """Prove that callees counted as many requests as their callers sent, where the application's calls are not known.

    `sent` are the callers' counts, `received` the callees'; `load` is who sends the load, and how many requests it has.
    """
    pairs = [(sum(sent.values()), sum(received.values())), *([(sent[load[0]], load[1])] if load else ())]
    counts = [
        *(f"{count} by {caller}'s proxy" for caller, count in sent.items()),
        *(f"{count} by {callee}'s" for callee, count in received.items()),
    ]
    return Evidence(
        name="requests counted",
        subject=f"{', '.join(sent)} -> {', '.join(received)}",
        ok=all(abs(one - other) <= 2 * errors for one, other in pairs),
        expected="as many on both sides" + (f", {load[1]} of {load[0]}" if load else ""),
        seen=", ".join(counts),
    )


def _format_counts(sent: int, reached: int) -> str:
    return f"{sent} on both sides" if sent == reached else f"{sent} of the {reached} from all callers"


def protocol_evidence(hop: Hop, connections: Mapping[str, int], *, http: str) -> Evidence:
    """Prove that the caller's sidecar uses the mesh's version of HTTP to the callee's, and no other.

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
    """Prove that the connections of the load all had a certificate and the sidecars' version of TLS, as the callee's
    sidecar counted them. Connections of probes may have a newer version.

    `stats` are the listener's `ssl.*` counters.
    """
    versions = {name.rpartition("ssl.versions.")[2]: n for name, n in stats.items() if "ssl.versions." in name and n}
    ciphers = [name.rpartition("ssl.ciphers.")[2] for name, n in stats.items() if "ssl.ciphers." in name and n]
    curves = [name.rpartition("ssl.curves.")[2] for name, n in stats.items() if "ssl.curves." in name and n]
    counts = [f"{name} x{count}" for name, count in sorted(versions.items())]
    return Evidence(
        name="handshakes",
        subject=callee,
        ok=tls in versions and min(versions) == tls,
        expected="TLSv1.3 only" if tls == _NEWEST else _or_newer(tls),
        seen=", ".join([*counts, *sorted(ciphers), *sorted(curves)]) or "no handshake",
    )


def unlabelled_evidence(namespace: str, labels: Sequence[str]) -> Evidence:
    """Prove that the namespace requests no sidecars; `labels` are those that would request them."""
    return _expect_none("no injection label", namespace, labels, expected="no label that requests sidecars")


def unhooked_evidence(namespace: str, webhooks: Sequence[str]) -> Evidence:
    """Prove that no mesh changes pods of the namespace; `webhooks` are those that would."""
    return _expect_none("no mesh webhook", namespace, webhooks, expected="no webhook of a mesh for its pods")


def sidecars_evidence(sidecar: str, without: Sequence[str], *, pods: int) -> Evidence:
    """Prove that each of `pods` pods has its sidecar, which is ready; `without` lists those that do not."""
    return Evidence(
        name="sidecars",
        subject="all pods",
        ok=pods > 0 and not without,
        expected=f"{sidecar} in every pod, ready",
        seen=", ".join(without) or f"{sidecar} in {pods} of {pods} pods",
    )


def restarts_evidence(restarts: Sequence[str]) -> Evidence:
    """Prove that no container has restarted; `restarts` lists those that have."""
    return _expect_none("no restarts", "all pods", restarts, expected="no container that restarted")


def synced_evidence(unsynced: str) -> Evidence:
    """Prove that every sidecar has acknowledged the newest configuration; `unsynced` lists those that have not."""
    return _expect_none(
        "synced", "all sidecars", [unsynced] if unsynced else [], expected="all have the newest configuration"
    )


def identity_evidence(workload: str, *, names: Sequence[str], expected: str) -> Evidence:
    """Prove that a sidecar's certificate has the SPIFFE id of its workload's account. It may have other names, too."""
    return Evidence(
        name="identity",
        subject=workload,
        ok=expected in names,
        expected=expected,
        seen=", ".join(names) or "no certificate",
    )


def certificate_required_evidence(callee: str, answer: Answer) -> Evidence:
    """Prove that TLS without a certificate gets no response: the callee's sidecar requires one."""
    return Evidence(
        name="certificate required",
        subject=callee,
        ok=answer.status == 0,
        expected="no response to TLS without a certificate",
        seen=answer.detail,
    )


def _or_newer(tls: str) -> str:
    return tls if tls == _NEWEST else f"{tls} or newer"


def _expect_none(name: str, subject: str, found: Sequence[str], *, expected: str) -> Evidence:
    return Evidence(name=name, subject=subject, ok=not found, expected=expected, seen=", ".join(found) or "none")
