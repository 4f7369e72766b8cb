"""Running a command in a container, with all of its input and output."""

import asyncio
import json
from dataclasses import dataclass, field

import aiohttp

from bench.errors import ClusterError
from bench.targets.kubernetes.client_connection import Connection, Request, said
from bench.targets.kubernetes.client_streams import CHUNK, V4, V5, open_stream

_STDIN, _STDOUT, _STDERR, _ERROR = range(4)
_CLOSE = 255
_INTERNAL_ERROR = 500


@dataclass(frozen=True)
class Ran:
    """A command that ended in a container."""

    exit_code: int
    stdout: bytes
    stderr: str


@dataclass(slots=True)
class _Output:
    channels: dict[int, bytearray] = field(default_factory=lambda: {one: bytearray() for one in range(4)})

    def take(self, frame: bytes) -> None:
        if frame and frame[0] in self.channels:
            self.channels[frame[0]] += frame[1:]


def run_command(connection: Connection, request: Request, *, stdin: bytes, timeout_s: float) -> Ran:
    """Runs a command in a container to its end. Raises ClusterError if it cannot be started or does not end."""
    try:
        output = asyncio.run(_run(connection, request, stdin, timeout_s))
    except TimeoutError as error:
        raise ClusterError(f"{request.what}: it has not ended after {timeout_s:g} s", status=0) from error
    return Ran(
        exit_code=exit_code(request.what, bytes(output[_ERROR])),
        stdout=bytes(output[_STDOUT]),
        stderr=output[_STDERR].decode("utf-8", "replace"),
    )


async def _run(connection: Connection, request: Request, stdin: bytes, timeout_s: float) -> dict[int, bytearray]:
    output = _Output()
    protocols = (V5,) if stdin else (V5, V4)
    async with asyncio.timeout(timeout_s), open_stream(connection, request, protocols) as stream:
        if stdin and stream.protocol != V5:
            raise ClusterError(f"{request.what}: to end its input takes Kubernetes 1.30 or newer", status=0)
        writing = asyncio.create_task(_write(stream, stdin))
        try:
            async for message in stream:
                if message.type is aiohttp.WSMsgType.BINARY:
                    output.take(message.data)
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
    return output.channels


async def _write(stream: aiohttp.ClientWebSocketResponse, stdin: bytes) -> None:
    """It may end early with an error when the command has ended, whose output then has told enough."""
    if not stdin:
        return
    for start in range(0, len(stdin), CHUNK):
        await stream.send_bytes(bytes([_STDIN]) + stdin[start : start + CHUNK])
        await asyncio.sleep(0)  # sending alone does not let the loop see that the connection has gone
    await stream.send_bytes(bytes([_CLOSE, _STDIN]))


def exit_code(what: str, status: bytes) -> int:
    """From the Status that ends a command's stream; a stream without one was cut, and its output is not whole."""
    if not status:
        raise ClusterError(f"{what}: the connection broke before the command had ended", status=0)
    parsed = json.loads(status)
    if parsed.get("status") == "Success":
        return 0
    for cause in parsed.get("details", {}).get("causes", ()):
        if cause.get("reason") == "ExitCode":
            return int(cause["message"])
    raise ClusterError(f"{what}: {said(status)}", status=parsed.get("code", _INTERNAL_ERROR))
