"""How long a shared circuit is open: what a wait is asked, and when, over several processes."""

from __future__ import annotations

import email.message
import time
import urllib.error
from collections.abc import Iterator
from typing import Any

import pytest

from redis_server import Server
from resilience._shared.script import script
from test_shared import Process
from test_shared_loss import KEY, Told


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


HOUR = 3_600_000_000


def set_back(client: Any) -> None:
    """What the circuit looks like to a server whose clock is an hour behind the last one's."""
    for name, value in client.hgetall(KEY).items():
        if name in ("until", "since") or name.startswith("trial:"):
            client.hset(KEY, name, int(value) + HOUR)


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
    assert isinstance(two.refused().__cause__, ConnectionError)
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


# The failure that opens it


def unavailable(seconds: int) -> urllib.error.HTTPError:
    """A server that says when to come back."""
    headers = email.message.Message()
    headers["Retry-After"] = str(seconds)
    return urllib.error.HTTPError("http://localhost", 503, "Unavailable", headers, None)


def fails(process: Process, error: Exception) -> None:
    with pytest.raises(type(error)):
        process.guarded(error)


@pytest.mark.real
def test_the_last_failure_of_a_run_opens_it_as_if_alone(server: Server) -> None:
    """Its `Retry-After` holds for all; it is the cause where it was counted, and there only."""
    one, two = processes(server, 0.1, 2, failures=2)
    last = unavailable(300)
    fails(one, unavailable(7))
    fails(two, last)
    mine, others = two.refused(), one.refused()
    assert mine.__cause__ is last
    assert others.__cause__ is None
    for refusal in (mine, others):
        assert 290 < (refusal.retry_after or 0) <= 300


@pytest.mark.real
def test_a_failure_told_later_opens_it_too(server: Server) -> None:
    """Too soon after a look to be told at once: by the next call, which is refused for it."""
    (one,) = processes(server, 0.1, 1, failures=2, refresh=60)
    two = Process(server.url, failures=2)
    last = unavailable(300)
    one.good()
    fails(one, last)
    two.bad()
    assert one.state == "closed"
    one.breaker._only.backing._looked = None  # a minute later
    refusal = one.refused()
    assert refusal.__cause__ is last
    assert 290 < (refusal.retry_after or 0) <= 300


@pytest.mark.real
@pytest.mark.parametrize("end", ["told", "success", "news"])
def test_a_failure_that_opened_nothing_is_not_kept(server: Server, end: str) -> None:
    """When it was told, or is no longer in a row, or others have changed the circuit."""
    one, two = processes(server, 0.1, 2, failures=9, refresh=0.0 if end == "told" else 60)
    one.good()
    backing = one.breaker._only.backing
    error = ConnectionError("down")
    fails(one, error)
    assert backing._blame is None if end == "told" else backing._blame[0] is error
    if end == "success":
        one.good()
    elif end == "news":
        two.breaker.close()
        backing._looked = None
        one.good()
    assert backing._blame is None


@pytest.mark.real
def test_a_result_that_counts_as_a_failure_has_no_cause(server: Server) -> None:
    """It opens the circuit as any other."""
    (one,) = processes(server, 0.1, 1, failures=2, on_result=lambda result: result == "bad")
    two = Process(server.url, failures=2)
    two.bad()
    assert one.guarded("bad") == "bad"
    assert one.refused().__cause__ is None


# The server's clock


@pytest.mark.real
def test_a_clock_that_is_set_back_does_not_keep_it_open(server: Server) -> None:
    """From then it is open for as long as it was to be, and no longer."""
    one, two = processes(server, 0.1, 2)
    one.bad()
    set_back(server.client())
    assert (two.refused().retry_after or 0) <= 0.1
    time.sleep(0.12)
    assert two.good() == one.good() == "fine"


@pytest.mark.real
def test_a_clock_that_is_set_back_does_not_keep_a_place_taken(server: Server) -> None:
    """The lease of a trial whose process has died ends as well."""
    one, two = processes(server, 0.05, 2, link={"lease": 0.2})
    one.bad()
    time.sleep(0.06)

    def dies() -> None:
        set_back(server.client())
        two.refused()
        time.sleep(0.25)
        assert two.good() == "fine"
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        one.guarded(dies)
    assert one.good() == "fine"


@pytest.mark.real
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
    assert server.client().hget(KEY, "run") == "0"
    one.bad()
    assert one.state == "closed"


# Trials that take long


@pytest.mark.real
@pytest.mark.parametrize("goes_well", [True, False])
def test_a_trial_longer_than_its_lease_decides_too(server: Server, goes_well: bool) -> None:
    """Its place is free meanwhile, and the circuit is half open still."""
    one, two = processes(server, 0.1, 2, link={"lease": 0.1})
    one.bad()
    time.sleep(0.11)

    def long() -> str:
        two.refused()
        time.sleep(0.2)
        if not goes_well:
            raise ConnectionError("still down")
        return "tried"

    if goes_well:
        assert one.guarded(long) == "tried"
        assert one.state == "closed"
        assert two.good() == "fine"
    else:
        with pytest.raises(ConnectionError):
            one.guarded(long)
        assert server.client().hget(KEY, "state") == one.state == "open"


@pytest.mark.real
def test_a_trial_that_was_given_up_on_has_no_say(server: Server) -> None:
    """After `trial_timeout` it decides nothing, however it ends."""
    one, two = processes(server, 0.05, 2, trial_timeout=0.1)
    one.bad()
    time.sleep(0.06)

    def long() -> str:
        time.sleep(0.2)
        return "tried"

    assert one.guarded(long) == "tried"
    assert server.client().hget(KEY, "state") == "half-open"
    assert two.good() == "fine"
    assert two.state == "closed"


@pytest.mark.real
def test_a_trial_of_which_nothing_was_heard_for_long_is_forgotten(server: Server) -> None:
    """Ten leases after its own; else they would grow in number with each process that dies."""
    (one,) = processes(server, 0.05, 1, successes=3)
    one.bad()
    time.sleep(0.06)
    one.good()
    client = server.client()
    client.hset(KEY, "trial:old", "1")
    one.good()
    assert client.hget(KEY, "state") == "half-open"
    assert not client.hexists(KEY, "trial:old")


@pytest.mark.real
def test_a_late_trial_changes_nothing_where_another_has_decided(server: Server) -> None:
    """It was begun before the last change."""
    one, two = processes(server, 0.1, 2, link={"lease": 0.1})
    one.bad()
    time.sleep(0.11)

    def long() -> None:
        time.sleep(0.2)
        assert two.good() == "fine"
        raise ConnectionError("late")

    with pytest.raises(ConnectionError):
        one.guarded(long)
    assert two.good() == one.good() == "fine"
