"""Remove one run from a cluster, stage by stage; `cleanup` decides when."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Final, TypeVar

from bench.errors import ClusterError, Interrupted, LeftoversError
from bench.k8s.client import Cluster, Ref
from bench.k8s.ownership import format_cleanup, run_of, run_selector
from bench.meshes.cluster_protocol import ControlPlane
from bench.system.cancellation import CancelToken, Shield, wait_until
from bench.system.output import format_command
from bench.targets.cluster.teardown.blockers import (
    Dangling,
    explain_leftovers,
    explain_used,
    find_dangling,
    find_dangling_webhooks,
)
from bench.targets.cluster.teardown.inventory import Leftovers, find_foreign, find_leftovers, list_objects
from bench.targets.cluster.teardown.stages import (
    Deletion,
    RunObject,
    Stage,
    make_run_object,
    plan_deletions,
    select_awaited,
    select_stage,
)

T = TypeVar("T")

_NAMESPACE: Final = Ref("v1", "Namespace", "")


@dataclass(slots=True)
class Removal:
    """One removal in progress.

    `deadline` is on the clock of the cluster's `timing`. `seen` is every object of the run that was listed, by uid;
    `left` what is still there; `refused` why the deletion of an object was not accepted the last time; `last_error` why
    the API server gave no answer to the last request; `planes` are the control planes that a run can install; `used`
    are definitions of kinds that stay, with the objects of others; `is_deleted` that nothing of the run is left, except
    perhaps dangling webhooks and APIs.
    """

    cluster: Cluster
    run_id: str
    watch: CancelToken
    deadline: float
    planes: Mapping[str, ControlPlane]
    seen: dict[str, RunObject] = field(default_factory=dict)
    left: tuple[RunObject, ...] = ()
    refused: dict[Ref, str] = field(default_factory=dict)
    used: dict[Ref, tuple[Ref, ...]] = field(default_factory=dict)
    last_error: str = ""
    is_deleted: bool = False

    def remove_all(self) -> tuple[str, ...]:
        """Remove until no kind has an object of the run; return the kinds that may not be listed. Raises
        LeftoversError."""
        while (leftovers := self._list_left()).found:
            for stage in Stage:
                later = tuple(one for other in Stage if other > stage for one in select_stage(leftovers.found, other))
                self._remove(stage, select_stage(leftovers.found, stage), later)
        if leftovers.is_blind:
            raise LeftoversError(
                self._format_message("its namespaces may not be listed, so that it is unknown what is left")
            )
        if self.used:
            raise LeftoversError(self._format_used())
        self.is_deleted = True
        return leftovers.unseen

    def find_dangling(self) -> tuple[Dangling, ...]:
        """Return all dangling webhooks and APIs on the cluster, whichever program left them. Raises LeftoversError."""
        return self._ask(partial(find_dangling, self.cluster))

    def _list_left(self) -> Leftovers:
        """Return everything of the run but its lock, which `lock` releases."""
        listed = self._ask(partial(find_leftovers, self.cluster, self.run_id))
        self.left = tuple(one for one in listed.found if one.stage != Stage.LOCK and one.ref not in self.used)
        self.seen |= {one.thing["metadata"]["uid"]: one for one in self.left}
        return Leftovers(self.left, listed.unseen)

    def _ask(self, ask: Callable[[], T]) -> T:
        """Return the API server's answer, as soon as it gives one."""
        answers: list[T] = []

        def is_answered() -> bool:
            answers.append(ask())
            return True

        self._wait(is_answered)
        return answers[-1]

    def _remove(self, stage: Stage, things: tuple[RunObject, ...], later: tuple[RunObject, ...]) -> None:
        """Request the deletion of a stage's objects, all at once, and wait for those that the next stage waits for."""
        kinds = tuple(one.ref for one in things)

        def is_over() -> bool:
            now = self._without_used(select_stage(self._look_for(kinds), stage))
            self.left = (*now, *later)
            if now and stage < Stage.WEBHOOKS:
                self._remove_dead_webhooks()
            self._delete(plan_deletions(now))
            return not select_awaited(now)

        def namespaces_are_deleted() -> bool:
            now = tuple(one for one in self._look_for([_NAMESPACE]) if one.stage != Stage.LOCK)
            self.left = (*now, *later)
            return not now

        def made_is_deleted() -> bool:
            made = self._made_by_meshes()
            self.left = (*made, *later)
            self._delete(tuple(Deletion(one) for one in made if not one.is_terminating))
            return not made

        if stage == Stage.MADE_BY_MESH:
            self._wait(made_is_deleted)
        elif stage == Stage.NAMESPACES:
            self._wait(namespaces_are_deleted)
        elif things:
            self._wait(is_over)

    def _look_for(self, kinds: Iterable[Ref]) -> tuple[RunObject, ...]:
        listed = list_objects(self.cluster, kinds, labels=run_selector(self.run_id))
        lost = {one.ref.kind for one in self.seen.values()}.intersection(listed.unseen)
        if lost:  # not deleted, but no longer listed
            raise LeftoversError(self._format_message(f"may not be listed any more: {', '.join(sorted(lost))}"))
        return listed.found

    def _without_used(self, things: tuple[RunObject, ...]) -> tuple[RunObject, ...]:
        """Return the objects without the definitions of kinds of which others have objects: these would be
        deleted with them."""
        for one in things:
            is_due = one.stage == Stage.KINDS and not one.is_terminating and one.ref not in self.used
            if is_due and (others := find_foreign(self.cluster, one.thing, self.run_id)):
                self.used[one.ref] = others
        return tuple(one for one in things if one.ref not in self.used)

    def _remove_dead_webhooks(self) -> None:
        """Delete dangling webhooks of this run first, since they would refuse the deletion of other objects."""
        dead = (one.found for one in find_dangling_webhooks(self.cluster) if run_of(one.found.thing) == self.run_id)
        self._delete(plan_deletions(dead))

    def _made_by_meshes(self) -> tuple[RunObject, ...]:
        """Return what the control planes that this run installed made without labels, and nothing that was there before
        they were. Their kinds, which are deleted later, show which control planes those are, and since when."""
        installed: dict[str, list[str]] = {}
        for one in self.seen.values():
            installed.setdefault(one.component, []).append(one.created_at)
        meshes = sorted(installed.keys() & self.planes.keys())
        found = (self.planes[mesh].find_leftovers(self.cluster, since=min(installed[mesh])) for mesh in meshes)
        return tuple(make_run_object(thing) for things in found for thing in things)

    def _delete(self, requests: tuple[Deletion, ...]) -> None:
        for request in requests:
            try:
                self.cluster.delete(request.one.thing, grace_s=request.grace_s)
            except ClusterError as error:
                if error.kind.is_unanswered:
                    raise
                self.refused[request.one.ref] = str(error)
            else:
                self.refused.pop(request.one.ref, None)

    def _wait(self, done: Callable[[], bool]) -> None:
        """Call `done` once in any case, since requesting a deletion is quick and waiting for it is not. Raises
        LeftoversError at the deadline, at a second signal, and for an answer that a retry would not change."""

        def is_done() -> bool:
            try:
                result = done()
            except ClusterError as error:
                self.last_error = str(error)
                if not error.is_retryable:
                    raise LeftoversError(self._format_message("the API server refuses to continue")) from error
                return False
            self.last_error = ""
            return result

        def is_over() -> str:
            return "done" if is_done() else "late" if self._is_late() else ""

        try:
            end = is_over() or wait_until(
                is_over, timeout_s=inf, watch=Shield(self.watch), poll_s=self.cluster.timing.poll_s
            )
        except Interrupted:
            raise LeftoversError(self._format_message("a second signal ended the wait")) from None
        if end == "late":
            raise LeftoversError(self._format_message("not everything was deleted in time"))

    def _is_late(self) -> bool:
        """Return whether the deadline has passed. A signal with a short deadline may come at any moment of a removal,
        or have come long before it."""
        now_s = self.cluster.timing.clock()
        if self.watch.has_short_deadline:
            self.deadline = min(self.deadline, (self.watch.noted_s or now_s) + self.cluster.timing.haste_s)
        return now_s >= self.deadline

    def _format_used(self) -> str:
        context = self.cluster.context
        head = f"the run {self.run_id} was deleted from context {context}, but not these kinds"
        kinds = (explain_used(ref, others, context=context) for ref, others in self.used.items())
        lines = (f"  {line}" for each in kinds for line in each)
        hint = f"hint: once these objects are deleted: {format_cleanup(context, self.run_id)}"
        return "\n".join((f"{head}, of which others have objects that would be deleted, too:", *lines, hint))

    def _format_message(self, why: str) -> str:
        context = self.cluster.context
        detail = (f"  {self.last_error}",) if self.last_error else ()
        if self.is_deleted:
            head = (
                f"the run {self.run_id} was deleted from context {context}, but it is unknown whether it left dangling "
                f"webhooks or APIs: {why}"
            )
            command = format_command("meshbench", "doctor", "--context", context)
            return "\n".join((head, *detail, f"hint: to list dangling webhooks and APIs: {command}"))
        lines = explain_leftovers(self.cluster, self.left, self.refused) if not self.watch.is_forced else ()
        hint = f"hint: to remove what is left: {format_cleanup(context, self.run_id)}"
        return "\n".join((f"the run {self.run_id} is still on context {context}: {why}", *detail, *lines, hint))
