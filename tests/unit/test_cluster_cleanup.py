"""Which objects are removed from a cluster, in which order, and which are not."""

import signal
import time
from dataclasses import replace
from itertools import count
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import ClusterError, ErrorKind, LeftoversError
from bench.k8s.client import Object, Ref, ref_of
from bench.k8s.connection import KindInfo
from bench.k8s.ownership import run_of
from bench.meshes.cluster_protocol import ControlPlane
from bench.system.cancellation import CancelToken
from bench.targets.cluster.teardown.blockers import explain_leftovers
from bench.targets.cluster.teardown.cleanup import CleanupResult, clean_cluster
from bench.targets.cluster.teardown.stages import is_custom, make_run_object
from tests.fake_cluster import EXTENSIONS, WEBHOOK, FakeCluster, make_object, make_webhook

RUN, OTHER = "20261123T031500Z-mine-7f3a", "20261123T041500Z-theirs-0b1c"
KUMA = "kuma.io/v1alpha1"
CONTROL_PLANE = ("kuma-system", "kuma-control-plane")
ROLES = "rbac.authorization.k8s.io/v1"
ROOT_CERT = make_object("v1", "ConfigMap", "made-by-mesh", namespace="default")


def _own_leftovers(cluster: FakeCluster, *, since: str) -> tuple[Object, ...]:
    made = cluster.list("v1", "ConfigMap")
    return tuple(one for one in made if ref_of(one) == ref_of(ROOT_CERT) and created_at(one) >= since)


def created_at(one: Object) -> str:
    return str(one["metadata"].get("creationTimestamp", ""))


# A mesh that makes one object by itself.
PLANES = cast("dict[str, ControlPlane]", {"kuma": SimpleNamespace(find_leftovers=_own_leftovers)})


def _definition(kind: str, run: str) -> Object:
    spec = {"group": "kuma.io", "names": {"kind": kind}, "versions": [{"name": "v1alpha1", "served": True}]}
    return make_object(EXTENSIONS, "CustomResourceDefinition", kind.lower(), run=run, component="kuma", spec=spec)


def _run(run: str = RUN) -> tuple[Object, ...]:
    """All that a run with Kuma makes, and what Kuma makes beside it."""
    app, system = f"bookinfo-{run[-4:]}", CONTROL_PLANE[0]
    return (
        make_object("v1", "Namespace", app, run=run, component="namespace"),
        make_object("v1", "Pod", "details", namespace=app, run=run, component="application"),
        make_object("apps/v1", "Deployment", "details", namespace=app, run=run, component="application"),
        make_object(KUMA, "Dataplane", "details", namespace=app),
        make_object(KUMA, "Mesh", "bench", run=run, component="policy"),
        make_object(KUMA, "MeshIdentity", "identity", namespace=system, run=run, component="policy"),
        make_webhook("kuma-validating", CONTROL_PLANE, run=run, component="kuma"),
        make_object("v1", "Namespace", system, run=run, component="kuma"),
        make_object("v1", "Service", CONTROL_PLANE[1], namespace=system, run=run, component="kuma"),
        make_object(ROLES, "ClusterRole", "kuma", run=run, component="kuma"),
        _definition("Mesh", run),
        _definition("MeshIdentity", run),
        _definition("Dataplane", run),
        ROOT_CERT,
    )


def _foreign() -> tuple[Object, ...]:
    """What others have on the cluster, some of it with names or labels like ours."""
    return (
        make_object("v1", "Namespace", "default"),
        make_object("v1", "Namespace", "meshbench-0000"),
        make_object("v1", "Pod", "details", namespace="meshbench-0000"),
        make_object("v1", "Namespace", "bookinfo-0b1c", run=OTHER, component="namespace"),
        make_object(ROLES, "ClusterRole", "istio-reader"),
        make_object("v1", "ConfigMap", "settings", namespace="default"),
    )


def _cluster(*things: Object) -> FakeCluster:
    """A cluster with leftovers; its clock advances by a millisecond at each reading, and not otherwise."""
    fake, looks = FakeCluster(alive={CONTROL_PLANE}), count()
    fake.timing = replace(fake.timing, clock=lambda: next(looks) / 1000)
    fake.add(things)
    return fake


def _clean(fake: FakeCluster, *, wait_s: float = 5.0) -> None:
    _cleaned(fake, wait_s=wait_s)


def _cleaned(fake: FakeCluster, *, watch: CancelToken | None = None, wait_s: float = 5.0) -> CleanupResult:
    return clean_cluster(fake.cluster, RUN, watch=watch or CancelToken(), wait_s=wait_s, planes=PLANES)


def _first(fake: FakeCluster, kind: str) -> int:
    return next(index for index, (ref, _grace) in enumerate(fake.log) if ref.kind == kind)


def test_removes_everything_of_a_run_and_nothing_else() -> None:
    """Namespaces, policies, webhooks, the control plane, its kinds, and what the mesh created."""
    fake = _cluster(*_run(), *_foreign())
    _clean(fake)
    assert set(fake.things) == {ref_of(one) for one in _foreign()}


def test_removes_in_order_of_dependency() -> None:
    """Application, policies, webhooks, control plane, what it created, kinds."""
    fake = _cluster(*_run())
    _clean(fake)
    order = ["Pod", "Mesh", WEBHOOK, "ClusterRole", "ConfigMap", "CustomResourceDefinition"]
    assert [_first(fake, kind) for kind in order] == sorted(_first(fake, kind) for kind in order)


def test_second_cleanup_finds_nothing() -> None:
    """An object that no longer exists counts as removed."""
    fake = _cluster(*_run())
    _clean(fake)
    fake.log.clear()
    assert _cleaned(fake).removed == ()
    assert fake.log == []


@given(st.data())
def test_removes_leftovers_from_any_state(data: st.DataObject) -> None:
    """Whatever is missing: a control plane that never started or was deleted, a webhook that was left, a terminating
    namespace."""
    everything = _run()
    fake = _cluster(*(one for one in everything if one is not ROOT_CERT and data.draw(st.booleans())))
    _keep_possible(fake)
    if data.draw(st.booleans()):
        fake.alive.clear()
    for ref, one in fake.things.items():
        if ref.kind == "Namespace" and data.draw(st.booleans()):
            one["metadata"]["deletionTimestamp"] = "2026-11-23T03:15:00Z"
    fake.add(_foreign())
    _clean(fake)
    assert {ref for ref, one in fake.things.items() if run_of(one) == RUN} == set()
    assert {ref_of(one) for one in _foreign()} <= set(fake.things)


def _keep_possible(fake: FakeCluster) -> None:
    """No object without its namespace, no custom resource without its kind, no answer without its service."""
    namespaces = {ref.name for ref in fake.things if ref.kind == "Namespace"}
    kinds = {one["spec"]["names"]["kind"] for one in fake.things.values() if "spec" in one}
    for ref in list(fake.things):
        if (ref.namespace and ref.namespace not in namespaces) or (
            is_custom(ref.api_version) and ref.kind not in kinds
        ):
            del fake.things[ref]
    if Ref("v1", "Service", CONTROL_PLANE[1], CONTROL_PLANE[0]) not in fake.things:
        fake.alive.clear()


def test_removes_dangling_webhook_first() -> None:
    """It would refuse to delete the policies, and block the application's namespace."""
    fake = _cluster(*_run())
    fake.alive.clear()
    _clean(fake)
    assert _first(fake, WEBHOOK) < min(_first(fake, "Pod"), _first(fake, "Mesh"))


def test_keeps_live_webhook_until_policies_are_deleted() -> None:
    """It refuses to delete the mesh while sidecars are attached; a retry is enough."""
    fake = _cluster(*_run())
    _clean(fake)
    assert _first(fake, "Mesh") < _first(fake, WEBHOOK)


def test_reports_foreign_dangling_webhook() -> None:
    """The webhook of another owner is reported and never removed."""
    fake = _cluster(*(one for one in _run() if one["apiVersion"] != KUMA), make_webhook("theirs", ("gone", "service")))
    cleaned = _cleaned(fake)
    assert [str(one.found.ref) for one in cleaned.foreign] == [f"{WEBHOOK} theirs"]
    assert "kubectl --context fake delete validatingwebhookconfiguration theirs" in cleaned.foreign[0].describe("fake")


def test_keeps_dangling_webhook_of_another_run() -> None:
    """The cleanup of that run removes it."""
    theirs = make_webhook("theirs", ("gone", "service"), run=OTHER, component="kuma")
    fake = _cluster(*_run()[:3], *_run()[4:5], theirs)
    with pytest.raises(LeftoversError, match=r"Mesh bench: its deletion was refused: .*failed calling webhook"):
        _clean(fake, wait_s=0.05)
    assert ref_of(theirs) in fake.things


def test_webhook_to_own_namespace_is_a_leftover() -> None:
    """A control plane may create webhooks without labels: the run is not clean, and the command is printed."""
    fake = _cluster(*(one for one in _run() if one["apiVersion"] != KUMA), make_webhook("by-itself", CONTROL_PLANE))
    with pytest.raises(LeftoversError, match="kubectl --context fake delete validatingwebhookconfiguration by-itself"):
        _clean(fake)


def test_keeps_objects_of_a_mesh_that_was_not_installed() -> None:
    """Nothing on the cluster shows that the control plane belonged to this run."""
    fake = _cluster(*_run()[:3], ROOT_CERT)
    _clean(fake)
    assert set(fake.things) == {ref_of(ROOT_CERT)}


def test_removes_mesh_objects_before_their_kinds() -> None:
    """A cleanup that is killed in between still recognises the mesh afterwards."""
    fake = _cluster(_definition("Mesh", RUN), ROOT_CERT)
    _clean(fake)
    assert _first(fake, "ConfigMap") < _first(fake, "CustomResourceDefinition")


def test_kinds_wait_for_mesh_objects() -> None:
    """Without the kinds a later cleanup could not recognise the objects of the mesh."""
    slow = make_object("v1", "ConfigMap", ROOT_CERT["metadata"]["name"], namespace="default")
    slow["metadata"]["finalizers"] = ["example.com/slow"]
    fake = _cluster(_definition("Mesh", RUN), slow)
    with pytest.raises(LeftoversError, match=r"ConfigMap default/made-by-mesh waits for example\.com/slow"):
        _clean(fake, wait_s=0.05)
    assert {ref.kind for ref in fake.things} == {"ConfigMap", "CustomResourceDefinition"}


def test_keeps_what_was_there_before_the_mesh() -> None:
    """An object with the name of one that the control plane makes has another owner if it is older."""
    older = {**ROOT_CERT, "metadata": {**ROOT_CERT["metadata"], "creationTimestamp": "2026-11-23T03:14:59Z"}}
    kind = _definition("Mesh", RUN)
    kind["metadata"]["creationTimestamp"] = "2026-11-23T03:15:00Z"
    fake = _cluster(kind, older)
    _clean(fake)
    assert fake.things == {ref_of(older): older}


def test_keeps_kind_with_objects_of_others() -> None:
    """They would be deleted with it: it is reported with the command, and everything else is removed."""
    theirs = make_object(KUMA, "Mesh", "team")
    fake = _cluster(*_run(), theirs)
    with pytest.raises(LeftoversError) as raised:
        _clean(fake)
    assert [str(ref) for ref in fake.things] == ["CustomResourceDefinition mesh", "Mesh team"]
    lines = str(raised.value).splitlines()
    assert lines[1:3] == [
        "  CustomResourceDefinition mesh: Mesh team",
        "    to delete all of them with it: kubectl --context fake delete customresourcedefinition mesh",
    ]
    del fake.things[ref_of(theirs)]
    _clean(fake)
    assert fake.things == {}


@pytest.mark.parametrize("run", [OTHER, ""])
def test_deletes_only_the_object_that_was_listed(run: str) -> None:
    """Another user may create one of that name between the list and the request."""
    fake, listed = _cluster(*_run()), Ref("v1", "Namespace", "bookinfo-7f3a")
    theirs = make_object("v1", "Namespace", listed.name, run=run)

    def recreate(ref: Ref) -> None:
        if ref == listed:
            fake.before_delete = lambda _: None
            fake.things = {other: one for other, one in fake.things.items() if other.namespace != listed.name}
            fake.things[listed] = theirs

    fake.before_delete = recreate
    _clean(fake)
    assert fake.things == {listed: theirs}


def test_shortens_grace_period_of_pods_only() -> None:
    """Pods no longer serve requests, and would otherwise take half a minute to drain."""
    fake = _cluster(*_run())
    _clean(fake)
    assert {ref.kind for ref, grace_s in fake.log if grace_s == 1} == {"Pod"}
    assert {grace_s for ref, grace_s in fake.log if ref.kind != "Pod"} == {None}


def test_keeps_the_lock() -> None:
    """The holder of the lock releases it when everything else is removed."""
    lock = make_object(
        "coordination.k8s.io/v1", "Lease", "meshbench", namespace="meshbench-lock", run=RUN, component="lock"
    )
    fake = _cluster(*_run(), lock)
    _clean(fake)
    assert [one.kind for one in fake.things] == ["Lease"]


def _hold(one: Object) -> Object:
    one["metadata"] |= {"finalizers": ["example.com/hold"], "deletionTimestamp": "2026-11-23T03:15:00Z"}
    return one


def test_reports_finalizer_without_stripping_it() -> None:
    """What blocks the namespace is reported with a command; the mesh is removed all the same."""
    held = _hold(make_object("v1", "ConfigMap", "held", namespace="bookinfo-7f3a", run=RUN))
    fake = _cluster(held, *_run())
    with pytest.raises(LeftoversError) as raised:
        _clean(fake, wait_s=0.05)
    message = str(raised.value)
    assert "ConfigMap bookinfo-7f3a/held waits for example.com/hold" in message
    assert "kubectl --context fake -n bookinfo-7f3a patch configmap held" in message
    assert message.endswith(f"meshbench cleanup --context fake --run-id {RUN}")
    assert held["metadata"]["finalizers"] == ["example.com/hold"]
    assert {ref.kind for ref in fake.things} == {"Namespace", "ConfigMap", "CustomResourceDefinition"}


def test_reports_leftovers_without_an_api_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminating namespace that cannot be examined is reported as last seen."""
    fake = _cluster(_hold(make_object("v1", "ConfigMap", "held", namespace="bookinfo-7f3a", run=RUN)), *_run())
    kinds, asked = fake.kinds, count()

    def kinds_once() -> tuple[KindInfo, ...]:
        fake.down = 10**9 if next(asked) else 0
        return kinds()

    monkeypatch.setattr(fake, "kinds", kinds_once)
    with pytest.raises(LeftoversError, match="Namespace bookinfo-7f3a: being deleted") as raised:
        _clean(fake, wait_s=0.5)
    assert str(raised.value).endswith(f"meshbench cleanup --context fake --run-id {RUN}")


@pytest.mark.parametrize("answers", [0, 1, 3], ids=["at once", "before the first list", "between two lists"])
def test_does_not_request_details_without_an_api_server(answers: int) -> None:
    """Each request is retried for seconds before it fails; what is known is reported without more requests."""
    places = [_hold(make_object("v1", "Namespace", name, run=RUN)) for name in ("bookinfo-7f3a", "kuma-system")]
    inside = [
        make_object("v1", kind, "one", namespace="bookinfo-7f3a", run=RUN) for kind in ("Pod", "Service", "Secret")
    ]
    fake = _cluster(*places, *inside)
    fake.answers = answers
    lines = explain_leftovers(fake.cluster, map(make_run_object, places), {})
    assert [line.partition(":")[0] for line in lines] == ["  Namespace bookinfo-7f3a", "  Namespace kuma-system"]
    assert fake.answers == -1


def test_remaining_policy_keeps_its_control_plane() -> None:
    """The control plane may have to remove the policy's finalizer."""
    policy = _hold(make_object(KUMA, "MeshIdentity", "held", namespace="bookinfo-7f3a", run=RUN, component="policy"))
    fake = _cluster(policy, *_run())
    with pytest.raises(LeftoversError, match="MeshIdentity bookinfo-7f3a/held waits for"):
        _clean(fake, wait_s=0.5)
    assert {"Mesh", WEBHOOK, "Service", "ClusterRole"} <= {ref.kind for ref in fake.things}


def test_reports_refused_deletion() -> None:
    """A deletion that a role does not allow is reported with its reason and a command."""
    fake = _cluster(make_object(ROLES, "ClusterRole", "kuma", run=RUN, component="kuma"))
    fake.before_delete = _forbid
    with pytest.raises(LeftoversError, match=r"ClusterRole kuma: its deletion was refused: .*cannot delete.*; kubectl"):
        _clean(fake, wait_s=0.05)


def test_unlistable_namespaces_are_an_error() -> None:
    """Finding nothing does not mean that nothing is left, as after permissions were revoked during a run."""
    fake = _cluster(*_run())
    fake.unlisted = frozenset({one["kind"] for one in _run()})
    with pytest.raises(LeftoversError, match=f"it is unknown what is left\n.*--run-id {RUN}$"):
        _clean(fake)


def _forbid(ref: Ref) -> None:
    raise ClusterError(f"deleting {ref}: 403: user cannot delete resource", kind=ErrorKind.FORBIDDEN)


def test_waits_for_an_api_server() -> None:
    """An API server that is away for less than the timeout is no failure."""
    fake = _cluster(*_run())
    fake.down = 7
    _clean(fake)
    assert fake.things == {}


def test_reports_command_when_api_server_stays_away() -> None:
    """The message says what may be left, and names the command for later."""
    fake = _cluster(*_run())
    fake.down = 10**9
    with pytest.raises(LeftoversError, match=rf"no answer from(.|\n)*meshbench cleanup --context fake --run-id {RUN}"):
        _clean(fake, wait_s=0.05)


@pytest.mark.parametrize(
    ("status", "why"), [(401, "answered 401: you may not"), (403, "not be listed any more: .*Pod")]
)
def test_failed_removal_reports_leftovers_and_command(status: int, why: str) -> None:
    """Expired credentials and revoked permissions are permanent, and reported as leftovers."""
    fake = _cluster(*_run())

    def deny(_ref: Ref) -> None:
        fake.denied = status

    fake.before_delete = deny
    with pytest.raises(LeftoversError, match=why) as raised:
        _clean(fake, wait_s=60)
    assert "ClusterRole kuma: not deleted yet; kubectl --context fake delete clusterrole kuma" in str(raised.value)
    assert str(raised.value).endswith(f"meshbench cleanup --context fake --run-id {RUN}")


def test_refusal_before_listing_reports_command() -> None:
    """It is unknown then what is left."""
    fake = _cluster(*_run())
    fake.denied = 401
    with pytest.raises(LeftoversError, match=rf"answered 401(.|\n)*meshbench cleanup --context fake --run-id {RUN}$"):
        _clean(fake, wait_s=60)


def test_unlisted_webhooks_are_an_error() -> None:
    """The run's objects are deleted, but a dangling webhook or API may be left: the command looks for it."""
    fake = _cluster(*_run())
    fake.unlisted = frozenset({"APIService"})
    with pytest.raises(LeftoversError, match=r"was deleted(.|\n)*listing APIService(.|\n)*doctor --context fake$"):
        _clean(fake, wait_s=60)
    assert fake.things == {}


def test_does_not_report_outage_that_ended() -> None:
    """The deletion blocker of the namespace is the reason, not the earlier outage of the API server."""
    fake = _cluster(_hold(make_object("v1", "ConfigMap", "held", namespace="bookinfo-7f3a", run=RUN)), *_run())
    fake.down = 2
    with pytest.raises(LeftoversError, match="waits for") as raised:
        _clean(fake, wait_s=0.5)
    assert "no answer" not in str(raised.value)


def test_second_signal_ends_the_wait_after_first_deletions() -> None:
    """The first deletions are quick; the message has the command for the rest."""
    fake, watch = _cluster(*_run()), CancelToken()
    watch.signals = [2, 2]
    with pytest.raises(LeftoversError, match=r"a second signal(.|\n)*meshbench cleanup --context fake --run-id"):
        _cleaned(fake, watch=watch)
    assert Ref("v1", "Namespace", "bookinfo-7f3a") in {ref for ref, _grace in fake.log}


def test_first_signal_does_not_end_a_cleanup() -> None:
    """Most cleanups begin with a signal."""
    fake, watch = _cluster(*_run()), CancelToken()
    watch.signals = [2]
    _cleaned(fake, watch=watch)
    assert fake.things == {}


def test_sigterm_leaves_little_time() -> None:
    """SIGKILL follows SIGTERM within ten seconds, so leftovers are reported before, also if SIGTERM comes later."""
    held = _hold(make_object("v1", "ConfigMap", "held", namespace="bookinfo-7f3a", run=RUN))
    fake, watch = _cluster(held, *_run()), CancelToken()
    fake.timing = replace(fake.timing, haste_s=0.05, clock=time.monotonic)  # on which signals are noted

    def interrupt(_ref: Ref) -> None:
        if not watch.signals:
            watch.note(signal.SIGTERM, None)

    fake.before_delete = interrupt
    with pytest.raises(LeftoversError, match="not everything was deleted in time"):
        _cleaned(fake, watch=watch, wait_s=60)
