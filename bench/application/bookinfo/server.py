"""Runs one service on one event loop until it is told to end."""

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
# Longer than the hour for which Envoy keeps an idle connection: the proxy always closes first, so a request
# can't meet a connection that the service is closing at that moment.
_IDLE_LIMIT_S: Final = 3630.0
_SHUTDOWN_LIMIT_S: Final = 0.2
_BACKLOG: Final = 1024


async def serve(settings: Settings) -> None:
    """Listen, say where on standard output, and answer until SIGTERM or SIGINT.

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
    """Keep collections out of the tail of the latencies.

    What start-up made lives as long as the process and is never looked at again. The thresholds stay as they
    are: their small steps took 0.3 ms every 16 pages; steps 14 times rarer took 6 ms, which every user of
    that moment would see.
    """
    gc.collect()
    gc.freeze()
