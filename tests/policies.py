"""Policies and gateways of folders of manifests, as resolving a scenario reads them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.application.manifests import Source, read_manifests
from bench.application.model import Application, Gateway
from bench.meshes import MESHES
from bench.meshes.protocols import Policies


def parse_folders(mesh: str, folders: Sequence[Path], application: Application) -> tuple[Source[Any], ...]:
    """Return the manifests of a mesh in these folders."""
    return read_manifests(folders, MESHES[mesh].policies.KINDS, namespace=application.namespace)


def read_gateway(mesh: str, folders: Sequence[Path], application: Application) -> Gateway | None:
    """Return the gateway of these folders, if they have one."""
    return MESHES[mesh].policies.read_gateway(parse_folders(mesh, folders, application), application)


def read_policies(mesh: str, folders: Sequence[Path], application: Application) -> Policies:
    """Return the policies of these folders."""
    return MESHES[mesh].policies.read_policies(parse_folders(mesh, folders, application), application)
