"""One circuit for all: open, half open and closed for every process at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from resilience.policies import FailureRate, SlowCalls
from support import redis_server
from support.redis_server import Process, Server, open_time_over

pytestmark = pytest.mark.real

running, server = redis_server.running, redis_server.server


class Meanwhile(redis.Redis):
    """A client to which something happens once, while the reply to `op` is on its way."""

    op = ""
    meanwhile: Callable[[], Any] | None = None

    def evalsha(self, *args: Any) -> Any:
        reply = super().evalsha(*args)
        if self.op in ("", args[3]):
            happens, self.meanwhile = self.meanwhile, None
            if happens is not None:
                happens()
        return reply


# Opening


def test_failures_in_a_row_are_counted_together(server: Server) -> None:
    """Three processes with one failure each open the circuit of all of them."""
    one, two, three = (Process(server.url) for _ in range(3))
    one.bad()
    two.bad()
    three.bad()
    assert three.state == "open"
    assert 0 < one.rejected().retry_after <= 0.3
    two.rejected()


def test_a_success_in_between_ends_the_run(server: Server) -> None:
    """A success of any process, between two failures, begins the count anew."""
    one, two = Process(server.url), Process(server.url)
    one.bad()
    two.bad()
    two.good()
    two.good()  # looks first, and publishes the success before
    one.bad()
    one.good()
    assert one.state == two.state == "closed"


def test_a_rule_about_rates_trips_in_one_process_and_opens_for_all(server: Server) -> None:
    """Rates are counted by each process, and not together."""
    rule = {"failures": None, "trip": FailureRate(0.5, calls=4, minimum=4)}
    one, two = Process(server.url, **rule), Process(server.url, **rule)
    for _ in range(3):
        one.bad()
        two.bad()
    assert one.state == two.state == "closed"
    one.bad()
    assert one.state == "open"
    two.rejected()


def test_what_is_disabled_here_is_not_moved_by_others(server: Server) -> None:
    """It lets all calls through while the others reject them, and publishes nothing."""
    one, two = (Process(server.url, failures=1) for _ in range(2))
    one.breaker.disable()
    two.bad()
    assert one.good() == "fine"
    one.bad()
    assert one.state == "disabled"
    two.rejected()


def test_an_error_of_the_callers_own_is_nobodys_business(server: Server) -> None:
    """It counts nowhere, and nothing is published."""
    one = Process(server.url, failures=1)
    one.fails(ValueError("mine"))
    assert (one.state, server.asked()) == ("closed", 1)
    assert Process(server.url, failures=1).good() == "fine"


def test_in_shadow_nothing_is_shared(server: Server) -> None:
    """A breaker that is only rolled out opens for nobody else, nor do its trials."""
    one, two = Process(server.url, failures=1), Process(server.url, failures=1)
    one.breaker.shadow()
    one.bad()
    assert one.good() == two.good() == "fine"
    open_time_over()
    one.bad()
    assert one.good() == two.good() == "fine"
    assert server.field("state") is None


def test_a_trial_in_shadow_takes_no_slot(server: Server) -> None:
    """Of a circuit that others have opened, and others try."""
    one, two = Process(server.url), Process(server.url)
    one.breaker.shadow()
    two.breaker.open()
    assert one.good() == "fine"
    assert one.state == "open"
    open_time_over()
    assert one.good() == "fine"
    assert server.field("state") == "open"
    two.tried()
    assert server.field("state") == "closed"


def test_in_shadow_no_failure_is_counted_with_the_others(server: Server) -> None:
    """Nor those from before it opens."""
    one, two = Process(server.url), Process(server.url)
    one.breaker.shadow()
    one.bad()
    one.bad()
    one.good()
    two.bad()
    assert server.field("run") == "1"
    assert two.good() == "fine"


def test_breakers_without_a_name_share_one_circuit(server: Server) -> None:
    """As the page says: it may be meant."""
    one, two = Process(server.url, failures=1, name=None), Process(server.url, name=None)
    one.bad()
    two.rejected()


# Half open


def test_one_process_closes_it_for_all(server: Server) -> None:
    """After the open time a single trial decides for everybody."""
    one, two = Process(server.url, failures=1), Process(server.url, failures=1)
    one.bad()
    two.rejected()
    open_time_over()
    two.tried()
    assert two.state == "closed"
    assert one.good() == "fine"
    assert one.state == "closed"


def test_all_of_them_ramp_up(server: Server) -> None:
    """The one that closed it lets a growing share through, and so do those that find it closed."""
    one, two = (Process(server.url, failures=1, ramp=60) for _ in range(2))
    one.bad()
    two.rejected()
    open_time_over()
    one.tried()
    for process in (two, one):
        process.rejected()
        assert process.state == "closed"
        assert process.breaker.snapshot().ramp < 0.5


def test_a_trial_may_find_that_the_circuit_is_closed(server: Server) -> None:
    """Others have closed it since: the call goes on as any other, and so do all after it."""
    one, two = Process(server.url, failures=1, refresh=60), Process(server.url, failures=1)
    one.bad()
    open_time_over()
    two.tried()
    before = server.asked()
    assert one.good() == one.good() == "fine"
    assert (one.state, server.asked() - before) == ("closed", 1)


def test_a_trial_that_fails_opens_it_again_for_all(server: Server) -> None:
    """The others are rejected without having tried."""
    one, two = Process(server.url, failures=1), Process(server.url, failures=1)
    one.bad()
    open_time_over()
    two.bad()
    assert one.rejected().retry_after > 0.1


def test_a_trial_that_passes_slowly_opens_it_again(server: Server) -> None:
    """Where slow calls are bad calls."""
    rule = {"failures": None, "trip": SlowCalls(0.05, 0.5, calls=4, minimum=1)}
    one, two = (Process(server.url, **rule) for _ in range(2))
    one.breaker.open()
    open_time_over()

    def slow() -> str:
        time.sleep(0.06)
        return "tried"

    assert one.guarded(slow) == "tried"
    one.published()
    assert server.field("state") == one.state == "open"
    assert two.rejected().retry_after > 0.1


def test_while_one_tries_the_others_are_rejected(server: Server) -> None:
    """One trial at once over all processes; nobody else reaches the function."""
    one = Process(server.url, failures=1)
    others = [Process(server.url, failures=1) for _ in range(4)]
    one.bad()
    open_time_over()

    def long() -> str:
        for other in others:
            other.rejected()
        return "tried"

    assert one.guarded(long) == "tried"
    one.published()
    assert [other.good() for other in others] == ["fine"] * 4


def test_several_successes_are_counted_together(server: Server) -> None:
    """`successes=2` may be one each of two processes."""
    one, two = (Process(server.url, failures=1, successes=2) for _ in range(2))
    one.bad()
    open_time_over()
    one.tried()
    assert one.state == "half-open"
    two.tried()
    assert two.state == "closed"
    one.good()
    assert one.state == "closed"


def test_a_tolerated_trial_failure_does_not_open(server: Server) -> None:
    """`tolerate` holds over all processes."""
    options = {"failures": 1, "successes": 2, "tolerate": 0.4}
    one, two, three = (Process(server.url, **options) for _ in range(3))
    one.bad()
    open_time_over()
    one.bad()
    two.tried()
    three.tried()
    one.good()
    assert one.state == "closed"


# Late answers


def test_a_late_answer_changes_nothing(server: Server) -> None:
    """A failure from before the circuit opened and closed elsewhere is no failure of now."""
    one, two = Process(server.url, failures=1), Process(server.url, failures=1)

    def slow() -> None:
        two.bad()
        open_time_over()
        two.tried()
        raise ConnectionError("late")

    with pytest.raises(ConnectionError):
        one.guarded(slow)
    one.published()
    assert two.good() == "fine"
    assert two.state == "closed"


def test_a_failure_published_late_changes_nothing(server: Server) -> None:
    """It is from before others opened and closed the circuit."""
    one, two = Process(server.url, failures=2, refresh=60), Process(server.url, failures=2)
    one.good()
    one.fails()
    two.breaker.open()
    two.breaker.close()
    one.shared()._asked -= 4  # a fifteenth of the time between two looks
    assert one.good() == "fine"
    two.bad()
    assert two.good() == "fine"


@pytest.mark.parametrize("flushed", [False, True])
def test_a_run_ends_where_others_have_changed_the_circuit(server: Server, flushed: bool) -> None:
    """Here too, though it is closed before and after; and whatever the server has forgotten."""
    one, two = Process(server.url), Process(server.url)
    two.breaker.close()
    one.bad()
    one.bad()
    if flushed:
        server.client().flushall()
    else:
        two.breaker.open()
    two.breaker.close()
    one.bad()
    assert one.state == "closed"
    assert server.field("run") == "1"


def test_a_reply_that_is_overtaken_changes_nothing(server: Server) -> None:
    """What was asked later and answered sooner is the latest news."""
    client = Meanwhile(unix_socket_path=f"{server.folder}/s")
    one = Process(client, failures=1, refresh=60)
    two = Process(server.url, failures=1)
    one.bad()
    two.rejected()
    open_time_over()
    begun, over = threading.Event(), threading.Event()

    def trial() -> None:
        begun.set()
        assert over.wait(10)

    trying = threading.Thread(target=two.guarded, args=(trial,))
    trying.start()
    assert begun.wait(10)
    served: list[bool] = []

    def others_close() -> None:
        """While it is on its way to `one` that there is no slot."""
        over.set()
        trying.join()
        two.published()
        one.shared()._asked = None  # a minute later
        served.append(one.served())

    client.op, client.meanwhile = "enter", others_close
    one.rejected()
    assert served == [True]
    assert one.state == "closed"
    assert one.served()


def test_a_reply_is_nothing_against_a_manual_command(server: Server) -> None:
    """A command given while it was on its way holds, and is published immediately."""
    client = Meanwhile(unix_socket_path=f"{server.folder}/s")
    one, two = Process(client), Process(server.url)
    one.good()
    client.meanwhile = one.breaker.isolate
    one.rejected()
    assert one.state == "isolated"
    two.rejected()
    assert two.state == "isolated"


def test_a_reply_from_before_a_command_changes_nothing(server: Server) -> None:
    """To a question that was asked before it, and says that the circuit is open."""
    client = Meanwhile(unix_socket_path=f"{server.folder}/s")
    one, two = Process(client, refresh=60), Process(server.url, reset_after=30)
    two.breaker.open()
    client.op, client.meanwhile = "look", one.breaker.close
    assert one.good() == "fine"
    assert one.state == "closed"
    assert one.good() == two.good() == "fine"


# How long it is open


def test_a_wait_says_how_long_it_is_open_for_all(server: Server) -> None:
    """That of the process whose failure is the last, as if it had opened alone."""
    one, two = (Process(server.url, failures=2, reset_after=lambda state: 20) for _ in range(2))
    one.bad()
    two.bad()
    for process in (one, two):
        assert 10 < (process.rejected().retry_after or 0) <= 20
