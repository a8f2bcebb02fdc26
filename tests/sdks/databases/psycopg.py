"""psycopg 3, sync and async, and its pool."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import psycopg
import psycopg_pool

from providers.server import closed_port

from .postgres import Postgres, dbapi_faults, serving

__all__ = ["FAULTS", "PACKAGE", "connect", "serving"]

PACKAGE = "psycopg"


def connect(server: Postgres, **options: Any) -> psycopg.Connection[Any]:
    return psycopg.connect(server.dsn, **{"connect_timeout": 20, **options})


FAULTS = dbapi_faults(connect, closed_port)


@FAULTS("another database")
def another_database(server: Postgres) -> None:
    connect(server, dbname="nope")


@FAULTS("pool exhausted")
def pool_exhausted(server: Postgres) -> None:
    with (
        psycopg_pool.ConnectionPool(server.dsn, min_size=1, max_size=1) as pool,
        pool.connection(),
    ):
        pool.getconn(timeout=0.05)


@FAULTS("pool closed")
def pool_closed(server: Postgres) -> None:
    with psycopg_pool.ConnectionPool(server.dsn, min_size=1, max_size=1) as pool:
        pass
    pool.getconn()


@FAULTS("pipeline aborted")
def pipeline_aborted(server: Postgres) -> None:
    with connect(server, autocommit=True) as connection, connection.pipeline():
        with suppress(psycopg.errors.DivisionByZero):
            connection.execute("select 1/0").fetchone()
        connection.execute("select 1").fetchone()


@FAULTS.asynchronous("async: refused")
async def async_refused(server: Postgres) -> None:
    await psycopg.AsyncConnection.connect(server.dsn, port=closed_port())


@FAULTS.asynchronous("async: terminated before COMMIT")
async def async_terminated(server: Postgres) -> None:
    connection = await psycopg.AsyncConnection.connect(server.dsn)
    try:
        await connection.execute("update t set n = n where id = 1")
        server.kick(connection.info.backend_pid)
        await connection.commit()
    finally:
        await connection.close()


@FAULTS.asynchronous("async: serialization failure")
async def async_serialization(server: Postgres) -> None:
    connection = await psycopg.AsyncConnection.connect(server.dsn)
    try:
        await connection.execute("set transaction isolation level repeatable read")
        await connection.execute("select n from t")
        server.execute("update t set n = n where id = 1")
        await connection.execute("update t set n = n where id = 1")
    finally:
        await connection.close()
