"""What a visitor of the shop sends."""

import csv
from pathlib import Path

ORDERS = list(csv.DictReader(Path(__file__).with_name("orders.csv").open(encoding="utf-8")))


def path_of(order: dict[str, str]) -> str:
    return f"/anything/orders/{order['number']}"
