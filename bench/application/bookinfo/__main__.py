"""Run one service from the command line and the environment; a failure is printed as one line."""

import asyncio
import os
import sys

from bench.application.bookinfo.server import serve
from bench.application.bookinfo.settings import read_settings


def main() -> int:
    """Run one service until SIGTERM. Return 0 after a signal, 1 when it cannot listen."""
    settings = read_settings(sys.argv[1:], os.environ)
    try:
        asyncio.run(serve(settings))
    except OSError as error:
        address = f"{settings.host}:{settings.port}"
        sys.stderr.write(f"{settings.service}: cannot listen on {address}: {error.strerror}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
