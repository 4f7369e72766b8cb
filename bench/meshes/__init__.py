"""Service meshes: what a mesh is to meshbench, and the ones that it knows.

A mesh is a module with the functions below; targets ask `MESHES` for it by the name that scenarios use.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from bench.meshes import istio
from bench.meshes.application import Application
from bench.meshes.istio_policies import Policies
from bench.meshes.probe import Probe


class Mesh(Protocol):
    """What the targets need of a mesh."""

    TITLE: str

    def spiffe_id(self, application: Application, account: str) -> str:
        """The identity in the certificate of a service account."""

    def read_policies(self, folders: Sequence[Path], application: Application) -> Policies:
        """The policies of a configuration. Raises InputError with all problems."""

    def probes(self, policies: Policies, application: Application) -> tuple[Probe, ...]:
        """What to ask the sidecars so that each policy shows."""


MESHES: Final[Mapping[str, Mesh]] = {"istio": istio}
