"""Manual commands for a shared circuit: they hold for all, are published immediately, and once."""

from __future__ import annotations

import asyncio
import time

import pytest
import trio

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


# Immediately


def test_a_command_holds_for_all(server: Server) -> None:
    """`isolate()`, `close()` and `open()` of one process reach the others."""
    one, two = Process(server.url), Process(server.url)
    one.breaker.isolate()
    one.rejected()
    two.rejected()
    assert two.state == "isolated"
    one.breaker.close()
    one.good()
    assert two.good() == "fine"
    one.breaker.open()
    one.rejected()
    two.rejected()
    two.breaker.close()
    two.good()
    assert one.good() == "fine"


@pytest.mark.parametrize("called", [True, False])
def test_isolating_needs_no_call(server: Server, called: bool) -> None:
    """An operator's process, which makes no calls, isolates for all and releases for all."""
    worker, admin = Process(server.url), Process(server.url)
    worker.good()
    if called:
        admin.good()
    with admin.breaker.isolate():
        worker.rejected()
        assert worker.state == "isolated"
    assert worker.good() == "fine"


@pytest.mark.parametrize("called", [True, False])
def test_opening_and_closing_need_no_call(server: Server, called: bool) -> None:
    """Nor does closing need a circuit that is open here."""
    worker, admin, other = (Process(server.url, reset_after=30) for _ in range(3))
    if called:
        admin.good()
        other.good()
    admin.breaker.open()
    assert 20 < (worker.rejected().retry_after or 0) <= 30
    assert other.state == "closed"
    other.breaker.close()
    assert worker.good() == admin.good() == "fine"


def test_a_keyed_circuit_is_moved_for_all(server: Server) -> None:
    """Before any call with that value."""
    admin, worker = Process(server.url, key="model"), Process(server.url, key="model")
    admin.breaker.circuit("a").isolate()
    assert not worker.served(model="a")
    assert worker.served(model="b")


@pytest.mark.parametrize("world", ["asyncio", "trio"])
def test_a_command_does_not_hold_up_an_event_loop(server: Server, world: str) -> None:
    """It is published by a thread: here by one that waits for as long as the server hangs."""
    admin, worker = Process(server.url), Process(server.url)
    server.hang()

    async def main() -> float:
        began = time.monotonic()
        admin.breaker.isolate()
        return time.monotonic() - began

    assert (asyncio.run(main()) if world == "asyncio" else trio.run(main)) < PATIENT / 2
    server.wake()
    until(lambda: not worker.served())
    assert worker.state == "isolated"


def test_in_an_event_loop_without_a_thread_it_is_published_with_the_next_call(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command itself is carried out, and raises nothing."""
    admin, worker = Process(server.url), Process(server.url)
    monkeypatch.setattr(workers, "LIMIT", 0)
    workers._renew()

    async def main() -> None:
        admin.breaker.isolate()

    asyncio.run(main())
    monkeypatch.undo()
    assert worker.good() == "fine"
    admin.rejected()
    worker.rejected()


def test_a_command_asks_even_where_the_server_was_lost(server: Server) -> None:
    """Who gives one does not wait for the end of the back-off."""
    admin, worker = Process(server.url, storage=impatient()), Process(server.url)
    with Warned() as warned:
        server.stop()
        admin.good()
        server.start()
        admin.breaker.isolate()
    assert len(warned.texts) == 1
    worker.rejected()


# What is only for this process


def test_what_is_only_for_this_process_is_not_published(server: Server) -> None:
    """`disable()` and `shadow()` are nobody else's business."""
    one = Process(server.url)
    before = server.asked()
    one.breaker.disable()
    one.breaker.shadow()
    assert server.client().keys() == []
    assert server.asked() == before


@pytest.mark.parametrize("command", ["disable", "shadow"])
def test_what_is_only_for_this_process_ends_an_isolation_for_all(
    server: Server, command: str
) -> None:
    """Nobody holds it any more."""
    one, two = Process(server.url), Process(server.url)
    one.breaker.isolate()
    two.rejected()
    getattr(one.breaker, command)()
    assert two.good() == "fine"


# Once, and in order


def test_an_isolation_that_arrives_after_its_release_is_none(server: Server) -> None:
    """Commands may overtake each other on their way."""
    client = Late(unix_socket_path=f"{server.folder}/s")
    client.op = "isolate"
    admin, worker = Process(client), Process(server.url)
    worker.bad()

    async def main() -> None:
        isolation = admin.breaker.isolate()
        client.held.wait(10)
        isolation.release()

    asyncio.run(main())
    until(lambda: any(name.startswith("by:") for name in server.client().hkeys(KEY)))
    before = server.asked()
    client.go.set()
    until(lambda: server.asked() > before)
    assert worker.good() == admin.good() == "fine"


def test_a_command_whose_reply_was_lost_is_carried_out_once(server: Server) -> None:
    """By the server when it woke up; published again with the next call, it changes nothing."""
    admin = Process(server.url, storage=impatient(back_off=0.01))
    admin.good()
    server.hang()
    with Warned() as warned:
        admin.breaker.open()
    assert [warned.of("reached"), warned.of("open()")] == [1, 1]
    server.wake()
    until(lambda: server.field("state") == "open")
    before = server.field("gen")
    time.sleep(0.02)
    admin.rejected()
    assert server.field("gen") == before


def test_a_command_that_another_thread_overtakes_holds_in_the_end(server: Server) -> None:
    """Isolated, and closed before that is published: closed for all."""
    client = Late(unix_socket_path=f"{server.folder}/s")
    one, two = Process(client), Process(server.url)
    one.good()
    client.op = "isolate"

    async def main() -> None:
        one.breaker.isolate()
        while not client.held.is_set():
            await asyncio.sleep(0.001)
        one.breaker.close()

    asyncio.run(main())
    client.go.set()
    one.published()
    assert two.good() == one.good() == "fine"
    assert one.state == two.state == "closed"


def test_old_commands_are_forgotten(server: Server) -> None:
    """The number of a process's last command is kept for ten minutes; what is none, not at all."""
    one = Process(server.url)
    one.breaker.close()
    client = server.client()
    client.hset(KEY, mapping={"by:old": "1 0 1", "by:odd": "x", "by:odder": "1 0 x"})
    Process(server.url).breaker.close()
    assert sum(name.startswith("by:") for name in client.hkeys(KEY)) == 2
    assert not {"by:old", "by:odd", "by:odder"} & set(client.hkeys(KEY))


# Several who isolate


def test_isolations_are_counted_over_processes(server: Server) -> None:
    """It closes for all when the last process releases it, and in none before."""
    one, two, three = (Process(server.url) for _ in range(3))
    with one.breaker.isolate():
        first, second = two.breaker.isolate(), two.breaker.isolate()
        three.rejected()
        first.release()
        second.release()
        two.rejected()
        three.rejected()
        assert one.state == two.state == three.state == "isolated"
    assert one.good() == two.good() == three.good() == "fine"


@pytest.mark.parametrize("refresh", [0, 60])
def test_releasing_before_others_changes_nothing_for_them(server: Server, refresh: int) -> None:
    """Whoever isolated first: within the block of another every call is rejected. Who gives a
    command looks with the next call."""
    one, two = Process(server.url, refresh=refresh), Process(server.url, refresh=refresh)
    first = one.breaker.isolate()
    with two.breaker.isolate():
        first.release()
        assert [two.served(), one.served(), two.served()] == [False] * 3
    assert two.served()
    one.shared()._asked = None  # a minute later
    assert one.served()


@pytest.mark.parametrize("command", ["close", "open"])
def test_another_command_ends_all_isolations(server: Server, command: str) -> None:
    """By whomever; what is released later is released already."""
    one, two, three = (Process(server.url) for _ in range(3))
    isolations = [one.breaker.isolate(), two.breaker.isolate()]
    one.rejected()
    two.rejected()
    getattr(three.breaker, command)()
    state = "closed" if command == "close" else "open"
    for process in (one, two):
        assert process.served() == (command == "close")
        assert process.state == state
    for isolation in isolations:
        isolation.release()
    assert three.served() == (command == "close")
    if command == "open":
        open_time_over()
        one.tried()
        assert two.good() == "fine"


def test_an_isolated_circuit_follows_where_others_try(server: Server) -> None:
    """Opened by a command, and half open by now: there is no slot for this process."""
    one, two = Process(server.url), Process(server.url, reset_after=0.05)
    one.breaker.isolate()
    one.rejected()
    two.breaker.open()
    time.sleep(0.06)

    def trial() -> str:
        one.rejected()
        assert one.state == "open"
        return "tried"

    assert two.guarded(trial) == "tried"
    two.published()
    assert one.good() == "fine"


def test_an_isolation_survives_a_flush(server: Server) -> None:
    """Whoever holds it publishes it again."""
    one, two = Process(server.url), Process(server.url)
    one.breaker.isolate()
    one.rejected()
    server.client().flushall()
    one.rejected()
    two.rejected()
