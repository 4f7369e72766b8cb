"""The guard of the unit tests: none of them uses anything outside of its process."""

import os
import socket
import subprocess
import threading
from collections.abc import Callable

import pytest


def run() -> None:
    subprocess.run(["true"])


def spawn() -> None:
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)


def connect() -> None:
    with socket.socket() as client:
        client.connect(("127.0.0.1", 9))


def listen() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))


@pytest.mark.parametrize("touch", [run, spawn, connect, listen])
def test_process_or_socket_fails_a_unit_test(touch: Callable[[], object]) -> None:
    """Such a test belongs in tests/local."""
    with pytest.raises(pytest.fail.Exception, match="a unit test touches what is outside"):
        touch()


def test_thread_of_a_unit_test_is_guarded() -> None:
    """A process that a thread starts fails the test, too."""
    caught: list[str] = []

    def touch() -> None:
        with pytest.raises(pytest.fail.Exception) as failure:
            connect()
        caught.append(str(failure.value))

    thread = threading.Thread(target=touch)
    thread.start()
    thread.join()
    assert [message.partition(": ")[0] for message in caught] == ["a unit test touches what is outside"]
