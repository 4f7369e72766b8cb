"""The removal of one run from a cluster, stage by stage; `cleanup` says when."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Final, TypeVar

from bench.errors import ClusterError, Interrupted, LeftoversError
from bench.k8s.client import Cluster, Ref
from bench.k8s.ownership import run_of, selector
from bench.meshes.protocols import ControlPlane
from bench.system.cancellation import Patience, Watch, wait_until
from bench.targets.cluster.teardown.blockers import Residue, dead_webhooks, explain, find_residue
from bench.targets.cluster.teardown.inventory import Leftovers, find_leftovers, look_for
from bench.targets.cluster.teardown.stages import Deletion, Found, Stage, awaited, deletions, of_stage

T = TypeVar("T")

_NAMESPACE: Final = Ref("v1", "Namespace", "")


@dataclass(slots=True)
class Removal:
    """One removal under way.

    `deadline` is on the clock of the cluster's `timing`. `seen` is everything of the run that was met, by uid; `left`
    what is still there; `refused` why the deletion of an object was not accepted the last time; `trouble` why the API
    server gave no answer to the last question; `planes` are the control planes that a run can install; `gone` that
    nothing of the run is left, but perhaps traces.
    """

    cluster: Cluster
    run_id: str
    watch: Watch
    deadline: float
    planes: Mapping[str, ControlPlane]
    seen: dict[str, Found] = field(default_factory=dict)
    left: tuple[Found, ...] = ()
    refused: dict[Ref, str] = field(default_factory=dict)
    trouble: str = ""
    gone: bool = False

    def remove_all(self) -> tuple[str, ...]:
        """Until a look at all kinds finds nothing; returns the kinds that may not be listed. Raises LeftoversError."""
        while (leftovers := self._look()).found:
            for stage in Stage:
                later = tuple(one for other in Stage if other > stage for one in of_stage(leftovers.found, other))
                self._remove(stage, of_stage(leftovers.found, stage), later)
        if leftovers.blind:
            raise LeftoversError(self._told("its namespaces may not be listed, so that nobody knows what is left"))
        self.gone = True
        return leftovers.unseen

    def traces(self) -> tuple[Residue, ...]:
        """Webhooks and APIs on the cluster that lead nowhere, whoever left them. Raises LeftoversError."""
        return self._asked(partial(find_residue, self.cluster))

    def _look(self) -> Leftovers:
        """Everything of the run but its lock, which is given back by `lease`."""
        looked = self._asked(partial(find_leftovers, self.cluster, self.run_id))
        self.left = tuple(one for one in looked.found if one.stage != Stage.LOCK)
        self.seen |= {one.thing["metadata"]["uid"]: one for one in self.left}
        return Leftovers(self.left, looked.unseen)

    def _asked(self, ask: Callable[[], T]) -> T:
        """The API server's answer, as soon as it gives one."""
        answers: list[T] = []

        def is_answered() -> bool:
            answers.append(ask())
            return True

        self._wait(is_answered)
        return answers[-1]

    def _remove(self, stage: Stage, things: tuple[Found, ...], later: tuple[Found, ...]) -> None:
        """Asks for the removal of a stage's objects, all at once, and waits for those that the next stage waits for."""
        kinds = tuple(one.ref for one in things)

        def is_over() -> bool:
            now = of_stage(self._look_for(kinds), stage)
            self.left = (*now, *later)
            if now and stage < Stage.WEBHOOKS:
                self._remove_dead_webhooks()
            self._delete(deletions(now))
            return not awaited(now)

        def namespaces_are_gone() -> bool:
            now = tuple(one for one in self._look_for([_NAMESPACE]) if one.stage != Stage.LOCK)
            self.left = (*now, *later)
            return not now

        def made_is_gone() -> bool:
            made = self._made_by_meshes()
            self.left = (*made, *later)
            self._delete(tuple(Deletion(one.ref) for one in made if not one.going))
            return not made

        if stage == Stage.MADE_BY_MESH:
            self._wait(made_is_gone)
        elif stage == Stage.NAMESPACES:
            self._wait(namespaces_are_gone)
        elif things:
            self._wait(is_over)

    def _look_for(self, kinds: Iterable[Ref]) -> tuple[Found, ...]:
        looked = look_for(self.cluster, kinds, labels=selector(self.run_id))
        lost = {one.ref.kind for one in self.seen.values()}.intersection(looked.unseen)
        if lost:  # not gone, but out of sight
            raise LeftoversError(self._told(f"may not be listed any more: {', '.join(sorted(lost))}"))
        return looked.found

    def _remove_dead_webhooks(self) -> None:
        """A webhook of this run behind which nobody is would refuse what goes before it: then it goes first."""
        dead = (one.found for one in dead_webhooks(self.cluster) if run_of(one.found.thing) == self.run_id)
        self._delete(deletions(dead))

    def _made_by_meshes(self) -> tuple[Found, ...]:
        """What the control planes that this run installed made without labels. Their kinds, which go later, tell which
        control planes those are."""
        meshes = sorted({one.component for one in self.seen.values()} & self.planes.keys())
        refs = (ref for mesh in meshes for ref in self.planes[mesh].own_leftovers(self.cluster))
        return tuple(Found(ref, thing) for ref in refs if (thing := self.cluster.get(ref)))

    def _delete(self, requests: tuple[Deletion, ...]) -> None:
        for request in requests:
            try:
                self.cluster.delete(request.ref, grace_s=request.grace_s)
            except ClusterError as error:
                if error.status == 0:
                    raise
                self.refused[request.ref] = str(error)
            else:
                self.refused.pop(request.ref, None)

    def _wait(self, done: Callable[[], bool]) -> None:
        """Asks once in any case, since asking for a removal is quick and waiting for it is not. Raises LeftoversError
        at the deadline, at a second signal, and for an answer after which nobody needs to ask again."""

        def is_done() -> bool:
            try:
                is_it = done()
            except ClusterError as error:
                self.trouble = str(error)
                if not error.is_passing:
                    raise LeftoversError(self._told("the API server does not let it go on")) from error
                return False
            self.trouble = ""
            return is_it

        def is_over() -> str:
            return "done" if is_done() else "late" if self._is_late() else ""

        try:
            end = is_over() or wait_until(
                is_over, timeout_s=inf, watch=Patience(self.watch), poll_s=self.cluster.timing.poll_s
            )
        except Interrupted:
            raise LeftoversError(self._told("a second signal ended the waiting")) from None
        if end == "late":
            raise LeftoversError(self._told("not everything went in time"))

    def _is_late(self) -> bool:
        """A signal that leaves little time may come at any moment of a removal, or have come long before it."""
        now_s = self.cluster.timing.clock()
        if self.watch.hasty:
            self.deadline = min(self.deadline, (self.watch.noted_s or now_s) + self.cluster.timing.haste_s)
        return now_s >= self.deadline

    def _told(self, why: str) -> str:
        context = self.cluster.context
        trouble = (f"  {self.trouble}",) if self.trouble else ()
        if self.gone:
            head = (
                f"the run {self.run_id} is gone from context {context}, but nobody knows whether its traces are: {why}"
            )
            return "\n".join((head, *trouble, f"to look for webhooks and APIs: meshbench doctor --context {context}"))
        lines = explain(self.cluster, self.left, self.refused) if not self.watch.impatient else ()
        again = f"to remove what is left: meshbench cleanup --context {context} --run-id {self.run_id}"
        return "\n".join((f"the run {self.run_id} is still on context {context}: {why}", *trouble, *lines, again))
