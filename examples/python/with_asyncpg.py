"""Orders with asyncpg."""

import asyncio
import contextlib

import asyncpg

from addresses import NoPrimary
from failover import Retries
from shop import PAUSE, Shop

LOST = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # no host takes writes; the server hung up between two queries
    NoPrimary,
)

TIMEOUTS = {
    "timeout": 2,  # seconds, for all hosts together
    "command_timeout": 5,  # seconds; asyncpg has no tcp_user_timeout and no keepalives
}

# DO UPDATE and not DO NOTHING: a transaction that writes nothing does not wait for the standbys,
# and so would not vouch for the row that it found.
ORDER = """
    INSERT INTO orders (key, service, n) VALUES ($1, $2, $3)
    ON CONFLICT (key) DO UPDATE SET key = excluded.key
"""


class Kept:
    """Lends one connection for as long as it is good, and makes another after any error."""

    def __init__(self, where):
        self.where = where
        self.connection = None

    @contextlib.asynccontextmanager
    async def __call__(self):
        if self.connection is None:
            # Asking where it is may take a moment, in which the loop has other work.
            uri = await asyncio.to_thread(self.where)
            self.connection = await asyncpg.connect(uri, **TIMEOUTS)
        try:
            yield self.connection
        except BaseException:
            self.connection.terminate()
            self.connection = None
            raise


async def main():
    shop = Shop("asyncpg")
    retries = Retries(LOST)
    session = Kept(shop.where)
    for order in shop.orders():
        await retries.run_async(
            session, lambda connection: connection.execute(ORDER, *order), repeatable=True
        )
        await asyncio.sleep(PAUSE)
    shop.report(retries)


if __name__ == "__main__":
    asyncio.run(main())
