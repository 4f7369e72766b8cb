"""Readers of Bookinfo: each asks for the product page, looks at it, thinks for a while, and asks again.

Works as any Locust file does, web page included:

    locust -f locustfiles/bookinfo.py --host http://productpage:9080 --users 20
"""

import random
from typing import Any

import gevent
from locust import FastHttpUser, events, task
from locust.argument_parser import LocustArgumentParser

from bench.bookinfo.pages import page_problem


@events.init_command_line_parser.add_listener
def options(parser: LocustArgumentParser) -> None:
    """What a reader may be told on the command line or on Locust's web page."""
    parser.add_argument("--think-time", type=float, default=0.1, help="Seconds from an answer to the next request")
    parser.add_argument("--reviews", default="any", help="What the page must show: v1, v2, v3 or any")
    parser.add_argument("--virtual-host", default="", help="Host header to send instead of the address's")


class Reader(FastHttpUser):
    """A closed loop: the next request starts `think_time` after the answer to the one before."""

    @property
    def think_time(self) -> float:
        """Seconds."""
        return float(self.environment.parsed_options.think_time)

    def wait_time(self) -> float:
        """The same after every answer: as in the study that meshbench follows."""
        return self.think_time

    def on_start(self) -> None:
        """The first wait is random, so that readers who start together do not go on in step."""
        gevent.sleep(random.uniform(0, self.think_time))  # noqa: S311  # no secret

    @task
    def product_page(self) -> None:
        """A page counts as good only when it is whole: Bookinfo answers 200 with its back ends down."""
        options = self.environment.parsed_options
        headers = {"Host": options.virtual_host} if options.virtual_host else {}
        with self.client.get("/productpage", headers=headers, catch_response=True) as response:
            problem = page_problem(response.content or b"", options.reviews) if response.status_code == 200 else None
            if problem:
                response.failure(problem)

    def context(self) -> dict[str, Any]:
        """Nothing of our own; recorders add to it."""
        return {}
