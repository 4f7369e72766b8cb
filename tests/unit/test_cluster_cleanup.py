"""What is removed from a cluster, in which order, and what is left alone."""

import signal
import time
from dataclasses import replace
from itertools import count
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import ClusterError, LeftoversError
from bench.k8s.client import Object, Ref, ref_of
from bench.k8s.connection import KindInfo
from bench.k8s.ownership import run_of
from bench.meshes.protocols import ControlPlane
from bench.system.cancellation import Watch
from bench.targets.cluster.teardown.blockers import explain
from bench.targets.cluster.teardown.cleanup import Cleaned, clean_cluster
from bench.targets.cluster.teardown.stages import found, is_custom
from tests.fake_cluster import EXTENSIONS, WEBHOOK, FakeCluster, thing, webhook

RUN, OTHER = "20261123T031500Z-mine-7f3a", "20261123T041500Z-theirs-0b1c"
KUMA = "kuma.io/v1alpha1"
CONTROL_PLANE = ("kuma-system", "kuma-control-plane")
ROLES = "rbac.authorization.k8s.io/v1"
ROOT_CERT = thing("v1", "ConfigMap", "made-by-mesh", namespace="default")


def _own_leftovers(cluster: FakeCluster) -> tuple[Ref, ...]:
    return tuple(ref for ref in cluster.things if ref == ref_of(ROOT_CERT))


# A mesh that makes one object by itself.
PLANES = cast("dict[str, ControlPlane]", {"kuma": SimpleNamespace(own_leftovers=_own_leftovers)})


def _definition(kind: str, run: str) -> Object:
    return thing(
        EXTENSIONS, "CustomResourceDefinition", kind.lower(), run=run, component="kuma", spec={"names": {"kind": kind}}
    )


def _run(run: str = RUN) -> tuple[Object, ...]:
    """All that a run with Kuma makes, and what Kuma makes beside it."""
    app, system = f"bookinfo-{run[-4:]}", CONTROL_PLANE[0]
    return (
        thing("v1", "Namespace", app, run=run, component="namespace"),
        thing("v1", "Pod", "details", namespace=app, run=run, component="application"),
        thing("apps/v1", "Deployment", "details", namespace=app, run=run, component="application"),
        thing(KUMA, "Dataplane", "details", namespace=app),
        thing(KUMA, "Mesh", "bench", run=run, component="policy"),
        thing(KUMA, "MeshIdentity", "identity", namespace=system, run=run, component="policy"),
        webhook("kuma-validating", CONTROL_PLANE, run=run, component="kuma"),
        thing("v1", "Namespace", system, run=run, component="kuma"),
        thing("v1", "Service", CONTROL_PLANE[1], namespace=system, run=run, component="kuma"),
        thing(ROLES, "ClusterRole", "kuma", run=run, component="kuma"),
        _definition("Mesh", run),
        _definition("MeshIdentity", run),
        _definition("Dataplane", run),
        ROOT_CERT,
    )


def _foreign() -> tuple[Object, ...]:
    """What others have on the cluster, some of it with names or labels like ours."""
    return (
        thing("v1", "Namespace", "default"),
        thing("v1", "Namespace", "meshbench-0000"),
        thing("v1", "Pod", "details", namespace="meshbench-0000"),
        thing("v1", "Namespace", "bookinfo-0b1c", run=OTHER, component="namespace"),
        thing(ROLES, "ClusterRole", "istio-reader"),
        thing("v1", "ConfigMap", "settings", namespace="default"),
    )


def _cluster(*things: Object) -> FakeCluster:
    """Its clock goes on by a millisecond whenever somebody looks at it, and not otherwise."""
    fake, looks = FakeCluster(alive={CONTROL_PLANE}), count()
    fake.timing = replace(fake.timing, clock=lambda: next(looks) / 1000)
    fake.add(things)
    return fake


def _clean(fake: FakeCluster, *, wait_s: float = 5.0) -> None:
    _cleaned(fake, wait_s=wait_s)


def _cleaned(fake: FakeCluster, *, watch: Watch | None = None, wait_s: float = 5.0) -> Cleaned:
    return clean_cluster(fake.cluster, RUN, watch=watch or Watch(), wait_s=wait_s, planes=PLANES)


def _first(fake: FakeCluster, kind: str) -> int:
    return next(index for index, (ref, _grace) in enumerate(fake.log) if ref.kind == kind)


def test_everything_of_a_run_goes_and_nothing_else() -> None:
    """Namespaces, policies, webhooks, the control plane and its kinds; also what the mesh made beside them."""
    fake = _cluster(*_run(), *_foreign())
    _clean(fake)
    assert set(fake.things) == {ref_of(one) for one in _foreign()}


def test_the_order_is_that_in_which_things_need_each_other() -> None:
    """Application, policies, webhooks, control plane, what it made, kinds."""
    fake = _cluster(*_run())
    _clean(fake)
    order = ["Pod", "Mesh", WEBHOOK, "ClusterRole", "ConfigMap", "CustomResourceDefinition"]
    assert [_first(fake, kind) for kind in order] == sorted(_first(fake, kind) for kind in order)


def test_a_second_cleanup_finds_nothing_and_is_good() -> None:
    """Not found is done."""
    fake = _cluster(*_run())
    _clean(fake)
    fake.log.clear()
    assert _cleaned(fake).removed == ()
    assert fake.log == []


@given(st.data())
def test_any_half_way_state_ends_empty(data: st.DataObject) -> None:
    """Whatever is missing: the control plane never came up or is gone, a webhook was left, a namespace is going."""
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


def test_a_webhook_without_its_control_plane_goes_first() -> None:
    """It would refuse the policies' deletion, and hold the application's namespace."""
    fake = _cluster(*_run())
    fake.alive.clear()
    _clean(fake)
    assert _first(fake, WEBHOOK) < min(_first(fake, "Pod"), _first(fake, "Mesh"))


def test_a_webhook_whose_control_plane_answers_stays_until_the_policies_are_gone() -> None:
    """It refuses the mesh as long as sidecars are attached; asking again is enough."""
    fake = _cluster(*_run())
    _clean(fake)
    assert _first(fake, "Mesh") < _first(fake, WEBHOOK)


def test_a_foreign_webhook_that_leads_nowhere_is_told_and_left_alone() -> None:
    """It is its owner's to remove."""
    fake = _cluster(*(one for one in _run() if one["apiVersion"] != KUMA), webhook("theirs", ("gone", "service")))
    cleaned = _cleaned(fake)
    assert [str(one.found.ref) for one in cleaned.foreign] == [f"{WEBHOOK} theirs"]
    assert "kubectl --context fake delete validatingwebhookconfiguration theirs" in cleaned.foreign[0].told("fake")


def test_another_runs_dead_webhook_is_left_alone() -> None:
    """Although it stands in the way: that run's own cleanup removes it."""
    theirs = webhook("theirs", ("gone", "service"), run=OTHER, component="kuma")
    fake = _cluster(*_run()[:3], *_run()[4:5], theirs)
    with pytest.raises(LeftoversError, match=r"Mesh bench: its deletion was refused: .*failed calling webhook"):
        _clean(fake, wait_s=0.05)
    assert ref_of(theirs) in fake.things


def test_a_webhook_that_asks_a_namespace_of_ours_is_no_foreign_one() -> None:
    """A control plane may make some by itself, without labels: the run is not clean, and the command is told."""
    fake = _cluster(*(one for one in _run() if one["apiVersion"] != KUMA), webhook("by-itself", CONTROL_PLANE))
    with pytest.raises(LeftoversError, match="kubectl --context fake delete validatingwebhookconfiguration by-itself"):
        _clean(fake)


def test_what_a_mesh_made_is_left_alone_where_we_did_not_install_it() -> None:
    """Nothing on the cluster says that the control plane was this run's."""
    fake = _cluster(*_run()[:3], ROOT_CERT)
    _clean(fake)
    assert set(fake.things) == {ref_of(ROOT_CERT)}


def test_what_a_mesh_made_goes_before_the_kinds_that_tell_whose_mesh_it_was() -> None:
    """A cleanup that dies in between knows it again."""
    fake = _cluster(_definition("Mesh", RUN), ROOT_CERT)
    _clean(fake)
    assert _first(fake, "ConfigMap") < _first(fake, "CustomResourceDefinition")


def test_the_kinds_wait_until_what_a_mesh_made_is_gone() -> None:
    """It may take its time; without the kinds nobody would know later that it is ours to remove."""
    slow = thing("v1", "ConfigMap", ROOT_CERT["metadata"]["name"], namespace="default")
    slow["metadata"]["finalizers"] = ["example.com/slow"]
    fake = _cluster(_definition("Mesh", RUN), slow)
    with pytest.raises(LeftoversError, match=r"ConfigMap default/made-by-mesh waits for example\.com/slow"):
        _clean(fake, wait_s=0.05)
    assert {ref.kind for ref in fake.things} == {"ConfigMap", "CustomResourceDefinition"}


def test_pods_are_hurried_and_nothing_else_is() -> None:
    """Nobody is served any more; a namespace's pods would else take half a minute to drain."""
    fake = _cluster(*_run())
    _clean(fake)
    assert {ref.kind for ref, grace_s in fake.log if grace_s == 1} == {"Pod"}
    assert {grace_s for ref, grace_s in fake.log if ref.kind != "Pod"} == {None}


def test_the_lock_is_not_cleaned_up_with_the_run() -> None:
    """Who holds it gives it back when everything else is gone."""
    lock = thing("coordination.k8s.io/v1", "Lease", "meshbench", namespace="meshbench-lock", run=RUN, component="lock")
    fake = _cluster(*_run(), lock)
    _clean(fake)
    assert [one.kind for one in fake.things] == ["Lease"]


def _hold(one: Object) -> Object:
    one["metadata"] |= {"finalizers": ["example.com/hold"], "deletionTimestamp": "2026-11-23T03:15:00Z"}
    return one


def test_a_finalizer_is_never_stripped_but_told_with_its_command() -> None:
    """What holds the namespace, and how to go on; the mesh goes all the same."""
    held = _hold(thing("v1", "ConfigMap", "held", namespace="bookinfo-7f3a", run=RUN))
    fake = _cluster(held, *_run())
    with pytest.raises(LeftoversError) as raised:
        _clean(fake, wait_s=0.05)
    message = str(raised.value)
    assert "ConfigMap bookinfo-7f3a/held waits for example.com/hold" in message
    assert "kubectl --context fake -n bookinfo-7f3a patch configmap held" in message
    assert message.endswith(f"meshbench cleanup --context fake --run-id {RUN}")
    assert held["metadata"]["finalizers"] == ["example.com/hold"]
    assert {ref.kind for ref in fake.things} == {"Namespace", "ConfigMap", "CustomResourceDefinition"}


def test_what_is_left_is_told_although_the_api_server_went_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """A namespace that is going would be looked into: without an answer it is told as it was seen last."""
    fake = _cluster(_hold(thing("v1", "ConfigMap", "held", namespace="bookinfo-7f3a", run=RUN)), *_run())
    kinds, asked = fake.kinds, count()

    def kinds_once() -> tuple[KindInfo, ...]:
        fake.down = 10**9 if next(asked) else 0
        return kinds()

    monkeypatch.setattr(fake, "kinds", kinds_once)
    with pytest.raises(LeftoversError, match="Namespace bookinfo-7f3a: being deleted") as raised:
        _clean(fake, wait_s=0.5)
    assert str(raised.value).endswith(f"meshbench cleanup --context fake --run-id {RUN}")


@pytest.mark.parametrize("answers", [0, 1, 3], ids=["at once", "before the first list", "between two lists"])
def test_an_api_server_that_is_away_is_not_asked_on_for_details(answers: int) -> None:
    """Each question is repeated for seconds before it fails; what is known is told without more of them."""
    places = [_hold(thing("v1", "Namespace", name, run=RUN)) for name in ("bookinfo-7f3a", "kuma-system")]
    inside = [thing("v1", kind, "one", namespace="bookinfo-7f3a", run=RUN) for kind in ("Pod", "Service", "Secret")]
    fake = _cluster(*places, *inside)
    fake.answers = answers
    lines = explain(fake.cluster, map(found, places), {})
    assert [line.partition(":")[0] for line in lines] == ["  Namespace bookinfo-7f3a", "  Namespace kuma-system"]
    assert fake.answers == -1


def test_a_policy_that_does_not_go_keeps_its_control_plane() -> None:
    """It may be the one that has to let go of it."""
    policy = _hold(thing(KUMA, "MeshIdentity", "held", namespace="bookinfo-7f3a", run=RUN, component="policy"))
    fake = _cluster(policy, *_run())
    with pytest.raises(LeftoversError, match="MeshIdentity bookinfo-7f3a/held waits for"):
        _clean(fake, wait_s=0.5)
    assert {"Mesh", WEBHOOK, "Service", "ClusterRole"} <= {ref.kind for ref in fake.things}


def test_a_deletion_that_is_refused_is_told_with_its_reason_and_command() -> None:
    """As for a role that may not delete."""
    fake = _cluster(thing(ROLES, "ClusterRole", "kuma", run=RUN, component="kuma"))
    fake.before_delete = _forbid
    with pytest.raises(LeftoversError, match=r"ClusterRole kuma: its deletion was refused: .*cannot delete.*; kubectl"):
        _clean(fake, wait_s=0.05)


def test_namespaces_that_may_not_be_listed_are_no_good_end() -> None:
    """As after the rights were taken away in mid-run: nothing found is not nothing left."""
    fake = _cluster(*_run())
    fake.unlisted = frozenset({one["kind"] for one in _run()})
    with pytest.raises(LeftoversError, match=f"nobody knows what is left\n.*--run-id {RUN}$"):
        _clean(fake)


def _forbid(ref: Ref) -> None:
    raise ClusterError(f"deleting {ref}: 403: user cannot delete resource", status=403)


def test_an_api_server_that_comes_back_in_time_is_waited_for() -> None:
    """Its absence is no failure as long as there is time."""
    fake = _cluster(*_run())
    fake.down = 7
    _clean(fake)
    assert fake.things == {}


def test_an_api_server_that_stays_away_is_told_with_the_command_for_later() -> None:
    """Nobody has to guess what is left."""
    fake = _cluster(*_run())
    fake.down = 10**9
    with pytest.raises(LeftoversError, match=rf"no answer from(.|\n)*meshbench cleanup --context fake --run-id {RUN}"):
        _clean(fake, wait_s=0.05)


@pytest.mark.parametrize(("status", "why"), [(401, "says 401: you may not"), (403, "not be listed any more: .*Pod")])
def test_a_removal_that_cannot_go_on_is_told_with_what_is_left_and_the_command_for_later(status: int, why: str) -> None:
    """Credentials ran out, or rights were taken away: nobody waits for them, and it is no failure of another kind."""
    fake = _cluster(*_run())

    def deny(_ref: Ref) -> None:
        fake.denied = status

    fake.before_delete = deny
    with pytest.raises(LeftoversError, match=why) as raised:
        _clean(fake, wait_s=60)
    assert "ClusterRole kuma: not deleted yet; kubectl --context fake delete clusterrole kuma" in str(raised.value)
    assert str(raised.value).endswith(f"meshbench cleanup --context fake --run-id {RUN}")


def test_a_refusal_before_the_first_look_is_told_with_the_command_for_later() -> None:
    """Nobody knows what is left then."""
    fake = _cluster(*_run())
    fake.denied = 401
    with pytest.raises(LeftoversError, match=rf"says 401(.|\n)*meshbench cleanup --context fake --run-id {RUN}$"):
        _clean(fake, wait_s=60)


def test_traces_that_nobody_could_look_for_are_no_good_end() -> None:
    """The run is gone, and a webhook or API that leads nowhere may be left: the command looks for it."""
    fake = _cluster(*_run())
    fake.unlisted = frozenset({"APIService"})
    with pytest.raises(LeftoversError, match=r"is gone(.|\n)*listing APIService(.|\n)*doctor --context fake$"):
        _clean(fake, wait_s=60)
    assert fake.things == {}


def test_trouble_that_passed_is_not_told() -> None:
    """What holds the namespace is the reason, and not an API server that was away before."""
    fake = _cluster(_hold(thing("v1", "ConfigMap", "held", namespace="bookinfo-7f3a", run=RUN)), *_run())
    fake.down = 2
    with pytest.raises(LeftoversError, match="waits for") as raised:
        _clean(fake, wait_s=0.5)
    assert "no answer" not in str(raised.value)


def test_a_second_signal_ends_the_waiting_but_not_before_the_first_deletions() -> None:
    """They are quick; the message has the command for the rest."""
    fake, watch = _cluster(*_run()), Watch()
    watch.signals = [2, 2]
    with pytest.raises(LeftoversError, match=r"a second signal(.|\n)*meshbench cleanup --context fake --run-id"):
        _cleaned(fake, watch=watch)
    assert Ref("v1", "Namespace", "bookinfo-7f3a") in {ref for ref, _grace in fake.log}


def test_one_signal_does_not_end_a_cleanup() -> None:
    """It is what most cleanups begin with."""
    fake, watch = _cluster(*_run()), Watch()
    watch.signals = [2]
    _cleaned(fake, watch=watch)
    assert fake.things == {}


def test_a_ci_systems_signal_leaves_little_time_also_when_it_comes_in_between() -> None:
    """After SIGTERM comes SIGKILL, within ten seconds: what is left is told before that."""
    held = _hold(thing("v1", "ConfigMap", "held", namespace="bookinfo-7f3a", run=RUN))
    fake, watch = _cluster(held, *_run()), Watch()
    fake.timing = replace(fake.timing, haste_s=0.05, clock=time.monotonic)  # on which signals are noted

    def interrupt(_ref: Ref) -> None:
        if not watch.signals:
            watch.note(signal.SIGTERM, None)

    fake.before_delete = interrupt
    with pytest.raises(LeftoversError, match="not everything went in time"):
        _cleaned(fake, watch=watch, wait_s=60)
