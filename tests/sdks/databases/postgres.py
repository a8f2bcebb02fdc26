"""A PostgreSQL with a table, and with people whom it treats in different ways."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any

from support.polling import until
from support.postgres_server import PostgresServer

from .faults import Faults

__all__ = ["Postgres", "close_shared", "dbapi_faults", "serving"]

STATEMENTS = (
    "create role small login",  # one of those for whom no connections are reserved
    "create role locked login password 'x'",
    "create role banned login",
    "create table t (id int primary key, n int not null)",
    "insert into t values (1, 0), (2, 0)",
    "grant select on t to small",
    "create table late (id int unique deferrable initially deferred)",
)


class Postgres(PostgresServer):
    """A server that does to others what a test wants."""

    def __init__(self) -> None:
        super().__init__()
        try:
            for statement in STATEMENTS:
                self.execute(statement)
        except BaseException:
            self.close()
            raise

    def kick(self, pid: int) -> None:
        """End somebody's connection, and wait until it has ended."""
        with self.client() as connection:
            connection.execute("select pg_terminate_backend(%s, 5000)", (pid,))

    def until_waits(self, pid: int, what: str) -> None:
        """Wait until somebody waits, for a `Lock` or a `Timeout`."""
        waits = "select 1 from pg_stat_activity where pid = %s and wait_event_type = %s"
        with self.client() as connection:
            until(lambda: connection.execute(waits, (pid, what)).fetchone())

    def kick_asleep(self, pid: int) -> None:
        """Wait until somebody sleeps in a statement, and end his connection."""
        self.until_waits(pid, "Timeout")
        self.kick(pid)

    def value(self, row: int = 1) -> int:
        with self.client() as connection:
            return int(connection.execute("select n from t where id = %s", (row,)).fetchone()[0])


_shared: list[Postgres] = []


@contextmanager
def serving() -> Iterator[Postgres]:
    """The one server of all who do not maltreat it, empty but for its table."""
    if not _shared:
        _shared.append(Postgres())
    yield _shared[0]


def close_shared() -> None:
    while _shared:
        _shared.pop().close()


def dbapi_faults(connect: Any, closed: Any) -> Faults:
    """What both psycopgs are asked for. `connect(server, **options)` makes a connection, and
    `closed` is a port where nobody listens."""
    faults = Faults()

    def during(server: Postgres, *statements: str, **options: Any) -> Any:
        """Run statements in one transaction."""
        connection = connect(server, **options)
        try:
            cursor = connection.cursor()
            for statement in statements:
                cursor.execute(statement)
            connection.commit()
        finally:
            connection.close()

    def pid(connection: Any) -> int:
        cursor = connection.cursor()
        cursor.execute("select pg_backend_pid()")
        return int(cursor.fetchone()[0])

    @faults("refused")
    def refused(server: Postgres) -> None:
        connect(server, port=closed())

    @faults("no such host")
    def no_such_host(server: Postgres) -> None:
        connect(server, host="nowhere.invalid")

    @faults("connect timeout")
    def connect_timeout(server: Postgres) -> None:
        server.hang()
        try:
            connect(server, connect_timeout=2)
        finally:
            server.wake()

    @faults("wrong password")
    def wrong_password(server: Postgres) -> None:
        connect(server, user="locked", password="y")

    @faults("too many clients")
    def too_many(server: Postgres) -> None:
        held = []
        try:
            for _ in range(20):
                held.append(connect(server, user="small"))
        finally:
            for connection in held:
                connection.close()

    @faults("terminated while idle")
    def terminated(server: Postgres) -> None:
        connection = connect(server)
        try:
            server.kick(pid(connection))
            connection.cursor().execute("select 1")
        finally:
            connection.close()

    @faults("terminated before COMMIT")
    def terminated_before_commit(server: Postgres) -> None:
        connection = connect(server)
        try:
            connection.cursor().execute("update t set n = n + 1 where id = 1")
            server.kick(pid(connection))
            connection.commit()
        finally:
            connection.close()

    @faults("terminated while it runs")
    def terminated_meanwhile(server: Postgres) -> None:
        connection = connect(server)
        kicker = Thread(target=server.kick_asleep, args=(pid(connection),))
        kicker.start()
        try:
            connection.cursor().execute("select pg_sleep(20)")
        finally:
            kicker.join()
            connection.close()

    @faults("used after it was lost")
    def used_after(server: Postgres) -> None:
        connection = connect(server)
        try:
            server.kick(pid(connection))
            with suppress(Exception):
                connection.cursor().execute("select 1")
            connection.cursor().execute("select 1")
        finally:
            connection.close()

    @faults("idle in a transaction")
    def idle(server: Postgres) -> None:
        connection = connect(server)
        try:
            there = f"select 1 from pg_stat_activity where pid = {pid(connection)}"
            connection.cursor().execute("set idle_in_transaction_session_timeout = 20")
            with server.client() as other:
                until(lambda: not other.execute(there).fetchone())
            connection.cursor().execute("select 1")
        finally:
            connection.close()

    @faults("statement timeout")
    def statement_timeout(server: Postgres) -> None:
        during(server, "set statement_timeout = 20", "select pg_sleep(20)")

    @faults("transaction timeout")
    def transaction_timeout(server: Postgres) -> None:
        during(server, "set transaction_timeout = 20", "select pg_sleep(20)")

    @faults("lock timeout")
    def lock_timeout(server: Postgres) -> None:
        with server.client(autocommit=False) as other:
            other.execute("update t set n = n where id = 1")
            during(server, "set lock_timeout = 20", "update t set n = n where id = 1")

    @faults("lock not waited for")
    def nowait(server: Postgres) -> None:
        with server.client(autocommit=False) as other:
            other.execute("update t set n = n where id = 1")
            during(server, "select 1 from t where id = 1 for update nowait")

    @faults("serialization failure")
    def serialization(server: Postgres) -> None:
        connection = connect(server)
        try:
            cursor = connection.cursor()
            cursor.execute("set transaction isolation level repeatable read")
            cursor.execute("select n from t")
            server.execute("update t set n = n where id = 1")
            cursor.execute("update t set n = n + 1 where id = 1")
        finally:
            connection.close()

    @faults("serialization failure at COMMIT")
    def serialization_at_commit(server: Postgres) -> None:
        one, other = connect(server), connect(server)
        try:
            for each in (one, other):
                each.cursor().execute("set transaction isolation level serializable")
                each.cursor().execute("select sum(n) from t")
            one.cursor().execute("update t set n = n where id = 1")
            other.cursor().execute("update t set n = n where id = 2")
            one.commit()
            other.commit()
        finally:
            one.close()
            other.close()

    @faults("deadlock")
    def deadlock(server: Postgres) -> None:
        one, other = connect(server), connect(server)
        other.cursor().execute("set deadlock_timeout = '20s'")  # it is the first that looks
        one.cursor().execute("update t set n = n where id = 1")
        other.cursor().execute("update t set n = n where id = 2")
        blocked = Thread(target=lambda: other.cursor().execute("update t set n = n where id = 1"))
        waiting = pid(other)
        blocked.start()
        try:
            server.until_waits(waiting, "Lock")
            one.cursor().execute("update t set n = n where id = 2")
        finally:
            one.close()
            blocked.join()
            other.close()

    @faults("a failed transaction goes on")
    def goes_on(server: Postgres) -> None:
        connection = connect(server)
        try:
            with suppress(Exception):
                connection.cursor().execute("select 1/0")
            connection.cursor().execute("select 1")
        finally:
            connection.close()

    for name, statement in {
        "syntax": "selct 1",
        "no such table": "select 1 from nowhere",
        "division by zero": "select 1/0",
        "unique": "insert into t values (1, 1)",
        "not null": "insert into t values (9, null)",
        "unique at COMMIT": "insert into late values (1), (1)",
        "raised by a function": "do $$ begin raise exception 'x'; end $$",
        "raised with a code": "do $$ begin raise sqlstate 'ZZ999'; end $$",
        "read only": "set transaction read only; update t set n = 1",
    }.items():
        faults(name)(lambda server, statement=statement: during(server, statement))
    faults("forbidden")(lambda server: during(server, "update t set n = 1", user="small"))

    @faults("no value for a parameter")
    def unadaptable(server: Postgres) -> None:
        connection = connect(server)
        try:
            connection.cursor().execute("select %s", (object(),))
        finally:
            connection.close()

    @faults("cursor closed")
    def cursor_closed(server: Postgres) -> None:
        connection = connect(server)
        try:
            cursor = connection.cursor()
            cursor.close()
            cursor.execute("select 1")
        finally:
            connection.close()

    return faults
