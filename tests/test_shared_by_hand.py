"""What is done by hand to a shared circuit: it holds for all, at once, and once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import trio

from redis_server import Server
from resilience import CircuitBreaker
from resilience._runtimes import workers
from resilience._shared.script import script
from resilience.policies._states import CLOSED, ISOLATED, Change, Event
from resilience.shared import RedisCircuit
from test_shared import PATIENT, Process, until
from test_shared_loss import KEY, Told, brief


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of the test's own, which may be maltreated."""
    server = Server()
    server.client().script_load(script.text)
    yield server
    server.close()


class Late(redis.Redis):
    """A client that holds back one command, named in `op`, until it is let go."""

    op = ""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.held, self.go = threading.Event(), threading.Event()

    def evalsha(self, *args: Any) -> Any:
        if args[3] == self.op:
            self.held.set()
            assert self.go.wait(10)
        return super().evalsha(*args)


# At once


@pytest.mark.real
@pytest.mark.parametrize("called", [True, False])
def test_isolating_needs_no_call(server: Server, called: bool) -> None:
    """An operator's process, which makes no calls, isolates for all and lets go for all."""
    worker, admin = Process(server.url), Process(server.url)
    worker.good()
    if called:
        admin.good()
    with admin.breaker.isolate():
        worker.refused()
        assert worker.state == "isolated"
    assert worker.good() == "fine"


@pytest.mark.real
@pytest.mark.parametrize("called", [True, False])
def test_opening_and_closing_need_no_call(server: Server, called: bool) -> None:
    """Nor does closing need a circuit that is open here."""
    worker, admin, other = (Process(server.url, reset_after=30) for _ in range(3))
    if called:
        admin.good()
        other.good()
    admin.breaker.open()
    assert 20 < (worker.refused().retry_after or 0) <= 30
    assert other.state == "closed"
    other.breaker.close()
    assert worker.good() == admin.good() == "fine"


@pytest.mark.real
def test_a_keyed_circuit_is_moved_for_all(server: Server) -> None:
    """Before any call with that value."""
    admin, worker = Process(server.url, key="model"), Process(server.url, key="model")
    admin.breaker.circuit("a").isolate()
    assert not worker.served(model="a")
    assert worker.served(model="b")


@pytest.mark.real
@pytest.mark.parametrize("world", ["asyncio", "trio"])
def test_a_command_does_not_hold_up_an_event_loop(server: Server, world: str) -> None:
    """It is told by a thread: here by one that waits for as long as the server hangs."""
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


@pytest.mark.real
def test_in_an_event_loop_without_a_thread_it_is_told_with_the_next_call(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command itself is done, and raises nothing."""
    admin, worker = Process(server.url), Process(server.url)
    monkeypatch.setattr(workers, "LIMIT", 0)
    workers._renew()

    async def main() -> None:
        admin.breaker.isolate()

    asyncio.run(main())
    monkeypatch.undo()
    assert worker.good() == "fine"
    admin.refused()
    worker.refused()


@pytest.mark.real
def test_what_is_only_for_here_is_not_told(server: Server) -> None:
    """`disable()` and `shadow()` are nobody else's business."""
    one = Process(server.url)
    one.breaker.disable()
    one.breaker.shadow()
    assert server.client().keys() == []
    assert server.asked() == 0


@pytest.mark.real
@pytest.mark.parametrize("command", ["disable", "shadow"])
def test_what_is_only_for_here_ends_an_isolation_for_all(server: Server, command: str) -> None:
    """Nobody holds it any more."""
    one, two = Process(server.url), Process(server.url)
    one.breaker.isolate()
    two.refused()
    getattr(one.breaker, command)()
    assert two.good() == "fine"


# Once, and in order


@pytest.mark.real
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
    until(lambda: any(name.startswith("done:") for name in server.client().hkeys(KEY)))
    before = server.asked()
    client.go.set()
    until(lambda: server.asked() > before)
    assert worker.good() == admin.good() == "fine"


@pytest.mark.real
def test_a_command_whose_answer_was_lost_is_done_once(server: Server) -> None:
    """The server did it when it woke up; told again with the next call, it changes nothing."""
    admin = Process(server.url, link=brief(back_off=0.01))
    admin.good()
    server.hang()
    with Told() as told:
        admin.breaker.open()
    assert ["no word" in told.texts[0], "have not heard of open()" in told.texts[1]] == [True] * 2
    server.wake()
    until(lambda: server.client().hget(KEY, "state") == "open")
    before = server.client().hget(KEY, "gen")
    time.sleep(0.02)
    admin.refused()
    assert server.client().hget(KEY, "gen") == before


@pytest.mark.real
def test_a_command_asks_even_where_the_server_was_lost(server: Server) -> None:
    """Who does something by hand does not wait for the end of the back-off."""
    admin, worker = Process(server.url, link=brief()), Process(server.url)
    with Told() as told:
        server.stop()
        admin.good()
        server.start()
        admin.breaker.isolate()
    assert len(told.texts) == 1
    worker.refused()


@pytest.mark.real
def test_an_answer_from_before_a_command_changes_nothing(server: Server) -> None:
    """A question that was asked before it and is answered after it."""
    client = Late(unix_socket_path=f"{server.folder}/s")
    one, two = Process(client), Process(server.url, reset_after=30)
    one.good()
    two.breaker.open()
    client.op = "look"

    def late() -> Any:
        return one.guarded()

    thread = threading.Thread(target=late)
    thread.start()
    assert client.held.wait(10)
    client.op = ""
    answer = client.evalsha
    client.evalsha = lambda *args: answer(*args)  # type: ignore[method-assign]
    one.breaker.close()
    client.go.set()
    thread.join()
    assert one.state == "closed"
    assert one.good() == two.good() == "fine"


@pytest.mark.real
def test_a_command_that_was_overtaken_here_is_not_told(server: Server) -> None:
    """Two threads, of which one isolates and the other closes: what holds here is told."""
    one, two = Process(server.url), Process(server.url)
    one.good()
    backing = one.breaker._only.backing
    backing.note(Change(CLOSED, ISOLATED, Event.ISOLATES))
    assert two.good() == "fine"
    one.breaker.isolate()
    backing.note(Change(ISOLATED, CLOSED, Event.CLOSES))
    two.refused()


@pytest.mark.real
def test_what_was_done_long_ago_is_forgotten(server: Server) -> None:
    """The number of a process's last command is kept for ten minutes; what is none, not at all."""
    one = Process(server.url)
    one.breaker.close()
    client = server.client()
    client.hset(KEY, mapping={"done:old": "1 1", "done:odd": "x", "done:odder": "1 x"})
    Process(server.url).breaker.close()
    assert sum(name.startswith("done:") for name in client.hkeys(KEY)) == 2
    assert not {"done:old", "done:odd", "done:odder"} & set(client.hkeys(KEY))


# Several who isolate


@pytest.mark.real
def test_isolations_are_counted_over_processes(server: Server) -> None:
    """It closes for all when the last process lets go, and in none before."""
    one, two, three = (Process(server.url) for _ in range(3))
    with one.breaker.isolate():
        first, second = two.breaker.isolate(), two.breaker.isolate()
        three.refused()
        first.release()
        second.release()
        two.refused()
        three.refused()
        assert one.state == two.state == three.state == "isolated"
    assert one.good() == two.good() == three.good() == "fine"


@pytest.mark.real
def test_letting_go_before_others_changes_nothing_for_them(server: Server) -> None:
    """Whoever isolated first: within the block of another every call is refused."""
    one, two = Process(server.url), Process(server.url)
    first = one.breaker.isolate()
    with two.breaker.isolate():
        first.release()
        assert [two.served(), one.served(), two.served()] == [False] * 3
    assert [two.served(), one.served()] == [True] * 2


@pytest.mark.real
@pytest.mark.parametrize("command", ["close", "open"])
def test_another_command_ends_all_isolations(server: Server, command: str) -> None:
    """By whomever; what is released later is released already."""
    one, two, three = (Process(server.url) for _ in range(3))
    holds = [one.breaker.isolate(), two.breaker.isolate()]
    one.refused()
    two.refused()
    getattr(three.breaker, command)()
    state = "closed" if command == "close" else "open"
    for process in (one, two):
        assert process.served() == (command == "close")
        assert process.state == state
    for hold in holds:
        hold.release()
    assert three.served() == (command == "close")
    if command == "open":
        time.sleep(0.31)
        assert one.good() == two.good() == "fine"


@pytest.mark.real
def test_who_was_isolated_hears_that_others_try(server: Server) -> None:
    """Opened by hand, and half open by now: there is no place for this one."""
    one, two = Process(server.url), Process(server.url, reset_after=0.05)
    one.breaker.isolate()
    one.refused()
    two.breaker.open()
    time.sleep(0.06)

    def trial() -> str:
        one.refused()
        assert one.state == "open"
        return "tried"

    assert two.guarded(trial) == "tried"
    assert one.good() == "fine"


@pytest.mark.real
def test_advice_by_hand_is_counted_too(server: Server) -> None:
    """Holds and their end; and a circuit that others open is open here."""
    one, two, three = (Process(server.url, link={"advisory": True}) for _ in range(3))
    first, second = one.breaker.isolate(), two.breaker.isolate()
    first.release()
    three.refused()
    assert three.state == "isolated"
    second.release()
    assert three.good() == one.good() == "fine"
    two.breaker.isolate()
    three.refused()
    one.breaker.open()
    three.refused()
    assert three.state == "open"


@pytest.mark.real
def test_advice_does_not_end_an_isolation(server: Server) -> None:
    """A process that has not heard of it yet finds the service failing."""
    options = {"failures": 1, "link": {"advisory": True}}
    one, two, three = (Process(server.url, refresh=60, **options) for _ in range(3))
    one.good()
    two.breaker.isolate()
    one.bad()
    three.refused()
    assert three.state == "isolated"


def test_a_circuit_that_cannot_be_shared_cannot_be_moved() -> None:
    """By its key: others could not name it."""
    storage = RedisCircuit("redis://127.0.0.1:1")
    breaker = CircuitBreaker(key="model", storage=storage)
    with pytest.raises(TypeError, match="needs a key of text, numbers or tuples of them"):
        breaker.circuit(object()).isolate()
