"""Make evidence that a deployment is the configuration of its name. Pure: observations in, facts out.

Why it is needed: an application may respond with 200 while its back ends are down, a policy that selects nothing
changes nothing, and a deployment without sidecars is the fastest mesh.
"""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal

from bench.application.definition import ApplicationDefinition
from bench.application.model import Hop
from bench.meshes import MESHES
from bench.meshes.probe import Probe
from bench.meshes.protocols import DataPlane
from bench.meshes.user_groups import UserGroup
from bench.results.records import Evidence
from bench.verification.prober import State, Topic
from bench.verification.questions import Answer, Handshake

_NEWEST = "TLSv1.3"
_REFUSED = "refused without a response"


def _fact(
    name: str,
    subject: object,
    *,
    ok: bool,
    expected: str,
    seen: str,
    about: Literal["responses", "configuration"] = "configuration",
) -> Evidence:
    return Evidence(name=name, subject=str(subject), ok=ok, expected=expected, seen=seen, about=about)


# --- what a target reports ------------------------------------------------------------------------------------


def state_evidence(state: State, omitted: Container[Topic], *, meshed: bool) -> Iterator[Evidence]:
    """Prove what a target reports of a deployment, without the topics that do not apply to it: no mesh that the trial
    does not measure, no restart; without a mesh nothing that requests or is a sidecar, in a mesh a ready sidecar in
    every pod, which has acknowledged the newest configuration."""
    absent = "not on the cluster"
    for mesh, found in state.others.items():
        yield _fact("no control plane", mesh, ok=not found, expected=absent, seen=found or absent)
    if not meshed:
        if Topic.NAMESPACE not in omitted:
            name = state.namespace
            yield _expect_none("no injection label", name, state.labels, "no label that requests sidecars")
            yield _expect_none("no mesh webhook", name, state.webhooks, "no webhook of a mesh for its pods")
        none = "no sidecar process"
        seen = ", ".join(state.running) or none
        yield _fact("no sidecar", "application", ok=not state.running, expected=none, seen=seen)
    if Topic.PODS not in omitted:
        if meshed:
            ok, expected = state.pods > 0 and not state.missing, f"{state.sidecar} in every pod, ready"
            seen = ", ".join(state.missing) or f"{state.sidecar} in {state.pods} of {state.pods} pods"
            yield _fact("sidecars", "all pods", ok=ok, expected=expected, seen=seen)
        if state.image:
            yield _expect_none(
                "sidecar image", "pods under load", state.other_images, f"no other image than {state.image}"
            )
        yield _expect_none("no restarts", "all pods", state.restarts, "no container that restarted")
    if meshed and state.askable and Topic.SYNCED not in omitted:
        unsynced = (state.unsynced,) if state.unsynced else ()
        yield _expect_none("synced", "all sidecars", unsynced, "all have the newest configuration")


def _expect_none(name: str, subject: str, found: Sequence[str], expected: str) -> Evidence:
    return _fact(name, subject, ok=not found, expected=expected, seen=", ".join(found) or "none")


def identity_evidence(workload: str, *, names: Sequence[str], expected: str) -> Evidence:
    """Prove that a sidecar's certificate has the SPIFFE id of its workload's account. It may have other names, too."""
    seen = ", ".join(names) or "no certificate"
    return _fact("identity", workload, ok=expected in names, expected=expected, seen=seen)


# --- answers to requests --------------------------------------------------------------------------------------


def page_evidence(definition: ApplicationDefinition, group: UserGroup, answer: Answer) -> Evidence:
    """Prove that the page is complete, as users will request it."""
    complete, problem = "a complete page", answer.find_problem(definition, group.versions)
    entry, seen = definition.entry_service, problem or complete
    return _fact("page", entry, ok=problem is None, expected=complete, seen=seen, about="responses")


def token_evidence(definition: ApplicationDefinition, proxy: DataPlane, answer: Answer) -> Evidence:
    """Prove that a page without a token is denied by the proxy: only the load brings one."""
    denied = answer.status == HTTPStatus.FORBIDDEN and proxy.denial.encode() in answer.body
    expected = f"403 from {proxy.denial or proxy.title} without a token"
    return _fact("page", definition.entry_service, ok=denied, expected=expected, seen=answer.detail, about="responses")


def response_evidence(entry: str, answer: Answer) -> Evidence:
    """Note the response to a user where objects that meshbench does not translate may decide about it."""
    return _fact("page", entry, ok=answer.status > 0, expected="any response", seen=answer.detail, about="responses")


def applied_evidence(subject: str, detail: str, counted: Mapping[str, int]) -> Evidence:
    """Note an object that the control plane has accepted, and that no request proves, with what the filters of all
    proxies counted during the load."""
    moved = ", ".join(f"{name} {number}" for name, number in sorted(counted.items()))
    seen = f"{detail}; the proxies counted {moved}" if moved else detail
    return _fact("applied", subject, ok=True, expected="accepted by the control plane", seen=seen)


def entered_evidence(entry: Hop, counted: int, *, sent: int, errors: int) -> Evidence:
    """Prove that the first proxy on the path counted a load of `sent` requests, of which it may have answered those
    with an error itself."""
    seen, expected = f"{counted} requests", f"at least {sent - errors} requests"
    return _fact("load entered", entry, ok=counted >= sent - errors, expected=expected, seen=seen)


def pages_evidence(
    definition: ApplicationDefinition, group: UserGroup, answers: Sequence[Answer], *, count: int
) -> Evidence:
    """Prove that each of `count` pages shows the versions of this user group."""
    problems = [problem for answer in answers if (problem := answer.find_problem(definition, group.versions))]
    right = len(answers) - len(problems)
    return _fact(
        "pages",
        group.request,
        ok=right == count and not problems,
        expected=f"{count} of {count} with {group.title}",
        seen=f"{right} of {count} with {group.title}" + (f"; {problems[0]}" if problems else ""),
        about="responses",
    )


def no_proxy_evidence(hop: Hop, status: int | None, answer: Answer) -> Evidence:
    """Prove that the callee itself responds at the address that the caller uses, without a trace of a proxy, and with
    the application's own `status`, or any where it is not known."""
    server = answer.headers.get("server", "")
    planes = [mesh.data_plane for mesh in MESHES.values()]
    named = any(name in server for plane in planes for name in plane.servers)
    vendors = tuple("-".join(plane.upstream_header.split("-")[:2]) for plane in planes)  # as `x-envoy`
    proxied = named or any(name.startswith(vendors) for name in answer.headers)
    ok = _has_status(answer, status) and not proxied
    seen = f"{answer.status} from {server or 'an unnamed server'}{' through a proxy' if proxied else ''}"
    return _fact("no proxy", hop, ok=ok, expected=f"{status or 'a response'} from the service itself", seen=seen)


def _has_status(answer: Answer, status: int | None) -> bool:
    """Return whether an answer has the application's own status, or any where that is not known."""
    return answer.status != 0 if status is None else answer.status == status


def proxied_evidence(hop: Hop, status: int | None, proxy: DataPlane, answer: Answer) -> Evidence:
    """Prove that a request on the caller's own path passes a proxy, and gets the application's own `status`, or any
    where it is not known."""
    server = answer.headers.get("server", "no server header")
    ok = _has_status(answer, status) and any(name in server for name in proxy.servers)
    expected, seen = f"{status or 'a response'} through {proxy.title}", f"{answer.status} through {server}"
    return _fact("through sidecars", hop, ok=ok, expected=expected, seen=seen, about="responses")


def mtls_evidence(
    hop: Hop, expected: tuple[str, str], answer: Answer, *, tls: str = _NEWEST, own: Sequence[str] = ()
) -> Evidence:
    """Prove that a connection to the callee's sidecar has `tls` or newer, and the `expected` SPIFFE ids on both sides.

    `own` are the names in the certificate of the caller's sidecar, where the request had not the certificate itself.
    """
    agreed = answer.handshake or Handshake("", "", "", "")
    # of several names the wanted one, else the first, which shows what is wrong
    caller = agreed.own or (expected[0] if expected[0] in own else next(iter(own), ""))
    return _fact(
        "mutual TLS",
        hop,
        ok=agreed.version >= tls and (caller, agreed.peer) == expected,
        expected=f"{_or_newer(tls)}, {expected[0]} to {expected[1]}",
        seen=f"{agreed.version or 'no TLS'}, {agreed.cipher or 'no cipher'}, "
        f"{caller or 'no identity'} to {agreed.peer or 'no identity'}",
    )


def certificate_required_evidence(callee: str, answer: Answer) -> Evidence:
    """Prove that TLS without a certificate gets no response: the callee's sidecar requires one."""
    expected = "no response to TLS without a certificate"
    return _fact("certificate required", callee, ok=answer.status == 0, expected=expected, seen=answer.detail)


def plaintext_evidence(callee: str, status: int, answer: Answer) -> Evidence:
    """Prove that plaintext to a sidecar's inbound port gets the application's own `status`, is denied (403), or is
    refused (0) where only mutual TLS is accepted."""
    expected = {0: _REFUSED, HTTPStatus.FORBIDDEN: "denied with 403"}.get(status, "accepted")
    ok = answer.status == status
    return _fact("plaintext", callee, ok=ok, expected=expected, seen=answer.detail)


def policy_evidence(probe: Probe, proxy: DataPlane, answer: Answer, *, is_known: bool = True) -> Evidence:
    """Prove that the policies allow a request (the application's own status, if that is known), deny it (403, from the
    proxy) or refuse it (0)."""
    denied, sender = probe.status == HTTPStatus.FORBIDDEN, proxy.denial or proxy.title
    if probe.status and not denied and not is_known:
        return _allowed_evidence(probe, proxy, answer)
    return _fact(
        f"policy {probe.policy}",
        f"{probe.method} {probe.path} at {probe.workload} as {probe.caller or 'no identity, in plaintext'}",
        ok=answer.status == probe.status and (proxy.denial.encode() in answer.body or not denied),
        expected=f"403 from {sender}" if denied else f"{probe.status}" if probe.status else _REFUSED,
        seen=answer.detail,
    )


def _allowed_evidence(probe: Probe, proxy: DataPlane, answer: Answer) -> Evidence:
    """Prove that the policies allow a request to which the application's own answer is not known."""
    is_denial = answer.status == HTTPStatus.FORBIDDEN and proxy.denial.encode() in answer.body
    return _fact(
        f"policy {probe.policy}",
        f"{probe.method} {probe.path} at {probe.workload} as {probe.caller or 'no identity, in plaintext'}",
        ok=answer.status != 0 and not is_denial,
        expected="any response but a denial",
        seen=answer.detail,
    )


def expected_evidence(subject: str, status: int, answer: Answer) -> Evidence:
    """Prove that a request of the scenario's own gets the status that it expects; 0 for a closed connection."""
    expected = str(status) if status else _REFUSED
    return _fact("probe", subject, ok=answer.status == status, expected=expected, seen=answer.detail)


def routed_evidence(path: str, proxy: DataPlane, answer: Answer) -> Evidence:
    """Prove that a service responds on a path that has a route of the gateway."""
    ok, seen = proxy.upstream_header in answer.headers, _format_source(proxy, answer)
    return _fact("route", path, ok=ok, expected="a response from a service", seen=seen, about="responses")


def unrouted_evidence(path: str, proxy: DataPlane, answer: Answer) -> Evidence:
    """Prove that the gateway itself responds on a path without a route, and forwards it to no service."""
    ok = answer.status == HTTPStatus.NOT_FOUND and proxy.upstream_header not in answer.headers
    return _fact("no route", path, ok=ok, expected="404 from the gateway itself", seen=_format_source(proxy, answer))


def _format_source(proxy: DataPlane, answer: Answer) -> str:
    return f"{answer.status} from {'a service' if proxy.upstream_header in answer.headers else 'the gateway itself'}"


# --- counters of a load ---------------------------------------------------------------------------------------


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


def counted_evidence(
    counts: Mapping[Hop, HopCount], *, requests: Mapping[Hop, int], errors: int, at_least: bool = False
) -> Iterable[Evidence]:
    """Prove that both proxies of each hop counted their part of the load, `requests`, or `at_least` that; the callee's
    counts that of all its callers. Failed requests may have been retried or closed on the path."""
    slack = 2 * errors
    for hop, count in counts.items():
        reached = sum(number for other, number in requests.items() if other.callee == hop.callee)
        pairs = [(count.caller_side, requests[hop]), (count.callee_side, reached)]
        ok = any(requests.values()) and all(
            seen is None or _is_counted(seen, wanted, slack, at_least=at_least) for seen, wanted in pairs
        )
        expected = _format_counts(requests[hop], reached) if count.caller_side is not None else f"{reached}"
        expected = f"at least {expected}" if at_least else expected
        yield _fact("requests counted", hop, ok=ok, expected=expected, seen=count.format(hop))


def _is_counted(seen: int, wanted: int, slack: int, *, at_least: bool) -> bool:
    """Return whether proxies saw as many requests as were recorded; a client that follows redirects sends more."""
    return seen >= wanted - slack if at_least else abs(seen - wanted) <= slack


def _format_counts(sent: int, reached: int) -> str:
    return f"{sent} on both sides" if sent == reached else f"{sent} of the {reached} from all callers"


def agreement_evidence(
    sent: Mapping[str, int],
    received: Mapping[str, int],
    *,
    load: tuple[str, int] | None,
    errors: int,
    at_least: bool = False,
) -> Evidence:
    """Prove that callees counted as many requests as their callers sent, where the application's calls are not known.

    `sent` are the callers' counts, `received` the callees'; `load` is who sends the load, and how many requests it has,
    or has `at_least`.
    """
    slack = 2 * errors
    is_loaded = load is None or _is_counted(sent[load[0]], load[1], slack, at_least=at_least)
    least = "at least " if at_least else ""
    counts = [
        *(f"{count} by {caller}'s proxy" for caller, count in sent.items()),
        *(f"{count} by {callee}'s" for callee, count in received.items()),
    ]
    return _fact(
        "requests counted",
        f"{', '.join(sent)} -> {', '.join(received)}",
        ok=is_loaded and abs(sum(sent.values()) - sum(received.values())) <= slack,
        expected="as many on both sides" + (f", {least}{load[1]} of {load[0]}" if load else ""),
        seen=", ".join(counts),
    )


def protocol_evidence(hop: Hop, connections: Mapping[str, int], *, http: str) -> Evidence:
    """Prove that the caller's sidecar uses the mesh's version of HTTP to the callee's, and no other.

    `connections` were opened by the caller's sidecar, by version (`HTTP/1.1`, `HTTP/2`).
    """
    counts = [f"{version} x{count}" for version, count in sorted(connections.items()) if count]
    ok, seen = connections.get(http, 0) > 0 and len(counts) == 1, ", ".join(counts) or "no connection"
    return _fact("protocol between sidecars", hop, ok=ok, expected=f"{http} only", seen=seen)


def handshakes_evidence(callee: str, stats: Mapping[str, int], *, tls: str = _NEWEST) -> Evidence:
    """Prove that the connections of the load all had a certificate and the sidecars' version of TLS, as the callee's
    sidecar counted them. Connections of probes may have a newer version.

    `stats` are the listener's `ssl.*` counters.
    """
    versions, ciphers, curves = (
        {name.rpartition(f"ssl.{kind}.")[2]: n for name, n in stats.items() if f"ssl.{kind}." in name and n}
        for kind in ("versions", "ciphers", "curves")
    )
    counts = [f"{name} x{count}" for name, count in sorted(versions.items())]
    ok, expected = tls in versions and min(versions) == tls, f"{tls} only" if tls == _NEWEST else _or_newer(tls)
    seen = ", ".join([*counts, *sorted(ciphers), *sorted(curves)]) or "no handshake"
    return _fact("handshakes", callee, ok=ok, expected=expected, seen=seen)


def _or_newer(tls: str) -> str:
    return tls if tls == _NEWEST else f"{tls} or newer"
