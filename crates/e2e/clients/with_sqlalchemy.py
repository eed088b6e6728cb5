"""SQLAlchemy: its own pool, sessions, and mapped classes."""

import sys

import sqlalchemy
from sqlalchemy import orm

import client

Error = sqlalchemy.exc.DBAPIError


def code(error):
    return client.code_of(error, getattr(error.orig, "sqlstate", None))


class Base(orm.DeclarativeBase):
    pass


def mapped(mode):
    class Thing(Base):
        __tablename__ = f"things_{mode}"
        id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
        name: orm.Mapped[str]

    return Thing


def engine(port, **more):
    url = sqlalchemy.URL.create(
        "postgresql+psycopg",
        "app",
        more.pop("password", client.PASSWORD),
        client.HOST,
        port,
        "postgres",
    )
    return sqlalchemy.create_engine(url, **more)


class Session:
    def __init__(self, port):
        self.engine = engine(port, pool_size=1, max_overflow=0)
        self.connection = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")

    def execute(self, sql):
        return self.connection.execute(sqlalchemy.text(sql))

    def one(self, sql):
        return self.execute(sql).scalar_one()

    def write(self, way, *row):
        isolation = "AUTOCOMMIT" if way == "alone" else "READ COMMITTED"
        self.connection.rollback()
        connection = self.connection.execution_options(isolation_level=isolation)
        insert = sqlalchemy.text("INSERT INTO seats VALUES (:client, :mode, :n)")
        connection.execute(insert, dict(zip(("client", "mode", "n"), row)))
        connection.commit()

    def rollback(self):
        self.connection.rollback()


connect = Session


def plain(mode, port):
    Thing = mapped(mode)
    here = engine(port)
    Base.metadata.drop_all(here, [Thing.__table__])
    Base.metadata.create_all(here, [Thing.__table__])
    client.equal("id" in [it["name"] for it in sqlalchemy.inspect(here).get_columns(Thing.__tablename__)], True)
    with orm.Session(here) as session:
        things = [Thing(name=f"thing {n}") for n in range(500)]
        session.add_all(things)
        session.commit()
        client.equal(len({thing.id for thing in things}), 500)
        things[0].name = "another"
        session.flush()
        with session.begin_nested() as inner:
            session.add(Thing(name="gone"))
            session.flush()
            inner.rollback()
        session.commit()
        count = sqlalchemy.select(sqlalchemy.func.count()).select_from(Thing)
        client.equal(session.scalar(count), 500)
        rows = session.scalars(sqlalchemy.select(Thing).execution_options(yield_per=50))
        client.equal(sum(1 for _ in rows), 500)
        try:
            session.execute(sqlalchemy.insert(Thing).values(id=things[0].id, name="twice"))
        except sqlalchemy.exc.IntegrityError as error:
            client.equal(code(error), "23505")
            session.rollback()
        client.equal(session.get(Thing, things[0].id).name, "another")
    serializable = here.execution_options(isolation_level="SERIALIZABLE")
    with serializable.begin() as connection:
        shown = connection.scalar(sqlalchemy.text("SHOW transaction_isolation"))
        client.equal(shown, "serializable")
    try:
        engine(port, password="wrong").connect()
    except sqlalchemy.exc.OperationalError as error:
        assert "password authentication failed" in str(error), error
    else:
        raise AssertionError("a wrong password is right")
    here.dispose()


if __name__ == "__main__":
    client.run(sys.modules[__name__], "sqlalchemy")
