"""Asking a server: by a sync client, from any thread, or by an asyncio one, on its own loop.

redis-py's pools see for themselves that a fork has happened and make new connections.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import ipaddress
import weakref
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeAlias

from attrs import Factory, define, field

from resilience._core.clock import monotonic
from resilience._core.locks import new_lock
from resilience._core.outside import NO_CALL, Job, drive, start_job
from resilience.circuit.storage import Jobs, warn
from resilience.errors import WorkersBusyError
from resilience.policy import Runtime

from .script import evaluate

__all__ = ["Server", "to_client"]

Evaluate: TypeAlias = "Callable[[Any, str, Sequence[Any]], Coroutine[Any, Any, Any]]"

_AT_ONCE = 8  # questions by one client; worker threads are for the user's calls too
_MANY = 100  # connections: who allows for fewer does not want others beside them
_MOST_STUCK = 4  # threads that a client without time limits may hold, before it is tried rarely


@define(eq=False)
class SyncClient:
    """Asks by a sync client; off the event loop, where there is one.

    A `prompt` client keeps to our time limits by itself, and is asked on the spot: where threads
    are busy, waiting for one would take longer than the server. Any other is asked in a worker
    thread that is waited for no longer than `timeout`: whatever keeps it (a name that does not
    resolve, its own retries and time limits), the call goes on after that.
    """

    client: Any
    timeout: float
    prompt: bool = False
    evaluate: Evaluate = evaluate
    _lock: Any = field(factory=new_lock, init=False)
    _stuck: list[tuple[Job, float]] = field(factory=list, init=False)  # given up when
    _jobs: Jobs = field(
        default=Factory(lambda self: Jobs(_AT_ONCE, self.timeout), takes_self=True), init=False
    )

    async def ask(self, runtime: Runtime, key: str, arguments: Sequence[Any]) -> Any:
        """The server's reply; TimeoutError, or the client's own error."""
        question = functools.partial(self._evaluate, key, arguments)
        if not self.prompt:
            return await self._jobs.run(runtime, functools.partial(self._within_timeout, question))
        if not runtime.asynchronous:
            return await runtime.blocking(question)
        return await self._jobs.run(runtime, question)

    def _within_timeout(self, question: Callable[[], Any]) -> Any:
        with self._lock:
            self._stuck = [stuck for stuck in self._stuck if stuck[0].pending]
            if not self._worth_asking(monotonic()):
                raise TimeoutError("no reply to earlier questions")
        job = start_job(question)
        if not job.wait(self.timeout):
            with self._lock:
                self._stuck.append((job, monotonic()))
            raise TimeoutError(f"no reply within {self.timeout:g} s")
        return job.outcome()

    def _worth_asking(self, now: float) -> bool:
        """Whether one more thread may be risked, which may be stuck for good like those before.

        Once there are several, only after as long a time again as they took to pile up: a network
        that comes back is found, and an outage of days costs a dozen threads.
        """
        if len(self._stuck) < _MOST_STUCK:
            return True
        first, last = self._stuck[0][1], self._stuck[-1][1]
        return now - last >= last - first

    def _evaluate(self, key: str, arguments: Sequence[Any]) -> Any:
        return drive(self.evaluate(self.client, key, arguments))


@define(eq=False)
class LoopClient:
    """Asks by an asyncio client on the event loop that it belongs to; elsewhere by a sync twin."""

    client: Any
    twin: SyncClient
    _home: Any = field(default=None, init=False)  # the first loop met

    async def ask(self, runtime: Runtime, key: str, arguments: Sequence[Any]) -> Any:
        """As `SyncClient.ask`."""
        if not self._at_home(runtime):
            return await self.twin.ask(runtime, key, arguments)
        return await runtime.within(
            self.twin.timeout, lambda call: self.twin.evaluate(self.client, key, arguments), NO_CALL
        )

    def _at_home(self, runtime: Runtime) -> bool:
        loop = asyncio._get_running_loop() if runtime.asynchronous else None
        if loop is None or not runtime.lasting:  # virtual time, or a block: no I/O on the loop
            return False
        if self._home is None:
            self._home = weakref.ref(loop)
        return bool(self._home() is loop)


@define(eq=False)
class Server:
    """Asks the server; after a failure leaves it alone for `back_off` seconds.

    Then a single call tries again, while others use local state. One warning for each loss.
    """

    client: SyncClient | LoopClient
    back_off: float
    whose: str = "circuits that are shared through it use local state"
    _lock: Any = field(factory=new_lock, init=False)
    _retry_at: float | None = field(default=None, init=False)  # while it is lost

    @property
    def lost(self) -> bool:
        """Whether it did not reply when it was last asked."""
        return self._retry_at is not None

    def left_alone(self, now: float) -> bool:
        """Whether it is not to be asked now."""
        return self._retry_at is not None and now < self._retry_at

    async def ask(
        self, runtime: Runtime, key: str, arguments: Sequence[Any], *, anyway: bool = False
    ) -> Any:
        """The server's reply; None without one, or if it is left alone and not asked `anyway`."""
        with self._lock:
            now = runtime.now()
            if self.left_alone(now) and not anyway:
                return None
            if self._retry_at is not None:
                self._retry_at = now + self.back_off  # nobody else tries meanwhile
        try:
            reply = await self.client.ask(runtime, key, arguments)
        except WorkersBusyError:
            return None  # which says nothing about the server
        except Exception as problem:
            with self._lock:
                known, self._retry_at = self._retry_at, runtime.now() + self.back_off
            if known is None:
                warn(
                    f"Redis cannot be reached ({type(problem).__name__}): {self.whose}, and try "
                    f"again every {self.back_off:g} s"
                )
            return None
        self._retry_at = None
        return reply


def to_client(
    source: Any, timeout: float, evaluate: Evaluate = evaluate
) -> SyncClient | LoopClient:
    """What asks by a client for a URL, or by the one given; `evaluate` runs the script.

    ImportError without redis-py, TypeError for something else.
    """
    if isinstance(source, str):
        own = _redis().Redis.from_url(source, **_time_limits(timeout))
        return _asking_by(own, timeout, evaluate)
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
        twin = _asking_by(_twin_of_asyncio(source, timeout), timeout, evaluate)
        return LoopClient(source, twin)
    own = _twin_of_sync(source, timeout)
    if own is None:
        return SyncClient(source, timeout, evaluate=evaluate)
    return _asking_by(own, timeout, evaluate)


def _asking_by(client: Any, timeout: float, evaluate: Evaluate) -> SyncClient:
    """By a client with our time limits; they hold where nothing is done but to connect."""
    options = client.connection_pool.connection_kwargs
    more = any(map(options.get, ("credential_provider", "redis_connect_func")))
    return SyncClient(client, timeout, not more and _has_address(options), evaluate)


def _has_address(options: dict[str, Any]) -> bool:
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


def _time_limits(timeout: float) -> dict[str, Any]:
    """Options of a client of our own: one retry, for a connection that has gone stale, and none
    for a server that hangs; and nobody who may extend the time limits."""
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


_OF_THE_POOL = (
    "event_dispatcher",
    "maint_notifications_config",
    "maint_notifications_pool_handler",
    "orig_host_address",
    "orig_socket_connect_timeout",
    "orig_socket_timeout",
)
"""Options of a connection that belong to its own pool."""


def _twin_of_sync(client: Any, timeout: float) -> Any:
    """A client that connects as a sync one does, with our time limits.

    None for what is no plain client: one with a pool or methods of its own (a cluster, Sentinel, a
    limited number of connections) is there to be used.
    """
    redis = _redis()
    pool: Any = getattr(client, "connection_pool", None)
    plain = type(client) is redis.Redis and type(pool) is redis.ConnectionPool
    if not plain or pool.connection_class not in _kinds(redis) or pool.max_connections < _MANY:
        return None
    return _connecting_like(pool, pool.connection_class, timeout)


def _twin_of_asyncio(client: Any, timeout: float) -> Any:
    """A sync client with the connection of an asyncio one, for sync calls and other loops."""
    redis = _redis()
    pool: Any = getattr(client, "connection_pool", None)
    kind = getattr(redis, getattr(getattr(pool, "connection_class", None), "__name__", ""), None)
    if kind is None or type(pool).__module__ != "redis.asyncio.connection":
        raise TypeError(
            f"client must be a plain asyncio client, for which a sync one can be made where it is "
            f"needed, got {type(client).__name__}; give a sync client or a URL"
        )
    return _connecting_like(pool, kind, timeout, "redis_connect_func")


def _kinds(redis: Any) -> tuple[Any, ...]:
    return redis.Connection, redis.SSLConnection, redis.UnixDomainSocketConnection


def _connecting_like(pool: Any, kind: Any, timeout: float, *but: str) -> Any:
    redis = _redis()
    options = dict(pool.connection_kwargs)
    for option in (*_OF_THE_POOL, *but):
        options.pop(option, None)
    options.update(_time_limits(timeout))
    return redis.Redis(connection_pool=redis.ConnectionPool(connection_class=kind, **options))
