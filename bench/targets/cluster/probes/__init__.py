"""Pods that send the requests of a proof, and what they and the sidecars answer."""
