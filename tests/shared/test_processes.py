"""Circuits shared by real processes: trials over all of them, a death, clocks that differ."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter

import pytest

from resilience import CircuitOpenError
from support import redis_server
from support.redis_server import KEY, PATIENT, Process, Server, until

pytestmark = pytest.mark.real

server = redis_server.own_server

BEGINNING = f"""
    import logging, os, sys, time
    import redis
    from resilience import CircuitBreaker, CircuitOpenError, resilient
    from resilience.shared import RedisCircuit

    logging.getLogger("resilience").addHandler(logging.NullHandler())  # what fails is meant to
    url = sys.argv[1]
    client = redis.Redis.from_url(url, decode_responses=True)

    def breaker(**options):
        return CircuitBreaker(
            **{{"failures": 1, "reset_after": 0.3, "refresh": 0.01, "name": "llm", **options}},
            storage=RedisCircuit(url, prefix="app", timeout={PATIENT}, lease=30),
        )
"""


AS_MANY = """
    children = []
    for _ in range({copies}):
        children.append(os.fork())
        if children[-1] == 0:
            break
    if children[-1]:
        sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
"""


def program(server: Server, code: str, *, copies: int = 0) -> subprocess.Popen[str]:
    """A process which runs `code` with a breaker at hand; or so many that it forks first."""
    parts = [BEGINNING, AS_MANY.format(copies=copies) if copies else "", code]
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", "".join(map(textwrap.dedent, parts)), server.url],
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(*programs: subprocess.Popen[str]) -> None:
    """All of them come to a good end."""
    for each in programs:
        _, errors = each.communicate(timeout=50)
        assert each.returncode == 0, errors


@pytest.mark.fault(95)
def test_exactly_the_trials_over_eight_processes(server: Server) -> None:
    """In each half-open window two trials, whoever makes them, and never a third."""
    code = """
    @resilient(breaker(trials=2))
    def trial():
        window = client.hget("app:circuit1:llm:~", "gen")
        client.rpush("trials:" + window, os.getpid())
        end = time.monotonic() + 10
        while client.llen("trials:" + window) < 2 and time.monotonic() < end:
            time.sleep(0.002)
        time.sleep(0.05)  # long enough for a third, if there were a slot for it
        client.sadd("windows", window)
        raise ConnectionError("still down")

    client.incr("ready")
    while client.scard("windows") < 6:
        try:
            trial()
        except (ConnectionError, CircuitOpenError):
            time.sleep(0.002)
    """
    first = Process(server.url, failures=1)
    first.breaker.open()
    first.rejected()
    ended(program(server, code, copies=8))
    client = server.client()
    windows = {name: client.lrange(name, 0, -1) for name in client.scan_iter("trials:*")}
    assert len(windows) >= 6
    assert Counter(len(trials) for trials in windows.values()) == {2: len(windows)}
    assert len({pid for trials in windows.values() for pid in trials}) > 1


@pytest.mark.fault(95)
def test_the_slot_of_a_killed_process_is_free_after_its_lease(server: Server) -> None:
    """kill -9 while it tries: others are rejected until the lease ends, and then try themselves."""
    code = """
    @resilient(breaker(trial_timeout=1.0))
    def trial():
        client.set("trying", 1)
        time.sleep(60)

    while True:
        try:
            trial()
        except CircuitOpenError:
            time.sleep(0.01)
    """
    one = Process(server.url, failures=1, trial_timeout=1.0)
    one.breaker.open()
    one.rejected()
    doomed = program(server, code)
    client = server.client()
    until(lambda: client.get("trying"), 30)
    (lease,) = [name for name in client.hgetall(KEY) if name.startswith("trial:")]
    os.kill(doomed.pid, signal.SIGKILL)
    doomed.communicate(timeout=10)
    seconds, micro = client.time()
    left = int(client.hget(KEY, lease)) / 1e6 - (seconds + micro / 1e6)
    began = time.monotonic()
    rejected = 0
    while True:
        try:
            assert one.good() == "fine"
            break
        except CircuitOpenError:
            rejected += 1
            assert time.monotonic() - began < left + 5
            time.sleep(0.005)
    assert time.monotonic() - began > left - 0.1
    assert rejected > 0
    assert one.state == "closed"


def test_the_isolation_of_a_killed_process_ends_with_close(server: Server) -> None:
    """kill -9 while it isolates: nobody knows whether it was meant to last, until `close()`."""
    code = """
    one = breaker()
    held = one.isolate()
    client.set("isolated", 1)
    time.sleep(60)
    """
    one, two = Process(server.url), Process(server.url)
    doomed = program(server, code)
    until(lambda: server.client().get("isolated"), 30)
    os.kill(doomed.pid, signal.SIGKILL)
    doomed.communicate(timeout=10)
    with one.breaker.isolate():
        pass
    one.rejected()
    two.breaker.close()
    assert one.good() == two.good() == "fine"


def test_a_child_does_not_release_what_its_parent_isolates(server: Server) -> None:
    """A block that isolates, around a fork: it is left twice, and ends when the parent leaves."""
    code = """
    one = breaker()
    with one.isolate():
        child = os.fork()
        if child:
            assert os.waitpid(child, 0)[1] == 0
            client.set("left", 1)
            while client.get("left") == "1":
                time.sleep(0.01)
    if not child:
        os._exit(0)
    """
    one = Process(server.url)
    other = program(server, code)
    client = server.client()
    until(lambda: client.get("left"), 30)
    one.rejected()
    client.set("left", 2)
    ended(other)
    assert one.good() == "fine"


@pytest.mark.parametrize(
    "way", ["a command in a loop", "a failure", "one of several failures", "a failure, no threads"]
)
def test_a_program_may_end_right_after_it(server: Server, way: str) -> None:
    """It is published before the interpreter ends; by itself, if no thread can be had."""
    code = """
    import asyncio

    @resilient(breaker(failures={failures}, refresh=60, reset_after=30))
    def call():
        raise ConnectionError("down")

    async def main():
        breaker().isolate()

    def start(self):
        raise RuntimeError("can't start new thread")

    if {no_threads}:
        import threading
        threading.Thread.start = start
    {act}
    """
    act = "asyncio.run(main())" if way == "a command in a loop" else "call()"
    failures = 2 if way == "one of several failures" else 1
    no_threads = way.endswith("no threads")
    ending = program(server, code.format(act=act, failures=failures, no_threads=no_threads))
    _, errors = ending.communicate(timeout=50)
    assert ("ConnectionError" in errors) == (act == "call()")
    one = Process(server.url, failures=2)
    if failures == 2:
        one.bad()
    one.rejected()


def test_a_program_that_ends_while_the_server_hangs_waits_for_a_second(server: Server) -> None:
    """And no longer, whatever the time limit of its calls."""
    code = """
    from pathlib import Path

    folder = Path(url.removeprefix("unix://")).parent

    @resilient(breaker(refresh=60))
    def call(error=None):
        if error:
            raise error

    call()
    (folder / "ready").touch()
    while not (folder / "go").exists():
        time.sleep(0.01)
    try:
        call(ConnectionError("down"))
    except ConnectionError:
        pass
    """
    ending = program(server, code)
    until((server.folder / "ready").exists, 30)
    server.hang()
    began = time.monotonic()
    (server.folder / "go").touch()
    ended(ending)
    assert 0.9 < time.monotonic() - began < PATIENT - 1


@pytest.mark.fault(98)
def test_clocks_that_differ_make_no_difference(server: Server) -> None:
    """Ten minutes before and behind: open as long as here, and tried when here it is tried."""
    code = """
    offset = {offset}
    real, real_ns = time.time, time.time_ns
    time.time = lambda: real() + offset
    time.time_ns = lambda: real_ns() + int(offset * 1e9)

    @resilient(breaker(reset_after=20))
    def call():
        raise ConnectionError("down")

    try:
        call()
    except CircuitOpenError as rejection:
        client.rpush("left", rejection.retry_after)
    """
    one = Process(server.url, failures=1, reset_after=20)
    one.bad()
    ended(*[program(server, code.format(offset=offset)) for offset in (600, -600)])
    here = one.rejected().retry_after
    left = [float(each) for each in server.client().lrange("left", 0, -1)]
    assert len(left) == 2
    assert here is not None
    assert all(here - 0.1 <= each <= 20 for each in left)


@pytest.mark.fault(91, 92, 97)
def test_a_bad_minute_for_eight_processes(server: Server) -> None:
    """Killed, hung, restarted, flushed and filled with junk: each call gets its own answer."""
    code = """
    import warnings
    warnings.simplefilter("ignore")
    storage = RedisCircuit(url, prefix="app", timeout=0.05, back_off=0.1)
    guarded = resilient(CircuitBreaker(name="llm", reset_after=0.05, refresh=0.01, failures=3,
                                       storage=storage))

    @guarded
    def call(number):
        if number % 7 < 3:
            raise ConnectionError(number)
        return number

    os.write(2, b"ready\\n")  # in one go: eight of them write to one pipe
    number = slowest = 0
    while not os.path.exists(sys.argv[1].removeprefix("unix://") + ".done"):
        number += 1
        began = time.monotonic()
        try:
            assert call(number) == number and number % 7 >= 3
        except CircuitOpenError:
            pass
        except ConnectionError as error:
            assert error.args == (number,) and number % 7 < 3
        slowest = max(slowest, time.monotonic() - began)
        time.sleep(0.001)
    assert number > 50, number
    assert slowest < 1.5, slowest
    """
    eight = program(server, code, copies=8)
    try:
        assert eight.stderr is not None
        assert [eight.stderr.readline() for _ in range(8)] == ["ready\n"] * 8
        for _ in range(2):
            time.sleep(0.2)
            server.client().flushall()
            server.client().set(KEY, b"\xff not ours")
            time.sleep(0.2)
            server.hang()
            time.sleep(0.4)
            server.wake()
            time.sleep(0.2)
            server.client().delete(KEY)
            server.client().hset(KEY, mapping={"v": 1, "state": "open", "gen": "nan"})
            time.sleep(0.1)
            server.stop()
            time.sleep(0.3)
            server.start()
            time.sleep(0.2)
    finally:
        (server.folder / "s.done").touch()
    ended(eight)
