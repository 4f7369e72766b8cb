"""Drive the loads of a unit, which are those of configurations that are deployed together, through their windows."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from bench.analysis import validity as checks
from bench.errors import BadAnswerError, StoreError
from bench.load.generator import LoadOutcome, Progress, RunningLoad
from bench.results.records import Window
from bench.results.resources import TICK_S
from bench.system.cancellation import CancelToken, wait_until
from bench.units import NANOSECONDS


@dataclass(frozen=True, slots=True)
class UnitLoads:
    """The running loads of a unit, by name of their configuration. `show` gets the progress of each, `kept` what was
    measured of each when the unit is cut short; both also get the configuration's name.

    Times are on meshbench's monotonic clock, which is common to all loads.
    """

    loads: dict[str, RunningLoad]
    watch: CancelToken
    show: Callable[[str, Progress], None]
    kept: Callable[[str, LoadOutcome], None]

    def wait_for_starts(self) -> None:
        """Wait until all loads have begun. Raises DeployError."""
        for load in self.loads.values():
            load.wait_for_start()

    def run(self, drive: Callable[["UnitLoads"], None]) -> dict[str, LoadOutcome]:
        """Drive the loads, and end them. When that is interrupted, or a generator's files are invalid, save the samples
        so far with a short deadline and pass them to `kept`."""
        try:
            drive(self)
        except BaseException as error:
            self._save(error, tuple(self.loads))
            raise
        self._begin_stop(self.loads)
        finished: dict[str, LoadOutcome] = {}
        for name, load in self.loads.items():
            try:
                finished[name] = load.finish()
            except (BadAnswerError, StoreError) as error:
                for other, outcome in finished.items():
                    self.kept(other, outcome)
                self._save(error, tuple(other for other in self.loads if other not in finished))
                raise
        return finished

    def _save(self, error: BaseException, names: Sequence[str]) -> None:
        self._begin_stop(names)
        with ExitStack() as all_of_them:  # also those after one that cannot be saved
            for name in reversed(names):
                all_of_them.callback(self._save_one, error, name)

    def _save_one(self, error: BaseException, name: str) -> None:
        self.kept(name, self.loads[name].save(error))

    def _begin_stop(self, names: Iterable[str]) -> None:
        for name in names:
            self.loads[name].generator.begin_stop()

    @property
    def over(self) -> bool:
        """Return whether one of the loads is over, and so all of them."""
        return any(load.over for load in self.loads.values())

    def now_ns(self) -> int:
        """Return the common clock."""
        generator = next(iter(self.loads.values())).generator
        return generator.zero_ns() + generator.now_ns()

    def wait_until(self, end_ns: int) -> None:
        """Watch all loads until a time, or until one of them is over: then the others end with it."""
        while self.now_ns() < end_ns and not self.over:
            for name, load in self.loads.items():
                self.show(name, load.look())
            tick_end_ns = min(self.now_ns() + round(TICK_S * NANOSECONDS), end_ns)
            wait_until(lambda end=tick_end_ns: self.now_ns() >= end, timeout_s=TICK_S, watch=self.watch)  # type: ignore[misc]
        for load in self.loads.values():
            load.generator.tick()
        self._end_with_each_other()

    def _end_with_each_other(self) -> None:
        first = next(((name, load) for name, load in self.loads.items() if load.over and not load.ended_with), None)
        if first is None:
            return
        name, broken = first
        why = broken.ended_early or broken.hopeless or "a process of its deployment ended"
        for load in self.loads.values():
            if not load.over:
                load.ended_with = f"the load ended early, with that of {name}: {why}"


def drive_alone(unit: UnitLoads) -> None:
    """Wait for the window of one load to pass; extend the warm-up once when the window was not steady."""
    (load,) = unit.loads.values()
    zero_ns = load.generator.zero_ns()
    unit.wait_until(zero_ns + load.windows[0].end_ns)
    if not load.over and not checks.is_steady(load.samples(), load.windows[0], rate=load.spec.rate_per_s):
        load.warmup_extended = True
        start_ns = load.generator.now_ns()
        load.windows = (Window(start_ns=start_ns, end_ns=start_ns + load.window_ns),)
        unit.wait_until(zero_ns + load.windows[0].end_ns)


def drive_together(unit: UnitLoads) -> None:
    """Wait for the window that all loads have in common, after the longest warm-up: a duet."""
    loads = unit.loads.values()
    start_ns = unit.now_ns() + max(round(load.spec.warmup_s * NANOSECONDS) for load in loads)
    end_ns = start_ns + max(load.window_ns for load in loads)
    for load in loads:
        zero_ns = load.generator.zero_ns()
        load.windows = (Window(start_ns=start_ns - zero_ns, end_ns=end_ns - zero_ns),)
    unit.wait_until(end_ns)
