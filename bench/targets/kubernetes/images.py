"""Which image a workload runs: the manifest's, or the one that replaces it; from its own registry, or from a mirror."""

from collections.abc import Mapping

from bench.settings import BOOKINFO, SERVICES


def image_of(workload: str, image: str, *, images: Mapping[str, str], registry: str = "") -> str:
    """The image of a workload, or of `load`. `images` replace the manifest's `image`, by workload (`bookinfo` stands
    for its four services), as they are; `registry` replaces the registry's host in the manifest's."""
    chosen = images.get(workload) or (images.get(BOOKINFO, "") if workload in SERVICES else "")
    return chosen or mirrored(image, registry)


def mirrored(image: str, registry: str) -> str:
    """The image in a mirror: `mirror.example/release/x:1` for `registry.istio.io/release/x:1`."""
    host, slash, path = image.partition("/")
    if not registry:
        return image
    if not slash or not ("." in host or ":" in host or host == "localhost"):
        path = image
    return f"{registry.rstrip('/')}/{path}"
