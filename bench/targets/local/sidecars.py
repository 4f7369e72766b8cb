"""The sidecars of one deployment: their configuration is written, checked by Envoy itself, and run."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.errors import DeployError
from bench.meshes import Policies
from bench.processes import Launcher, Process
from bench.targets.local.certificates import Certificates
from bench.targets.local.envoy import SHAPES, envoy_command
from bench.targets.local.placement import Placement
from bench.waiting import Watch, wait_until

_VALIDATE_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Sidecars:
    """One Envoy for each workload and one for the load generator. `folder` holds configuration and admin sockets."""

    mesh: str
    placement: Placement
    policies: Policies
    certificates: Certificates
    folder: Path

    @property
    def admins(self) -> Mapping[str, Path]:
        """Each sidecar's admin socket, by the workload's name."""
        everyone = self.placement.application.everyone
        return {workload.name: self.folder / f"{workload.name}.sock" for workload in everyone}

    def start(self, launcher: Launcher, binary: Path, *, draft: Path, watch: Watch) -> Iterator[Process]:
        """Starts them all; raises DeployError with Envoy's words when it refuses a configuration.

        A copy of their configuration (`WORK` stands for the working folder) and their logs go into the draft's
        `proxies/`; keys are in files of their own, elsewhere.
        """
        kept = draft / "proxies"
        kept.mkdir(exist_ok=True)
        commands = {name: envoy_command(self.mesh, binary, config) for name, config in self._write(kept).items()}
        self._validate(commands, launcher, watch=watch)
        for name, command in commands.items():
            yield launcher.start(f"{name}-sidecar", command, role="sidecar", log=kept / f"{name}.log")

    def _write(self, kept: Path) -> dict[str, Path]:
        configs = {name: self.folder / f"{name}.json" for name in self.admins}
        for workload in self.placement.application.everyone:
            bootstrap = SHAPES[self.mesh].sidecar_bootstrap(
                workload,
                placement=self.placement,
                policies=self.policies,
                certificates=self.certificates,
                admin=self.admins[workload.name],
            )
            text = json.dumps(bootstrap, indent=1)
            configs[workload.name].write_text(text, "utf-8")
            (kept / f"{workload.name}.json").write_text(text.replace(str(self.folder.parent), "WORK"), "utf-8")
        return configs

    def _validate(self, commands: Mapping[str, list[str]], launcher: Launcher, *, watch: Watch) -> None:
        with launcher.group() as checks:
            for name, command in commands.items():
                argv = [*command, "--mode", "validate"]
                log = self.folder / f"{name}-validate.log"
                checks.append(launcher.start(f"{name}-validate", argv, role="sidecar", log=log))
            wait_until(lambda: not any(check.running for check in checks), timeout_s=_VALIDATE_TIMEOUT_S, watch=watch)
            for name, check in zip(commands, checks, strict=True):
                if check.popen.returncode != 0:
                    told = f"{check.ended()}\n{check.log_tail()}"
                    raise DeployError(f"Envoy does not accept the configuration of {name}-sidecar: {told}")
