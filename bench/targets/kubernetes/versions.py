"""Versions of Kubernetes."""

import re


def release_of(version: str) -> tuple[int, int]:
    """The two numbers that decide what a server or kubelet can do: (1, 34) for `v1.34.2-eks-abc`."""
    major, minor = re.findall(r"\d+", version)[:2]
    return int(major), int(minor)
