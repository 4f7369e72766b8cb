import random

from locust import HttpUser, SequentialTaskSet, between, events, task
from shop import ORDERS, path_of


@events.init_command_line_parser.add_listener
def add_options(parser):
    parser.add_argument("--page-bytes", type=int, default=512)


class Order(SequentialTaskSet):
    @task
    def look(self):
        self.client.get(f"/bytes/{self.user.environment.parsed_options.page_bytes}?seed=1", name="/bytes/N")

    @task
    def send(self):
        order = random.choice(ORDERS)
        with self.client.post(path_of(order), json=order, name="/anything/orders/N", catch_response=True) as response:
            if response.json()["json"] != order:
                response.failure("httpbin returned another order")
        self.interrupt()


class Visitor(HttpUser):
    wait_time = between(0.1, 0.3)
    tasks = {Order: 1}

    def on_start(self):
        self.client.get("/cookies/set?visit=1", name="/cookies/set")
        assert self.client.cookies["visit"] == "1"

    @task(3)
    def read(self):
        self.client.get("/json")
