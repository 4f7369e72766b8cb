"""Removal of a run from a cluster, by its labels, stage by stage."""
