"""What a RedisCircuit is given, and which client asks by it, where."""

from __future__ import annotations

import asyncio
import copy
import pickle
import subprocess
import sys
import textwrap
import time
from datetime import timedelta
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest
import redis
import redis.asyncio
import trio

from resilience import CircuitBreaker, CircuitOpenError, Hold, Pipeline, RateLimit
from resilience._runtimes import workers
from resilience.shared import RedisCircuit, RedisLimit
from resilience.testing import virtual_time
from support import redis_server
from support.redis_server import PATIENT, Process, Server, Warned, open_time_over, until

real = pytest.mark.real

running, server = redis_server.running, redis_server.server


class Own(redis.Redis):
    """A client of the user's own making."""


def source_of(kind: str, server: Server) -> Any:
    """What a RedisCircuit is given."""
    if kind == "url":
        return server.url
    if kind == "sync client":
        return server.client()
    return redis.asyncio.Redis(unix_socket_path=f"{server.folder}/s")


def client_of(source: Any, **options: Any) -> Any:
    """What asks by it."""
    return RedisCircuit(source, **options)._server.client


@pytest.mark.fault(400)
@pytest.mark.parametrize("policy", [CircuitBreaker, Hold, partial(RateLimit, 9)])
def test_a_shared_policy_pickles_as_its_options(policy: Any) -> None:
    """What it shares by, too; a copy of that is the thing itself, with its connections."""
    shared = RedisCircuit if policy is CircuitBreaker else RedisLimit
    storage = shared("redis://localhost:1", prefix="app", timeout=2)
    assert copy.copy(storage) is copy.deepcopy(storage) is storage
    again = pickle.loads(pickle.dumps(policy(storage=storage))).storage
    assert repr(again) == repr(storage)
    assert again.client == "redis://localhost:1"


# All of them


@real
@pytest.mark.parametrize("world", ["sync", "asyncio", "trio"])
@pytest.mark.parametrize("kind", ["url", "sync client", "asyncio client"])
def test_every_client_in_every_world(server: Server, world: str, kind: str) -> None:
    """Opening, rejecting and closing, whatever is given and wherever it is called."""
    source = source_of(kind, server)
    one, other = Process(source, failures=1), Process(server.url, failures=1)

    async def calls() -> None:
        with pytest.raises(ConnectionError):
            await one.guarded_async(ConnectionError("down"))
        with pytest.raises(CircuitOpenError):
            await one.guarded_async()
        sleep = trio.sleep if world == "trio" else asyncio.sleep
        await sleep(0.31)
        assert await one.guarded_async() == "fine"
        if kind == "asyncio client" and world == "asyncio":
            await source.aclose()

    if world == "sync":
        one.bad()
        one.rejected()
        other.rejected()
        open_time_over()
        assert one.good() == "fine"
    else:
        (asyncio.run if world == "asyncio" else trio.run)(calls if world == "trio" else calls())
    assert one.state == "closed"
    until(lambda: server.field("state") == "closed")
    assert other.good() == "fine"


class Counting(redis.asyncio.Redis):
    """An asyncio client that counts what it is asked."""

    asked = 0

    def evalsha(self, *args: Any) -> Any:
        self.asked += 1
        return super().evalsha(*args)


@real
def test_an_asyncio_client_serves_several_loops(server: Server) -> None:
    """On its own loop directly; in another, in a block and in a sync call, by a sync twin."""
    client = Counting(unix_socket_path=f"{server.folder}/s")
    one = Process(client)

    async def call() -> Any:
        return await one.guarded_async()

    async def first() -> None:
        assert await one.guarded_async() == "fine"
        assert (client.asked, server.asked()) == (1, 1)
        async for attempt in Pipeline(one.breaker).attempts():
            async with attempt:
                pass
        await client.aclose()

    asyncio.run(first())
    assert asyncio.run(call()) == "fine"
    assert one.good() == "fine"
    assert (client.asked, server.asked()) == (1, 4)


@real
def test_an_asyncio_client_is_left_alone_in_virtual_time(server: Server) -> None:
    """There a wait for the server would be over before it can reply."""
    client = Counting(unix_socket_path=f"{server.folder}/s")
    one = Process(client, failures=1)

    async def main() -> None:
        with pytest.raises(ConnectionError):
            await one.guarded_async(ConnectionError("down"))
        with pytest.raises(CircuitOpenError):
            await one.guarded_async()

    with virtual_time():
        asyncio.run(main())
    assert (client.asked, server.field("state")) == (0, "open")


@real
@pytest.mark.fault(94)
@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("loop", [True, False])
def test_however_the_client_reads(server: Server, decode: bool, protocol: int, loop: bool) -> None:
    """`decode_responses` either way, RESP2 and RESP3."""
    kind = redis.asyncio.Redis if loop else redis.Redis
    client = kind(unix_socket_path=f"{server.folder}/s", decode_responses=decode, protocol=protocol)
    one = Process(client, failures=1)
    Process(server.url).breaker.open()

    async def main() -> None:
        with pytest.raises(CircuitOpenError):
            await one.guarded_async()
        if loop:
            await client.aclose()

    asyncio.run(main())
    one.breaker.close()
    assert Process(server.url).good() == "fine"


@real
@pytest.mark.parametrize("package", [each for each in ("redis", "valkey") if find_spec(each)])
def test_a_sync_client_of_valkey_will_do(server: Server, package: str) -> None:
    """It has the methods of redis-py's, and of its errors those names that matter."""
    client = import_module(package).StrictRedis(unix_socket_path=f"{server.folder}/s")
    one = Process(client, failures=1)
    server.client().script_flush()
    one.bad()
    Process(server.url).rejected()


@real
@pytest.mark.fault(94)
def test_a_cluster() -> None:
    """A client of a cluster finds the slot of a circuit, whatever its names are."""
    server = Server("--cluster-enabled", "yes", tcp=True)
    try:
        server.client().execute_command("CLUSTER", "ADDSLOTS", *range(16384))
        until(lambda: server.client().cluster("info")["cluster_state"] == "ok")
        client = redis.RedisCluster(host="127.0.0.1", port=server.port)
        one, two = (Process(client, failures=1, name="{a}:*", key="model") for _ in range(2))
        one.bad(model="{b}")
        two.rejected(model="{b}")
        client.close()
    finally:
        server.close()


# Twins, with time limits


@real
@pytest.mark.parametrize("kind", ["plain", "few connections", "of its own kind"])
def test_a_plain_client_gets_a_twin_with_time_limits(server: Server, kind: str) -> None:
    """It connects as that one does; a client that is more than that is used itself."""
    options = {"socket_timeout": None, "username": "default", "password": "secret"}
    maker = redis.Redis if kind != "of its own kind" else Own
    if kind == "few connections":
        options["max_connections"] = 5
    client = maker.from_url(server.url, **options)
    used = client_of(client, timeout=0.5).client
    if kind != "plain":
        assert used is client
        return
    server.client().config_set("requirepass", "secret")
    assert used is not client
    assert used.ping()
    assert used.connection_pool.connection_kwargs["socket_timeout"] == 0.5
    assert client.connection_pool.connection_kwargs["socket_timeout"] is None
    used.config_set("requirepass", "")


@pytest.mark.parametrize(
    ("source", "prompt"),
    [
        ("unix:///tmp/s", True),
        ("redis://127.0.0.1:1", True),
        ("rediss://[::1]:1", True),
        ("redis://localhost", True),
        ("redis://", True),
        ("redis://cache.example", False),
        (redis.Redis(unix_socket_path="/tmp/s"), True),
        (redis.Redis(host="cache.example"), False),
        (redis.Redis(credential_provider=redis.UsernamePasswordCredentialProvider("a")), False),
        (redis.asyncio.Redis(), True),
        (Own(), False),
        (redis.Redis(max_connections=5), False),
    ],
)
def test_who_may_be_asked_on_the_spot(source: Any, prompt: bool) -> None:
    """A client of our own that does nothing but connect, to an address that is known."""
    client = client_of(source)
    assert getattr(client, "twin", client).prompt is prompt


@pytest.mark.parametrize("version", ["this", "6"])
def test_nobody_extends_the_time_limits(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server's notice of its maintenance would; redis-py knows of them since 7."""
    if version == "6":
        monkeypatch.setitem(sys.modules, "redis.maint_notifications", None)
    client = redis.Redis(socket_timeout=30, retry_on_error=[redis.TimeoutError])
    own = client_of(client, timeout=0.5).client.connection_pool.make_connection()
    assert own.socket_timeout == own.socket_connect_timeout == 0.5
    assert set(own.retry._supported_errors) == {redis.ConnectionError}
    if version == "this":
        config = getattr(own, "maint_notifications_config", None)
        assert config is None or not config.enabled


# Threads


@real
@pytest.mark.parametrize("world", ["sync", "asyncio", "trio"])
def test_threads_that_are_busy_do_not_keep_it_from_being_asked(
    server: Server, world: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sync call needs no thread to ask by a client of our own, an async one needs one."""
    one = Process(server.url, failures=1)
    Process(server.url).breaker.open()
    monkeypatch.setattr(workers, "LIMIT", 0 if world == "sync" else 1)
    workers._renew()
    if world == "sync":
        one.rejected()
    else:

        async def main() -> None:
            with pytest.raises(CircuitOpenError):
                await one.guarded_async()

        (asyncio.run if world == "asyncio" else trio.run)(main() if world == "asyncio" else main)
    workers._renew()


@real
def test_where_no_thread_is_free_the_server_is_not_taken_for_lost(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call uses local state; the next one asks again."""
    one = Process(Own.from_url(server.url))
    Process(server.url).breaker.open()
    monkeypatch.setattr(workers, "LIMIT", 0)
    workers._renew()
    assert one.good() == "fine"
    monkeypatch.undo()
    workers._renew()
    assert not one.server.lost
    one.rejected()


# Forks


@real
@pytest.mark.fault(102)
def test_a_fork_after_connecting(server: Server) -> None:
    """The child makes connections of its own; parent and child go on sharing."""
    code = f"""
        import os
        import redis
        from resilience import CircuitBreaker, CircuitOpenError, resilient
        from resilience.shared import RedisCircuit

        url = {server.url!r}
        for source in (url, redis.Redis.from_url(url)):
            storage = RedisCircuit(source, timeout={PATIENT})
            breaker = CircuitBreaker(refresh=0, name=type(source).__name__, storage=storage)

            @resilient(breaker)
            def call():
                return "fine"

            client = storage._server.client.client
            assert call() == "fine"
            mine = client.client_id()
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    assert client.client_id() != mine
                    breaker.open()
                    status = 0
                finally:
                    os._exit(status)
            assert os.waitpid(child, 0)[1] == 0
            assert client.client_id() == mine
            try:
                call()
            except CircuitOpenError:
                print("rejected")
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["rejected", "rejected"], done.stderr


@real
@pytest.mark.fault(102)
def test_the_pool_is_exhausted(server: Server) -> None:
    """A client whose connections are all in use: the circuit uses local state meanwhile."""
    client = server.users_client(max_connections=1)
    held = client.connection_pool.get_connection()
    one = Process(client, storage={"back_off": 0.05}, failures=1)
    with Warned() as warned:
        one.good()
        one.good()
    assert len(warned.texts) == 1
    client.connection_pool.release(held)
    time.sleep(0.06)
    one.bad()
    Process(server.url).rejected()


# Construction


def test_nothing_is_imported_or_connected_before_it_is_needed() -> None:
    """`import resilience.shared` brings no redis; without it a RedisCircuit names the extra."""
    code = """
import sys
import resilience.shared
assert "redis" not in sys.modules
sys.modules["redis"] = None
try:
    resilience.shared.RedisCircuit("redis://localhost")
except ImportError as error:
    print(error.name, error)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("redis ")
    assert "[redis]" in done.stdout


@pytest.mark.parametrize("source", [None, 5, object(), "", "localhost:6379"])
def test_something_else_than_a_url_or_a_client_is_refused(source: Any) -> None:
    """At construction, by name."""
    with pytest.raises((TypeError, ValueError), match=r"client|URL"):
        RedisCircuit(source)


@pytest.mark.parametrize(
    "source",
    [redis.Redis().pipeline(), redis.asyncio.Redis().pipeline(), redis.Redis, redis.asyncio.Redis],
    ids=["a pipeline", "an asyncio pipeline", "a class", "an asyncio class"],
)
def test_a_pipeline_or_a_class_is_refused(source: Any) -> None:
    """A pipeline would answer nothing until somebody executes it."""
    with pytest.raises(TypeError, match="pipeline"):
        RedisCircuit(source)


def test_an_asyncio_client_without_a_sync_twin_is_refused() -> None:
    """A sync call could not be served, and a slot not be given back."""
    client = redis.asyncio.RedisCluster(host="127.0.0.1", port=1)
    with pytest.raises(TypeError, match="asyncio"):
        RedisCircuit(client)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("prefix", ""),
        ("prefix", 5),
        ("prefix", "\ud800"),
        ("lease", 0),
        ("timeout", -1),
        ("back_off", "soon"),
        ("advisory", 1),
    ],
)
def test_bad_options_are_refused(option: str, value: Any) -> None:
    """With the option's name in the message."""
    with pytest.raises((TypeError, ValueError), match=option):
        RedisCircuit("redis://localhost", **{option: value})


def test_its_repr_keeps_the_password() -> None:
    """A URL may have one in it."""
    shown = repr(RedisCircuit("redis://:secret@localhost", lease=timedelta(seconds=5)))
    assert shown == "RedisCircuit(lease=5)"
