"""What a shared circuit asks the server for, how often, and what it leaves there."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
import redis.asyncio

from resilience import CircuitOpenError
from support import redis_server
from support.redis_server import Process, Server, open_time_over

pytestmark = pytest.mark.real

running, server = redis_server.running, redis_server.server


@pytest.mark.fault(96)
def test_a_healthy_call_asks_nothing(server: Server) -> None:
    """One look for the first call, and no command for the next thousand."""
    one = Process(server.url, refresh=60)
    for _ in range(1_000):
        one.good()
    assert server.asked() == 1


@pytest.mark.fault(100)
def test_commands_are_bounded_by_the_refresh_time(server: Server) -> None:
    """Four processes with four threads each: one look each per refresh time, however many calls."""
    processes = [Process(server.url, refresh=0.2) for _ in range(4)]
    began = time.monotonic()
    calls = [0] * 16

    def run(index: int) -> None:
        while time.monotonic() < began + 0.7:
            processes[index % 4].good()
            calls[index] += 1

    threads = [threading.Thread(target=run, args=(index,)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - began
    assert server.asked() <= 4 * (1 + took / 0.2)
    assert sum(calls) > 100


@pytest.mark.fault(100)
def test_an_open_circuit_asks_no_more_often(server: Server) -> None:
    """Rejected calls look once per refresh time, half open elsewhere or not."""
    one = Process(server.url, failures=1, reset_after=0.05, refresh=60)
    two = Process(server.url, failures=1, reset_after=0.05, refresh=60)
    one.bad()
    time.sleep(0.06)

    def long() -> str:
        before = server.asked()
        for _ in range(100):
            two.rejected()
        assert server.asked() - before <= 2
        return "tried"

    assert one.guarded(long) == "tried"


def test_while_another_process_tries_a_call_only_looks(server: Server) -> None:
    """It does not ask for a slot each time, and its circuit stays open."""
    one, two = Process(server.url, failures=1), Process(server.url, failures=1, refresh=60)
    one.bad()
    open_time_over()

    def long() -> str:
        before = server.asked()
        for _ in range(10):
            two.rejected()
            assert two.state == "open"
            two.shared()._asked = None  # a minute later
        assert server.asked() == before + 10
        return "tried"

    assert one.guarded(long) == "tried"


def test_a_failure_and_the_result_of_a_trial_cost_a_command_each(server: Server) -> None:
    """Beside the look of the first call, and the trial's own slot."""
    one = Process(server.url, failures=1, refresh=60)
    one.bad()
    assert server.asked() == 2
    open_time_over()
    one.tried()
    assert server.asked() == 4


@pytest.mark.fault(99)
def test_the_script_is_sent_again(server: Server) -> None:
    """A server that has lost it is given it anew, in the same call."""
    one, two = Process(server.url, failures=1), Process(server.url, failures=1)
    one.good()
    server.client().script_flush()
    one.bad()
    server.client().script_flush()
    two.rejected()


@pytest.mark.fault(99)
def test_the_script_is_sent_again_on_an_event_loop(server: Server) -> None:
    """By an asyncio client too."""
    client = redis.asyncio.Redis(unix_socket_path=f"{server.folder}/s")
    one = Process(client)
    Process(server.url).breaker.open()

    async def main() -> None:
        server.client().script_flush()
        with pytest.raises(CircuitOpenError):
            await one.guarded_async()
        await client.aclose()

    asyncio.run(main())


@pytest.mark.fault(99)
def test_every_key_expires(server: Server) -> None:
    """In every state; a circuit that never failed has no key at all."""
    one = Process(server.url, failures=2)

    def lives() -> list[int]:
        client = server.client()
        return [client.ttl(name) for name in client.scan_iter("*")]

    one.good()
    assert lives() == []
    one.bad()
    assert all(0 < ttl <= 200 for ttl in lives())
    one.bad()
    assert all(0 < ttl <= 200 for ttl in lives())
    one.breaker.isolate()
    one.rejected()
    assert all(0 < ttl <= 86_400 for ttl in lives())
    one.breaker.close()
    one.good()
    assert all(0 < ttl <= 200 for ttl in lives())
    assert len(lives()) == 1
