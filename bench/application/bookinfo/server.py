"""Run one service on one event loop until a signal."""

import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aiohttp import web

from bench.application.bookinfo import details, productpage, ratings, reviews
from bench.application.bookinfo.settings import Settings

APPLICATIONS: Final[Mapping[str, Callable[[Settings], Awaitable[web.Application]]]] = {
    "productpage": productpage.application,
    "details": details.application,
    "reviews": reviews.application,
    "ratings": ratings.application,
}
# Longer than the hour for which Envoy keeps an idle connection: the proxy always closes first, so that no request is
# sent on a connection that the service is closing.
_IDLE_LIMIT_S: Final = 3630.0
_SHUTDOWN_LIMIT_S: Final = 0.2
_BACKLOG: Final = 1024


async def serve(settings: Settings) -> None:
    """Listen, print the address on standard output, and serve until SIGTERM or SIGINT.

    Raises OSError when it cannot listen there.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(
        await APPLICATIONS[settings.service](settings),
        access_log=None,
        keepalive_timeout=_IDLE_LIMIT_S,
        shutdown_timeout=_SHUTDOWN_LIMIT_S,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.host, settings.port, backlog=_BACKLOG).start()
        _calm_garbage_collector()
        host, port = runner.addresses[0][:2]
        sys.stdout.write(f"listening on {host}:{port}\n")
        sys.stdout.flush()
        await stop.wait()
    finally:
        await runner.cleanup()


def _calm_garbage_collector() -> None:
    """Keep garbage collections out of the tail of the latencies.

    Objects from the start live as long as the process, and are frozen. The thresholds stay at their defaults: their
    small collections took 0.3 ms every 16 pages; collections 14 times rarer took 6 ms, which every user at that moment
    would see.
    """
    gc.collect()
    gc.freeze()
