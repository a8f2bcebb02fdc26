"""How long a shared circuit is open: what a wait is asked, and when, over several processes."""

from __future__ import annotations

import email.message
import time
import urllib.error
from typing import Any

import pytest

from resilience import BadResultError, Pipeline
from resilience.failures import Kind
from resilience.policies import BadResult
from support import redis_server
from support.redis_server import Process, Server, Warned, until

pytestmark = pytest.mark.real

running, server = redis_server.running, redis_server.server


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


def test_openings_in_a_row_are_counted_together(server: Server) -> None:
    """Whichever process opens it again; when one closes it, they begin anew for all."""
    wait = Asked()
    one, two, three = processes(server, wait, 3)
    for process in (one, two, three, two):
        process.bad()
        wait.over()
    assert wait.numbers == [1, 2, 3, 4]
    one.tried()
    two.bad()
    wait.over()
    three.bad()
    assert wait.numbers[4:] == [1, 2]


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


def test_calls_rejected_while_another_tries_are_no_openings(server: Server) -> None:
    """However often they look."""
    wait = Asked()
    one, two = processes(server, wait, 2)
    one.bad()
    two.rejected()
    wait.over()

    def long() -> None:
        for _ in range(5):
            two.rejected()
        raise ConnectionError("still down")

    with pytest.raises(ConnectionError):
        one.guarded(long)
    one.published()
    wait.over()
    two.bad()
    assert wait.numbers == [1, 2, 3]


def test_tolerated_trials_open_it_once(server: Server) -> None:
    """A trial that is one too many over all processes opens, and the wait is asked for that."""
    wait = Asked()
    one, two, three = processes(server, wait, 3, successes=2, tolerate=0.4)
    one.bad()
    wait.over()
    one.bad()
    two.bad()
    assert isinstance(two.rejected().__cause__, ConnectionError)
    wait.over()
    three.tried()
    three.tried()
    assert three.state == "closed"
    assert wait.numbers[0] == 1
    assert set(wait.numbers[1:]) == {2}


def test_a_wait_is_asked_only_for_what_can_open(server: Server) -> None:
    """Not for healthy calls, looks, slots, trials that pass, or commands that close."""
    wait = Asked()
    one, two = processes(server, wait, 2, failures=2)
    for _ in range(5):
        one.good()
        two.good()
    with one.breaker.isolate():
        two.rejected()
    one.breaker.close()
    assert wait.numbers == []
    one.breaker.open()
    wait.over()
    two.tried()
    assert one.good() == "fine"
    assert set(wait.numbers) == {1}


def test_an_opening_published_after_its_time_is_still_the_same(server: Server) -> None:
    """A circuit that opened here while the server was away, for less time than that took."""
    wait = Asked()
    (one,) = processes(server, wait, 1, storage={"back_off": 0.05})
    two = Process(server.url)
    with Warned():
        server.stop()
        one.fails()
        server.start()
    wait.over()
    until(lambda: not one.served())
    two.rejected()
    assert set(wait.numbers) == {1}


# The failure that opens it


def unavailable(seconds: int) -> urllib.error.HTTPError:
    """A server that says when to come back."""
    headers = email.message.Message()
    headers["Retry-After"] = str(seconds)
    return urllib.error.HTTPError("http://localhost", 503, "Unavailable", headers, None)


def test_the_last_failure_of_a_run_opens_it_as_if_alone(server: Server) -> None:
    """Its `Retry-After` holds for all; it is the cause where it was counted, and there only."""
    one, two = processes(server, 0.1, 2, failures=2)
    last = unavailable(300)
    one.bad(unavailable(7))
    two.bad(last)
    mine, others = two.rejected(), one.rejected()
    assert mine.__cause__ is last
    assert others.__cause__ is None
    for rejection in (mine, others):
        assert 290 < (rejection.retry_after or 0) <= 300


def test_a_failure_published_later_opens_it_too(server: Server) -> None:
    """Too soon after a look to be published on its own: by the next call, which is rejected."""
    (one,) = processes(server, 0.1, 1, failures=2, refresh=60)
    two = Process(server.url, failures=2)
    last = unavailable(300)
    one.good()
    one.fails(last)
    two.bad()
    assert one.state == "closed"
    one.shared()._asked -= 4  # four seconds later, a fifteenth of the time between two looks
    rejection = one.rejected()
    assert rejection.__cause__ is last
    assert 290 < (rejection.retry_after or 0) <= 300


@pytest.mark.parametrize("end", ["published", "success", "news"])
def test_a_failure_that_opened_nothing_is_not_kept(server: Server, end: str) -> None:
    """When it is published, or is no longer in a row, or others have changed the circuit."""
    one, two = processes(server, 0.1, 2, failures=9, refresh=0.0 if end == "published" else 60)
    one.good()
    shared, unpublished = one.shared(), one.shared()._unpublished
    error = ConnectionError("down")
    one.fails(error)
    if end == "published":
        until(lambda: unpublished.last is None)
        return
    assert unpublished.last[0] is error
    if end == "news":
        two.breaker.close()
        shared._asked = None
    one.good()
    assert unpublished.last is None


def test_a_result_that_counts_as_a_failure_opens_it_too(server: Server) -> None:
    """It is published as any other."""
    (one,) = processes(server, 0.1, 1, failures=2)
    two = Process(server.url, failures=2)
    pipeline = Pipeline(one.breaker, BadResult(lambda result: Kind.SERVER))
    two.bad()
    assert pipeline.call(lambda: "bad") == "bad"
    one.published()
    assert isinstance(one.rejected().__cause__, BadResultError)
    assert two.rejected().__cause__ is None
