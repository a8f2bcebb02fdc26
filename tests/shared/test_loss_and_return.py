"""A server that is lost, hangs, is flushed or refuses: every call gets its answer, and it heals."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import socket
import threading
import time
import warnings
from typing import Any

import pytest
import redis
import redis.asyncio
import trio

from resilience import health
from resilience._core.outside import drive, sync_runtime
from resilience._runtimes import workers
from support import redis_server
from support.redis_server import (
    KEY,
    PATIENT,
    Late,
    Process,
    Server,
    Warned,
    impatient,
    open_time_over,
    until,
)

pytestmark = pytest.mark.real

server = redis_server.own_server


# Lost


@pytest.mark.fault(91)
def test_down_at_construction() -> None:
    """It is built at once, uses local state, says so once, and costs nothing after that."""
    one = Process("redis://127.0.0.1:1", storage=impatient(), failures=3)
    with Warned() as warned:
        one.good()
        began = time.monotonic()
        for _ in range(500):
            one.good()
        took = time.monotonic() - began
        for _ in range(3):
            one.fails()
        one.rejected()
    assert len(warned.texts) == warned.of("reached") == 1
    assert took < 2.5, "each call paid for the loss"


@pytest.mark.fault(91, 92)
@pytest.mark.parametrize("world", ["sync", "asyncio", "trio"])
@pytest.mark.parametrize("kind", ["url", "sync client", "asyncio client"])
def test_it_hangs_in_the_middle_of_a_run(server: Server, world: str, kind: str) -> None:
    """Whoever asks then waits 50 ms once, even by a client with no time limits of its own."""
    source: Any = server.url
    if kind == "sync client":
        source = server.users_client()
    elif kind == "asyncio client":
        source = redis.asyncio.Redis(unix_socket_path=f"{server.folder}/s")
    one = Process(source, storage=impatient(), failures=3)
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

    with Warned() as warned:
        if world == "sync":
            drive(main())
        else:
            (asyncio.run if world == "asyncio" else trio.run)(
                main() if world == "asyncio" else main
            )
    assert one.state == "open"
    assert warned.of("reached") == 1
    assert max(waits) < 0.5, "a call waited for more than the time limit"
    assert sum(waits) < 1.5, "calls waited again and again"


@pytest.mark.fault(92, 96)
def test_the_event_loop_goes_on_while_the_server_hangs(server: Server) -> None:
    """Other tasks run while a call waits for a server that does not reply."""
    one = Process(server.url, storage=impatient(timeout=0.3))
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

    with Warned():
        asyncio.run(main())
    assert turns > 20


@pytest.mark.fault(91)
def test_it_stops_and_comes_back(server: Server) -> None:
    """Circuits use local state, and are shared again by themselves after the back-off."""
    one = Process(server.url, storage={"back_off": 0.1}, failures=2)
    two = Process(server.url, failures=2)
    one.bad()
    with Warned() as warned:
        server.stop()
        one.good()
        one.fails()
        server.start()
        time.sleep(0.11)
        one.good()
        one.bad()
        two.bad()
        one.rejected()
        server.stop()
        one.rejected()
        server.start()
    assert warned.of("reached") == 2


def test_health_says_whether_the_server_replies(server: Server) -> None:
    """As of the last question; it asks none itself."""
    one = Process(server.url, name="watched", storage=impatient())

    def replies() -> list[bool]:
        return [each["reachable"] for each in health()["storages"] if each["circuit"] == "watched"]

    one.good()
    assert replies() == [True]
    server.stop()
    with Warned():
        one.good()
    assert replies() == [False]


def test_one_call_tries_while_the_others_go_on(server: Server) -> None:
    """After the back-off a single call asks again, of whatever circuit; no other waits."""
    one = Process(server.url, storage=impatient(timeout=0.3, back_off=0.1), key="model")
    with Warned():
        server.hang()
        one.good(model=0)
        time.sleep(0.11)

        async def main() -> list[float]:
            async def call(model: int) -> float:
                began = time.monotonic()
                await one.guarded_async(model=model)
                return time.monotonic() - began

            return sorted(await asyncio.gather(*map(call, range(5))))

        waits = asyncio.run(main())
    assert waits[-1] >= 0.29
    assert waits[-2] < 0.25


def test_two_that_ask_at_the_same_time_ask_once(server: Server) -> None:
    """Where the first finds it lost, it is left alone by the second."""
    one = Process(server.url, storage=impatient())
    with Warned() as warned:
        server.stop()
        one.good()
        server.start()
        before = server.asked()
        assert drive(one.server.ask(sync_runtime(), KEY, ())) is None
    assert len(warned.texts) == 1
    assert server.asked() == before


def test_while_it_is_lost_no_call_needs_a_thread(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though there is something to be published."""
    one = Process(server.url, storage=impatient(), failures=1)
    started: list[Any] = []
    with Warned():
        server.stop()
        one.fails()
        until(lambda: one.server.lost)
        open_time_over()
        monkeypatch.setattr(workers, "start", started.append)
        for _ in range(20):
            assert one.good() == "fine"
    assert one.shared()._unpublished.urgent
    assert started == []


def test_what_is_to_be_published_does_not_grow_while_it_is_lost(server: Server) -> None:
    """However many trials would have had to ask for a slot meanwhile."""
    storage = impatient(back_off=0.01)
    one = Process(server.url, failures=1, reset_after=0.0001, storage=storage)
    with Warned():
        server.stop()
        for _ in range(50):
            one.fails()
            time.sleep(0.011)
            assert one.good() == "fine"
    assert len(one.shared()._unpublished.results) < 10


def test_where_warnings_are_errors_the_call_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """The warning is logged instead."""
    with warnings.catch_warnings(), caplog.at_level(logging.ERROR, "resilience"):
        warnings.simplefilter("error")
        assert Process("redis://127.0.0.1:1", storage=impatient()).good() == "fine"
    assert "reached" in caplog.text


def test_a_name_that_does_not_resolve_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """No socket's time limit cuts a look-up; the call waits no longer all the same."""
    over = threading.Event()

    def hang(*args: Any, **kwargs: Any) -> Any:
        assert over.wait(10)
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    one = Process("redis://cache.example", storage=impatient())
    with Warned() as warned:
        began = time.monotonic()
        one.good()
        took = time.monotonic() - began
    over.set()
    assert took < 5
    assert len(warned.texts) == 1


# Threads that are stuck


class Swallowed(redis.Redis):
    """A client behind a network that may swallow what is sent: there is never a reply to it."""

    gone = False
    over = threading.Event()

    def evalsha(self, *args: Any) -> Any:
        if self.gone:
            assert self.over.wait(30)
            raise OSError
        return super().evalsha(*args)


def test_a_server_that_hangs_for_long_holds_few_threads(server: Server) -> None:
    """A client without time limits, and without a twin, is stuck for good: after a few it is
    tried no more than now and then."""
    client = Swallowed.from_url(server.url, socket_timeout=None)
    one = Process(client, storage=impatient(back_off=0.001))
    before = threading.active_count()
    server.hang()
    with Warned():
        for _ in range(30):
            one.good()
            time.sleep(0.002)
        assert threading.active_count() - before <= 5
        server.wake()
        until(lambda: one.good() and not one.server.lost)


def test_a_network_that_comes_back_is_found(server: Server) -> None:
    """Though questions from before never get a reply: a few more are risked, ever more rarely."""
    client = Swallowed.from_url(server.url, socket_timeout=None)
    one = Process(client, storage={"timeout": 0.01, "back_off": 0.002})
    with Warned():
        one.good()
        client.gone = True
        end = time.monotonic() + 0.6
        until(lambda: one.good() and time.monotonic() > end)
        stuck = len(one.server.client._stuck)
        client.gone = False
        until(lambda: one.good() and not one.server.lost)
    assert 4 < stuck < 12
    client.over.set()


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_child_process_does_not_count_its_parents_stuck_threads(server: Server) -> None:
    """They are not in it: it asks by itself, at once."""
    client = Swallowed.from_url(server.url, socket_timeout=None)
    client.over = threading.Event()
    one = Process(client, storage={"timeout": 0.01, "back_off": 0.2})
    asks = one.server.client
    with Warned():
        client.gone = True
        until(lambda: one.good() and len(asks._stuck) == 4)
        time.sleep(0.21)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                client.gone = False
                asks.timeout = PATIENT
                one.good()
                status = 2 if one.server.lost else 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    client.over.set()


# Slots


@pytest.mark.parametrize(
    ("moment", "way"),
    [
        ("asking for a slot", "lost"),
        ("asking for a slot", "lost in a loop"),
        ("asking for a slot", "cancelled"),
        ("asking for a slot", "interrupted"),
        ("publishing the result", "lost"),
        ("publishing the result", "lost in a loop"),
    ],
)
def test_a_slot_is_not_lost_with_the_server(server: Server, moment: str, way: str) -> None:
    """Whatever the server granted while it hung, or was not told, is given back long before the
    lease ends."""
    storage = {"timeout": 0.1 if "lost" in way else PATIENT, "back_off": 0.2}
    one = Process(server.url, storage=storage, failures=1, refresh=1.0)
    two = Process(server.url, failures=1)
    one.bad()
    open_time_over()
    if moment == "asking for a slot":
        server.hang()

    def trial() -> str:
        if moment == "publishing the result":
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

    with Warned():
        if way == "lost":
            assert one.guarded(trial) == "tried"
        elif way == "interrupted":
            threading.Timer(0.1, interrupt).start()
            with pytest.raises(KeyboardInterrupt):
                one.guarded(trial)
        else:
            asyncio.run(main())
        if moment == "publishing the result":
            until(lambda: one.server.lost)
        server.wake()
        time.sleep(0.21)
        until(lambda: one.served() and two.served())


def test_a_slot_that_cannot_be_given_back_is_left_to_its_lease(server: Server) -> None:
    """Where another circuit has found the server lost, a trial without a verdict publishes
    nothing."""
    one = Process(server.url, storage=impatient(lease=0.5), failures=1, key="model")
    two = Process(server.url, failures=1, key="model")
    one.bad(model="a")
    open_time_over()

    def trial() -> None:
        server.hang()
        one.guarded(model="b")
        raise ValueError("mine")

    with Warned() as warned, pytest.raises(ValueError, match="mine"):
        one.guarded(trial, model="a")
    assert len(warned.texts) == 1
    server.wake()
    until(lambda: two.served(model="a"))


# Merging


@pytest.mark.fault(101)
def test_a_circuit_opened_here_opens_for_all(server: Server) -> None:
    """What was recorded while the server was away is published when it is back."""
    one = Process(server.url, storage={"back_off": 0.05}, failures=1, reset_after=30)
    two = Process(server.url, failures=1)
    with Warned():
        server.stop()
        one.fails()
        one.rejected()
        server.start()
    time.sleep(0.06)
    assert 20 < (one.rejected().retry_after or 0) <= 30
    assert 20 < (two.rejected().retry_after or 0) <= 30


@pytest.mark.fault(101)
def test_it_opens_for_all_whatever_the_others_have_done_meanwhile(server: Server) -> None:
    """It tripped while the server hung, which was not known then."""
    storage = {"timeout": 0.1, "back_off": 0.2}
    one = Process(server.url, storage=storage, failures=1, refresh=60, reset_after=30)
    two = Process(server.url)
    one.good()
    with Warned():
        server.hang()
        one.fails()
        until(lambda: one.server.lost)
        server.wake()
        until(lambda: server.field("state") == "open")  # it had been asked
        two.breaker.close()
        time.sleep(0.21)
        one.rejected()
    assert server.field("state") == "open"
    two.rejected()


@pytest.mark.fault(101)
def test_a_trial_that_fails_here_opens_it_for_all(server: Server) -> None:
    """Whatever the server has forgotten meanwhile."""
    one = Process(server.url, storage=impatient(back_off=0.2), failures=1)
    two = Process(server.url, failures=1)
    one.bad()
    with Warned():
        server.stop()
        open_time_over()
        one.fails()
        server.start()
        assert two.good() == "fine"
        time.sleep(0.21)
        one.rejected()
    two.rejected()


@pytest.mark.fault(101)
def test_an_open_shared_circuit_wins(server: Server) -> None:
    """Who was cut off and found all well is rejected like all the others."""
    one = Process(server.url, storage=impatient(back_off=0.2), failures=1)
    two = Process(server.url, failures=1, reset_after=30)
    one.good()
    with Warned():
        server.hang()
        one.good()
        server.wake()
        two.bad()
        assert one.good() == "fine"
        time.sleep(0.21)
        one.rejected()


@pytest.mark.fault(101)
def test_a_manual_command_given_meanwhile_holds(server: Server) -> None:
    """An isolation published late still reaches everybody."""
    one, two = (Process(server.url, storage={"back_off": 0.05}, failures=1) for _ in range(2))
    with Warned():
        server.stop()
        one.good()
        one.breaker.isolate()
        one.rejected()
        server.start()
    time.sleep(0.06)
    one.rejected()
    two.rejected()


@pytest.mark.fault(101)
def test_a_command_stands_against_replies_to_older_questions(server: Server) -> None:
    """A slot is still to be given back when it is isolated: it stays so until it is released."""
    client = Late(unix_socket_path=f"{server.folder}/s")
    storage = {"timeout": 0.1, "back_off": 0.2}
    one, two = Process(client, storage=storage, failures=1), Process(server.url, failures=1)
    one.bad()
    open_time_over()
    client.op, client.lost = "enter", True
    client.go.set()
    with Warned():
        assert one.good() == "fine"
        assert one.server.lost
        client.op = "isolate"
        isolation = one.breaker.isolate()
        time.sleep(0.21)
        one.rejected()
    assert one.state == "isolated"
    two.rejected()
    isolation.release()
    assert one.good() == two.good() == "fine"


@pytest.mark.fault(101)
def test_closing_ends_what_has_opened_here_before(server: Server) -> None:
    """Neither was published when it happened: closed for all."""
    one = Process(server.url, storage=impatient(back_off=0.2), failures=1, reset_after=30)
    two = Process(server.url)
    with Warned():
        server.stop()
        one.fails()
        one.rejected()
        one.breaker.close()
        server.start()
        time.sleep(0.21)
        assert one.good() == "fine"
    assert two.good() == "fine"
    assert server.field("state") == "closed"


@pytest.mark.fault(101)
def test_a_trial_made_here_is_the_processes_own(server: Server) -> None:
    """While the server is away an open circuit tries by itself, and closes by itself."""
    one = Process(server.url, storage=impatient(back_off=0.5), failures=1)
    one.bad()
    with Warned():
        server.stop()
        one.rejected()
        open_time_over()
        assert one.good() == "fine"
        assert one.state == "closed"
        one.fails()
        server.start()
        time.sleep(0.5)
        one.rejected()
    until(lambda: server.field("state") == "open")


# Forgotten


@pytest.mark.fault(97)
def test_flushed_in_the_middle_of_a_run(server: Server) -> None:
    """It goes on closed, for all, and opens again as ever."""
    one, two = Process(server.url, failures=2), Process(server.url, failures=2)
    one.bad()
    one.bad()
    two.rejected()
    server.client().flushall()
    assert one.good() == two.good() == "fine"
    one.bad()
    server.client().flushall()
    two.bad()
    assert one.good() == "fine"
    one.bad()
    two.bad()
    one.rejected()
    two.rejected()


@pytest.mark.fault(97, 99)
def test_restarted_without_its_data(server: Server) -> None:
    """Script and state are gone; nothing fails."""
    one = Process(server.url, storage={"back_off": 0.05}, failures=2)
    one.bad()
    one.bad()
    server.stop()
    server.start()
    with Warned():
        until(lambda: one.served() and one.state == "closed")
    one.bad()
    one.bad()
    one.rejected()


# Refused


@pytest.mark.fault(94)
@pytest.mark.parametrize(
    ("name", "commands"),
    [
        ("ReadOnlyError|ResponseError", [("REPLICAOF", "127.0.0.1", "1")]),
        ("AuthenticationError", [("CONFIG", "SET", "requirepass", "secret")]),
        ("NoPermissionError", [("ACL", "SETUSER", "default", "-evalsha", "-eval")]),
    ],
)
def test_a_server_that_refuses(server: Server, name: str, commands: list[tuple[str, ...]]) -> None:
    """READONLY, NOAUTH, NOPERM: one warning, and the circuit uses local state."""
    for command in commands:
        server.client().execute_command(*command)
    one = Process(server.url, storage={"back_off": 60}, failures=2)
    with Warned() as warned:
        one.good()
        one.fails()
        one.fails()
        one.rejected()
    assert len(warned.texts) == 1
    assert re.search(rf"\(({name})\)", warned.texts[0])


@pytest.mark.fault(94)
def test_a_server_out_of_memory(server: Server) -> None:
    """OOM: what is a few bytes is still shared, or each uses local state; calls do not suffer."""
    server.client().config_set("maxmemory", 1)
    one, two = (Process(server.url, storage={"back_off": 60}, failures=1) for _ in range(2))
    with Warned() as warned:
        one.good()
        one.fails()
        until(lambda: one.server.lost or not one.shared()._unpublished.urgent)
        one.rejected()
        shared = server.field("state") == "open"
        if shared:
            two.rejected()
        else:
            assert two.good() == "fine"
    assert len(warned.texts) == (0 if shared else 1)


@pytest.mark.fault(94)
def test_a_server_that_is_loading(server: Server) -> None:
    """LOADING: as lost, until it has loaded."""
    client = server.client()
    filler = os.urandom(20_000)  # while it loads, a server looks up every 2 MB
    client.mset({f"filler:{index}": filler for index in range(2_000)})
    client.config_set("rdbcompression", "no")
    client.save()
    server.stop()
    server.start("--key-load-delay", "800", ready=False)
    one, two = (Process(server.url, storage={"back_off": 0.05}, failures=1) for _ in range(2))
    with Warned() as warned:
        one.fails()
        one.rejected()
    assert "BusyLoadingError" in warned.texts[0]
    until(lambda: not _loading(server))
    time.sleep(0.06)
    with Warned():
        one.breaker.open()
        one.rejected()
        two.rejected()


def _loading(server: Server) -> bool:
    try:
        server.client().ping()
    except redis.exceptions.BusyLoadingError:
        return True
    return False
