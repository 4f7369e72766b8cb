"""Policies and gateways of folders of manifests, as resolving a scenario reads them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.application.manifests import Source, read_manifests
from bench.application.model import Application, Gateway
from bench.errors import InputError
from bench.meshes import MESHES
from bench.meshes.istio.policy_model import IstioPolicies
from bench.meshes.kuma.policy_model import KumaPolicies
from bench.meshes.protocols import Policies
from bench.meshes.resolved import ResolvedScenario, resolve_file

SCENARIO = """\
name: own
title: Own policies
load: {users: 5, warmup: 5s, duration: 20s}
repeats: 1
reference: baseline
configurations:
  - {name: baseline, mesh: none}
  - {name: own, mesh: MESH, manifests: [policies]}
"""


def parse_folders(mesh: str, folders: Sequence[Path], application: Application) -> tuple[Source[Any], ...]:
    """Return the manifests of a mesh in these folders. Raises InputError if one is not translated."""
    kinds = MESHES[mesh].policies.KINDS
    return read_manifests(folders, kinds, namespace=application.namespace).require_translated()


def read_gateway(mesh: str, folders: Sequence[Path], application: Application) -> Gateway | None:
    """Return the gateway of these folders, if they have one."""
    return MESHES[mesh].policies.read_gateway(parse_folders(mesh, folders, application), application)


def read_policies(mesh: str, folders: Sequence[Path], application: Application) -> Policies:
    """Return the policies of these folders. Raises InputError for what is not translated, or has no effect, too."""
    reading = MESHES[mesh].policies.read_policies(parse_folders(mesh, folders, application), application)
    problems = [*(problem for one in reading.untranslated for problem in one.problems), *reading.warnings]
    if problems:
        raise InputError(problems)
    return reading.policies


def read_istio(folders: Sequence[Path], application: Application) -> IstioPolicies:
    """Return Istio's policies of these folders, as `read_policies`."""
    policies = read_policies("istio", folders, application)
    assert isinstance(policies, IstioPolicies)
    return policies


def read_kuma(folders: Sequence[Path], application: Application) -> KumaPolicies:
    """Return Kuma's policies of these folders, as `read_policies`."""
    policies = read_policies("kuma", folders, application)
    assert isinstance(policies, KumaPolicies)
    return policies


def resolve_policies(folder: Path, text: str, mesh: str = "istio") -> ResolvedScenario:
    """Resolve a scenario whose configuration `own` has these manifests, in a new file below `folder`."""
    (folder / "policies").mkdir()
    (folder / "policies/a.yaml").write_text(text, "utf-8")
    scenario = folder / "own.yaml"
    scenario.write_text(SCENARIO.replace("MESH", mesh), "utf-8")
    return resolve_file(scenario)
