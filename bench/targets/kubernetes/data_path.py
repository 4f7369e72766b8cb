"""The data path of a deployment on a cluster; what its sidecars have as configuration is kept with the trial."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bench.data_path import DataPath
from bench.filenames import file_name
from bench.meshes.application import GATEWAY
from bench.store import write_text
from bench.targets import proxies
from bench.targets.data_path import read_data_path
from bench.targets.envoy_config import of_dump
from bench.targets.kubernetes.evidence import Meshed, clusters_of, hops_of
from bench.targets.kubernetes.sidecars import Sidecars

_SECRETS: Final = "type.googleapis.com/envoy.admin.v3.SecretsConfigDump"


def sidecars_path(meshed: Meshed, sidecars: Sidecars, kept: Path) -> DataPath:
    """The data path, from one question to each sidecar for its configuration, which is left in the folder `kept`, and
    from its counters. Raises DeployError where one does not answer."""
    dumps = {name: without_secrets(sidecars.ask(name, proxies.CONFIGURATION)) for name in sidecars.pods}
    kept.mkdir(exist_ok=True)
    for name, dump in dumps.items():
        write_text(kept / file_name(f"{name}.json"), json.dumps(dump, indent=1))
    inside = (hop for hop in hops_of(meshed.application) if hop.caller in dumps and hop.callee != GATEWAY)
    clusters = {hop: clusters_of(meshed, hop) for hop in inside}
    return read_data_path(
        {hop: outbound for hop, (outbound, _) in clusters.items()},
        {hop.callee: inbound for hop, (_, inbound) in clusters.items() if hop.callee in dumps},
        configs={name: of_dump(dump) for name, dump in dumps.items()},
        ask=sidecars.ask,
    )


def without_secrets(dump: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without its section of certificates and keys: Envoy blots the keys out, and nobody needs the
    rest."""
    return {**dump, "configs": [section for section in dump["configs"] if section["@type"] != _SECRETS]}
