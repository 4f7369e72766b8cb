"""Drive the loads of a unit, which are those of configurations that are deployed together, through their windows."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain

from bench.analysis import validity as checks
from bench.errors import BadAnswerError, StoreError
from bench.load.generator import IN_FLIGHT_TIMEOUT_S, CpuUse, LoadOutcome, Progress, RunningLoad
from bench.results.records import Window
from bench.results.resources import TICK_S
from bench.scenario.plan import SETTLE_S
from bench.system.cancellation import CancelToken, wait_until
from bench.units import NANOSECONDS, format_percent

_HELD_POLL_S = 0.02
_HELD_S = 5.0  # until the users of a load are held, in addition to the requests in flight


class BusyCpusError(Exception):
    """A duet uses too many of the CPUs: `share` is what its run used in the warm-up, of all CPUs."""

    def __init__(self, share: float) -> None:
        self.share = share
        super().__init__(f"the run used {format_percent(share)} of the CPUs in the warm-up")


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
            self.loads[name].begin_stop()

    @property
    def over(self) -> bool:
        """Return whether one of the loads is over, and so all of them."""
        return any(load.over for load in self.loads.values())

    def now_ns(self) -> int:
        """Return the common clock."""
        generator = next(iter(self.loads.values())).generator
        return generator.zero_ns() + generator.now_ns()

    def read_cpu(self) -> CpuUse | None:
        """Return the CPU time of the run so far; None where the target does not know it."""
        return next(iter(self.loads.values())).generator.read_cpu()

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

    def release(self, load: RunningLoad) -> int:
        """Let the users of a load go on; return the time on its own clock."""
        load.is_waiting, load.active_since_ns = False, load.generator.now_ns()
        load.generator.release()
        return load.active_since_ns

    def hold(self, load: RunningLoad) -> None:
        """Hold the users of a load, and wait until no request is in flight."""
        if not self.over:
            load.generator.hold()
            load.is_waiting = True
            self.wait_until_held(load)

    def wait_until_held(self, load: RunningLoad) -> None:
        """Wait until the users of a load wait. Where they do not, the load is over."""
        generator, limit_s = load.generator, IN_FLIGHT_TIMEOUT_S + _HELD_S

        def is_held() -> bool:
            load.ended_early = load.ended_early or generator.trouble()
            return generator.is_held() or load.over

        if not wait_until(is_held, timeout_s=limit_s, watch=self.watch, poll_s=_HELD_POLL_S) and not load.over:
            load.ended_early = f"its users were not held within {limit_s:.0f} s"
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


def drive_in_turn(unit: UnitLoads, *, order: Sequence[Sequence[str]]) -> None:
    """Load one configuration at a time, in the order of the rounds, while the users of all others are held. The first
    window of each comes after its whole warm-up, later ones after `SETTLE_S`."""
    for load in unit.loads.values():
        load.rounds, load.is_waiting = len(order), True
        unit.wait_until_held(load)
    done: set[str] = set()
    for name in chain.from_iterable(order):
        if unit.over:
            return
        load = unit.loads[name]
        lead_s = SETTLE_S if name in done else load.spec.warmup_s
        start_ns = unit.release(load) + round(lead_s * NANOSECONDS)
        window = Window(start_ns=start_ns, end_ns=start_ns + load.window_ns // len(order))
        load.windows = (*load.windows, window) if name in done else (window,)
        done.add(name)
        unit.wait_until(load.generator.zero_ns() + window.end_ns)
        unit.hold(load)


def drive_together(unit: UnitLoads, *, most_cpu: float | None = None) -> None:
    """Wait for the window that all loads have in common, after the longest warm-up: a duet.

    Raises BusyCpusError before the window where the run used more than this share of all CPUs in the second half of the
    warm-up; not where the target does not know it that soon.
    """
    loads = unit.loads.values()
    warmup_ns = max(round(load.spec.warmup_s * NANOSECONDS) for load in loads)
    start_ns = unit.now_ns() + warmup_ns
    end_ns = start_ns + max(load.window_ns for load in loads)
    for load in loads:
        zero_ns = load.generator.zero_ns()
        load.windows = (Window(start_ns=start_ns - zero_ns, end_ns=end_ns - zero_ns),)
    if most_cpu is not None and warmup_ns:
        _require_free_cpus(unit, start_ns, warmup_ns, most_cpu=most_cpu)
    unit.wait_until(end_ns)


def _require_free_cpus(unit: UnitLoads, start_ns: int, warmup_ns: int, *, most_cpu: float) -> None:
    unit.wait_until(start_ns - warmup_ns // 2)
    before = unit.read_cpu()
    unit.wait_until(start_ns)
    after = unit.read_cpu()
    if unit.over or before is None or after is None or after.capacity_ns <= before.capacity_ns:
        return
    share = (after.own_ns - before.own_ns) / (after.capacity_ns - before.capacity_ns)
    if share > most_cpu:
        raise BusyCpusError(share)
