"""Orders with psycopg 2."""

import time

import psycopg2

from addresses import NoPrimary
from failover import Kept, Retries
from shop import PAUSE, Shop

LOST = (psycopg2.OperationalError, psycopg2.InterfaceError, NoPrimary)

TIMEOUTS = {
    "connect_timeout": 2,  # seconds, for each host
    "tcp_user_timeout": 5000,  # milliseconds until what was sent must be acknowledged
    "keepalives_idle": 5,  # seconds of silence until the first probe, and so on
    "keepalives_interval": 2,
    "keepalives_count": 2,
}

# DO UPDATE and not DO NOTHING: a transaction that writes nothing does not wait for the standbys,
# and so would not vouch for the row that it found.
ORDER = """
    INSERT INTO orders (key, service, n) VALUES (%s, %s, %s)
    ON CONFLICT (key) DO UPDATE SET key = excluded.key
"""


def place(connection, order):
    with connection.cursor() as cursor:
        cursor.execute(ORDER, order)


def main():
    shop = Shop("psycopg2")
    retries = Retries(LOST)
    session = Kept(lambda: psycopg2.connect(shop.where(), **TIMEOUTS))
    for order in shop.orders():
        retries.run(session, lambda connection: place(connection, order), repeatable=True)
        time.sleep(PAUSE)
    shop.report(retries)


if __name__ == "__main__":
    main()
