"""What lies under a circuit's key and is none, or makes no sense; and replies that make none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis

from support import redis_server
from support.redis_server import KEY, Process, Server, Warned, impatient, open_time_over

pytestmark = pytest.mark.real

running, server = redis_server.running, redis_server.server


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
    "endless": _hash(v=1, state="open", gen=1, openings=1, until=10**16 - 1, **{"for": 10**15}),
    "a number too long": _hash(v=1, state="open", gen="9" * 400, until=5),
}


@pytest.mark.fault(93)
@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_not_ours_is_left_as_it_is(server: Server, kind: str) -> None:
    """Whatever the circuit goes through: it uses local state, after one warning, and asks no more
    often than it looks. It is shared when the key is free."""
    one = Process(server.url, failures=1, refresh=60)
    two = Process(server.url, failures=1)
    client = server.client()
    FOREIGN[kind](client)
    before = client.dump(KEY)
    with Warned() as warned:
        assert one.good() == one.good() == "fine"
        asked = server.asked()
        one.fails()
        one.rejected()
        open_time_over()
        one.good()
        one.fails()
        one.rejected()
        assert server.asked() == asked
        assert two.good() == "fine"
        with two.breaker.isolate():
            assert one.state == "open"
            two.rejected()
        one.rejected()
    assert client.dump(KEY) == before
    assert [KEY in text for text in warned.texts] == [True, True, False, False]
    assert "isolate()" in warned.texts[2]
    assert "release()" in warned.texts[3]
    client.delete(KEY)
    assert two.good() == two.good() == "fine"
    two.bad()
    Process(server.url).rejected()


def test_what_happened_beside_a_foreign_key_is_published_when_it_is_free(server: Server) -> None:
    """A circuit that opened here opens the shared one, whatever the others have done."""
    one, two = Process(server.url, failures=1, reset_after=30), Process(server.url, failures=1)
    server.client().set(KEY, "mine")
    with Warned():
        one.good()
        one.fails()
        one.rejected()
        server.client().delete(KEY)
        two.breaker.close()
        one.rejected()
    two.rejected()


@pytest.mark.fault(93)
def test_junk_in_the_middle_of_a_run(server: Server) -> None:
    """Each kind: the function is called, one warning, and the circuit works as before."""
    one, two = Process(server.url, failures=1), Process(server.url, failures=1)
    client = server.client()
    for kind, write in JUNK.items():
        client.delete(KEY)
        write(client)
        with Warned() as warned:
            assert one.good() == two.good() == "fine", kind
        assert len(warned.texts) == warned.of("sense") == 1, kind
        one.bad()
        two.rejected()
        two.breaker.close()
        two.good()
        one.good()


@pytest.mark.fault(93)
def test_junk_while_open_and_half_open(server: Server) -> None:
    """Mended to closed; the trial under way ends like any call."""
    one = Process(server.url, failures=1)
    client = server.client()
    one.bad()
    client.delete(KEY)
    client.hset(KEY, "v", "1")
    with Warned() as warned:
        assert one.good() == "fine"
    assert len(warned.texts) == 1
    one.bad()
    open_time_over()

    def trial() -> str:
        client.delete(KEY)
        client.hset(KEY, "v", "1")
        return "tried"

    with Warned() as warned:
        assert one.guarded(trial) == "tried"
        one.published()
        assert one.good() == "fine"
    assert len(warned.texts) == 1
    assert one.state == "closed"


def test_a_lease_that_makes_no_sense_is_no_lease(server: Server) -> None:
    """A trial's slot with junk in it is free."""
    one = Process(server.url, failures=1)
    one.bad()
    client = server.client()
    fields = {"state": "half-open", "openings": 1, "for": 300_000, "passed": 0, "failed": 0}
    client.hset(KEY, mapping={**fields, "lease": 60_000_000, "trial:x": "nan"})
    open_time_over()
    with Warned() as warned:
        assert one.good() == "fine"
    assert warned.texts == []


@pytest.mark.parametrize(
    "reply", [[], "open", [b"1"] * 7, ["0", "open", "1", "x", "0", "0", "0"], ["0"] * 8]
)
def test_a_server_that_replies_something_else(server: Server, reply: Any) -> None:
    """A reply that our script does not give is as good as none."""

    class Odd(redis.Redis):
        """It says something else, whoever is asked."""

        def evalsha(self, *args: Any) -> Any:
            return reply

    with Warned() as warned:
        assert Process(Odd.from_url(server.url), storage=impatient()).good() == "fine"
    assert warned.of("ValueError") == len(warned.texts) == 1
