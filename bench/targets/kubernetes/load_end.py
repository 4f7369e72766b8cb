"""The end of a load in a pod: Locust is told, its last rows are brought over, and all of them are verified."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench.errors import BadAnswerError, ClusterError
from bench.load.merge import sensible_samples
from bench.targets.kubernetes.client import Object, Ref
from bench.targets.kubernetes.load_fetch import PodFiles
from bench.targets.kubernetes.load_objects import KEEPER, NAME
from bench.targets.kubernetes.load_state import load_trouble, terminated
from bench.units import NANOSECONDS
from bench.waiting import Watch, wait_until

_POLL_S: Final = 0.25
_PAUSE_S: Final = 2.0  # between two questions to an API server that is away
_EXIT_TIMEOUT_S: Final = 5.0  # until the API server knows that a container has ended


@dataclass(frozen=True, slots=True)
class LoadEnd:
    """Ends one load. `watch` lets it go on after a first signal: samples are worth some seconds."""

    files: PodFiles
    watch: Watch

    def in_haste(self, *, timeout_s: float) -> None:
        """Brings over what can be had in that time; nothing is waited for beyond it."""
        self.attempt(self._terminate)
        self._wait_for_account(timeout_s)

    def in_full(self, *, timeout_s: float) -> str:
        """Brings over everything; says what is missing, or empty. Waits for an API server that is away. Raises
        BadAnswerError where what the pod sends makes no sense."""
        if problem := self._patiently(self._terminate):
            return problem
        self._wait_for_account(timeout_s)
        return self._patiently(self._verify)

    def exit_code(self) -> int | None:
        """Locust's; None where it still runs, has gone with its pod, or nobody can be asked."""
        if self.attempt(lambda: self._pod() is None):
            return None
        ended = wait_until(self._ended, timeout_s=_EXIT_TIMEOUT_S, watch=self.watch, poll_s=_POLL_S)
        code = ended.get("exitCode") if ended else None
        return code if isinstance(code, int) else None

    def _terminate(self) -> str:
        pod = self._pod()
        if pod is not None and terminated(pod, NAME) is None:
            argv = ["sh", "-c", "kill -TERM 1"]
            self.files.cluster.exec(NAME, argv, namespace=self.files.namespace, container=NAME, timeout_s=10)
        return ""

    def _wait_for_account(self, timeout_s: float) -> None:
        """Until Locust will write nothing more."""
        wait_until(lambda: self.attempt(self._settled), timeout_s=timeout_s, watch=self.watch, poll_s=_POLL_S)

    def _settled(self) -> bool:
        pod = self._pod()
        if pod is None:
            return True  # what it had is gone with it
        try:
            self.files.fetch_all()
        except BadAnswerError:
            return True  # nothing better will come; `_verify` reports it
        return self.files.whole() or bool(load_trouble(pod))

    def _verify(self) -> str:
        """A file that came over wrong is fetched once more, from its beginning."""
        self.files.fetch_all()
        if self.files.differences():
            self.files.forget()
            self.files.fetch_all()
        wrong = self.files.differences()
        return f"not all samples came over as the pod has them: {wrong}" if wrong else ""

    def _patiently(self, act: Callable[[], str]) -> str:
        """What `act` says, as soon as the API server lets it; else what is missing for want of it."""
        said: list[str] = []
        last: list[ClusterError] = []

        def done() -> bool:
            try:
                said.append(act())
            except BadAnswerError:
                raise
            except ClusterError as error:
                last.append(error)
            return bool(said) or bool(last and self._hopeless(last[-1]))

        wait_until(done, timeout_s=self.files.cluster.timing.away_s, watch=self.watch, poll_s=_PAUSE_S)
        return said[0] if said else f"samples may be missing after second {self._last_s():.0f}: {last[-1]}"

    def _hopeless(self, error: ClusterError) -> bool:
        """Whether asking again cannot help: nothing can be read from a pod without its keeper."""
        try:
            pod = self._pod()
        except ClusterError:
            return not error.is_passing
        return pod is None or terminated(pod, KEEPER) is not None or not error.is_passing

    def attempt(self, act: Callable[[], object]) -> bool:
        """Whether `act` was true just now; an API server that does not answer makes it false."""
        try:
            return bool(act())
        except ClusterError:
            return False

    def _ended(self) -> Object | None:
        found: list[Object | None] = []
        self.attempt(lambda: found.append(terminated(self._pod() or {}, NAME)))
        return found[0] if found else None

    def _pod(self) -> Object | None:
        return self.files.cluster.get(Ref("v1", "Pod", NAME, self.files.namespace))

    def _last_s(self) -> float:
        return float(sensible_samples(self.files.folder)[0].completed_ns.max(initial=0)) / NANOSECONDS
