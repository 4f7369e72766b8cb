"""Load of Bookinfo: each user requests the product page, checks it, waits for the think time, and repeats.

With `--logged-in` half of the users log in first, and their requests have names of their own. It is an ordinary Locust
file, and also works with Locust's web page:

    locust -f locustfiles/bookinfo.py --host http://productpage:9080 --users 20
"""

import itertools
import json
import random
from urllib.parse import urlencode

import gevent
from locust import FastHttpUser, events, task
from locust.argument_parser import LocustArgumentParser

from bench.application.bookinfo.pages import find_problem


@events.init_command_line_parser.add_listener
def options(parser: LocustArgumentParser) -> None:
    """Add the options of users, for the command line and Locust's web page."""
    parser.add_argument("--think-time", type=float, default=0.1, help="Seconds from a response to the next request")
    parser.add_argument("--versions", default="{}", help='Expected version of reviews, or any: {"reviews": "v3"}')
    parser.add_argument("--logged-in", default="{}", help='Users to log in, and theirs: {"Marco": {"reviews": "v2"}}')


class Reader(FastHttpUser):
    """A user in a closed loop: each request starts `think_time` after the response to the one before."""

    numbers = itertools.count()
    page = None  # the name of the requests; None is their path

    @property
    def think_time(self) -> float:
        """Seconds."""
        return float(self.environment.parsed_options.think_time)

    def wait_time(self) -> float:
        """Return the same time after every response, as in the 2022 study."""
        return self.think_time

    def on_start(self) -> None:
        """Wait for a random time, so that users who start together do not stay in step; log in if required."""
        gevent.sleep(random.uniform(0, self.think_time))  # noqa: S311  # no secret
        self.versions = json.loads(self.environment.parsed_options.versions)
        if users := json.loads(self.environment.parsed_options.logged_in):
            self.become_one_of(users)

    def become_one_of(self, users: dict[str, dict[str, str]]) -> None:
        """Log in every second user, as each of `users` in turn."""
        turn, logs_in = divmod(next(self.numbers) + getattr(self.environment.runner, "worker_index", 0), 2)
        user = [*users][turn % len(users)]
        self.page = f"page as {user}" if logs_in else "page as others"
        if logs_in:
            self.versions = users[user]
            self.log_in(user)

    def log_in(self, user: str) -> None:
        """Log in with any password; the session keeps the cookie."""
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        form = urlencode({"username": user, "passwd": ""})
        self.client.post("/login", form, name="login", headers=headers, allow_redirects=False)

    @task
    def product_page(self) -> None:
        """Request the page, and record a failure unless it is complete: Bookinfo responds with 200 when its back ends
        are down."""
        with self.client.get("/productpage", name=self.page, catch_response=True) as response:
            problem = find_problem(response.content or b"", self.versions) if response.status_code == 200 else None
            if problem:
                response.failure(problem)
