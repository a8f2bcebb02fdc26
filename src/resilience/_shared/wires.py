"""Ways to a server: by a sync client, from any thread, or by an asyncio one, on its own loop.

redis-py's pools see for themselves that a fork has happened and make new connections.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import ipaddress
import os
import weakref
from collections.abc import Sequence
from typing import Any

from attrs import Factory, define, field

from resilience._core.driver import drive
from resilience._core.line import Line
from resilience._core.locks import new_lock
from resilience._core.world import monotonic
from resilience._runtimes import workers
from resilience.typing import Runtime

from .script import Reply, evaluate

__all__ = ["LoopWire", "Wire", "to_wire"]

_AT_ONCE = 8  # questions by one client; worker threads are for the user's calls too
_MANY = 100  # connections: who allows for fewer does not want others beside them
_MOST_STUCK = 4  # threads that a client without time limits may hold, before it is tried rarely


@define(eq=False)
class Wire:
    """By a sync client; off the loop, where there is one.

    A `prompt` client keeps to our time limits by itself, and is asked on the spot: where threads
    are busy, waiting for one would take longer than the server. Any other is asked in a worker
    thread that is waited for no longer than `timeout`: whatever keeps it (a name that does not
    resolve, its own retries and time limits), the call goes on after that.
    """

    client: Any
    timeout: float
    prompt: bool = False
    _lock: Any = field(factory=new_lock, init=False)
    _stuck: list[tuple[workers.Job, float]] = field(factory=list, init=False)  # given up when
    _line: Line = field(
        default=Factory(lambda self: Line(_AT_ONCE, self.timeout), takes_self=True), init=False
    )

    async def ask(self, runtime: Runtime, key: str, arguments: Sequence[Any]) -> Reply:
        """What the server answers; TimeoutError, or the client's own error."""
        if not self.prompt:
            return await self._line.through(runtime, functools.partial(self._now, key, arguments))
        there = functools.partial(self._there, key, arguments)
        if not runtime.asynchronous:
            return await runtime.blocking(there)
        return await self._line.through(runtime, there)

    def tell(self, key: str, arguments: Sequence[Any]) -> None:
        """Ask without waiting for the answer; nothing is raised."""
        try:
            workers.start(functools.partial(self._there, key, arguments))
        except Exception:
            pass  # no thread to be had: what was to be told runs out by itself

    def _now(self, key: str, arguments: Sequence[Any]) -> Reply:
        with self._lock:
            self._stuck = [stuck for stuck in self._stuck if stuck[0].pending]
            if not self._worth_asking(monotonic()):
                raise TimeoutError("no answer to earlier questions")
        job = workers.start(functools.partial(self._there, key, arguments))
        if not job.wait(self.timeout):
            with self._lock:
                self._stuck.append((job, monotonic()))
            raise TimeoutError(f"no answer within {self.timeout:g} s")
        reply: Reply = job.outcome()
        return reply

    def _worth_asking(self, now: float) -> bool:
        """Whether one more thread may be risked, which may be stuck for good like those before.

        Once there are several, only after as long a time again as they took to pile up: a network
        that comes back is found, and an outage of days costs a dozen threads.
        """
        if len(self._stuck) < _MOST_STUCK:
            return True
        first, last = self._stuck[0][1], self._stuck[-1][1]
        return now - last >= last - first

    def _there(self, key: str, arguments: Sequence[Any]) -> Reply:
        return drive(evaluate(self.client, key, arguments))


@define(eq=False)
class LoopWire:
    """By an asyncio client on the event loop that it belongs to; elsewhere by a sync twin."""

    client: Any
    twin: Wire
    _home: Any = field(default=None, init=False)  # the first loop met, and the process

    async def ask(self, runtime: Runtime, key: str, arguments: Sequence[Any]) -> Reply:
        """As `Wire.ask`."""
        if not self._at_home(runtime):
            return await self.twin.ask(runtime, key, arguments)
        return await runtime.within(
            self.twin.timeout, lambda: evaluate(self.client, key, arguments)
        )

    def tell(self, key: str, arguments: Sequence[Any]) -> None:
        """As `Wire.tell`."""
        self.twin.tell(key, arguments)

    def _at_home(self, runtime: Runtime) -> bool:
        loop = asyncio._get_running_loop() if runtime.asynchronous else None
        if loop is None or not getattr(runtime, "lasting", False):  # virtual time: no real I/O
            return False
        if self._home is None:
            self._home = (weakref.ref(loop), os.getpid())
        return self._home[0]() is loop and self._home[1] == os.getpid()


def to_wire(source: Any, timeout: float) -> Wire | LoopWire:
    """A wire for a URL or a client. ImportError without redis-py, TypeError for something else."""
    if isinstance(source, str):
        return _own(_client(source, timeout), timeout)
    if not all(callable(getattr(source, name, None)) for name in ("evalsha", "eval")):
        raise TypeError(
            f"client must be a URL or a client of redis-py, sync or asyncio, got a "
            f"{type(source).__name__}"
        )
    if isinstance(source, type) or hasattr(source, "execute"):
        raise TypeError(
            f"client must be a client itself, no class and no pipeline, got a "
            f"{type(source).__name__}"
        )
    if inspect.iscoroutinefunction(source.execute_command):
        return LoopWire(source, _own(_twin(source, timeout), timeout))
    twin = _brief_twin(source, timeout)
    return Wire(source, timeout) if twin is None else _own(twin, timeout)


def _own(client: Any, timeout: float) -> Wire:
    """By a client with our time limits; they hold where nothing is done but to connect."""
    options = client.connection_pool.connection_kwargs
    more = any(map(options.get, ("credential_provider", "redis_connect_func")))
    return Wire(client, timeout, prompt=not more and _found_at_once(options))


def _found_at_once(options: dict[str, Any]) -> bool:
    """Whether there is no name to be looked up, which no time limit of a socket would cut."""
    host = options.get("host", "localhost")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or "path" in options
    return True


def _redis() -> Any:
    try:
        import redis
    except ImportError as error:
        raise ImportError(
            "RedisCircuit needs redis-py: pip install 'resilience-policies[redis]'", name="redis"
        ) from error
    return redis


def _client(url: str, timeout: float) -> Any:
    redis = _redis()
    return redis.Redis.from_url(url, **_brief(timeout))


def _brief(timeout: float) -> dict[str, Any]:
    """Time limits for a client of our own: one retry, for a connection that has gone stale, and
    none for a server that hangs; and nobody who may extend them."""
    from redis.backoff import NoBackoff
    from redis.exceptions import ConnectionError as Stale
    from redis.retry import Retry

    options = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 1, supported_errors=(Stale,)),
        "retry_on_error": [],
        "retry_on_timeout": False,
    }
    try:
        from redis.maint_notifications import MaintNotificationsConfig
    except ImportError:  # before redis-py 7
        return options
    return {**options, "maint_notifications_config": MaintNotificationsConfig(enabled=False)}


_THEIRS = (
    "event_dispatcher",
    "maint_notifications_config",
    "maint_notifications_pool_handler",
    "orig_host_address",
    "orig_socket_connect_timeout",
    "orig_socket_timeout",
)
"""Options of a connection that belong to its own pool."""


def _brief_twin(client: Any, timeout: float) -> Any:
    """A client that connects as a sync one does, with time limits.

    None for what is no plain client: one with a pool or methods of its own (a cluster, Sentinel, a
    limited number of connections) is there to be used.
    """
    redis = _redis()
    pool: Any = getattr(client, "connection_pool", None)
    plain = type(client) is redis.Redis and type(pool) is redis.ConnectionPool
    if not plain or pool.connection_class not in _kinds(redis) or pool.max_connections < _MANY:
        return None
    return _connecting_like(pool, pool.connection_class, timeout)


def _twin(client: Any, timeout: float) -> Any:
    """A sync client with the connection of an asyncio one, for sync calls and other loops."""
    redis = _redis()
    pool: Any = getattr(client, "connection_pool", None)
    kind = getattr(redis, getattr(getattr(pool, "connection_class", None), "__name__", ""), None)
    if kind is None or type(pool).__module__ != "redis.asyncio.connection":
        raise TypeError(
            f"client must be a plain asyncio client, for which a sync one can be made where it is "
            f"needed, got a {type(client).__name__}; give a sync client or a URL"
        )
    return _connecting_like(pool, kind, timeout, "redis_connect_func")


def _kinds(redis: Any) -> tuple[Any, ...]:
    return redis.Connection, redis.SSLConnection, redis.UnixDomainSocketConnection


def _connecting_like(pool: Any, kind: Any, timeout: float, *but: str) -> Any:
    redis = _redis()
    options = dict(pool.connection_kwargs)
    for theirs in (*_THEIRS, *but):
        options.pop(theirs, None)
    options.update(_brief(timeout))
    return redis.Redis(connection_pool=redis.ConnectionPool(connection_class=kind, **options))
