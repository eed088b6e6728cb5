"""psycopg 3, with its pipelines and its prepared statements."""

import datetime
import decimal
import sys
import uuid

import psycopg

import client

Error = psycopg.Error
INSERT = "INSERT INTO seats VALUES (%s, %s, %s)"


def code(error):
    return client.code_of(error, error.sqlstate)


class Session:
    def __init__(self, port, **more):
        words = {"host": client.HOST, "port": port, "dbname": "postgres", "user": "app"}
        words = {**words, "password": client.PASSWORD, **more}
        self.connection = psycopg.connect(autocommit=True, **words)

    def execute(self, sql, values=None, **how):
        cursor = self.connection.execute(sql, values, **how)
        return cursor.fetchall() if cursor.description else []

    def one(self, sql, values=None, **how):
        return self.execute(sql, values, **how)[0][0]

    def write(self, way, *row):
        if way == "alone":
            self.execute(INSERT, row, prepare=True)
        elif way == "transaction":
            with self.connection.transaction():
                self.execute(INSERT, row)
        else:
            with self.connection.pipeline(), self.connection.transaction():
                self.execute(INSERT, row)
                self.execute("SELECT 1")

    def rollback(self):
        self.connection.rollback()


connect = Session


def plain(mode, port):
    session = connect(port)
    connection = session.connection
    here = sys.modules[__name__]
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
    sql = "SELECT %s, %s, %s, %s, %s, %s, %s, %s::text"
    for binary in (False, True):
        cursor = connection.execute(sql, values, binary=binary)
        client.equal(cursor.fetchone(), values)
    client.raises("22012", here, lambda: session.one("SELECT 1/0"))
    client.equal(len(session.one(f"SELECT repeat('x', {client.LARGE})")), client.LARGE)
    # Prepared, more than it keeps, and dropped again.
    connection.prepared_max = 5
    for round in range(3):
        for n in range(10):
            client.equal(session.one(f"SELECT %s + {n}", (round,), prepare=True), round + n)
    # COPY, both ways.
    session.execute(f"DROP TABLE IF EXISTS copied_{mode}_psycopg")
    session.execute(f"CREATE TABLE copied_{mode}_psycopg (a int, b text)")
    with connection.cursor() as cursor:
        with cursor.copy(f"COPY copied_{mode}_psycopg FROM STDIN") as copy:
            for n in range(20_000):
                copy.write_row((n, f"line {n}"))
        with cursor.copy(f"COPY copied_{mode}_psycopg TO STDOUT (FORMAT binary)") as copy:
            copy.set_types(("int4", "text"))
            client.equal(sum(row[0] for row in copy.rows()), 199_990_000)
        many = f"INSERT INTO copied_{mode}_psycopg VALUES (%s, %s)"
        cursor.executemany(many, [(n, "many") for n in range(1_000)])
    # Pipelines, one of them with an error within.
    with connection.pipeline():
        sums = [connection.execute("SELECT %s + 1", (n,)) for n in range(200)]
    client.equal([cursor.fetchone()[0] for cursor in sums], list(range(1, 201)))

    def fails():
        with connection.pipeline():
            connection.execute("SELECT 1")
            connection.execute("SELECT 1/0")
            connection.execute("SELECT 2")

    client.raises("22012", here, fails)
    client.equal(session.one("SELECT 8"), 8)
    # A cancel.
    timer = client.later(connection.cancel_safe, 0.5)
    client.raises("57014", here, lambda: session.one("SELECT pg_sleep(30)"))
    timer.join()
    client.equal(session.one("SELECT 7"), 7)
    # A notification.
    session.execute("LISTEN news_psycopg")
    connect(port).execute("NOTIFY news_psycopg, 'it works'")
    heard = list(connection.notifies(timeout=10, stop_after=1))
    client.equal([it.payload for it in heard], ["it works"])
    for mode_of_tls in ("disable", "prefer", "require"):
        client.equal(connect(port, sslmode=mode_of_tls).one("SELECT 1"), 1)
    client.equal(connect(port, sslmode="require", channel_binding="require").one("SELECT 1"), 1)
    try:
        connect(port, password="wrong")
    except psycopg.OperationalError as error:
        assert "password authentication failed" in str(error), error
    else:
        raise AssertionError("a wrong password is right")


if __name__ == "__main__":
    client.run(sys.modules[__name__], "psycopg")
