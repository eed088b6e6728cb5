"""Orders with SQLAlchemy, on psycopg 3."""

import time

import psycopg
from sqlalchemy import create_engine, exc, text

from addresses import NoPrimary
from failover import Retries
from shop import PAUSE, Shop

LOST = (exc.OperationalError, exc.InterfaceError, NoPrimary)

TIMEOUTS = {
    "connect_timeout": 2,  # seconds, for each host
    "tcp_user_timeout": 5000,  # milliseconds until what was sent must be acknowledged
    "keepalives_idle": 5,  # seconds of silence until the first probe, and so on
    "keepalives_interval": 2,
    "keepalives_count": 2,
}

# DO UPDATE and not DO NOTHING: a transaction that writes nothing does not wait for the standbys,
# and so would not vouch for the row that it found.
ORDER = text("""
    INSERT INTO orders (key, service, n) VALUES (:key, :service, :n)
    ON CONFLICT (key) DO UPDATE SET key = excluded.key
""")


def place(connection, order):
    connection.execute(ORDER, dict(zip(("key", "service", "n"), order)))


def main():
    shop = Shop("sqlalchemy")
    retries = Retries(LOST)
    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(shop.where(), **TIMEOUTS),
        pool_pre_ping=True,  # the pool's other connections died with the primary too
    )
    for order in shop.orders():
        # A connection goes back to the pool after each transaction: the engine lends it, not Kept.
        retries.run(engine.connect, lambda connection: place(connection, order), repeatable=True)
        time.sleep(PAUSE)
    shop.report(retries)


if __name__ == "__main__":
    main()
