"""All edges."""

from typing import Final

from tests.fuzz import cluster, inputs, runs

EDGES: Final = (*inputs.EDGES, *runs.EDGES, *cluster.EDGES)
