"""How long a shared circuit is open: what a wait is asked, and when, over several processes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from redis_server import Server
from resilience._shared.script import script
from test_shared import Process
from test_shared_loss import Told


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    """One server for all tests of this module."""
    server = Server()
    yield server
    server.close()


@pytest.fixture
def server(running: Server) -> Server:
    """The server, empty but for our script."""
    running.client().flushall()
    running.client().script_load(script.text)
    return running


class Asked:
    """A wait of so many seconds that remembers which opening in a row it was asked for."""

    def __init__(self, seconds: float = 0.05) -> None:
        self.seconds = seconds
        self.numbers: list[int] = []

    def __call__(self, state: Any) -> float:
        self.numbers.append(state.attempt_number)
        return self.seconds

    def over(self) -> None:
        """Let the open time pass."""
        time.sleep(self.seconds + 0.01)


def processes(server: Server, wait: Any, count: int, **options: Any) -> list[Process]:
    return [
        Process(server.url, reset_after=wait, **{"failures": 1, **options}) for _ in range(count)
    ]


@pytest.mark.real
def test_openings_in_a_row_are_counted_together(server: Server) -> None:
    """Whichever process opens it again; when one closes it, they begin anew for all."""
    wait = Asked()
    one, two, three = processes(server, wait, 3)
    for process in (one, two, three, two):
        process.bad()
        wait.over()
    assert wait.numbers == [1, 2, 3, 4]
    one.good()
    two.bad()
    wait.over()
    three.bad()
    assert wait.numbers[4:] == [1, 2]


@pytest.mark.real
def test_an_opening_counted_together_is_one(server: Server) -> None:
    """Of failures in two processes: it is the first for both, and a third goes on from there."""
    wait = Asked()
    one, two, three = processes(server, wait, 3, failures=2)
    one.bad()
    two.bad()
    wait.over()
    three.bad()
    wait.over()
    one.bad()
    assert wait.numbers[-2:] == [2, 3]
    assert set(wait.numbers[:-2]) == {1}


@pytest.mark.real
def test_calls_refused_while_another_tries_are_no_openings(server: Server) -> None:
    """However often they look."""
    wait = Asked()
    one, two = processes(server, wait, 2)
    one.bad()
    two.refused()
    wait.over()

    def long() -> None:
        for _ in range(5):
            two.refused()
        raise ConnectionError("still down")

    with pytest.raises(ConnectionError):
        one.guarded(long)
    wait.over()
    two.bad()
    assert wait.numbers == [1, 2, 3]


@pytest.mark.real
def test_tolerated_trials_open_it_once(server: Server) -> None:
    """A trial that is one too many over all processes opens, and the wait is asked for that."""
    wait = Asked()
    one, two, three = processes(server, wait, 3, successes=2, tolerate=0.4)
    one.bad()
    wait.over()
    one.bad()
    two.bad()
    assert two.state == "open"
    wait.over()
    three.good()
    three.good()
    assert three.state == "closed"
    assert wait.numbers[0] == 1
    assert set(wait.numbers[1:]) == {2}


@pytest.mark.real
def test_a_wait_is_asked_only_for_what_can_open(server: Server) -> None:
    """Not for healthy calls, looks, places, good trials, or what is done by hand to close."""
    wait = Asked()
    one, two = processes(server, wait, 2, failures=2)
    for _ in range(5):
        one.good()
        two.good()
    with one.breaker.isolate():
        two.refused()
    one.breaker.close()
    assert wait.numbers == []
    one.breaker.open()
    wait.over()
    assert two.good() == one.good() == "fine"
    assert set(wait.numbers) == {1}


@pytest.mark.real
def test_an_opening_told_after_its_time_is_still_the_same(server: Server) -> None:
    """A circuit opened by itself while the server was away, for less time than that took."""
    wait = Asked()
    (one,) = processes(server, wait, 1, link={"back_off": 0.05})
    two = Process(server.url)
    with Told():
        server.stop()
        one.bad()
        server.start()
    wait.over()
    one.refused()
    two.refused()
    assert set(wait.numbers) == {1}
