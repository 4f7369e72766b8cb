"""Readers of Bookinfo: each asks for the product page, looks at it, thinks for a while, and asks again.

With `--logged-in` half of them log in first, and what they ask for is counted apart. Works as any Locust file does, web
page included:

    locust -f locustfiles/bookinfo.py --host http://productpage:9080 --users 20
"""

import itertools
import json
import random
from urllib.parse import urlencode

import gevent
from locust import FastHttpUser, events, task
from locust.argument_parser import LocustArgumentParser

from bench.application.bookinfo.pages import page_problem


@events.init_command_line_parser.add_listener
def options(parser: LocustArgumentParser) -> None:
    """What a reader may be told on the command line or on Locust's web page."""
    parser.add_argument("--think-time", type=float, default=0.1, help="Seconds from an answer to the next request")
    parser.add_argument("--reviews", default="any", help="What the page must show: v1, v2, v3 or any")
    parser.add_argument("--logged-in", default="{}", help='Who logs in, and what they must see: {"Marco": "v2"}')
    parser.add_argument("--virtual-host", default="", help="Host header to send instead of the address's")


class Reader(FastHttpUser):
    """A closed loop: the next request starts `think_time` after the answer to the one before."""

    numbers = itertools.count()
    page = None  # the name of the requests; None stands for their path

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
        self.reviews = self.environment.parsed_options.reviews
        if users := json.loads(self.environment.parsed_options.logged_in):
            self.become_one_of(users)

    def become_one_of(self, users: dict[str, str]) -> None:
        """Every other reader logs in, as each of the users in turn."""
        turn, logs_in = divmod(next(self.numbers) + getattr(self.environment.runner, "worker_index", 0), 2)
        user = [*users][turn % len(users)]
        self.page = f"page as {user}" if logs_in else "page as others"
        if logs_in:
            self.reviews = users[user]
            self.log_in(user)

    def log_in(self, user: str) -> None:
        """Any password will do; the session's cookie is kept, and sent from now on."""
        headers = {**self.headers(), "Content-Type": "application/x-www-form-urlencoded"}
        form = urlencode({"username": user, "passwd": ""})
        self.client.post("/login", form, name="login", headers=headers, allow_redirects=False)

    def headers(self) -> dict[str, str]:
        host = self.environment.parsed_options.virtual_host
        return {"Host": host} if host else {}

    @task
    def product_page(self) -> None:
        """A page counts as good only when it is whole: Bookinfo answers 200 with its back ends down."""
        with self.client.get("/productpage", name=self.page, headers=self.headers(), catch_response=True) as response:
            problem = page_problem(response.content or b"", self.reviews) if response.status_code == 200 else None
            if problem:
                response.failure(problem)
