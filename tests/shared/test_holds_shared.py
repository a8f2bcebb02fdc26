"""Holds that processes share through Redis or Valkey: known at once, nothing asked when healthy."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from resilience import Hold, Retry, recording
from resilience.events import HoldBegan
from resilience.shared import RedisLimit
from support import redis_server
from support.limits import Told, under
from support.redis_server import Warned, until

pytestmark = [pytest.mark.real]
own_server = redis_server.own_server


def hold(source: Any, **options: Any) -> Hold:
    """As of another process: with connections of its own."""
    shared = RedisLimit(source, prefix="app", timeout=5.0, back_off=0.2)
    given: dict[str, Any] = {"key": "model", "name": "llm", "storage": shared, **options}
    return Hold(**given)


def told(policy: Hold, model: Any = "m", seconds: float = 10) -> None:
    def refused(*, model: Any) -> None:
        raise Told(seconds)

    with pytest.raises(Told):
        under(policy).call(refused, model=model)


def heard(policy: Hold, seconds: float = 5.0) -> float:
    """How long it takes until it knows of a hold."""
    began = time.monotonic()
    until(policy.held, seconds)
    return time.monotonic() - began


def listens(server: redis_server.Server, policy: Hold, number: int) -> Any:
    """A first call, after which it listens: so many do by then."""
    pipeline = under(Retry(), policy)
    assert pipeline.call(lambda *, model: model, model="m") == "m"
    client = server.client()
    until(lambda: sum(n for _, n in client.pubsub_numsub("{app:hold1:llm:~}:news")) == number)
    return pipeline


@pytest.mark.fault(368)
def test_the_others_know_within_a_second(own_server: redis_server.Server) -> None:
    """Each by its key; and whoever comes later knows, too."""
    one, other = hold(own_server.url), hold(own_server.url)
    listens(own_server, one, 1)
    pipeline = listens(own_server, other, 2)
    with recording(HoldBegan) as events:
        told(one)
        assert heard(other) < 1
    assert other.held() == {"m": pytest.approx(10, abs=0.5)}
    assert {event.failure is None for event in events} == {True, False}
    assert pipeline.call(lambda *, model: model, model="another") == "another"
    told(one, ("a", 1), 20)
    until(lambda: len(other.held()) == 2)
    assert set(other.held()) == {"m", ("a", 1)}
    late = hold(own_server.url)
    listens_late = under(late)
    listens_late.call(lambda *, model: model, model="n")
    until(lambda: len(late.held()) == 2)
    assert late.held()["m"] <= 10


def test_a_healthy_call_asks_nothing_and_is_at_rest(own_server: redis_server.Server) -> None:
    """Once the process listens."""
    pipeline = listens(own_server, hold(own_server.url), 1)
    assert pipeline._idle.period is not None
    until(
        lambda: "cmdstat_eval" in own_server.client().info("commandstats")
    )  # it has read the rest
    before = own_server.client().info("stats")["total_commands_processed"]
    for _ in range(1000):
        pipeline.call(lambda *, model: model, model="m")
    after = own_server.client().info("stats")["total_commands_processed"]
    assert after - before <= 4  # those of this very test


@pytest.mark.fault(91, 101)
def test_a_server_that_is_lost_and_comes_back(own_server: redis_server.Server) -> None:
    """Meanwhile each process holds by itself; then they hear of one another again."""
    one, other = hold(own_server.url), hold(own_server.url)
    listens(own_server, one, 1)
    listens(own_server, other, 2)
    own_server.stop()
    with Warned() as warned:
        told(one, "alone")
        until(lambda: warned.of("x") >= 0 and one.storage._server.lost)
    assert set(one.held()) == {"alone"}
    assert other.held() == {}
    own_server.start()
    client = own_server.client()
    until(lambda: sum(n for _, n in client.pubsub_numsub("{app:hold1:llm:~}:news")) == 2)
    time.sleep(0.3)  # the back-off
    told(other)
    assert heard(other) < 1
    until(lambda: "m" in one.held())


@pytest.mark.fault(93)
def test_what_lies_under_the_key_and_is_not_ours(own_server: redis_server.Server) -> None:
    """Is left as it is."""
    own_server.client().set("{app:hold1:llm:~}", "somebody's")
    with Warned():
        one = hold(own_server.url)
        told(one)
        until(lambda: own_server.asked() > 0)
        assert one.held()
    assert own_server.client().get("{app:hold1:llm:~}") == "somebody's"


def test_a_key_that_nobody_else_could_know_is_not_told(own_server: redis_server.Server) -> None:
    """It holds in this process."""
    one = hold(own_server.url)
    thing = object()
    told(one, thing)
    assert set(one.held()) == {thing}
    assert own_server.client().keys("*") == []


@pytest.mark.fault(23, 102)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_listens_by_itself(own_server: redis_server.Server) -> None:
    """From its first call on."""
    code = """
import os, sys, time
from resilience import Hold, Pipeline
from resilience.shared import RedisLimit
hold = Hold(name="llm", storage=RedisLimit(sys.argv[1], prefix="app", timeout=5))
pipeline = Pipeline(hold)
pipeline.call(lambda: 1)
child = os.fork()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
assert pipeline._idle.period is None
pipeline.call(lambda: 1)
print("ready", flush=True)
end = time.monotonic() + 10
while not hold.held() and time.monotonic() < end:
    time.sleep(0.005)
os._exit(0 if hold.held() else 1)
"""
    program = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, own_server.url],
        stdout=subprocess.PIPE,
        text=True,
        # Not measured: coverage's lock may be held by the parent's thread as it forks.
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")},
            "PYTHONPATH": str(Path(__file__).parents[2] / "src"),
        },
    )
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        client = own_server.client()
        until(lambda: sum(n for _, n in client.pubsub_numsub("{app:hold1:llm:~}:news")) >= 2)
        one = hold(own_server.url, key=None)
        with pytest.raises(Told):
            under(one).call(_refused)
        assert program.wait(20) == 0
    finally:
        program.kill()
        program.communicate()


def _refused() -> None:
    raise Told(10)


def test_a_hold_that_is_gone_leaves_no_thread(own_server: redis_server.Server) -> None:
    """Its listener ends by itself."""
    others = threading.enumerate()
    one = hold(own_server.url)
    listens(own_server, one, 1)
    (listener,) = [
        each
        for each in threading.enumerate()
        if each not in others and each.name == "resilience-holds"
    ]
    del one
    gc.collect()  # a pipeline is part of a cycle
    listener.join(10)
    assert not listener.is_alive()
    client = own_server.client()
    until(lambda: sum(n for _, n in client.pubsub_numsub("{app:hold1:llm:~}:news")) == 0)
