"""When the others learn of what has happened here: in the background, or with the next call."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pybreaker
import pytest
import trio

from resilience._runtimes import workers
from support import redis_server
from support.redis_server import Late, Process, Server, Warned, impatient, open_time_over, until

pytestmark = pytest.mark.real

server = redis_server.own_server


@contextlib.contextmanager
def no_threads() -> Iterator[None]:
    """No worker thread is to be had."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "LIMIT", 0)
        workers._renew()
        yield
    workers._renew()


def duration(fn: Any, *args: Any) -> float:
    began = time.monotonic()
    fn(*args)
    return time.monotonic() - began


@pytest.mark.parametrize("loop", ["none", "asyncio", "trio"])
def test_a_call_that_fails_does_not_wait_for_the_server(server: Server, loop: str) -> None:
    """Its failure is published by a thread, which waits while the server hangs."""
    one, two = Process(server.url, failures=1, refresh=60), Process(server.url)
    one.good()
    server.hang()

    async def main() -> None:
        with pytest.raises(ConnectionError):
            await one.guarded_async(ConnectionError("down"))

    if loop == "none":
        took = duration(one.fails)
    elif loop == "asyncio":
        took = duration(asyncio.run, main())
    else:
        took = duration(trio.run, main)
    server.wake()
    assert took < redis_server.PATIENT / 2
    assert one.state == "open"
    one.published()
    two.rejected()


def test_a_trial_does_not_wait_for_the_server_when_it_has_ended(server: Server) -> None:
    """Its result is published by a thread."""
    one, two = Process(server.url, failures=1, refresh=60), Process(server.url, failures=1)
    one.bad()
    open_time_over()

    def trial() -> str:
        server.hang()
        return "tried"

    took = duration(one.guarded, trial)
    server.wake()
    assert took < redis_server.PATIENT / 2
    assert one.state == "closed"
    one.published()
    assert two.good() == "fine"


@pytest.mark.parametrize("what", ["a trip", "a failure", "a result", "a command"])
def test_without_a_thread_it_is_published_with_the_next_call(server: Server, what: str) -> None:
    """By that call itself, before it is admitted."""
    one = Process(server.url, failures=2 if what == "a failure" else 1)
    two = Process(server.url, failures=2)

    async def command() -> None:
        one.breaker.open()

    if what == "a result":
        one.bad()
        open_time_over()
    with no_threads():
        if what == "a result":
            assert one.good() == "fine"
        elif what == "a command":
            asyncio.run(command())
        else:
            one.fails()
        before = server.field("state")
        assert before == ("half-open" if what == "a result" else None)
        if what in ("a trip", "a command"):
            one.rejected()
        else:
            assert one.good() == "fine"
    if what == "a failure":
        assert server.field("run") == "1"
    else:
        assert server.field("state") == ("closed" if what == "a result" else "open")
        assert two.served() == (what == "a result")


def test_what_happens_meanwhile_is_published_with_it(server: Server) -> None:
    """By the thread that is at it, as nobody else publishes at the same time."""
    client = Late(unix_socket_path=f"{server.folder}/s")
    one = Process(client, failures=5)
    one.bad()
    client.op = "look"
    waiting = threading.Thread(target=one.fails)  # its own look is late
    waiting.start()
    assert client.held.wait(10)
    one.fails()
    assert server.field("run") == "1"
    client.go.set()
    waiting.join()
    one.published()
    assert server.field("run") == "3"


def test_listeners_are_notified_by_the_thread_that_publishes(server: Server) -> None:
    """Of what follows from it."""
    threads: list[int] = []

    class Listener(pybreaker.CircuitBreakerListener):
        def state_change(self, cb: Any, old: Any, new: Any) -> None:
            threads.append(threading.get_ident())

    one, two = Process(server.url), Process(server.url, listeners=[Listener()])
    one.bad()
    one.bad()
    two.bad()
    until(lambda: threads)
    assert two.state == "open"
    assert threads != [threading.get_ident()]


def test_a_call_that_is_cancelled_while_it_publishes_loses_nothing(server: Server) -> None:
    """The next one publishes it, and twice is as good as once."""
    client = Late(unix_socket_path=f"{server.folder}/s")
    one = Process(client, failures=1, successes=2)
    one.bad()
    open_time_over()

    async def main() -> None:
        with contextlib.ExitStack() as stack:

            async def trial() -> str:
                stack.enter_context(no_threads())
                return "tried"

            assert await one.guarded_async(trial) == "tried"
        client.op, client.lost = "passed", True
        task = asyncio.ensure_future(one.guarded_async())
        while not client.held.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        client.go.set()

    asyncio.run(main())
    assert server.field("passed") == "0"
    one.tried()
    assert server.field("state") == one.state == "closed"


def test_a_call_that_is_interrupted_while_it_publishes_loses_nothing(server: Server) -> None:
    """By Ctrl-C: the next one publishes it."""
    client = Late(unix_socket_path=f"{server.folder}/s")
    one = Process(client, failures=1, successes=2)
    one.bad()
    open_time_over()
    with contextlib.ExitStack() as stack:
        assert one.guarded(lambda: stack.enter_context(no_threads()) or "tried") == "tried"
    client.op, client.lost = "passed", True

    def interrupt() -> None:
        assert client.held.wait(10)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        one.good()
    client.go.set()
    assert server.field("passed") == "0"
    one.tried()
    assert server.field("state") == one.state == "closed"


def test_a_result_that_is_lost_frees_its_slot_for_others(server: Server) -> None:
    """It counts no more, as it is out of date when the server is found again."""
    client = Late(unix_socket_path=f"{server.folder}/s")
    one = Process(client, failures=1, storage=impatient(timeout=1, back_off=0.1))
    two = Process(server.url, failures=1)
    one.bad()
    open_time_over()
    client.op, client.lost = "passed", True
    client.go.set()
    with Warned():
        assert one.good() == "fine"
        until(lambda: one.server.lost)
    two.rejected()
    time.sleep(0.11)
    one.served()
    until(two.served)


def test_a_command_and_a_trip_are_both_published(server: Server) -> None:
    """In that order: closed for all, and then opened by what has failed since."""
    options = {"storage": impatient(back_off=0.2), "failures": 1, "reset_after": 30}
    one, two = Process(server.url, **options), Process(server.url)
    two.breaker.isolate()
    one.rejected()
    with Warned():
        server.hang()
        one.breaker.close()
        one.fails()
        assert one.state == "open"
        server.wake()
        time.sleep(0.21)
        one.rejected()
    assert server.field("state") == "open"
    two.rejected()
    assert two.state == "open"


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_child_does_not_wait_for_what_its_parent_publishes(server: Server) -> None:
    """A fork while another thread is at it: the child publishes and looks for itself."""
    client = Late(unix_socket_path=f"{server.folder}/s")
    one = Process(client, failures=2, reset_after=30)  # a fork may take longer than 0.3 s
    one.good()
    client.op = "look"
    waiting = threading.Thread(target=one.served)
    waiting.start()
    assert client.held.wait(10)
    Process(server.url, reset_after=30).breaker.open()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 2 if one.served() else 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    client.go.set()
    waiting.join()
    assert status == 0
