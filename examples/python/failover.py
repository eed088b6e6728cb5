"""Riding over a change of the primary: what is tried again, when, and for how long.

A transaction that failed before its COMMIT was sent has not happened, and is tried again.
One that failed during its COMMIT may have happened: the client can't know.
It is tried again only if its caller says that twice is the same as once (`repeatable=True`).
"""

import asyncio
import contextlib
import logging
import random
import time

log = logging.getLogger("failover")

# SQLSTATEs that another attempt may not meet: read-only (a standby), refused by pg_hba.conf (a node
# lets no client in while it changes its role), serialization, deadlock, too many connections, and
# what a server says that stops, has crashed or starts. A wrong password (28P01) is not among them.
PASSING = {"25006", "28000", "40001", "40P01", "53300", "57P01", "57P02", "57P03"}


class OutcomeUnknown(Exception):
    """The transaction may have been committed, or not. Look before doing it again."""


class Retries:
    """Runs transactions until they are committed, for `patience` seconds at most.

    `lost` are the driver's exceptions for a connection that can't be had or is gone.
    """

    def __init__(self, lost, patience=30.0):
        self.lost = lost
        self.patience = patience
        # Seconds that transactions took which needed more than one attempt.
        self.outages = []
        # How many attempts ended without an answer to their COMMIT.
        self.doubts = 0

    def run(self, session, work, *, repeatable=False):
        """`work(connection)` and a COMMIT, on a connection that `session()` lends."""
        transaction = Transaction(self, repeatable)
        while True:
            transaction.begin()
            try:
                with session() as connection:
                    result = work(connection)
                    transaction.committing = True
                    connection.commit()
            except Exception as error:
                time.sleep(transaction.failed(error))
            else:
                transaction.committed()
                return result

    async def run_async(self, session, work, *, repeatable=False):
        """The same for asyncpg."""
        transaction = Transaction(self, repeatable)
        while True:
            transaction.begin()
            try:
                async with session() as connection:
                    theirs = connection.transaction()
                    await theirs.start()
                    result = await work(connection)
                    transaction.committing = True
                    await theirs.commit()
            except Exception as error:
                await asyncio.sleep(transaction.failed(error))
            else:
                transaction.committed()
                return result


class Transaction:
    """What is known of one transaction over its attempts."""

    def __init__(self, retries, repeatable):
        self.retries = retries
        self.repeatable = repeatable
        self.begun = time.monotonic()
        self.attempts = 0
        self.committing = False
        self.in_doubt = False

    def begin(self):
        self.attempts += 1
        self.committing = False

    def failed(self, error):
        """How many seconds to wait for the next attempt; raises where there must be none."""
        if self.committing and not rolled_back(error):
            self.in_doubt = True
            self.retries.doubts += 1
        elapsed = time.monotonic() - self.begun
        give_up = not self.passes(error) or elapsed > self.retries.patience
        # Once in doubt, only a success ends the doubt: not the next attempt's error.
        if self.in_doubt and (give_up or not self.repeatable):
            raise OutcomeUnknown(f"after {self.attempts} attempts, {elapsed:.2f} s") from error
        if give_up:
            raise error
        if self.attempts == 1:
            log.info("no primary: %s", str(error).strip().partition("\n")[0])
        # By chance, so that not every service is back at the same moment.
        return random.uniform(0.02, min(1.0, 0.05 * 2 ** min(self.attempts, 5)))

    def passes(self, error):
        state = sqlstate(error)
        if state is None:
            return isinstance(error, self.retries.lost)
        return state in PASSING or state.startswith("08")

    def committed(self):
        if self.attempts > 1:
            outage = time.monotonic() - self.begun
            self.retries.outages.append(outage)
            log.info("a primary again after %.2f s, %d attempts", outage, self.attempts)


class Kept:
    """Lends one connection for as long as it is good, and makes another after any error."""

    def __init__(self, connect):
        self.connect = connect
        self.connection = None

    @contextlib.contextmanager
    def __call__(self):
        if self.connection is None:
            self.connection = self.connect()
        try:
            yield self.connection
        except BaseException:
            self.connection.close()
            self.connection = None
            raise


def rolled_back(error):
    """Whether an error in answer to COMMIT says for sure that nothing was committed."""
    state = sqlstate(error)
    return state is not None and state[:2] not in ("08", "57") and state != "40003"


def sqlstate(error):
    """psycopg and asyncpg call it sqlstate, psycopg 2 pgcode; SQLAlchemy wraps the driver's error."""
    error = getattr(error, "orig", None) or error
    return getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
