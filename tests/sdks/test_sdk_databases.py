"""What the errors of databases' clients are read as: each from a real one, and a table."""

from __future__ import annotations

import asyncio
import csv
import json
import sqlite3
import sys
import threading
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import asyncpg
import psycopg
import psycopg2
import pymongo
import pytest
import redis
import sqlalchemy

from databases import postgres, resp
from databases.mongo_server import LOSE, Mongo
from databases.postgres import Postgres
from databases.proxy import cut_after
from databases.pymongo import connected
from providers.server import closed_port
from resilience import Retry, history, resilient
from resilience.failures import Advice, Kind, describe

pytestmark = [pytest.mark.real, pytest.mark.steady]

EXPECTED = Path(__file__).parent / "databases" / "expected"
COLUMNS = ["kind", "advice", "code", "retry_after", "sdk", "sent"]


def told(error: Exception) -> dict[str, str]:
    """An error, as a row of the table has it."""
    failure = describe(error)
    assert failure.error is error
    values = {name: getattr(failure, name) for name in COLUMNS}
    written = {name: "" if value is None else str(value) for name, value in values.items()}
    return {"error": type(error).__name__, **written}


def rows(name: str) -> dict[str, dict[str, str]]:
    with (EXPECTED / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return {row["fault"]: row for row in csv.DictReader(file)}


NAMES = sorted(path.stem for path in EXPECTED.glob("*.csv") if find_spec(path.stem))
CLIENTS = {name: import_module(f"databases.{name}") for name in NAMES}
FAULTS = [(name, fault) for name, client in CLIENTS.items() for fault in client.FAULTS]


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Any]]:
    """A server for each client; one PostgreSQL for all of its clients."""
    opened: dict[str, Any] = {}
    entered = []
    for name, client in CLIENTS.items():
        serving = client.serving()
        opened[name] = serving.__enter__()
        entered.append(serving)
    yield opened
    for serving in entered:
        serving.__exit__(None, None, None)
    postgres.close_shared()


@pytest.fixture
def server(servers: dict[str, Any]) -> Postgres:
    """The PostgreSQL, as it was in the beginning."""
    found: Postgres = servers["psycopg"]
    found.execute("update t set n = 0")
    return found


@pytest.mark.parametrize(
    ("name", "fault"), FAULTS, ids=[f"{name}-{fault}".replace(" ", "-") for name, fault in FAULTS]
)
def test_every_fault_is_read_as_the_table_says(
    name: str, fault: str, servers: dict[str, Any]
) -> None:
    """Lost connections, timeouts, crowds, conflicts of transactions: retried; the rest stops."""
    with pytest.raises(Exception) as raised:  # noqa: PT011  # whichever it is
        CLIENTS[name].FAULTS[fault](servers[name])
    assert {"fault": fault, **told(raised.value)} == rows(name)[fault]


@pytest.mark.parametrize("name", NAMES)
def test_every_table_has_faults_enough(name: str) -> None:
    """Ten of each client, and those that stop among them."""
    table = rows(name)
    assert set(CLIENTS[name].FAULTS) <= set(table)
    assert len(table) >= 10
    assert {row["advice"] for row in table.values()} >= {"retry", "wait", "stop"} - (
        {"wait"} if name == "psycopg2" else set()  # it has no code for what has one
    )


# A COMMIT that was lost


def increment(driver: str, port: int) -> None:
    """A transaction that counts."""
    statement = "update t set n = n + 1 where id = 1"
    where = f"postgres@127.0.0.1:{port}/postgres"
    if driver == "psycopg":
        with psycopg.connect(f"postgresql://{where}?sslmode=disable") as connection:
            connection.execute(statement)
    elif driver == "psycopg2":
        connection = psycopg2.connect(f"postgresql://{where}?sslmode=disable")
        try:
            with connection:
                connection.cursor().execute(statement)
        finally:
            connection.close()
    elif driver == "asyncpg":

        async def main() -> None:
            connection = await asyncpg.connect(f"postgresql://{where}", ssl=False)
            try:
                async with connection.transaction():
                    await connection.execute(statement)
            finally:
                connection.terminate()

        asyncio.run(main())
    else:
        engine = sqlalchemy.create_engine(f"postgresql+psycopg://{where}?sslmode=disable")
        try:
            with engine.begin() as connection:
                connection.execute(sqlalchemy.text(statement))
        finally:
            engine.dispose()


@pytest.mark.fault(260)
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "asyncpg", "sqlalchemy"])
def test_a_lost_commit_may_have_been_executed(driver: str, server: Postgres) -> None:
    """It was, here: nobody can tell, and what must not happen twice is not repeated."""
    with cut_after(server.port, b"COMMIT") as port:
        guarded = resilient(Retry(wait=0, idempotent=False))(increment)
        with pytest.raises(Exception) as raised:  # noqa: PT011
            guarded(driver, port)
        failure = describe(raised.value)
        assert (failure.kind, failure.advice) == (Kind.CONNECTION, Advice.RETRY)
        assert failure.sent is None
        assert len(history(raised.value)) == 1
    assert server.value() == 1


@pytest.mark.fault(260)
def test_a_lost_exec_may_have_been_executed(servers: dict[str, Any]) -> None:
    """redis-py has one error for a key that has changed and for a connection that was lost."""
    shared: resp.Shared = servers["redis"]
    shared.admin.set("count", 0)

    @resilient(Retry(wait=0, idempotent=False))
    def increase(port: int) -> None:
        once = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
        with (
            redis.Redis(host="127.0.0.1", port=port, retry=once) as client,
            client.pipeline() as pipe,
        ):
            pipe.watch("count")
            pipe.multi()
            pipe.incr("count")
            pipe.execute()

    with cut_after(shared.port, b"EXEC") as port, pytest.raises(redis.WatchError) as raised:
        increase(port)
    assert describe(raised.value).sent is None
    assert shared.admin.get("count") == "1"


@pytest.mark.fault(260)
def test_a_lost_commit_of_mongodb_may_have_been_executed(servers: dict[str, Any]) -> None:
    """The driver asks twice; then nobody knows."""
    mongo: Mongo = servers["pymongo"]
    mongo.tell(commitTransaction=LOSE)

    @resilient(Retry(wait=0, idempotent=False))
    def insert(client: Any) -> None:
        with client.start_session() as session, session.start_transaction():
            client.d.c.insert_one({"x": 1}, session=session)

    with connected(mongo) as client, pytest.raises(pymongo.errors.AutoReconnect) as raised:
        insert(client)
    assert describe(raised.value).sent is None
    assert mongo.asked.count("insert") == 1


# Whole transactions, and single statements


@pytest.mark.fault(261)
def test_a_guarded_transaction_is_repeated_after_a_serialization_failure(server: Postgres) -> None:
    """All of it, also where nothing may happen twice: it was rolled back."""
    reads: list[int] = []

    @resilient(Retry(wait=0, idempotent=False))
    def double() -> None:
        with server.client(autocommit=False) as connection:
            connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
            (n,) = connection.execute("select n from t where id = 1").fetchone()
            reads.append(n)
            if len(reads) == 1:
                server.execute("update t set n = 5 where id = 1")
            connection.execute("update t set n = %s where id = 1", (n * 2,))

    double()
    assert reads == [0, 5]
    assert server.value() == 10


@pytest.mark.fault(261)
def test_guarded_transactions_outlive_a_deadlock(server: Postgres) -> None:
    """Both are done in the end, each exactly once."""
    met = threading.Barrier(2)
    runs: list[int] = []

    @resilient(Retry(attempts=20, wait=0, idempotent=False))
    def transfer(source: int, target: int) -> None:
        with server.client(autocommit=False) as connection:
            connection.execute("update t set n = n - 1 where id = %s", (source,))
            runs.append(source)
            if len(runs) <= 2:
                met.wait(20)
            connection.execute("update t set n = n + 3 where id = %s", (target,))

    threads = [threading.Thread(target=transfer, args=pair) for pair in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(runs) > 2  # and more, where the second attempt is as fast as the other's first
    assert (server.value(1), server.value(2)) == (2, 2)


@pytest.mark.fault(261)
def test_a_guarded_transaction_is_repeated_over_asyncpg(server: Postgres) -> None:
    """The same, async."""
    reads: list[int] = []

    @resilient(Retry(wait=0, idempotent=False))
    async def double() -> None:
        connection = await CLIENTS["asyncpg"].connect(server)
        try:
            async with connection.transaction(isolation="serializable"):
                n = await connection.fetchval("select n from t where id = 1")
                reads.append(n)
                if len(reads) == 1:
                    await asyncio.to_thread(server.execute, "update t set n = 5 where id = 1")
                await connection.execute("update t set n = $1 where id = 1", n * 2)
        finally:
            await connection.close()

    asyncio.run(double())
    assert reads == [0, 5]
    assert server.value() == 10


@pytest.mark.fault(261)
def test_a_guarded_transaction_is_repeated_when_a_watched_key_has_changed(
    servers: dict[str, Any],
) -> None:
    """Redis' own kind of serialization failure."""
    shared: resp.Shared = servers["redis"]
    shared.admin.set("count", 1)
    reads: list[int] = []

    @resilient(Retry(wait=0, idempotent=False))
    def double() -> None:
        with (
            redis.Redis(host="127.0.0.1", port=shared.port) as client,
            client.pipeline() as pipe,
        ):
            pipe.watch("count")
            reads.append(int(pipe.get("count")))
            if len(reads) == 1:
                shared.admin.set("count", 5)
            pipe.multi()
            pipe.set("count", reads[-1] * 2)
            pipe.execute()

    double()
    assert reads == [1, 5]
    assert shared.admin.get("count") == "10"


@pytest.mark.fault(262)
def test_a_single_statement_of_a_transaction_cannot_be_saved(server: Postgres) -> None:
    """Its transaction has failed already: the second attempt says so, and there is no third."""
    with server.client(autocommit=False) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("select n from t")
        server.execute("update t set n = 5 where id = 1")
        update = resilient(Retry(wait=0))(connection.execute)
        with pytest.raises(psycopg.errors.InFailedSqlTransaction) as raised:
            update("update t set n = n + 1 where id = 1")
        connection.rollback()
    codes = [attempt.failure.code for attempt in history(raised.value) if attempt.failure]
    assert codes == ["40001", "25P02"]


# What shows less than it should, or other things


def test_a_code_counts_by_its_text() -> None:
    """Nothing else in its place means anything, and nothing is asked for more than its name."""

    class Odd(psycopg.OperationalError):
        pass

    class Raising(psycopg.Error):
        def __init__(self) -> None:
            pass

        @property
        def sqlstate(self) -> Any:  # type: ignore[override]
            raise ValueError

    for value in (MagicMock(), 40001, b"40001", "", None):
        error = Odd()
        error.sqlstate = value  # type: ignore[assignment]
        assert (describe(error).kind, describe(error).code) == (Kind.CONNECTION, None)
    assert describe(Raising()).kind is Kind.UNKNOWN
    endless = Odd()
    endless.sqlstate = "4" * 10_000_000
    assert describe(endless).advice is Advice.STOP
    assert len(describe(endless).code or "") < 100


def test_an_error_from_very_deep_costs_no_more() -> None:
    """So many frames are not looked at: then nobody knows whether anything was sent."""

    def refused(depth: int) -> None:
        if depth:
            refused(depth - 1)
        psycopg.connect(f"host=127.0.0.1 port={closed_port()}")

    for depth, sent in ((0, False), (300, None)):
        with pytest.raises(psycopg.OperationalError) as raised:
            refused(depth)
        assert describe(raised.value).sent is sent


def test_what_sqlalchemy_carries_may_be_anything() -> None:
    """A mock, itself, a driver that nobody knows."""

    class Stranger(Exception):
        pass

    def failure(orig: Any, invalidated: bool = False) -> Any:
        error = sqlalchemy.exc.OperationalError(
            "select 1", {}, Stranger(), connection_invalidated=invalidated
        )
        error.orig = orig
        return describe(error)

    assert failure(MagicMock()).kind is Kind.UNKNOWN
    assert failure(Stranger()).kind is Kind.UNKNOWN
    lost = failure(Stranger(), invalidated=True)
    assert (lost.kind, lost.advice, lost.sent) == (Kind.CONNECTION, Advice.RETRY, None)
    ring = sqlalchemy.exc.OperationalError("select 1", {}, Stranger())
    ring.orig = ring
    assert describe(ring).kind is Kind.UNKNOWN
    stranger = sqlalchemy.exc.IntegrityError("select 1", {}, Stranger())
    assert (describe(stranger).kind, describe(stranger).advice) == (Kind.CONFLICT, Advice.STOP)


def test_labels_that_cannot_be_asked_for_are_none() -> None:
    """A subclass of the user's may answer with anything."""

    class Odd(pymongo.errors.OperationFailure):
        def has_error_label(self, label: str) -> bool:
            raise ValueError

    class Mocking(pymongo.errors.OperationFailure):
        has_error_label = MagicMock()

    for cls in (Odd, Mocking):
        failure = describe(cls("x", 11000, {"code": 11000}))
        assert (failure.kind, failure.advice) == (Kind.CONFLICT, Advice.STOP)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="sqlite3 has no codes there")
def test_sqlite_by_itself(tmp_path: Path) -> None:
    """A file that is locked is worth a retry; a finer code is that of its kind."""
    path = tmp_path / "database"
    with sqlite3.connect(path, isolation_level=None) as one:
        one.execute("create table t (id)")
        one.execute("begin exclusive")
        other = sqlite3.connect(path, timeout=0)
        with pytest.raises(sqlite3.OperationalError) as raised:
            other.execute("insert into t values (1)")
        one.execute("rollback")
    one.close()
    other.close()
    failure = describe(raised.value)
    assert (failure.code, failure.advice, failure.sdk) == ("SQLITE_BUSY", Advice.RETRY, None)
    raised.value.sqlite_errorname = "SQLITE_BUSY_SNAPSHOT"
    assert describe(raised.value).advice is Advice.RETRY


def test_data_that_cannot_be_read_is_no_misshapen_answer(servers: dict[str, Any]) -> None:
    """The program has put it there: it will be no other next time."""
    shared: resp.Shared = servers["redis"]
    shared.admin.set("data", "no JSON")
    with redis.Redis(host="127.0.0.1", port=shared.port) as client:
        client.set_response_callback("GET", json.loads)
        with pytest.raises(json.JSONDecodeError) as raised:
            client.get("data")
    assert describe(raised.value).kind is Kind.UNKNOWN


def test_codes_of_one_server_are_not_anothers() -> None:
    """MongoDB's look like PostgreSQL's."""
    for code in (23, 40001, 40003):
        failure = describe(pymongo.errors.OperationFailure("x", code, {"code": code}))
        assert (failure.kind, failure.code) == (Kind.UNKNOWN, str(code))
    assert describe(psycopg.errors.InvalidSqlStatementName()).kind is Kind.INVALID
    missing = pymongo.errors.OperationFailure("x", 26, {"code": 26})
    assert describe(missing).kind is Kind.NOT_FOUND
