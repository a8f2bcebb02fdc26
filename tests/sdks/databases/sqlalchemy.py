"""SQLAlchemy over psycopg, psycopg2, asyncpg and sqlite3."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import orm
from sqlalchemy.ext.asyncio import create_async_engine

from providers.server import closed_port

from .faults import Faults
from .postgres import Postgres, serving

__all__ = ["FAULTS", "PACKAGE", "engine", "serving"]

PACKAGE = "sqlalchemy"
FAULTS = Faults()
text = sqlalchemy.text


@contextmanager
def engine(
    server: Postgres, driver: str, *, user: str = "postgres", port: int = 0, **options: Any
) -> Iterator[Any]:
    """An engine over a driver."""
    where = f"postgresql+{driver}://{user}@127.0.0.1:{port or server.port}/postgres"
    made = sqlalchemy.create_engine(where, **options)
    try:
        yield made
    finally:
        made.dispose()


def transaction(server: Postgres, driver: str, *statements: str, **options: Any) -> None:
    with engine(server, driver, **options) as made, made.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def lose(server: Postgres, connection: Any) -> None:
    server.kick(connection.execute(text("select pg_backend_pid()")).scalar())


def over(driver: str) -> None:
    """What both psycopgs are asked for through SQLAlchemy."""

    @FAULTS(f"{driver}: refused")
    def refused(server: Postgres) -> None:
        transaction(server, driver, "select 1", port=closed_port())

    @FAULTS(f"{driver}: too many clients")
    def too_many(server: Postgres) -> None:
        with engine(server, driver, user="small", pool_size=20) as made:
            held = []
            try:
                for _ in range(20):
                    held.append(made.connect())
            finally:
                for connection in held:
                    connection.close()

    @FAULTS(f"{driver}: terminated")
    def terminated(server: Postgres) -> None:
        with engine(server, driver) as made, made.begin() as connection:
            lose(server, connection)
            connection.execute(text("select 1"))

    @FAULTS(f"{driver}: terminated before COMMIT")
    def terminated_before_commit(server: Postgres) -> None:
        with engine(server, driver) as made, made.begin() as connection:
            connection.execute(text("update t set n = n where id = 1"))
            lose(server, connection)

    @FAULTS(f"{driver}: serialization failure")
    def serialization(server: Postgres) -> None:
        with (
            engine(server, driver, isolation_level="REPEATABLE READ") as made,
            made.begin() as connection,
        ):
            connection.execute(text("select n from t"))
            server.execute("update t set n = n where id = 1")
            connection.execute(text("update t set n = n where id = 1"))

    for name, statements in {
        "statement timeout": ("set statement_timeout = 20", "select pg_sleep(20)"),
        "syntax": ("selct 1",),
        "unique": ("insert into t values (1, 1)",),
        "no such table": ("select 1 from nowhere",),
        "unique at COMMIT": ("insert into late values (1), (1)",),
        "no value for a parameter": ("select :x",),
    }.items():
        FAULTS(f"{driver}: {name}")(
            lambda server, statements=statements: transaction(server, driver, *statements)
        )


over("psycopg")
over("psycopg2")


@FAULTS("pool exhausted")
def pool_exhausted(server: Postgres) -> None:
    options = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 0.05}
    with engine(server, "psycopg", **options) as made, made.connect():
        made.connect()


@FAULTS("invalid transaction goes on")
def goes_on(server: Postgres) -> None:
    with engine(server, "psycopg") as made, made.connect() as connection:
        lose(server, connection)
        try:
            connection.execute(text("select 1"))
        except sqlalchemy.exc.OperationalError:
            connection.execute(text("select 1"))


@FAULTS("no such row")
def no_such_row(server: Postgres) -> None:
    with engine(server, "psycopg") as made, made.connect() as connection:
        connection.execute(text("select 1 where false")).one()


@FAULTS("row changed by another")
def stale(server: Postgres) -> None:
    mapper = orm.registry()
    table = sqlalchemy.Table(
        "t",
        mapper.metadata,
        sqlalchemy.Column("id", sqlalchemy.Integer, primary_key=True),
        sqlalchemy.Column("n", sqlalchemy.Integer),
    )

    class Row:
        id: int
        n: int

    mapper.map_imperatively(Row, table, version_id_col=table.c.n)
    try:
        with engine(server, "psycopg") as made, orm.Session(made) as session:
            row: Any = session.get(Row, 2)
            server.execute("update t set n = n + 1 where id = 2")
            orm.attributes.flag_modified(row, "id")
            session.flush()
    finally:
        mapper.dispose()


def asynchronous(name: str, **options: Any) -> Any:
    """A fault of a transaction over asyncpg."""

    def add(way: Any) -> Any:
        @FAULTS.asynchronous(f"asyncpg: {name}")
        async def fails(server: Postgres) -> None:
            port = options["port"]() if options else server.port
            made = create_async_engine(f"postgresql+asyncpg://postgres@127.0.0.1:{port}/postgres")
            try:
                async with made.begin() as connection:
                    await way(server, connection)
            finally:
                await made.dispose()

        return way

    return add


async def nothing(server: Postgres, connection: Any) -> None:
    pass


asynchronous("refused", port=closed_port)(nothing)


async def alose(server: Postgres, connection: Any) -> None:
    pid = (await connection.execute(text("select pg_backend_pid()"))).scalar()
    await asyncio.to_thread(server.kick, pid)
    driver = (await connection.get_raw_connection()).driver_connection
    while not driver.is_closed():
        await asyncio.sleep(0.005)


@asynchronous("terminated")
async def aterminated(server: Postgres, connection: Any) -> None:
    await alose(server, connection)
    await connection.execute(text("select 1"))


@asynchronous("terminated before COMMIT")
async def aterminated_before_commit(server: Postgres, connection: Any) -> None:
    await connection.execute(text("update t set n = n where id = 1"))
    await alose(server, connection)


@asynchronous("serialization failure")
async def aserialization(server: Postgres, connection: Any) -> None:
    await connection.execute(text("set transaction isolation level repeatable read"))
    await connection.execute(text("select n from t"))
    await asyncio.to_thread(server.execute, "update t set n = n where id = 1")
    await connection.execute(text("update t set n = n where id = 1"))


@asynchronous("unique")
async def aunique(server: Postgres, connection: Any) -> None:
    await connection.execute(text("insert into t values (1, 1)"))


@contextmanager
def file() -> Iterator[Any]:
    """An engine over a new file, and the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "database"
        made = sqlalchemy.create_engine(f"sqlite:///{path}", connect_args={"timeout": 0.02})
        try:
            with made.begin() as connection:
                connection.execute(text("create table t (id integer primary key)"))
            yield made, path
        finally:
            made.dispose()


@contextmanager
def locked() -> Iterator[Any]:
    """One that somebody else has locked."""
    with file() as (made, path):
        other = sqlite3.connect(path, isolation_level=None)
        try:
            other.execute("begin exclusive")
            yield made
        finally:
            other.close()


if sys.version_info >= (3, 11):  # from there on sqlite3 tells which error it was

    @FAULTS("sqlite: locked")
    def sqlite_locked(server: Postgres) -> None:
        with locked() as made, made.begin() as connection:
            connection.execute(text("insert into t values (1)"))

    @FAULTS("sqlite: no such file")
    def sqlite_missing(server: Postgres) -> None:
        sqlalchemy.create_engine("sqlite:////nowhere/at/all").connect()

    @FAULTS("sqlite: unique")
    def sqlite_unique(server: Postgres) -> None:
        with file() as (made, _), made.begin() as connection:
            connection.execute(text("insert into t values (1), (1)"))

    @FAULTS("sqlite: syntax")
    def sqlite_syntax(server: Postgres) -> None:
        with file() as (made, _), made.begin() as connection:
            connection.execute(text("selct 1"))
