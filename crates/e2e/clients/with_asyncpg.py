"""asyncpg, which prepares everything and speaks the protocol itself."""

import asyncio
import datetime
import decimal
import ssl
import sys
import uuid

import asyncpg

import client

Error = asyncpg.PostgresError
INSERT = "INSERT INTO seats VALUES ($1, $2, $3)"
LOOP = asyncio.new_event_loop()


def code(error):
    lost = isinstance(error, asyncpg.ConnectionDoesNotExistError)
    return client.code_of(error, None if lost else error.sqlstate)


def wait(work):
    return LOOP.run_until_complete(work)


async def dial(port, **more):
    words = {"host": client.HOST, "port": port, "database": "postgres", "user": "app"}
    return await asyncpg.connect(**{**words, "password": client.PASSWORD, **more})


class Session:
    def __init__(self, port, **more):
        self.connection = wait(dial(port, **more))

    def execute(self, sql):
        return wait(self.connection.execute(sql))

    def one(self, sql, *values):
        return wait(self.connection.fetchval(sql, *values))

    def write(self, way, *row):
        wait(self.put(way, row))

    async def put(self, way, row):
        if way == "alone":
            await self.connection.execute(INSERT, *row)
        elif way == "transaction":
            async with self.connection.transaction():
                await self.connection.execute(INSERT, *row)
        else:
            await self.connection.executemany(INSERT, [row])

    def rollback(self):
        # The driver has done so by itself where it opened the transaction.
        pass


connect = Session


def plain(mode, port):
    wait(use(mode, port))


async def use(mode, port):
    connection = await dial(port)
    values = (
        1,
        "ä €",
        decimal.Decimal("1.50"),
        datetime.datetime(2026, 2, 28, tzinfo=datetime.timezone.utc),
        [1, 2],
        b"\0\xff",
        uuid.UUID(int=5),
        None,
    )
    sql = "SELECT $1::int, $2::text, $3::numeric, $4::timestamptz, $5::int[], $6::bytea, $7::uuid, $8::text"
    client.equal(tuple(await connection.fetchrow(sql, *values)), values)
    try:
        await connection.fetchval("SELECT 1/0")
    except asyncpg.DivisionByZeroError:
        pass
    else:
        raise AssertionError("no error")
    client.equal(len(await connection.fetchval(f"SELECT repeat('x', {client.LARGE})")), client.LARGE)
    # More statements than anybody keeps.
    for round in range(2):
        for n in range(300):
            client.equal(await connection.fetchval(f"SELECT $1::int + {n}", round), round + n)
    # COPY, both ways.
    table = f"copied_{mode}_asyncpg"
    await connection.execute(f"DROP TABLE IF EXISTS {table}")
    await connection.execute(f"CREATE TABLE {table} (a int, b text)")
    rows = [(n, f"line {n}") for n in range(20_000)]
    await connection.copy_records_to_table(table, records=rows)
    out = []

    async def note(data):
        out.append(data)

    await connection.copy_from_query(f"SELECT a FROM {table} ORDER BY a", output=note)
    client.equal(b"".join(out).split(), [str(n).encode() for n in range(20_000)])
    # A cursor, in a transaction.
    async with connection.transaction():
        total = 0
        async for row in connection.cursor("SELECT generate_series(1, 5000)", prefetch=100):
            total += row[0]
        client.equal(total, 12_502_500)
    # A cancel.
    try:
        await connection.fetchval("SELECT pg_sleep(30)", timeout=0.5)
    except asyncio.TimeoutError:
        pass
    else:
        raise AssertionError("it slept")
    client.equal(await connection.fetchval("SELECT 7"), 7)
    # A notification.
    heard = LOOP.create_future()
    await connection.add_listener("news_asyncpg", lambda *what: heard.set_result(what[3]))
    other = await dial(port)
    await other.execute("NOTIFY news_asyncpg, 'it works'")
    client.equal(await asyncio.wait_for(heard, 10), "it works")
    # TLS, and a pool with its resets.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    for how in (False, "prefer", context):
        hidden = await dial(port, ssl=how)
        client.equal(await hidden.fetchval("SELECT 1"), 1)
        await hidden.close()
    words = {"host": client.HOST, "port": port, "database": "postgres", "user": "app"}
    async with asyncpg.create_pool(**words, password=client.PASSWORD, min_size=2, max_size=5) as pool:
        sums = await asyncio.gather(*[pool.fetchval("SELECT $1::int + 1", n) for n in range(100)])
        client.equal(sums, list(range(1, 101)))
    try:
        await dial(port, password="wrong")
    except asyncpg.InvalidPasswordError:
        pass
    else:
        raise AssertionError("a wrong password is right")
    await other.close()
    await connection.close()


if __name__ == "__main__":
    client.run(sys.modules[__name__], "asyncpg")
