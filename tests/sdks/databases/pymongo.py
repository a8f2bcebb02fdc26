"""pymongo, sync and async."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pymongo

from providers.server import closed_port

from .faults import Faults
from .mongo_server import HANG, LOSE, Mongo

__all__ = ["FAULTS", "PACKAGE", "connected", "failing", "serving"]

PACKAGE = "pymongo"
FAULTS = Faults()


@contextmanager
def serving() -> Iterator[Mongo]:
    server = Mongo()
    try:
        yield server
    finally:
        server.close()


@contextmanager
def connected(server: Any, **options: Any) -> Iterator[Any]:
    """A client as users have one, but less patient with a server that is not there."""
    port = options.pop("port", None) or server.port
    told = {"serverSelectionTimeoutMS": 20000, "replicaSet": "set", **options}
    with pymongo.MongoClient(f"mongodb://127.0.0.1:{port}", **told) as client:
        yield client


def failing(code: int, *labels: str, **more: Any) -> dict[str, Any]:
    """What a server answers that has failed."""
    named = {"errorLabels": list(labels)} if labels else {}
    return {"ok": 0, "errmsg": "told", "code": code, "codeName": "Told", **named, **more}


def answered(name: str, answer: Any, command: str = "insert", **options: Any) -> None:
    """A fault of a single command."""

    @FAULTS(name)
    def fails(server: Mongo) -> None:
        server.tell(**{command: answer})
        with connected(server, **options) as client:
            if command == "find":
                list(client.d.c.find({}))
            else:
                client.d.c.insert_one({"x": 1})


answered("lost", LOSE)
answered("lost and not written again", LOSE, retryWrites=False)
answered("lost while it reads", LOSE, "find")
answered("timeout", HANG, socketTimeoutMS=50, retryWrites=False)
answered("timeout of all", HANG, timeoutMS=100)
answered("no longer primary", failing(10107, "RetryableWriteError"))
answered("no longer primary without a label", failing(10107), retryWrites=False)
answered("stepping down", failing(189, "RetryableWriteError"))
answered("stopping", failing(91), retryWrites=False)
answered("interrupted", failing(11602), "find", retryReads=False)
answered("maxTimeMS", failing(50))
answered("time limit of the server", failing(262), retryWrites=False)
answered("write conflict", failing(112), retryWrites=False)
answered("overloaded", failing(462, "SystemOverloadedError", "RetryableError", baseBackoffMS=20))
answered("overloaded for good", failing(462, "SystemOverloadedError"), retryWrites=False)
answered("nothing written", failing(91, "NoWritesPerformed"), retryWrites=False)
answered("forbidden", failing(13))
answered("wrong password", failing(18))
answered("no such command", failing(59))
answered("does not validate", failing(121))
answered("a code of its own", failing(4711))
answered("cursor lost", failing(43), "find")
answered("too many requests at Azure", failing(16500), retryWrites=False)
answered("unique", {"ok": 1, "n": 0, "writeErrors": [{"index": 0, "code": 11000, "errmsg": "x"}]})
answered("write concern", {"ok": 1, "n": 1, "writeConcernError": {"code": 64, "errmsg": "x"}})


@FAULTS("refused")
def refused(server: Mongo) -> None:
    with connected(server, port=closed_port(), serverSelectionTimeoutMS=100) as client:
        client.d.c.find_one()


@FAULTS("no such host")
def no_such_host(server: Mongo) -> None:
    with pymongo.MongoClient("nowhere.invalid", serverSelectionTimeoutMS=100) as client:
        client.d.c.find_one()


@FAULTS("another replica set")
def another_set(server: Mongo) -> None:
    with connected(server, replicaSet="other", serverSelectionTimeoutMS=100) as client:
        client.d.c.find_one()


@FAULTS("not MongoDB")
def not_mongodb(server: Mongo) -> None:
    with serving() as other:
        other.garbled = b"HTTP/1.1 400 Bad Request\r\n\r\n"
        with connected(other, serverSelectionTimeoutMS=100) as client:
            client.d.c.find_one()


@FAULTS("pool exhausted")
def pool_exhausted(server: Mongo) -> None:
    server.tell()
    with connected(server, maxPoolSize=1, waitQueueTimeoutMS=50) as client:
        client.admin.command("ping")
        (node,) = client._topology._servers.values()
        with node.pool.checkout():
            client.d.c.find_one()


@FAULTS("bulk")
def bulk(server: Mongo) -> None:
    server.tell(
        insert={"ok": 1, "n": 1, "writeErrors": [{"index": 1, "code": 11000, "errmsg": ""}]}
    )
    with connected(server) as client:
        client.d.c.insert_many([{"x": 1}, {"x": 2}])


@FAULTS("bulk lost")
def bulk_lost(server: Mongo) -> None:
    server.tell(bulkWrite=LOSE)
    with connected(server) as client:
        client.bulk_write([pymongo.InsertOne({"x": 1}, namespace="d.c")])


@contextmanager
def transaction(server: Mongo, **answers: Any) -> Iterator[Any]:
    server.tell(**answers)
    with (
        connected(server) as client,
        client.start_session() as session,
        session.start_transaction(),
    ):
        yield lambda: client.d.c.insert_one({"x": 1}, session=session)


def in_transaction(name: str, **answers: Any) -> None:
    """A fault of a transaction with one write."""

    @FAULTS(name)
    def fails(server: Mongo) -> None:
        with transaction(server, **answers) as write:
            write()


in_transaction("transaction: lost", insert=LOSE)
in_transaction("transaction: write conflict", insert=failing(112, "TransientTransactionError"))
in_transaction("transaction: gone", insert=failing(251, "TransientTransactionError"))
in_transaction("transaction: unique", insert=failing(11000))
in_transaction("transaction: lost at COMMIT", commitTransaction=LOSE)
in_transaction(
    "transaction: conflict at COMMIT", commitTransaction=failing(112, "TransientTransactionError")
)
in_transaction(
    "transaction: not on all at COMMIT",
    commitTransaction={
        "ok": 1,
        "writeConcernError": {"code": 64, "errmsg": "x", "errInfo": {"wtimeout": True}},
    },
)


@FAULTS("no such name")
def no_such_name(server: Mongo) -> None:
    with connected(server) as client:
        client["a b"]["c"].find_one()


@FAULTS("too large")
def too_large(server: Mongo) -> None:
    server.tell()
    with connected(server) as client:
        client.d.c.insert_one({"x": b"x" * (1 << 25)})


@FAULTS("no such option")
def no_such_option(server: Mongo) -> None:
    pymongo.MongoClient("mongodb://")


@FAULTS("client closed")
def client_closed(server: Mongo) -> None:
    with connected(server) as client:
        pass
    client.d.c.find_one()


def asynchronous(name: str, **answers: Any) -> None:
    @FAULTS(f"async: {name}")
    def fails(server: Mongo) -> None:
        server.tell(**answers)

        async def write() -> None:
            where = f"mongodb://127.0.0.1:{server.port}/?replicaSet=set"
            async with pymongo.AsyncMongoClient(where) as client:
                await client.d.c.insert_one({"x": 1})

        asyncio.run(write())


asynchronous("lost", insert=LOSE)
asynchronous("stepping down", insert=failing(189, "RetryableWriteError"))
asynchronous("unique", insert=failing(11000))
