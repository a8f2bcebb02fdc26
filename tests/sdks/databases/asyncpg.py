"""asyncpg, whose connections fail as asyncio's do, and whose statements as PostgreSQL says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

from providers.raw import answering
from providers.server import closed_port

from .faults import Faults
from .postgres import Postgres, serving

__all__ = ["FAULTS", "PACKAGE", "connect", "serving"]

PACKAGE = "asyncpg"
FAULTS = Faults()

STARTING = b"SFATAL\0VFATAL\0C57P03\0Mstarting up\0\0"
"""What a server that is starting answers; it is over too soon to be met with a real one."""


async def connect(server: Postgres, **options: Any) -> Any:
    told = {"host": "127.0.0.1", "port": server.port, "user": "postgres", "database": "postgres"}
    return await asyncpg.connect(**{**told, "ssl": False, "timeout": 20, **options})


def connected(name: str, **options: Any) -> Callable[[Callable[..., Awaitable[Any]]], Any]:
    """A fault of somebody who is connected."""

    def add(way: Callable[..., Awaitable[Any]]) -> Any:
        @FAULTS.asynchronous(name)
        async def fails(server: Postgres) -> None:
            connection = await connect(server, **options)
            try:
                await way(server, connection)
            finally:
                connection.terminate()

        return way

    return add


async def nothing(server: Postgres, connection: Any) -> None:
    pass


connected("wrong password", user="locked", password="y")(nothing)
connected("banned", user="banned")(nothing)
connected("another database", database="nope")(nothing)
connected("no such host", host="nowhere.invalid")(nothing)


@FAULTS.asynchronous("refused")
async def refused(server: Postgres) -> None:
    await connect(server, port=closed_port())


@FAULTS.asynchronous("connect timeout")
async def connect_timeout(server: Postgres) -> None:
    server.hang()
    try:
        await connect(server, timeout=0.1)
    finally:
        server.wake()


@FAULTS.asynchronous("starting")
async def starting(server: Postgres) -> None:
    met: list[Exception] = []
    with answering(b"E" + (len(STARTING) + 4).to_bytes(4, "big") + STARTING) as url:
        try:
            await connect(server, port=int(url.rpartition(":")[2]))
        except asyncpg.PostgresError as error:
            met.append(error)
    raise met.pop()


@FAULTS.asynchronous("no server of that kind")
async def no_standby(server: Postgres) -> None:
    await connect(server, target_session_attrs="standby")


@FAULTS.asynchronous("too many clients")
async def too_many(server: Postgres) -> None:
    held = []
    try:
        for _ in range(20):
            held.append(await connect(server, user="small"))
    finally:
        for connection in held:
            await connection.close()


@FAULTS.asynchronous("pool exhausted")
async def pool_exhausted(server: Postgres) -> None:
    dsn = f"postgresql://postgres@127.0.0.1:{server.port}/postgres"
    async with (
        asyncpg.create_pool(dsn, ssl=False, min_size=1, max_size=1) as pool,
        pool.acquire(),
    ):
        await pool.acquire(timeout=0.05)


async def lose(server: Postgres, connection: Any) -> None:
    await asyncio.to_thread(server.kick, connection.get_server_pid())
    while not connection.is_closed():
        await asyncio.sleep(0.005)


@connected("terminated while idle")
async def terminated(server: Postgres, connection: Any) -> None:
    await lose(server, connection)
    await connection.execute("select 1")


@connected("terminated before COMMIT")
async def terminated_before_commit(server: Postgres, connection: Any) -> None:
    async with connection.transaction():
        await connection.execute("update t set n = n where id = 1")
        await lose(server, connection)


@connected("terminated while it runs")
async def terminated_meanwhile(server: Postgres, connection: Any) -> None:
    kicked = asyncio.ensure_future(
        asyncio.to_thread(server.kick_asleep, connection.get_server_pid())
    )
    try:
        await connection.execute("select pg_sleep(20)")
    finally:
        await kicked


@connected("cut while it runs")
async def cut(server: Postgres, connection: Any) -> None:
    asyncio.get_running_loop().call_later(0.05, connection._transport.abort)
    await connection.execute("select pg_sleep(20)")


@connected("command timeout")
async def command_timeout(server: Postgres, connection: Any) -> None:
    await connection.execute("select pg_sleep(20)", timeout=0.05)


@connected("statement timeout")
async def statement_timeout(server: Postgres, connection: Any) -> None:
    await connection.execute("set statement_timeout = 20")
    await connection.execute("select pg_sleep(20)")


@connected("serialization failure")
async def serialization(server: Postgres, connection: Any) -> None:
    async with connection.transaction(isolation="repeatable_read"):
        await connection.fetch("select n from t")
        await asyncio.to_thread(server.execute, "update t set n = n where id = 1")
        await connection.execute("update t set n = n where id = 1")


@connected("deadlock")
async def deadlock(server: Postgres, connection: Any) -> None:
    other = await connect(server)
    await other.execute("set deadlock_timeout = '20s'")  # it is the first that looks
    await other.execute("begin; update t set n = n where id = 2")
    await connection.execute("begin; update t set n = n where id = 1")
    blocked = asyncio.ensure_future(other.execute("update t set n = n where id = 1"))
    try:
        await asyncio.to_thread(server.until_waits, other.get_server_pid(), "Lock")
        await connection.execute("update t set n = n where id = 2")
    finally:
        await connection.close()
        await blocked
        await other.close()


@connected("busy")
async def busy(server: Postgres, connection: Any) -> None:
    first = asyncio.ensure_future(connection.execute("select pg_sleep(0.1)"))
    await asyncio.sleep(0)
    try:
        await connection.execute("select 1")
    finally:
        await first


for named, statement in {
    "syntax": "selct 1",
    "unique": "insert into t values (1, 1)",
    "read only": "begin read only; update t set n = 1",
    "unique at COMMIT": "insert into late values (1), (1)",
}.items():

    @connected(named)
    async def executed(server: Postgres, connection: Any, statement: str = statement) -> None:
        await connection.execute(statement)


@connected("wrong type")
async def wrong_type(server: Postgres, connection: Any) -> None:
    await connection.fetch("select $1::int", "x")
