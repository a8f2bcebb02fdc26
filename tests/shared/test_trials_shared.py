"""A trial's slot in a shared circuit: its lease, who gives it back, and the server's clock."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
import redis.asyncio

from resilience import WorkersBusyError
from resilience._runtimes import workers
from support import redis_server
from support.redis_server import KEY, Late, Process, Server, open_time_over, until

pytestmark = pytest.mark.real

running, server = redis_server.running, redis_server.server

HOUR = 3_600_000_000


def set_back(client: Any) -> None:
    """What the circuit looks like to a server whose clock is an hour behind the last one's."""
    for name, value in client.hgetall(KEY).items():
        if name in ("until", "since") or name.startswith("trial:"):
            client.hset(KEY, name, int(value) + HOUR)


def processes(server: Server, open_time: float, count: int, **options: Any) -> list[Process]:
    return [
        Process(server.url, reset_after=open_time, **{"failures": 1, **options})
        for _ in range(count)
    ]


# Given back


@pytest.mark.parametrize("kind", ["url", "asyncio client"])
def test_a_cancelled_trial_gives_its_slot_back(server: Server, kind: str) -> None:
    """At once, and not only when its lease ends."""
    source: Any = server.url
    if kind == "asyncio client":
        source = redis.asyncio.Redis(unix_socket_path=f"{server.folder}/s")
    one, two = Process(source, failures=1), Process(server.url, failures=1)
    one.bad()
    open_time_over()

    async def main() -> None:
        begun = asyncio.Event()

        async def hangs() -> None:
            begun.set()
            await asyncio.sleep(60)

        task = asyncio.ensure_future(one.guarded_async(hangs))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        if kind == "asyncio client":
            await source.aclose()

    asyncio.run(main())
    until(two.served)
    assert two.state == "closed"


def test_a_call_cancelled_while_it_asks_for_a_slot_gives_it_back(server: Server) -> None:
    """Also where the question arrives after the answer to it: with the next call here."""
    client = Late(unix_socket_path=f"{server.folder}/s")
    one = Process(client, failures=1, refresh=60)
    two = Process(server.url, failures=1)
    one.bad()
    open_time_over()
    client.op = "enter"

    async def main() -> None:
        task = asyncio.ensure_future(one.guarded_async())
        while not client.held.is_set():
            await asyncio.sleep(0.001)
        before = server.asked()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while server.asked() == before:
            await asyncio.sleep(0.001)
        client.go.set()

    asyncio.run(main())
    until(lambda: server.field("state") == "half-open")
    assert not two.served()
    one.served()
    until(two.served)


def test_where_no_thread_is_free_a_slot_is_given_back_with_the_next_call(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call ends as it would."""
    one = Process(server.url, failures=1)
    two = Process(server.url, failures=1)
    one.bad()
    open_time_over()
    monkeypatch.setattr(workers, "LIMIT", 8)
    workers._renew()
    done = threading.Event()

    def take_all() -> None:
        while True:
            workers.start(done.wait)

    def trial() -> None:
        with pytest.raises(WorkersBusyError):
            take_all()
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        one.guarded(trial)
    done.set()
    workers._renew()
    two.rejected()
    assert one.served()
    until(two.served)


# Leases


@pytest.mark.parametrize("passes", [True, False])
def test_a_trial_longer_than_its_lease_decides_too(server: Server, passes: bool) -> None:
    """Its slot is free meanwhile, and the circuit is half open still."""
    one, two = processes(server, 0.1, 2, storage={"lease": 0.1})
    one.bad()
    time.sleep(0.11)

    def long() -> str:
        two.rejected()
        time.sleep(0.2)
        if not passes:
            raise ConnectionError("still down")
        return "tried"

    if passes:
        assert one.guarded(long) == "tried"
        one.published()
        assert one.state == "closed"
        assert two.good() == "fine"
    else:
        with pytest.raises(ConnectionError):
            one.guarded(long)
        one.published()
        assert server.field("state") == one.state == "open"


def test_a_trial_that_was_given_up_on_has_no_say(server: Server) -> None:
    """After `trial_timeout` it decides nothing, however it ends."""
    one, two = processes(server, 0.05, 2, trial_timeout=0.1)
    one.bad()
    time.sleep(0.06)

    def long() -> str:
        time.sleep(0.2)
        return "tried"

    assert one.guarded(long) == "tried"
    one.published()
    assert server.field("state") == "half-open"
    two.tried()
    assert two.state == "closed"


def test_a_trial_of_a_dead_process_is_forgotten_after_long(server: Server) -> None:
    """Ten leases after its own; else they would grow in number with each process that dies."""
    (one,) = processes(server, 0.05, 1, successes=3)
    one.bad()
    time.sleep(0.06)
    one.tried()
    client = server.client()
    client.hset(KEY, "trial:old", "1")
    one.tried()
    assert server.field("state") == "half-open"
    assert not client.hexists(KEY, "trial:old")


def test_a_late_trial_changes_nothing_where_another_has_decided(server: Server) -> None:
    """It was begun before the last change."""
    one, two = processes(server, 0.1, 2, storage={"lease": 0.1})
    one.bad()
    time.sleep(0.11)

    def long() -> None:
        time.sleep(0.2)
        two.tried()
        raise ConnectionError("late")

    with pytest.raises(ConnectionError):
        one.guarded(long)
    one.published()
    assert two.good() == one.good() == "fine"


# The server's clock


def test_a_clock_that_is_set_back_does_not_keep_it_open(server: Server) -> None:
    """From then it is open for as long as it was to be, and no longer."""
    one, two = processes(server, 0.1, 2)
    one.bad()
    set_back(server.client())
    assert (two.rejected().retry_after or 0) <= 0.1
    time.sleep(0.12)
    two.tried()
    assert one.good() == "fine"


def test_a_clock_that_is_set_back_does_not_keep_a_slot_taken(server: Server) -> None:
    """The lease of a trial whose process has died ends as well."""
    one, two = processes(server, 0.05, 2, storage={"lease": 0.2})
    one.bad()
    time.sleep(0.06)

    def dies() -> None:
        set_back(server.client())
        two.rejected()
        time.sleep(0.25)
        two.tried()
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        one.guarded(dies)
    one.published()
    assert one.good() == "fine"


def test_a_clock_that_is_set_back_does_not_keep_a_run(server: Server) -> None:
    """A success after the failures ends it."""
    one, two, three = processes(server, 0.1, 3, failures=3)
    one.bad()
    three.bad()
    set_back(server.client())
    two.good()
    time.sleep(0.01)
    two.good()
    two.good()
    assert server.field("run") == "0"
    one.bad()
    assert one.state == "closed"
