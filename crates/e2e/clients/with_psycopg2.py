"""psycopg 2."""

import datetime
import decimal
import io
import select
import sys

import psycopg2
import psycopg2.extras

import client

Error = psycopg2.Error
INSERT = "INSERT INTO seats VALUES (%s, %s, %s)"


def code(error):
    return client.code_of(error, error.pgcode)


class Session:
    def __init__(self, port, **more):
        words = {"host": client.HOST, "port": port, "dbname": "postgres", "user": "app"}
        self.connection = psycopg2.connect(**{**words, "password": client.PASSWORD, **more})
        self.connection.autocommit = True

    def execute(self, sql, values=None):
        with self.connection.cursor() as cursor:
            cursor.execute(sql, values)
            return cursor.fetchall() if cursor.description else []

    def one(self, sql, values=None):
        return self.execute(sql, values)[0][0]

    def write(self, way, *row):
        if way == "alone":
            self.execute(INSERT, row)
            return
        self.execute("BEGIN")
        self.execute(INSERT, row)
        self.execute("COMMIT")

    def rollback(self):
        self.execute("ROLLBACK")


connect = Session


def plain(mode, port):
    session = connect(port)
    connection = session.connection
    values = (1, "ä €", decimal.Decimal("1.50"), datetime.date(2026, 2, 28), [1, 2], b"\0\xff", None)
    sql = "SELECT %s, %s, %s, %s, %s, %s::bytea, %s"
    row = session.execute(sql, values)[0]
    client.equal((*row[:5], bytes(row[5]), row[6]), values)
    client.raises("22012", sys.modules[__name__], lambda: session.one("SELECT 1/0"))
    client.equal(len(session.one(f"SELECT repeat('x', {client.LARGE})")), client.LARGE)
    client.equal(len(session.execute("SELECT generate_series(1, 100000)")), 100_000)
    # COPY, both ways.
    session.execute(f"DROP TABLE IF EXISTS copied_{mode}_psycopg2")
    session.execute(f"CREATE TABLE copied_{mode}_psycopg2 (a int, b text)")
    lines = "".join(f"{n}\tline {n}\n" for n in range(20_000))
    with connection.cursor() as cursor:
        cursor.copy_expert(f"COPY copied_{mode}_psycopg2 FROM STDIN", io.StringIO(lines))
        out = io.StringIO()
        cursor.copy_expert(f"COPY copied_{mode}_psycopg2 TO STDOUT", out)
    client.equal(out.getvalue(), lines)
    # A cursor on the server, in a transaction.
    connection.autocommit = False
    with connection.cursor(name="many") as cursor:
        cursor.itersize = 1000
        cursor.execute("SELECT generate_series(1, 5000)")
        client.equal(sum(row[0] for row in cursor), 12_502_500)
    connection.rollback()
    connection.autocommit = True
    # A cancel.
    timer = client.later(connection.cancel, 0.5)
    client.raises("57014", sys.modules[__name__], lambda: session.one("SELECT pg_sleep(30)"))
    timer.join()
    client.equal(session.one("SELECT 7"), 7)
    # A notification.
    session.execute("LISTEN news_psycopg2")
    connect(port).execute("NOTIFY news_psycopg2, 'it works'")
    while not connection.notifies:
        assert select.select([connection], [], [], 10)[0], "no notification"
        connection.poll()
    client.equal(connection.notifies[0].payload, "it works")
    # Who is let in, and how.
    for mode_of_tls in ("disable", "prefer", "require"):
        client.equal(connect(port, sslmode=mode_of_tls).one("SELECT 1"), 1)
        hidden = connect(port, sslmode=mode_of_tls).connection.info.ssl_in_use
        client.equal(hidden, mode_of_tls != "disable")
    try:
        connect(port, password="wrong")
    except psycopg2.OperationalError as error:
        assert "password authentication failed" in str(error), error
    else:
        raise AssertionError("a wrong password is right")


if __name__ == "__main__":
    client.run(sys.modules[__name__], "psycopg2")
