"""Advice: only the news that a circuit has opened is shared, and manual commands."""

from __future__ import annotations

from typing import Any

import pybreaker
import pytest

from support import redis_server
from support.redis_server import Process, Server, open_time_over

pytestmark = pytest.mark.real

running, server = redis_server.running, redis_server.server

ADVICE = {"advisory": True}


def test_advice_opens_the_others_once_and_each_closes_for_itself(server: Server) -> None:
    """They stay away as long as the first does, then try for themselves."""
    one, two = (Process(server.url, failures=1, storage=ADVICE) for _ in range(2))
    one.bad()
    two.rejected()
    open_time_over()
    assert two.good() == "fine"
    assert (one.state, two.state) == ("open", "closed")
    one.bad()  # its own trial: a single bad process does not keep the others away
    assert two.good() == "fine"
    one.rejected()


def test_advice_is_out_of_date_after_the_open_time(server: Server) -> None:
    """Who learns of it only then does not open for it."""

    class Listener(pybreaker.CircuitBreakerListener):
        def state_change(self, cb: Any, old: Any, new: Any) -> None:
            changes.append(new.name)

    changes: list[str] = []
    one = Process(server.url, failures=1, storage=ADVICE)
    two = Process(server.url, failures=1, storage=ADVICE, listeners=[Listener()])
    one.bad()
    open_time_over()
    assert two.good() == two.good() == "fine"
    assert changes == []


def test_advice_counts_no_failures_together(server: Server) -> None:
    """Each process has its own opinion."""
    one, two = (Process(server.url, failures=2, storage=ADVICE) for _ in range(2))
    one.bad()
    two.bad()
    assert one.good() == two.good() == "fine"


def test_isolating_holds_for_all(server: Server) -> None:
    """It is for an operator, and reaches everybody."""
    one, two = (Process(server.url, storage=ADVICE) for _ in range(2))
    one.breaker.isolate()
    one.rejected()
    two.rejected()
    one.breaker.close()
    one.good()
    assert two.good() == "fine"


def test_isolations_are_counted_with_advice_too(server: Server) -> None:
    """Each and its end; and a circuit that others open is open here."""
    one, two, three = (Process(server.url, storage=ADVICE) for _ in range(3))
    first, second = one.breaker.isolate(), two.breaker.isolate()
    first.release()
    three.rejected()
    assert three.state == "isolated"
    second.release()
    assert three.good() == one.good() == "fine"
    two.breaker.isolate()
    three.rejected()
    one.breaker.open()
    three.rejected()
    assert three.state == "open"


def test_advice_does_not_end_an_isolation(server: Server) -> None:
    """Of a process that has not looked yet, and finds the service failing."""
    one, two, three = (
        Process(server.url, refresh=60, failures=1, storage=ADVICE) for _ in range(3)
    )
    one.good()
    two.breaker.isolate()
    one.bad()
    three.rejected()
    assert three.state == "isolated"


def test_a_trial_needs_no_slot_of_the_server(server: Server) -> None:
    """Each process tries for itself, at the same time as others."""
    one, two = (Process(server.url, failures=1, storage=ADVICE) for _ in range(2))
    one.bad()
    two.rejected()
    open_time_over()

    def trial() -> str:
        assert two.good() == "fine"
        return "tried"

    assert one.guarded(trial) == "tried"
    assert one.state == two.state == "closed"
