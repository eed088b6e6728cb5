"""What is the same for every driver: a shop that takes orders until it is told to stop (SIGTERM).

Its last line counts the orders that were acknowledged and says how long there was no primary.
"""

import argparse
import json
import logging
import signal
import time
import uuid

import addresses

WAYS = {
    "hosts": lambda given: addresses.by_hosts(given),
    "haproxy": lambda given: addresses.by_haproxy(given[0]),
    "rest": lambda given: addresses.by_rest(given),
}

# Seconds between orders.
PAUSE = 0.05


class Shop:
    """`where()` gives the URI for a connection."""

    def __init__(self, driver):
        parser = argparse.ArgumentParser(description=f"Takes orders with {driver}.")
        parser.add_argument("way", choices=WAYS)
        parser.add_argument("addresses", nargs="+", metavar="HOST:PORT")
        asked = parser.parse_args()
        self.name = f"{driver} by {asked.way}"
        self.where = WAYS[asked.way](asked.addresses)
        self.open = True
        self.acknowledged = 0
        self.longest_gap = 0.0
        logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {self.name}: %(message)s")
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.close)

    def close(self, *_):
        self.open = False

    def orders(self):
        """Gives orders one by one; to ask for the next says that the last is acknowledged.

        An order has its key before the first attempt: that is what makes it repeatable.
        """
        last = time.monotonic()
        while self.open:
            yield str(uuid.uuid4()), self.name, self.acknowledged
            self.acknowledged += 1
            now = time.monotonic()
            self.longest_gap = max(self.longest_gap, now - last)
            last = now

    def report(self, retries):
        told = {
            "service": self.name,
            "acknowledged": self.acknowledged,
            "outages": [round(seconds, 3) for seconds in retries.outages],
            "longest_gap": round(self.longest_gap, 3),
            "doubts": retries.doubts,
        }
        print(json.dumps(told), flush=True)
