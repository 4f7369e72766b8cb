"""Read the settings of a service once: the original's environment variables and a few options."""

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

VERSIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "productpage": ("v1",),
    "details": ("v1",),
    "reviews": ("v1", "v2", "v3"),
    "ratings": ("v1", "v2", "v-faulty", "v-delayed"),
}
_CONNECT_TO: Final = re.compile(r"([^=\s]+:\d+)=([^=\s]+:\d+)")
_BACK_ENDS: Final = ("details", "reviews", "ratings")
# reviews is one program: its version sets whether it calls ratings, and the colour of the stars.
_STARS: Final = {"v1": ("false", "black"), "v2": ("true", "black"), "v3": ("true", "red")}


@dataclass(frozen=True, slots=True)
class Peer:
    """A back end: its name for callers (the Host header), and the address of its connections."""

    name: str
    authority: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One service's whole configuration; `port` 0 stands for any free one."""

    service: str
    version: str
    host: str
    port: int
    peers: Mapping[str, Peer]
    ratings_enabled: bool
    star_colour: str
    flood_factor: int
    pod_name: str
    cluster_name: str


def read_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Read the settings from a command line and an environment; an error ends the process as in argparse."""
    parser = _make_parser(environment.get("SERVICE_NAME"))
    options = parser.parse_args(arguments)
    try:
        if options.service is None:
            raise ValueError("SERVICE is not given, and SERVICE_NAME is not set")
        version = _check_version(options.service, options.version or environment.get("SERVICE_VERSION", "v1"))
        ratings_enabled, star_colour = _STARS.get(version, _STARS["v1"])
        peers = _make_peers(environment, dict(options.connect_to))
        flood_factor = _parse_flood_factor(environment.get("FLOOD_FACTOR", "0"))
    except ValueError as error:
        parser.error(str(error))
    return Settings(
        service=options.service,
        version=version,
        host=options.host,
        port=options.port,
        peers=peers,
        ratings_enabled=environment.get("ENABLE_RATINGS", ratings_enabled).lower() == "true",
        star_colour=environment.get("STAR_COLOR", star_colour),
        flood_factor=flood_factor,
        # the original shows an unset variable as this word, and its page leaves the cluster out then
        pod_name=environment.get("HOSTNAME", "null"),
        cluster_name=environment.get("CLUSTER_NAME", "null"),
    )


def _make_parser(service: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.application.bookinfo", description="Run one Bookinfo service."
    )
    parser.add_argument("service", nargs="?", choices=VERSIONS, default=service, help="default: SERVICE_NAME")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=9080, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--version", help="default: SERVICE_VERSION, else v1")
    parser.add_argument(
        "--connect-to",
        action="append",
        default=[],
        type=_parse_connect_to,
        metavar="HOST:PORT=ADDRESS:PORT",
        help="calls to HOST:PORT connect to ADDRESS:PORT and keep their Host header; may be repeated",
    )
    return parser


def _parse_connect_to(text: str) -> tuple[str, str]:
    match = _CONNECT_TO.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT=ADDRESS:PORT")
    return match[1], match[2]


def _check_version(service: str, version: str) -> str:
    if version not in VERSIONS[service]:
        raise ValueError(f"{service} has no version {version!r}; it has {', '.join(VERSIONS[service])}")
    return version


def _parse_flood_factor(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"FLOOD_FACTOR is {text!r}; it has to be a whole number")
    return int(text)


def _make_peers(environment: Mapping[str, str], connect_to: Mapping[str, str]) -> dict[str, Peer]:
    authorities = {name: _make_authority(name, environment) for name in _BACK_ENDS}
    if unknown := connect_to.keys() - authorities.values():
        known = ", ".join(authorities.values())
        raise ValueError(f"no call goes to {', '.join(sorted(unknown))}; calls go to {known}")
    return {
        name: Peer(name, authority=authority, address=connect_to.get(authority, authority))
        for name, authority in authorities.items()
    }


def _make_authority(name: str, environment: Mapping[str, str]) -> str:
    host = environment.get(f"{name.upper()}_HOSTNAME", name)
    domain = environment.get("SERVICES_DOMAIN")
    port = environment.get(f"{name.upper()}_SERVICE_PORT", "9080")
    return f"{host}.{domain}:{port}" if domain else f"{host}:{port}"
