"""Run the sidecars of one deployment: write their configuration, let the proxy validate it, start them."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.application.model import GATEWAY, Gateway
from bench.envoy.addresses import Placement
from bench.envoy.certificates import Certificates
from bench.envoy.static_gateway import front_bootstrap
from bench.errors import DeployError
from bench.meshes import MESHES
from bench.meshes.envoy_data_plane import envoy_command
from bench.meshes.protocols import DataPlane, Policies, ProxyCommand, ProxyInputs
from bench.scenario.model import Equal
from bench.system.cancellation import CancelToken, wait_until
from bench.system.processes import Launcher, Process
from bench.verification.questions import FRONT

_VALIDATE_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Sidecars:
    """One proxy for each workload, and one for the load generator or the gateway. `folder` holds configuration and
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

    def start(self, launcher: Launcher, *, draft: Path) -> Iterator[Process]:
        """Start all sidecars, without waiting for them.

        A copy of their configuration (`WORK` stands for the working folder) and their logs are written to the draft's
        `proxies/`; keys are in separate files in the working folder.
        """
        copies = draft / "proxies"
        copies.mkdir(exist_ok=True)
        commands = dict(self._commands())
        self._write(commands)
        for name, command in commands.items():
            copy = command.configuration.replace(str(self.folder.parent), "WORK")
            (copies / f"{name}.json").write_text(copy, "utf-8")
            yield launcher.start(self._title(name), list(command.start), role="sidecar", log=copies / f"{name}.log")

    def start_validation(self, launcher: Launcher) -> Iterator[tuple[str, Process]]:
        """Start the proxies that only validate their configuration; yield each with the name of its workload."""
        commands = dict(self._commands())
        self._write(commands)
        for name, command in commands.items():
            if command.check:
                log = self.folder / f"{name}-validate.log"
                yield name, launcher.start(f"{name}-validate", list(command.check), role="sidecar", log=log)

    @property
    def _gateway(self) -> Gateway | None:
        return self.placement.application.gateway

    def _title(self, name: str) -> str:
        """Return the name of its process: a gateway is not a workload's sidecar."""
        sidecars = [workload.name for workload in self.placement.application.with_sidecar]
        return f"{name}-sidecar" if name in sidecars else GATEWAY

    @property
    def data_plane(self) -> DataPlane:
        """Return the data plane of the mesh."""
        return MESHES[self.mesh].data_plane

    def configuration(self, name: str) -> str:
        """Return the configuration with which the sidecar of a workload was started."""
        return self._file(name).read_text("utf-8")

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _write(self, commands: Mapping[str, ProxyCommand]) -> None:
        for name, command in commands.items():
            self._file(name).write_text(command.configuration, "utf-8")

    def _commands(self) -> Iterator[tuple[str, ProxyCommand]]:
        """Yield how every proxy is started, by the name of the workload."""
        inputs = ProxyInputs(self.placement, self.policies, self.certificates, self.equalise)
        for workload in self.placement.application.with_sidecar:
            name = workload.name
            yield name, self.data_plane.sidecar(workload, inputs, config=self._file(name), admin=self.admins[name])
        if self._gateway is not None:
            yield self.front, self._front_command(self._gateway, inputs)

    def _front_command(self, gateway: Gateway, inputs: ProxyInputs) -> ProxyCommand:
        """Return how the proxy at which the load enters is started: the mesh's own, or a delegated gateway's, which
        `equalise` leaves as it is."""
        admin, config = self.admins[self.front], self._file(self.front)
        if self.front == FRONT:
            return envoy_command(
                front_bootstrap(gateway, placement=self.placement, admin=admin), config, gateway.options
            )
        return self.data_plane.gateway(gateway, inputs, config=config, admin=admin)


def validate_all(sidecars: Sequence[Sidecars], launcher: Launcher, *, watch: CancelToken) -> None:
    """Let the proxies of all these validate their configuration at the same time. Raises DeployError with the proxy's
    message when it rejects one."""
    with launcher.group() as checks:
        started: list[tuple[str, str, Process]] = []
        for one in sidecars:
            for name, check in one.start_validation(launcher):
                checks.append(check)
                started.append((one.data_plane.title, name, check))
        wait_until(lambda: not any(check.running for check in checks), timeout_s=_VALIDATE_TIMEOUT_S, watch=watch)
        for title, name, check in started:
            if check.popen.returncode != 0:
                reason = f"{check.describe_end()}\n{check.log_tail()}"
                raise DeployError(f"{title} rejects the configuration of {name}-sidecar: {reason}")
