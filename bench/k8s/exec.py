"""Run a command in a container, with all of its input and output."""

import asyncio
import json
import re
from dataclasses import dataclass, field
from http import HTTPStatus

import aiohttp
from kubernetes.stream.ws_client import (
    CLOSE_CHANNEL,
    ERROR_CHANNEL,
    STDERR_CHANNEL,
    STDIN_CHANNEL,
    STDOUT_CHANNEL,
    V4_CHANNEL_PROTOCOL,
    V5_CHANNEL_PROTOCOL,
)

from bench.errors import BadAnswerError, ClusterError, ErrorKind
from bench.k8s.connection import Connection, Request, kind_of_refusal, read_status_message
from bench.k8s.websocket import CHUNK, is_too_large, open_stream

_CHANNELS = (STDIN_CHANNEL, STDOUT_CHANNEL, STDERR_CHANNEL, ERROR_CHANNEL)
_LAST_STATUS = 599
MOST_BYTES = 64 * 1024 * 1024
"""Of a command's output, where the caller has no better limit: a large sidecar's configuration is a tenth of it."""
_STATUS_BYTES = 64 * 1024  # in addition to the output


@dataclass(frozen=True)
class ExecResult:
    """A command that ended in a container."""

    exit_code: int
    stdout: bytes
    stderr: str


@dataclass(slots=True)
class _Output:
    most_bytes: int
    channels: dict[int, bytearray] = field(default_factory=lambda: {one: bytearray() for one in _CHANNELS})
    size: int = 0

    def take(self, frame: bytes) -> bool:
        """Keep a frame; return False where that exceeds the limit."""
        self.size += len(frame[1:])
        if self.size > self.most_bytes:
            return False
        if frame and frame[0] in self.channels:
            self.channels[frame[0]] += frame[1:]
        return True


def run_command(
    connection: Connection, request: Request, *, stdin: bytes, timeout_s: float, most_bytes: int = MOST_BYTES
) -> ExecResult:
    """Run a command in a container to its end. Raises ClusterError if it cannot be started or does not end, and
    BadAnswerError if its output is larger than `most_bytes`."""
    try:
        output = asyncio.run(_run(connection, request, stdin, timeout_s, most_bytes))
    except TimeoutError as error:
        raise ClusterError(f"{request.what}: it has not ended after {timeout_s:g} s", kind=ErrorKind.TIMEOUT) from error
    return ExecResult(
        exit_code=read_exit_code(request.what, bytes(output[ERROR_CHANNEL])),
        stdout=bytes(output[STDOUT_CHANNEL]),
        stderr=output[STDERR_CHANNEL].decode("utf-8", "replace"),
    )


async def _run(
    connection: Connection, request: Request, stdin: bytes, timeout_s: float, most_bytes: int
) -> dict[int, bytearray]:
    output = _Output(most_bytes + _STATUS_BYTES)
    # Version 5 can close stdin, which every server since Kubernetes 1.30 has.
    protocols = (V5_CHANNEL_PROTOCOL,) if stdin else (V5_CHANNEL_PROTOCOL, V4_CHANNEL_PROTOCOL)
    async with asyncio.timeout(timeout_s), open_stream(connection, request, protocols) as stream:
        if stdin and stream.protocol != V5_CHANNEL_PROTOCOL:
            text = f"{request.what}: to end its input needs Kubernetes 1.30 or later"
            raise ClusterError(text, kind=ErrorKind.UNSUPPORTED)
        writing = asyncio.create_task(_write(stream, stdin))
        try:
            async for message in stream:
                is_data = message.type is aiohttp.WSMsgType.BINARY
                if is_too_large(message) or (is_data and not output.take(message.data)):
                    raise BadAnswerError(f"{request.what}: its output is larger than {most_bytes} bytes")
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
    return output.channels


async def _write(stream: aiohttp.ClientWebSocketResponse, stdin: bytes) -> None:
    """Write the input; may end early with an error when the command has ended, whose output then explains enough."""
    if not stdin:
        return
    for start in range(0, len(stdin), CHUNK):
        await stream.send_bytes(bytes([STDIN_CHANNEL]) + stdin[start : start + CHUNK])
        await asyncio.sleep(0)  # sending alone does not let the loop notice that the connection is closed
    await stream.send_bytes(bytes([CLOSE_CHANNEL, STDIN_CHANNEL]))


def read_exit_code(what: str, status: bytes) -> int:
    """Read the exit code from the Status that ends a command's stream; a stream without one was cut, and its output is
    incomplete."""
    if not status:
        text = f"{what}: the connection broke before the command had ended"
        raise ClusterError(text, kind=ErrorKind.INTERRUPTED)
    try:
        parsed = json.loads(status)
        if parsed.get("status") == "Success":
            return 0
        details = parsed.get("details") or {}
        codes = [str(cause["message"]) for cause in details.get("causes") or () if cause.get("reason") == "ExitCode"]
        status_code = parsed.get("code", HTTPStatus.INTERNAL_SERVER_ERROR)
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise BadAnswerError(f"{what}: the stream did not end with a Status: {read_status_message(status)}") from error
    if codes:
        return _parse_exit_code(what, codes[0])
    is_status = isinstance(status_code, int) and 100 <= status_code <= _LAST_STATUS
    kind = kind_of_refusal(status_code, status) if is_status else ErrorKind.UNAVAILABLE
    raise ClusterError(f"{what}: {read_status_message(status)}", kind=kind)


def _parse_exit_code(what: str, text: str) -> int:
    """Return a process's exit code. Raises BadAnswerError."""
    if not re.fullmatch(r"-?[0-9]{1,10}", text, re.ASCII):
        raise BadAnswerError(f"{what}: the stream ended with an exit code that is not a number: {text[:80]!r}")
    return int(text)
