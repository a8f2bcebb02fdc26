"""A server that is lost, hangs, is flushed, refuses or holds junk: every call gets its answer."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import redis.asyncio
import trio

from redis_server import Server
from resilience._core.driver import drive
from resilience._runtimes import workers
from resilience.shared import RedisCircuit
from test_shared import PATIENT, Process, until

KEY = "app:circuit1:llm:~"


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of the test's own, to be maltreated."""
    server = Server()
    yield server
    server.close()


class Told:
    """The warnings of a block, which go no further."""

    def __init__(self) -> None:
        self._catch = warnings.catch_warnings(record=True)
        self.texts: list[str] = []

    def __enter__(self) -> Told:
        self._caught = self._catch.__enter__()
        warnings.simplefilter("always")
        return self

    def __exit__(self, *error: Any) -> None:
        self.texts = [str(each.message) for each in self._caught or []]
        self._catch.__exit__(*error)


def brief(**link: Any) -> dict[str, Any]:
    """A link with the time limit that users have, and a short back-off."""
    return {"timeout": 0.05, "back_off": 60.0, **link}


# Lost


@pytest.mark.real
def test_fault_091_down_at_construction() -> None:
    """It is built at once, works alone, says so once, and costs nothing after the first call."""
    one = Process("redis://127.0.0.1:1", link=brief(), failures=3)
    with Told() as told:
        one.good()
        began = time.monotonic()
        for _ in range(500):
            one.good()
        took = time.monotonic() - began
        for _ in range(3):
            one.bad()
        one.refused()
    assert [text[:18] for text in told.texts] == ["no word from Redis"]
    assert took < 2.5, "each call paid for the loss"


@pytest.mark.real
@pytest.mark.parametrize("world", ["sync", "asyncio", "trio"])
@pytest.mark.parametrize("kind", ["url", "sync client", "asyncio client"])
def test_fault_091_092_it_hangs_in_the_middle_of_a_run(
    server: Server, world: str, kind: str
) -> None:
    """Whoever asks then waits 50 ms once, even by a client with no time limits of its own."""
    source: Any = server.url
    if kind == "sync client":
        source = server.users_client()
    elif kind == "asyncio client":
        source = redis.asyncio.Redis(unix_socket_path=f"{server.folder}/s")
    one = Process(source, link=brief(), failures=3)
    waits: list[float] = []

    async def main() -> None:
        async def call(result: Any = "fine") -> Any:
            began = time.monotonic()
            try:
                return await one.guarded_async(result) if world != "sync" else one.guarded(result)
            finally:
                waits.append(time.monotonic() - began)

        await call()
        waits.clear()
        server.hang()
        for _ in range(50):
            assert await call() == "fine"
        for _ in range(3):
            with pytest.raises(ConnectionError):
                await call(ConnectionError("down"))

    with Told() as told:
        if world == "sync":
            drive(main())
        else:
            (asyncio.run if world == "asyncio" else trio.run)(
                main() if world == "asyncio" else main
            )
    assert one.state == "open"
    assert sum("no word from Redis (" in text for text in told.texts) == 1
    assert max(waits) < 0.5, "a call waited for more than the time limit"
    assert sum(waits) < 1.5, "calls waited again and again"


@pytest.mark.real
def test_fault_092_096_the_event_loop_goes_on_while_the_server_hangs(server: Server) -> None:
    """Other tasks run while a call waits for a server that does not answer."""
    one = Process(server.url, link=brief(timeout=0.3))
    turns = 0

    async def main() -> None:
        async def tick() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0.001)
                turns += 1

        ticking = asyncio.ensure_future(tick())
        server.hang()
        await one.guarded_async()
        ticking.cancel()

    with Told():
        asyncio.run(main())
    assert turns > 20


@pytest.mark.real
def test_fault_091_it_stops_and_comes_back(server: Server) -> None:
    """Circuits go on alone, and are shared again by themselves after the back-off."""
    one = Process(server.url, link={"back_off": 0.1}, failures=2)
    two = Process(server.url, failures=2)
    one.bad()
    with Told() as told:
        server.stop()
        one.good()
        one.bad()
        server.start()
        time.sleep(0.11)
        one.good()
        one.bad()
        two.bad()
        one.refused()
        server.stop()
        one.refused()
        server.start()
    assert sum("no word from Redis" in text for text in told.texts) == 2


@pytest.mark.real
def test_one_call_looks_while_the_others_go_on(server: Server) -> None:
    """After the back-off a single call asks again; none waits for its answer."""
    one = Process(server.url, link=brief(timeout=0.3, back_off=0.1))
    with Told():
        server.hang()
        one.good()
        time.sleep(0.11)

        async def main() -> list[float]:
            async def call() -> float:
                began = time.monotonic()
                await one.guarded_async()
                return time.monotonic() - began

            return sorted(await asyncio.gather(*(call() for _ in range(5))))

        waits = asyncio.run(main())
    assert waits[-1] >= 0.29
    assert waits[-2] < 0.25


@pytest.mark.real
def test_a_server_that_hangs_for_long_holds_few_threads(server: Server) -> None:
    """A client without time limits, and without a twin, is stuck for good: after a few it is
    tried no more than now and then."""

    class Patient(redis.Redis):
        """A client of the user's own making."""

    client = Patient.from_url(server.url, socket_timeout=None)
    one = Process(client, link=brief(back_off=0.001))
    before = threading.active_count()
    server.hang()
    with Told():
        for _ in range(30):
            one.good()
            time.sleep(0.002)
        assert threading.active_count() - before <= 5
        server.wake()
        until(lambda: one.good() and not one.breaker.storage._link.broken)


class Swallowed(redis.Redis):
    """A client behind a network that may swallow what is sent: there is never an answer to it."""

    gone = False
    over = threading.Event()

    def evalsha(self, *args: Any) -> Any:
        if self.gone:
            assert self.over.wait(30)
            raise OSError
        return super().evalsha(*args)


@pytest.mark.real
def test_a_network_that_comes_back_is_found(server: Server) -> None:
    """Though questions from before are never answered: a few more are risked, ever more rarely."""
    client = Swallowed.from_url(server.url, socket_timeout=None)
    one = Process(client, link={"timeout": 0.01, "back_off": 0.002})
    with Told():
        one.good()
        client.gone = True
        end = time.monotonic() + 0.6
        until(lambda: one.good() and time.monotonic() > end)
        stuck = len(one.breaker.storage._link.wire._stuck)
        client.gone = False
        until(lambda: one.good() and not one.breaker.storage._link.broken)
    assert 4 < stuck < 12
    client.over.set()


@pytest.mark.real
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_child_process_does_not_count_its_parents_stuck_threads(server: Server) -> None:
    """They are not in it: it asks by itself, at once."""
    client = Swallowed.from_url(server.url, socket_timeout=None)
    client.over = threading.Event()
    one = Process(client, link={"timeout": 0.01, "back_off": 0.2})
    wire = one.breaker.storage._link.wire
    with Told():
        client.gone = True
        until(lambda: one.good() and len(wire._stuck) == 4)
        time.sleep(0.21)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                client.gone = False
                wire.timeout = PATIENT
                one.good()
                status = 2 if one.breaker.storage._link.broken else 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    client.over.set()


@pytest.mark.real
@pytest.mark.parametrize("kind", ["plain", "few connections", "of its own kind"])
def test_a_plain_client_gets_a_twin_with_time_limits(server: Server, kind: str) -> None:
    """It connects as that one does; a client that is more than that is used itself."""
    options = {"socket_timeout": None, "username": "default", "password": "secret"}
    maker = redis.Redis if kind != "of its own kind" else Swallowed
    if kind == "few connections":
        options["max_connections"] = 5
    client = maker.from_url(server.url, **options)
    used = RedisCircuit(client, timeout=0.5)._link.wire.client
    if kind != "plain":
        assert used is client
        return
    server.client().config_set("requirepass", "secret")
    assert used is not client
    assert used.ping()
    assert used.connection_pool.connection_kwargs["socket_timeout"] == 0.5
    assert client.connection_pool.connection_kwargs["socket_timeout"] is None


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
        (Swallowed(), False),
        (redis.Redis(max_connections=5), False),
    ],
)
def test_who_may_be_asked_on_the_spot(source: Any, prompt: bool) -> None:
    """A client of our own that does nothing but connect, to an address that is known."""
    wire = RedisCircuit(source)._link.wire
    assert getattr(wire, "twin", wire).prompt is prompt


@pytest.mark.real
@pytest.mark.parametrize("world", ["sync", "asyncio", "trio"])
def test_threads_that_are_busy_do_not_keep_it_from_being_asked(
    server: Server, world: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sync call needs no thread to ask by a client of our own, an async one needs one."""
    one = Process(server.url, failures=1, refresh=60.0)
    one.good()
    monkeypatch.setattr(workers, "LIMIT", 0 if world == "sync" else 1)
    workers._renew()
    if world == "sync":
        one.bad()
    else:

        async def main() -> None:
            with pytest.raises(ConnectionError):
                await one.guarded_async(ConnectionError("down"))

        (asyncio.run if world == "asyncio" else trio.run)(main() if world == "asyncio" else main)
    workers._renew()
    assert server.client().hget(KEY, "state") == "open"


@pytest.mark.real
def test_where_no_thread_is_free_the_server_is_not_taken_for_lost(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call goes on by itself; the next one asks again."""
    one = Process(Swallowed.from_url(server.url), link=brief(timeout=PATIENT), failures=2)
    monkeypatch.setattr(workers, "LIMIT", 0)
    workers._renew()
    one.bad()
    monkeypatch.undo()
    workers._renew()
    assert not one.breaker.storage._link.broken
    one.bad()
    assert server.client().hget(KEY, "state") == "open"


@pytest.mark.real
def test_a_name_that_does_not_resolve_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """No socket's time limit cuts a look-up; the call waits no longer all the same."""
    over = threading.Event()

    def hang(*args: Any, **kwargs: Any) -> Any:
        assert over.wait(10)
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    one = Process("redis://cache.example", link=brief())
    with Told() as told:
        began = time.monotonic()
        one.good()
        took = time.monotonic() - began
    over.set()
    assert took < 5
    assert len(told.texts) == 1


@pytest.mark.parametrize("version", ["this", "6"])
def test_nobody_extends_the_time_limits(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server's notice of its maintenance would; redis-py knows of them since 7."""
    if version == "6":
        monkeypatch.setitem(sys.modules, "redis.maint_notifications", None)
    client = redis.Redis(socket_timeout=30, retry_on_error=[redis.TimeoutError])
    own = RedisCircuit(client, timeout=0.5)._link.wire.client.connection_pool.make_connection()
    assert own.socket_timeout == own.socket_connect_timeout == 0.5
    assert set(own.retry._supported_errors) == {redis.ConnectionError}
    if version == "this":
        config = getattr(own, "maint_notifications_config", None)
        assert config is None or not config.enabled


@pytest.mark.real
def test_where_warnings_are_errors_the_call_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """The warning is logged instead."""
    with warnings.catch_warnings(), caplog.at_level(logging.ERROR, "resilience"):
        warnings.simplefilter("error")
        assert Process("redis://127.0.0.1:1", link=brief()).good() == "fine"
    assert "no word from Redis" in caplog.text


@pytest.mark.real
@pytest.mark.parametrize("moment", ["asking for a place", "telling the verdict"])
@pytest.mark.parametrize("way", ["lost", "lost in a loop", "cancelled", "interrupted"])
def test_a_place_is_not_lost_with_the_server(server: Server, moment: str, way: str) -> None:
    """Whatever the server granted while it hung, or was not told, is given back long before the
    lease ends."""
    link = {"timeout": 0.1 if "lost" in way else PATIENT, "back_off": 0.2}
    one = Process(server.url, link=link, failures=1, refresh=1.0)
    two = Process(server.url, failures=1)
    one.bad()
    time.sleep(0.31)
    if moment == "asking for a place":
        server.hang()

    def trial() -> str:
        if moment == "telling the verdict":
            server.hang()
        return "tried"

    async def trial_async() -> str:
        return trial()

    async def main() -> None:
        task = asyncio.ensure_future(one.guarded_async(trial_async))
        if way == "cancelled":
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            server.wake()  # or the loop would wait for a thread
        else:
            assert await task == "tried"

    def interrupt() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    with Told():
        if way == "lost":
            assert one.guarded(trial) == "tried"
        elif way == "interrupted":
            threading.Timer(0.1, interrupt).start()
            with pytest.raises(KeyboardInterrupt):
                one.guarded(trial)
        else:
            asyncio.run(main())
        server.wake()
        time.sleep(0.21)
        until(lambda: one.served() and two.served())


@pytest.mark.real
def test_a_place_that_cannot_be_given_back_is_left_to_its_lease(server: Server) -> None:
    """Where another circuit has found the server lost, a trial without a verdict tells nothing."""
    one = Process(server.url, link=brief(lease=0.5), failures=1, key="model")
    two = Process(server.url, failures=1, key="model")
    one.bad(model="a")
    time.sleep(0.31)

    def trial() -> None:
        server.hang()
        one.guarded(model="b")
        raise ValueError("mine")

    with Told() as told, pytest.raises(ValueError, match="mine"):
        one.guarded(trial, model="a")
    assert len(told.texts) == 1
    server.wake()
    until(lambda: two.served(model="a"))


# Merging


@pytest.mark.real
def test_fault_101_a_circuit_opened_alone_opens_for_all(server: Server) -> None:
    """What it learnt while the server was away, it tells when it is back."""
    one = Process(server.url, link={"back_off": 0.05}, failures=1, reset_after=30)
    two = Process(server.url, failures=1)
    with Told():
        server.stop()
        one.bad()
        one.refused()
        server.start()
    time.sleep(0.06)
    assert 20 < (one.refused().retry_after or 0) <= 30
    assert 20 < (two.refused().retry_after or 0) <= 30


@pytest.mark.real
def test_fault_101_a_trial_that_fails_alone_opens_it_for_all(server: Server) -> None:
    """Whatever the server has forgotten meanwhile."""
    one = Process(server.url, link=brief(back_off=0.2), failures=1)
    two = Process(server.url, failures=1)
    one.bad()
    with Told():
        server.stop()
        time.sleep(0.31)
        one.bad()
        server.start()
        assert two.good() == "fine"
        time.sleep(0.21)
        one.refused()
    two.refused()


@pytest.mark.real
def test_fault_101_an_open_shared_circuit_wins(server: Server) -> None:
    """Who was cut off and found all well is refused like all the others."""
    one = Process(server.url, link=brief(back_off=0.2), failures=1)
    two = Process(server.url, failures=1, reset_after=30)
    one.good()
    with Told():
        server.hang()
        one.good()
        server.wake()
        two.bad()
        assert one.good() == "fine"
        time.sleep(0.21)
        one.refused()


@pytest.mark.real
def test_fault_101_what_was_done_by_hand_meanwhile_holds(server: Server) -> None:
    """An isolation told late still reaches everybody, and so does closing."""
    one, two = (Process(server.url, link={"back_off": 0.05}, failures=1) for _ in range(2))
    with Told():
        server.stop()
        one.good()
        one.breaker.isolate()
        one.refused()
        server.start()
    time.sleep(0.06)
    one.refused()
    two.refused()


@pytest.mark.real
def test_fault_101_a_trial_made_alone_is_the_processes_own(server: Server) -> None:
    """While the server is away an open circuit tries by itself, and closes by itself."""
    one = Process(server.url, link=brief(back_off=0.5), failures=1)
    one.bad()
    with Told():
        server.stop()
        one.refused()
        time.sleep(0.31)
        assert one.good() == "fine"
        assert one.state == "closed"
        one.bad()
        server.start()
        time.sleep(0.5)
        one.refused()
    assert server.client().hget(KEY, "state") == "open"


# Forgotten


@pytest.mark.real
def test_fault_097_flushed_in_the_middle_of_a_run(server: Server) -> None:
    """It goes on closed, for all, and opens again as ever."""
    one, two = Process(server.url, failures=2), Process(server.url, failures=2)
    one.bad()
    one.bad()
    two.refused()
    server.client().flushall()
    assert one.good() == two.good() == "fine"
    one.bad()
    server.client().flushall()
    two.bad()
    assert one.good() == "fine"
    one.bad()
    two.bad()
    one.refused()
    two.refused()


@pytest.mark.real
def test_fault_097_099_restarted_without_its_data(server: Server) -> None:
    """Script and state are gone; nothing fails."""
    one = Process(server.url, link={"back_off": 0.05}, failures=2)
    one.bad()
    one.bad()
    server.stop()
    server.start()
    with Told():
        until(lambda: one.breaker.state == "closed" or _tried(one))
    one.bad()
    one.bad()
    one.refused()


def _tried(one: Process) -> bool:
    try:
        one.good()
    except Exception:
        return False
    return one.state == "closed"


# Junk


def _hash(**fields: Any) -> Callable[[Any], None]:
    return lambda client: client.hset(KEY, mapping=fields)


FOREIGN: dict[str, Callable[[Any], None]] = {
    "a string": lambda client: client.set(KEY, "open"),
    "a list": lambda client: client.rpush(KEY, "a", "b"),
    "not UTF-8": lambda client: client.set(KEY, b"\xff\xfe\x00"),
    "not UTF-8 in a hash": lambda client: client.hset(KEY, b"\xff", b"\xfe"),
    "no version": _hash(state="open", gen=1, until=99),
    "a later version": _hash(v=2, state="isolated", gen=1, more="x"),
    "somebody's data": _hash(name="Ada", email="ada@example.org"),
}

JUNK: dict[str, Callable[[Any], None]] = {
    "no generation": _hash(v=1, state="open", until=99),
    "half of the fields": _hash(v=1, state="open", gen=1),
    "half of a closed one": _hash(v=1, state="closed", gen=1, run=3),
    "half of a half-open one": _hash(v=1, state="half-open", gen=1, passed=0),
    "an unknown state": _hash(v=1, state="ajar", gen=1),
    "nan": _hash(v=1, state="open", gen="nan", until="nan"),
    "nan as a time": _hash(v=1, state="open", gen=1, until="nan"),
    "a negative count": _hash(v=1, state="closed", gen=1, run=-5, since=0),
    "no whole number": _hash(v=1, state="closed", gen=1, run="1.5", since="x"),
    "endless": _hash(v=1, state="open", gen=1, until=9_999_999_999_999_999),
    "a number too long": _hash(v=1, state="open", gen="9" * 400, until=5),
}


@pytest.mark.real
@pytest.mark.parametrize("kind", FOREIGN)
def test_fault_093_what_is_not_ours_is_left_as_it_is(server: Server, kind: str) -> None:
    """Whatever the circuit goes through: it does so by itself, after one warning, and asks no more
    often than it looks. It is shared when the key is free."""
    one = Process(server.url, failures=1, refresh=60)
    two = Process(server.url, failures=1)
    client = server.client()
    FOREIGN[kind](client)
    before = client.dump(KEY)
    with Told() as told:
        assert one.good() == one.good() == "fine"
        one.bad()
        one.refused()
        assert two.good() == "fine"
        time.sleep(0.31)
        one.good()
        one.bad()
        with two.breaker.isolate():
            assert one.state == "open"
            two.refused()
        one.refused()
    assert client.dump(KEY) == before
    assert [KEY in text for text in told.texts] == [True, True, False, False]
    assert "isolate()" in told.texts[2]
    assert "release()" in told.texts[3]
    client.delete(KEY)
    assert two.good() == two.good() == "fine"
    two.bad()
    Process(server.url).refused()


@pytest.mark.real
def test_what_was_learnt_beside_a_foreign_key_is_told_when_it_is_free(server: Server) -> None:
    """An opening of a circuit on its own opens the shared one."""
    one, two = Process(server.url, failures=1, reset_after=30), Process(server.url, failures=1)
    server.client().set(KEY, "mine")
    with Told():
        one.good()
        one.bad()
        one.refused()
        server.client().delete(KEY)
        assert two.good() == "fine"
        one.refused()
        one.refused()
    two.refused()


@pytest.mark.real
def test_fault_093_junk_in_the_middle_of_a_run(server: Server) -> None:
    """Each kind: the function is called, one warning, and the circuit works as before."""
    one, two = Process(server.url, failures=1), Process(server.url, failures=1)
    client = server.client()
    for kind, write in JUNK.items():
        client.delete(KEY)
        write(client)
        with Told() as told:
            assert one.good() == two.good() == "fine", kind
        assert len(told.texts) == 1, kind
        assert "made no sense" in told.texts[0]
        one.bad()
        two.refused()
        two.breaker.close()
        two.good()
        one.good()


@pytest.mark.real
def test_fault_093_junk_while_open_and_half_open(server: Server) -> None:
    """Mended to closed; the trial under way ends like any call."""
    one = Process(server.url, failures=1)
    client = server.client()
    one.bad()
    client.delete(KEY)
    client.hset(KEY, "v", "1")
    with Told() as told:
        assert one.good() == "fine"
    assert len(told.texts) == 1
    one.bad()
    time.sleep(0.31)

    def trial() -> str:
        client.delete(KEY)
        client.hset(KEY, "v", "1")
        return "tried"

    with Told() as told:
        assert one.guarded(trial) == "tried"
        assert one.good() == "fine"
    assert len(told.texts) == 1
    assert one.state == "closed"


@pytest.mark.real
def test_a_lease_of_no_sense_is_no_lease(server: Server) -> None:
    """A trial's place with junk in it is free."""
    one = Process(server.url, failures=1)
    one.bad()
    _hash(**{"v": 1, "state": "half-open", "gen": 5, "passed": 0, "missed": 0, "trial:x": "nan"})(
        server.client()
    )
    time.sleep(0.31)
    assert one.good() == "fine"


@pytest.mark.real
def test_a_server_that_answers_something_else(server: Server) -> None:
    """An answer that our script does not give is as good as none."""

    class Odd(redis.Redis):
        """It says something else, whoever is asked."""

    client = Odd.from_url(server.url)
    for answer in ([], "open", [b"1"] * 8, ["0", "open", "1", "x", "0", "0", "0", "0"]):
        client.evalsha = lambda *args, answer=answer: answer
        with Told() as told:
            assert Process(client, link={"back_off": 60.0}).good() == "fine"
        assert "no word from Redis (ValueError)" in told.texts[0]


# Refused


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "commands"),
    [
        ("ReadOnlyError|ResponseError", [("REPLICAOF", "127.0.0.1", "1")]),
        ("AuthenticationError", [("CONFIG", "SET", "requirepass", "secret")]),
        ("NoPermissionError", [("ACL", "SETUSER", "default", "-evalsha", "-eval")]),
    ],
)
def test_fault_094_a_server_that_refuses(
    server: Server, name: str, commands: list[tuple[str, ...]]
) -> None:
    """READONLY, NOAUTH, NOPERM: one warning, and the circuit goes on locally."""
    for command in commands:
        server.client().execute_command(*command)
    one = Process(server.url, link={"back_off": 60}, failures=2)
    with Told() as told:
        one.good()
        one.bad()
        one.bad()
        one.refused()
    assert len(told.texts) == 1
    assert re.match(rf"no word from Redis \(({name})\)", told.texts[0])


@pytest.mark.real
def test_fault_094_a_server_out_of_memory(server: Server) -> None:
    """OOM: what is a few bytes is still shared, or each goes on for itself; calls do not suffer."""
    server.client().config_set("maxmemory", 1)
    one, two = (Process(server.url, link={"back_off": 60}, failures=1) for _ in range(2))
    with Told() as told:
        one.good()
        one.bad()
        one.refused()
        shared = server.client().hget(KEY, "state") == "open"
        if shared:
            two.refused()
        else:
            assert two.good() == "fine"
    assert len(told.texts) == (0 if shared else 1)


@pytest.mark.real
def test_fault_094_a_server_that_is_loading(server: Server) -> None:
    """LOADING: as lost, until it has loaded."""
    client = server.client()
    filler = os.urandom(20_000)  # while it loads, a server looks up every 2 MB
    client.mset({f"filler:{index}": filler for index in range(2_000)})
    client.config_set("rdbcompression", "no")
    client.save()
    server.stop()
    server.start("--key-load-delay", "800", ready=False)
    one, two = (Process(server.url, link={"back_off": 0.05}, failures=1) for _ in range(2))
    with Told() as told:
        one.bad()
        one.refused()
    assert "BusyLoadingError" in told.texts[0]
    until(lambda: not _loading(server))
    time.sleep(0.06)
    with Told():
        one.breaker.open()
        one.refused()
        two.refused()


def _loading(server: Server) -> bool:
    try:
        server.client().ping()
    except redis.exceptions.BusyLoadingError:
        return True
    return False


@pytest.mark.real
def test_fault_102_the_pool_is_exhausted(server: Server) -> None:
    """A client whose connections are all in use: the circuit goes on locally."""
    client = server.users_client(max_connections=1)
    held = client.connection_pool.get_connection()
    one = Process(client, link={"back_off": 0.05}, failures=1)
    with Told() as told:
        one.good()
        one.good()
    assert len(told.texts) == 1
    client.connection_pool.release(held)
    time.sleep(0.06)
    one.bad()
    Process(server.url).refused()


@pytest.mark.real
def test_fault_102_a_fork_after_connecting(server: Server) -> None:
    """The child makes connections of its own; parent and child go on sharing."""
    code = f"""
        import os
        import redis
        from resilience import CircuitBreaker, CircuitOpenError, resilient
        from resilience.shared import RedisCircuit

        url = {server.url!r}
        for source in (url, redis.Redis.from_url(url)):
            storage = RedisCircuit(source, timeout={PATIENT})
            breaker = CircuitBreaker(failures=1, refresh=0, name=type(source).__name__,
                                     storage=storage)

            @resilient(breaker)
            def call(error=None):
                if error:
                    raise error
                return "fine"

            client = storage._link.wire.client
            assert call() == "fine"
            mine = client.client_id()
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    assert client.client_id() != mine
                    call(ConnectionError("down"))
                except ConnectionError:
                    status = 0
                finally:
                    os._exit(status)
            assert os.waitpid(child, 0)[1] == 0
            assert client.client_id() == mine
            try:
                call()
            except CircuitOpenError:
                print("refused")
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["refused", "refused"], done.stderr
