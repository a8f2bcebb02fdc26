"""What redis-py and its fork valkey-py are asked for, of a real server."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from providers.server import closed_port
from support.polling import until
from support.redis_server import Server

from .faults import Faults

__all__ = ["Shared", "resp_faults", "serving"]

LOADING = b"-LOADING Redis is loading the dataset in memory\r\n"
"""What a server says that has just been started, for too short a time to be met with a real one."""


class Shared(Server):
    """A server on loopback, and somebody who may always talk to it."""

    def __init__(self) -> None:
        super().__init__(tcp=True)
        self.admin = self.client()
        self.admin.ping()

    def set(self, **options: object) -> None:
        """Change settings; `busy_reply_threshold=` is `busy-reply-threshold`."""
        for name, value in options.items():
            self.admin.config_set(name.replace("_", "-"), value)

    def reconnect(self) -> None:
        self.admin = self.client()

    def blocked(self) -> list[str]:
        """Who waits for a list."""
        return [each["id"] for each in self.admin.client_list() if each["cmd"] == "blpop"]

    def kick_blocked(self) -> None:
        """Wait until somebody waits for a list, and end his connection."""
        until(self.blocked)
        self.admin.client_kill_filter(_id=self.blocked()[0])


@contextmanager
def serving() -> Iterator[Shared]:
    server = Shared()
    try:
        yield server
    finally:
        server.close()


@contextmanager
def stranger() -> Iterator[int]:
    """A port where somebody speaks HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                connection.recv(4096)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            thread.join()


def resp_faults(lib: ModuleType) -> Faults:
    """The faults of redis-py, or of valkey-py, which has the same names."""
    client: Any = lib
    faults = Faults()
    once = client.retry.Retry(client.backoff.NoBackoff(), 0)
    twice: dict[str, Any] = {
        "retry": client.retry.Retry(client.backoff.NoBackoff(), 1),
        "retry_on_error": [client.ConnectionError],
    }

    @contextmanager
    def connected(server: Shared, **options: Any) -> Iterator[Any]:
        told = {"host": "127.0.0.1", "port": server.port, "socket_timeout": 5, "retry": once}
        made = client.Redis(**{**told, **options})
        try:
            yield made
        finally:
            made.close()

    def asked(server: Shared, **options: Any) -> None:
        with connected(server, **options) as made:
            made.get("key")

    @faults("refused")
    def refused(server: Shared) -> None:
        asked(server, port=closed_port())

    @faults("no such host")
    def no_such_host(server: Shared) -> None:
        asked(server, host="nowhere.invalid")

    @faults("connect timeout")
    def connect_timeout(server: Shared) -> None:
        server.hang()
        try:
            asked(server, socket_timeout=0.4)
        finally:
            server.wake()

    @faults("timeout")
    def timeout(server: Shared) -> None:
        with connected(server, socket_timeout=0.4) as made:
            made.ping()
            server.hang()
            try:
                made.get("key")
            finally:
                server.wake()

    @faults("lost while it waits")
    def lost(server: Shared) -> None:
        kicker = threading.Thread(target=server.kick_blocked)
        kicker.start()
        try:
            with connected(server, socket_timeout=20) as made:
                made.blpop("list", 20)
        finally:
            kicker.join()

    @faults("lost and then gone")
    def lost_and_gone(server: Shared) -> None:

        def crash() -> None:
            until(server.blocked)
            server.stop()

        crasher = threading.Thread(target=crash)
        crasher.start()
        try:
            with connected(server, socket_timeout=20, **twice) as made:
                made.blpop("list", 20)
        finally:
            crasher.join()
            server.start()
            server.reconnect()

    @faults("not Redis")
    def not_redis(server: Shared) -> None:
        with stranger() as port:
            asked(server, port=port)

    @faults("too many clients")
    def too_many(server: Shared) -> None:
        server.set(maxclients=1)
        try:
            asked(server)
        finally:
            server.set(maxclients=1000)

    @faults("pool exhausted")
    def pool_exhausted(server: Shared) -> None:
        with connected(server, max_connections=1) as made, made.client():
            made.get("key")

    @faults("blocking pool exhausted")
    def blocking_pool(server: Shared) -> None:
        pool = client.BlockingConnectionPool(
            host="127.0.0.1", port=server.port, max_connections=1, timeout=0.05
        )
        with client.Redis(connection_pool=pool) as made, made.client():
            made.get("key")
        pool.disconnect()

    @faults("watched key changed")
    def watched(server: Shared) -> None:
        with connected(server) as made, made.pipeline() as pipe:
            pipe.watch("key")
            server.admin.incr("key")
            pipe.multi()
            pipe.incr("key")
            pipe.execute()

    @faults("lost in a transaction")
    def lost_in_transaction(server: Shared) -> None:
        with connected(server) as made, made.pipeline() as pipe:
            pipe.watch("key")
            server.admin.client_kill_filter(_id=pipe.immediate_execute_command("client", "id"))
            pipe.multi()
            pipe.incr("key")
            pipe.execute()

    @faults("loading")
    def loading(server: Shared) -> None:
        with fake(LOADING) as port:
            asked(server, port=port)

    @faults("lost and then loading")
    def lost_and_loading(server: Shared) -> None:
        with fake(b"", LOADING) as port:
            asked(server, port=port, protocol=2, **twice)

    @faults("wrong password")
    def wrong_password(server: Shared) -> None:
        asked(server, username="who", password="wrong")

    @faults("no password")
    def no_password(server: Shared) -> None:
        server.set(requirepass="x")
        try:
            asked(server)
        finally:
            server.set(requirepass="")

    @faults("forbidden")
    def forbidden(server: Shared) -> None:
        server.admin.execute_command("acl", "setuser", "reader", "on", ">x", "~*", "+@read")
        with connected(server, username="reader", password="x") as made:
            made.set("key", 1)

    @faults("out of memory")
    def out_of_memory(server: Shared) -> None:
        server.set(maxmemory=1)
        try:
            with connected(server) as made:
                made.set("key", 1)
        finally:
            server.set(maxmemory=0)

    @faults("a replica")
    def replica(server: Shared) -> None:
        server.admin.replicaof("127.0.0.1", closed_port())
        try:
            with connected(server) as made:
                made.set("key", 1)
        finally:
            server.admin.replicaof("no", "one")

    @faults("a replica without its master")
    def masterless(server: Shared) -> None:
        server.set(replica_serve_stale_data="no")
        server.admin.replicaof("127.0.0.1", closed_port())
        try:
            asked(server)
        finally:
            server.admin.replicaof("no", "one")
            server.set(replica_serve_stale_data="yes")

    @faults("sentinel without a master")
    def no_master(server: Shared) -> None:
        seen = client.sentinel.Sentinel(
            [("127.0.0.1", closed_port())], sentinel_kwargs={"retry": once}
        )
        seen.master_for("main", retry=once).get("key")

    @faults("wrong type")
    def wrong_type(server: Shared) -> None:
        server.admin.set("text", "x")
        with connected(server) as made:
            made.lpush("text", 1)

    @faults("no such command")
    def no_such_command(server: Shared) -> None:
        with connected(server) as made:
            made.execute_command("nothing")

    @faults("no such script")
    def no_such_script(server: Shared) -> None:
        with connected(server) as made:
            made.evalsha("f" * 40, 0)

    @faults("transaction refused")
    def refused_transaction(server: Shared) -> None:
        with connected(server) as made, made.pipeline() as pipe:
            pipe.execute_command("nothing")
            pipe.execute()

    @faults("no such value")
    def unencodable(server: Shared) -> None:
        with connected(server) as made:
            made.set("key", object())

    @faults("lock not free in time")
    def not_locked(server: Shared) -> None:
        with (
            connected(server) as made,
            made.lock("lock", timeout=5),
            made.lock("lock", blocking_timeout=0.02),
        ):
            pass

    @faults("lock of another")
    def not_owned(server: Shared) -> None:
        with connected(server) as made, made.lock("lock"):
            server.admin.delete("lock")

    @faults("cluster unreachable")
    def no_cluster(server: Shared) -> None:
        client.RedisCluster(host="127.0.0.1", port=closed_port())

    @faults("no cluster")
    def not_a_cluster(server: Shared) -> None:
        client.RedisCluster(host="127.0.0.1", port=server.port)

    def asynchronous(name: str, **options: Any) -> Any:
        def add(way: Any) -> Any:
            @faults.asynchronous(f"async: {name}")
            async def fails(server: Shared) -> None:
                module = client.asyncio
                again = module.retry.Retry(client.backoff.NoBackoff(), 0)
                port = options.get("port", lambda: server.port)()
                made = module.Redis(host="127.0.0.1", port=port, socket_timeout=0.4, retry=again)
                try:
                    await way(server, made)
                finally:
                    await made.aclose()

            return way

        return add

    async def get(server: Shared, made: Any) -> None:
        await made.get("key")

    asynchronous("refused", port=closed_port)(get)

    @asynchronous("timeout")
    async def atimeout(server: Shared, made: Any) -> None:
        await made.ping()
        server.hang()
        try:
            await made.get("key")
        finally:
            server.wake()

    @asynchronous("lost while it waits")
    async def alost(server: Shared, made: Any) -> None:
        kicked = asyncio.ensure_future(asyncio.to_thread(server.kick_blocked))
        try:
            await made.blpop("list", 20)
        finally:
            await kicked

    @asynchronous("watched key changed")
    async def awatched(server: Shared, made: Any) -> None:
        async with made.pipeline() as pipe:
            await pipe.watch("key")
            server.admin.incr("key")
            pipe.multi()
            pipe.incr("key")
            await pipe.execute()

    return faults


@contextmanager
def fake(*answers: bytes) -> Iterator[int]:
    """A port where each connection has one answer to everything; an empty one means that all goes
    well until GET, at which the connection is lost."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for answer in answers:
                connection, _ = listener.accept()
                with connection:
                    while (asked := connection.recv(4096)) and (answer or b"GET" not in asked):
                        connection.sendall((answer or b"+OK\r\n") * asked.count(b"*"))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            thread.join()
