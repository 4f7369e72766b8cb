"""This machine as the place of a run: the default, without root, on loopback only."""

from contextlib import AbstractContextManager
from pathlib import Path

from bench.environment import read_environment
from bench.findings import CheckResult
from bench.inputs import Inputs
from bench.locks import machine_lock
from bench.processes import Launcher
from bench.records import Environment, RunRecord, TargetRecord
from bench.targets.local.target import RECORD, LocalTarget, open_local
from bench.waiting import Watch


class ThisMachine:
    """See `bench.targets.Place`."""

    record: TargetRecord = RECORD
    cluster: None = None
    findings: tuple[CheckResult, ...] = ()

    def environment(self) -> Environment:
        return read_environment()

    def keep_inputs(self, run: Path) -> None:
        """Nothing: this machine needs no files of its own."""

    def lock(self, run: Path, run_id: str, watch: Watch) -> AbstractContextManager[None]:  # noqa: ARG002  # no waiting
        return machine_lock(run, run_id)

    def open(
        self, run: RunRecord, inputs: Inputs, *, launcher: Launcher, watch: Watch
    ) -> AbstractContextManager[LocalTarget]:
        return open_local(run, inputs, launcher=launcher, watch=watch)
