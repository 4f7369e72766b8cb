"""Run the sidecars of one deployment: write their configuration, let Envoy validate it, start them."""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.application.model import GATEWAY, Gateway
from bench.envoy.addresses import Placement
from bench.envoy.certificates import Certificates
from bench.envoy.static_gateway import front_bootstrap
from bench.errors import DeployError
from bench.meshes import MESHES, Policies
from bench.meshes.data_planes import GATEWAYS, SHAPES, envoy_command
from bench.meshes.equalise import equalise_bootstrap, set_workers
from bench.scenario.model import Equal
from bench.system.cancellation import CancelToken, wait_until
from bench.system.processes import Launcher, Process
from bench.verification.questions import FRONT

Json = dict[str, Any]

_VALIDATE_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Sidecars:
    """One Envoy for each workload, and one for the load generator or the gateway. `folder` holds configuration and
    admin sockets; `equalise` is the scenario's."""

    mesh: str
    placement: Placement
    policies: Policies
    certificates: Certificates
    folder: Path
    equalise: Collection[Equal] = ()

    @property
    def admins(self) -> Mapping[str, Path]:
        """Return each sidecar's admin socket, by the workload's name."""
        names = [workload.name for workload in self.placement.application.everyone]
        front = [FRONT] if self._gateway is not None and self._gateway.proxy is not None else []
        return {name: self.folder / f"{name}.sock" for name in (*names, *front)}

    @property
    def front(self) -> str:
        """Return the name of the proxy whose counters count the requests that enter through the gateway."""
        return FRONT if FRONT in self.admins else GATEWAY

    def start(self, launcher: Launcher, binary: Path, *, draft: Path, watch: CancelToken) -> Iterator[Process]:
        """Start all sidecars. Raises DeployError with Envoy's message when it rejects a configuration.

        A copy of their configuration (`WORK` stands for the working folder) and their logs are written to the draft's
        `proxies/`; keys are in separate files in the working folder.
        """
        copies = draft / "proxies"
        copies.mkdir(exist_ok=True)
        commands = {name: self._command(name, binary, config) for name, config in self._write(copies).items()}
        self._validate(commands, launcher, watch=watch)
        for name, command in commands.items():
            yield launcher.start(self._title(name), command, role="sidecar", log=copies / f"{name}.log")

    @property
    def _gateway(self) -> Gateway | None:
        return self.placement.application.gateway

    def _title(self, name: str) -> str:
        """Return the name of its process: a gateway is not a workload's sidecar."""
        sidecars = [workload.name for workload in self.placement.application.with_sidecar]
        return f"{name}-sidecar" if name in sidecars else GATEWAY

    def configuration(self, name: str) -> Json:
        """Return the configuration with which the sidecar of a workload was started."""
        bootstrap: Json = json.loads(self._file(name).read_text("utf-8"))
        return bootstrap

    def _command(self, name: str, binary: Path, config: Path) -> list[str]:
        if name == FRONT and self._gateway is not None:
            return [str(binary), "--config-path", str(config), *self._gateway.options]
        return set_workers(envoy_command(self.mesh, binary, config), self.equalise)

    def _equalised(self, name: str, bootstrap: Json) -> Json:
        """Apply `equalise` to a configuration; a proxy that is not the mesh's stays unchanged."""
        if name == FRONT:
            return bootstrap
        own = MESHES[self.mesh].inbound_cluster(self.placement.application.workload(name))
        return equalise_bootstrap(bootstrap, self.equalise, own=own)

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _write(self, copies: Path) -> dict[str, Path]:
        configs = {name: self._file(name) for name in self.admins}
        for name, bootstrap in self._bootstraps():
            text = json.dumps(self._equalised(name, bootstrap), indent=1)
            configs[name].write_text(text, "utf-8")
            (copies / f"{name}.json").write_text(text.replace(str(self.folder.parent), "WORK"), "utf-8")
        return configs

    def _bootstraps(self) -> Iterator[tuple[str, Json]]:
        """Yield the configuration of every sidecar, by the name of the workload."""
        for workload in self.placement.application.with_sidecar:
            bootstrap = SHAPES[self.mesh].sidecar_bootstrap(
                workload,
                placement=self.placement,
                policies=self.policies,
                certificates=self.certificates,
                admin=self.admins[workload.name],
            )
            yield workload.name, bootstrap
        if self._gateway is not None:
            yield self.front, self._front_bootstrap(self._gateway)

    def _front_bootstrap(self, gateway: Gateway) -> Json:
        """Return the configuration of the proxy at which the load enters: the mesh's own, or a delegated gateway's."""
        admin = self.admins[self.front]
        if self.front == FRONT:
            return front_bootstrap(gateway, placement=self.placement, admin=admin)
        return GATEWAYS[self.mesh].gateway_bootstrap(
            gateway,
            placement=self.placement,
            policies=self.policies,
            certificates=self.certificates,
            admin=admin,
        )

    def _validate(self, commands: Mapping[str, list[str]], launcher: Launcher, *, watch: CancelToken) -> None:
        with launcher.group() as checks:
            for name, command in commands.items():
                argv = [*command, "--mode", "validate"]
                log = self.folder / f"{name}-validate.log"
                checks.append(launcher.start(f"{name}-validate", argv, role="sidecar", log=log))
            wait_until(lambda: not any(check.running for check in checks), timeout_s=_VALIDATE_TIMEOUT_S, watch=watch)
            for name, check in zip(commands, checks, strict=True):
                if check.popen.returncode != 0:
                    reason = f"{check.describe_end()}\n{check.log_tail()}"
                    raise DeployError(f"Envoy rejects the configuration of {name}-sidecar: {reason}")
