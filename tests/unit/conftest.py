"""Unit tests start no process, use no socket, and have no time limits, as they run on busy machines."""

import sys
from collections.abc import Generator
from pathlib import Path
from typing import Final

import pytest
import urllib3  # noqa: F401  # binds a socket when it is imported, which a test alone in its process would be blamed for
from hypothesis import settings

# `make unit` draws few examples; `pytest tests/unit --hypothesis-profile=many` draws many, as `make soak` does.
settings.register_profile("few", deadline=None, max_examples=30)
settings.register_profile("many", deadline=None, max_examples=1000)
settings.load_profile("few")

FOLDER: Final = Path(__file__).parent
OUTSIDE: Final = frozenset(
    {
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.system",
        "socket.bind",
        "socket.connect",
        "socket.getaddrinfo",
        "socket.sendto",
        "subprocess.Popen",
    }
)


class Guard:
    """Fails a unit test that starts a process or uses a socket: such a test belongs to tests/local."""

    is_active = False

    def check(self, event: str, args: tuple[object, ...]) -> None:
        """Hear of every audit event of this process; an audit hook can never be removed."""
        if self.is_active and event in OUTSIDE:
            pytest.fail(f"a unit test touches what is outside: {event}{args!r:.200}")


GUARD: Final = Guard()
sys.addaudithook(GUARD.check)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Guard a test with the fixtures of its module."""
    GUARD.is_active = FOLDER in item.path.parents
    try:
        return (yield)
    finally:
        GUARD.is_active = False
