"""The files that a scenario names, copied into the run's folder: what was measured can be read, and resumed, there."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

from bench.fields import find_locustfile, find_manifests
from bench.manifest_files import manifest_files
from bench.scenario import Scenario, scenario_path

_MANIFESTS = "manifests"
_LOCUSTFILE = "locustfile.py"


@dataclass(frozen=True, slots=True)
class Inputs:
    """Manifest folders by the names that the scenario uses, and the locustfile (a single file, as for a pod)."""

    manifests: Mapping[str, Path]
    locustfile: Path

    def copy_to(self, run: Path) -> None:
        """Copy what is read, and nothing beside it, into `manifests/` and `locustfile.py` of a run's folder."""
        for place, source in self.manifests.items():
            for file in manifest_files(source):
                kept = run / _MANIFESTS / _flat(place) / file.relative_to(source)
                kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, kept)
        shutil.copyfile(self.locustfile, run / _LOCUSTFILE)


def inputs_of(scenario: Scenario, source: str) -> Inputs:
    """What a scenario names, found beside its file or among the shipped. `source` is its name or path."""
    folder = scenario_path(source).parent
    places = {place for configuration in scenario.configurations for place in configuration.manifests}
    return Inputs(
        manifests={place: find_manifests(place, folder) for place in sorted(places)},
        locustfile=find_locustfile(scenario.load.locustfile, folder),
    )


def stored_inputs(scenario: Scenario, run: Path) -> Inputs:
    """The same, from a run's folder."""
    places = {place for configuration in scenario.configurations for place in configuration.manifests}
    return Inputs({place: _stored(place, run) for place in sorted(places)}, run / _LOCUSTFILE)


def lie_apart(inputs: Inputs) -> bool:
    """Whether no folder of manifests lies in another, as it could in the folders of runs of older versions, which read
    a folder without what lies below it."""
    return not any(one.is_relative_to(other) for one, other in permutations(inputs.manifests.values(), 2))


def _stored(place: str, run: Path) -> Path:
    """Find a folder of manifests in a run's folder: runs of older versions have `a/b` as a folder in a folder."""
    flat = run / _MANIFESTS / _flat(place)
    return flat if flat.is_dir() else run / _MANIFESTS / place


def _flat(place: str) -> str:
    """Name a folder so that none lies in another, whose files would count as its own: `istio+policies`."""
    return place.replace("/", "+")  # which no place has in its name
