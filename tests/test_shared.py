"""Circuits shared through a real server, by several breakers of one process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from enum import Enum
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest
import redis
import redis.asyncio
import trio

from redis_server import Server
from resilience import CircuitBreaker, CircuitOpenError, WorkersBusyError, resilient
from resilience._runtimes import workers
from resilience._shared.keys import key_name
from resilience._shared.script import script
from resilience.policies import FailureRate
from resilience.shared import RedisCircuit

PATIENT = 5.0  # seconds: on a busy machine the server may take its time


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    """One server for all tests of this module."""
    server = Server()
    yield server
    server.close()


@pytest.fixture
def server(running: Server) -> Server:
    """The server, empty but for our script, which it would be sent with the first question."""
    running.client().flushall()
    running.client().script_load(script.text)
    running.client().config_resetstat()
    return running


class Process:
    """What stands for a process: a breaker with a link of its own."""

    def __init__(self, source: Any, *, link: dict[str, Any] | None = None, **options: Any) -> None:
        options = {"failures": 3, "reset_after": 0.3, "refresh": 0.0, "name": "llm", **options}
        storage = RedisCircuit(source, **{"prefix": "app", "timeout": PATIENT, **(link or {})})
        self.breaker = CircuitBreaker(storage=storage, **options)
        self.guarded = resilient(self.breaker)(self._do)
        self.guarded_async = resilient(self.breaker)(self._do_async)

    def _do(self, result: Any = "fine", **kwargs: Any) -> Any:
        if isinstance(result, Exception):
            raise result
        return result() if callable(result) else result

    async def _do_async(self, result: Any = "fine", **kwargs: Any) -> Any:
        if isinstance(result, Exception):
            raise result
        return await result() if callable(result) else result

    @property
    def state(self) -> str:
        return self.breaker.state

    def good(self) -> Any:
        return self.guarded()

    def bad(self, **kwargs: Any) -> None:
        with pytest.raises(ConnectionError):
            self.guarded(ConnectionError("down"), **kwargs)

    def served(self, **kwargs: Any) -> bool:
        """Whether a call is let through."""
        try:
            return bool(self.guarded(**kwargs) == "fine")
        except CircuitOpenError:
            return False

    def refused(self) -> CircuitOpenError:
        with pytest.raises(CircuitOpenError) as refusal:
            self.guarded()
        return refusal.value


def until(true: Callable[[], Any], seconds: float = 10.0) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never became true"
        time.sleep(0.005)


# One circuit


@pytest.mark.real
def test_failures_in_a_row_are_counted_together(server: Server) -> None:
    """Three processes with one failure each open the circuit of all of them."""
    one, two, three = (Process(server.url) for _ in range(3))
    one.bad()
    two.bad()
    three.bad()
    assert three.state == "open"
    assert 0 < one.refused().retry_after <= 0.3
    two.refused()


@pytest.mark.real
def test_a_success_in_between_ends_the_run(server: Server) -> None:
    """A success told of by any process, between two failures, begins the count anew."""
    one, two = Process(server.url), Process(server.url)
    one.bad()
    two.bad()
    two.good()
    two.good()  # looks first, and tells of the success before
    one.bad()
    one.good()
    assert one.state == two.state == "closed"


@pytest.mark.real
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
    two.refused()


@pytest.mark.real
def test_one_process_closes_it_for_all(server: Server) -> None:
    """After the open time a single trial decides for everybody."""
    one, two = Process(server.url, failures=1), Process(server.url, failures=1)
    one.bad()
    two.refused()
    time.sleep(0.31)
    assert two.good() == "fine"
    assert two.state == "closed"
    assert one.good() == "fine"
    assert one.state == "closed"


@pytest.mark.real
def test_all_of_them_ramp_up(server: Server) -> None:
    """The one that closed it lets a growing share through, and so do those that hear of it."""
    one, two = (Process(server.url, failures=1, ramp=60) for _ in range(2))
    one.bad()
    two.refused()
    time.sleep(0.31)
    one.good()
    for process in (two, one):
        process.refused()
        assert process.state == "closed"
        assert process.breaker.snapshot().ramp < 0.5


@pytest.mark.real
def test_what_is_disabled_here_is_not_moved_by_others(server: Server) -> None:
    """It lets all calls through while the others refuse them, and tells nothing."""
    one, two = (Process(server.url, failures=1) for _ in range(2))
    one.breaker.disable()
    two.bad()
    assert one.good() == "fine"
    one.bad()
    assert one.state == "disabled"
    two.refused()


@pytest.mark.real
def test_who_wants_to_try_may_hear_that_it_is_closed(server: Server) -> None:
    """Others have closed it since: the call goes on as any other, and so do all after it."""
    one, two = Process(server.url, failures=1, refresh=60), Process(server.url, failures=1)
    one.bad()
    time.sleep(0.31)
    assert two.good() == "fine"
    before = server.asked()
    assert one.good() == one.good() == "fine"
    assert (one.state, server.asked() - before) == ("closed", 1)


@pytest.mark.real
def test_an_error_of_the_callers_own_is_nobodys_business(server: Server) -> None:
    """It counts nowhere, and nothing is told of it."""
    one = Process(server.url, failures=1)
    with pytest.raises(ValueError, match="mine"):
        one.guarded(ValueError("mine"))
    assert (one.state, server.asked()) == ("closed", 1)
    assert Process(server.url, failures=1).good() == "fine"


@pytest.mark.real
def test_a_wait_says_how_long_it_is_open_for_all(server: Server) -> None:
    """That of the process whose failure is the last, as if it had opened alone."""
    one, two = (Process(server.url, failures=2, reset_after=lambda state: 20) for _ in range(2))
    one.bad()
    two.bad()
    for process in (one, two):
        assert 10 < (process.refused().retry_after or 0) <= 20


class Meanwhile(redis.Redis):
    """A client to which something happens once, while an answer is on its way back."""

    meanwhile: Callable[[], Any] | None = None

    def evalsha(self, *args: Any) -> Any:
        answer = super().evalsha(*args)
        happens, self.meanwhile = self.meanwhile, None
        if happens is not None:
            happens()
        return answer


@pytest.mark.real
def test_an_answer_that_is_overtaken_changes_nothing(server: Server) -> None:
    """What was asked later and heard sooner is the latest news."""
    client = Meanwhile(unix_socket_path=f"{server.folder}/s")
    one, two = Process(client, failures=1), Process(server.url, failures=1, reset_after=60)
    one.good()

    def opens() -> None:
        two.bad()
        one.refused()

    client.meanwhile = opens
    one.refused()
    assert one.state == "open"


@pytest.mark.real
def test_an_answer_is_nothing_against_a_hand(server: Server) -> None:
    """What was done while it was on its way holds, and is told at once."""
    client = Meanwhile(unix_socket_path=f"{server.folder}/s")
    one, two = Process(client), Process(server.url)
    one.good()
    client.meanwhile = one.breaker.isolate
    one.refused()
    assert one.state == "isolated"
    two.refused()
    assert two.state == "isolated"


@pytest.mark.real
def test_a_place_may_be_given_back_without_a_thread(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all workers are taken it runs out by itself; the call ends as it would."""
    one = Process(server.url, failures=1, link={"lease": 0.5})
    two = Process(server.url, failures=1)
    one.bad()
    time.sleep(0.31)
    monkeypatch.setattr(workers, "LIMIT", 8)
    workers._renew()
    done = threading.Event()

    def take_all() -> None:
        while True:
            workers.start(done.wait)

    def trial() -> None:
        with pytest.raises(WorkersBusyError):
            take_all()
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        one.guarded(trial)
    done.set()
    workers._renew()
    two.refused()
    until(two.served)


@pytest.mark.real
def test_a_trial_that_fails_opens_it_again_for_all(server: Server) -> None:
    """The others hear of it without having tried."""
    one, two = Process(server.url, failures=1), Process(server.url, failures=1)
    one.bad()
    time.sleep(0.31)
    two.bad()
    assert one.refused().retry_after > 0.1


@pytest.mark.real
def test_while_one_tries_the_others_are_refused(server: Server) -> None:
    """One trial at once over all processes; nobody else reaches the function."""
    one = Process(server.url, failures=1)
    others = [Process(server.url, failures=1) for _ in range(4)]
    one.bad()
    time.sleep(0.31)

    def long() -> str:
        for other in others:
            other.refused()
        return "tried"

    assert one.guarded(long) == "tried"
    assert [other.good() for other in others] == ["fine"] * 4


@pytest.mark.real
def test_several_successes_are_counted_together(server: Server) -> None:
    """`successes=2` may be one each of two processes."""
    one, two = (Process(server.url, failures=1, successes=2) for _ in range(2))
    one.bad()
    time.sleep(0.31)
    one.good()
    assert one.state == "half-open"
    two.good()
    assert two.state == "closed"
    one.good()
    assert one.state == "closed"


@pytest.mark.real
def test_a_tolerated_trial_failure_does_not_open(server: Server) -> None:
    """`tolerate` holds over all processes."""
    options = {"failures": 1, "successes": 2, "tolerate": 0.4}
    one, two, three = (Process(server.url, **options) for _ in range(3))
    one.bad()
    time.sleep(0.31)
    one.bad()
    two.good()
    three.good()
    one.good()
    assert one.state == "closed"


@pytest.mark.real
def test_by_hand_holds_for_all(server: Server) -> None:
    """`isolate()` and `close()` of one process reach the others."""
    one, two = Process(server.url), Process(server.url)
    one.breaker.isolate()
    one.refused()
    two.refused()
    assert two.state == "isolated"
    one.breaker.close()
    one.good()
    assert two.good() == "fine"
    one.breaker.open()
    one.refused()
    two.refused()
    two.breaker.close()
    two.good()
    assert one.good() == "fine"


@pytest.mark.real
def test_an_isolation_survives_a_flush(server: Server) -> None:
    """Whoever holds it says so again."""
    one, two = Process(server.url), Process(server.url)
    one.breaker.isolate()
    one.refused()
    server.client().flushall()
    one.refused()
    one.refused()
    two.refused()


@pytest.mark.real
def test_a_late_answer_changes_nothing(server: Server) -> None:
    """A failure from before the circuit opened and closed elsewhere is no failure of now."""
    one, two = Process(server.url, failures=1), Process(server.url, failures=1)

    def slow() -> None:
        two.bad()
        time.sleep(0.31)
        two.good()
        raise ConnectionError("late")

    with pytest.raises(ConnectionError):
        one.guarded(slow)
    assert two.good() == "fine"
    assert two.state == "closed"


@pytest.mark.real
def test_in_shadow_nothing_is_shared(server: Server) -> None:
    """A breaker that is only rolled out opens for nobody else."""
    one, two = Process(server.url, failures=1), Process(server.url, failures=1)
    one.breaker.shadow()
    one.bad()
    assert one.good() == "fine"
    assert two.good() == "fine"


@pytest.mark.real
@pytest.mark.parametrize("kind", ["url", "asyncio client"])
def test_a_cancelled_trial_gives_its_place_back(server: Server, kind: str) -> None:
    """At once, and not only when its lease ends."""
    source: Any = server.url
    if kind == "asyncio client":
        source = redis.asyncio.Redis(unix_socket_path=f"{server.folder}/s")
    one, two = Process(source, failures=1), Process(server.url, failures=1)
    one.bad()
    time.sleep(0.31)

    async def main() -> None:
        begun = asyncio.Event()

        async def hangs() -> None:
            begun.set()
            await asyncio.sleep(60)

        task = asyncio.ensure_future(one.guarded_async(hangs))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        if kind == "asyncio client":
            await source.aclose()

    asyncio.run(main())
    until(two.served)
    assert two.state == "closed"


@pytest.mark.real
@pytest.mark.parametrize("world", ["sync", "asyncio", "trio"])
@pytest.mark.parametrize("kind", ["url", "sync client", "asyncio client"])
def test_every_client_in_every_world(server: Server, world: str, kind: str) -> None:
    """Opening, refusing and closing, whatever is given and wherever it is called."""
    source: Any = server.url
    if kind == "sync client":
        source = server.client()
    elif kind == "asyncio client":
        source = redis.asyncio.Redis(unix_socket_path=f"{server.folder}/s")
    one, other = Process(source, failures=1), Process(server.url, failures=1)

    async def told() -> None:
        with pytest.raises(ConnectionError):
            await one.guarded_async(ConnectionError("down"))
        with pytest.raises(CircuitOpenError):
            await one.guarded_async()
        sleep = trio.sleep if world == "trio" else asyncio.sleep
        await sleep(0.31)
        assert await one.guarded_async() == "fine"
        if kind == "asyncio client" and world == "asyncio":
            await source.aclose()

    if world == "sync":
        one.bad()
        one.refused()
        other.refused()
        time.sleep(0.31)
        assert one.good() == "fine"
    else:
        (asyncio.run if world == "asyncio" else trio.run)(told if world == "trio" else told())
    assert one.state == "closed"
    assert server.client().hget("app:circuit1:llm:~", "state") == "closed"
    assert other.good() == "fine"


@pytest.mark.real
def test_an_asyncio_client_serves_several_loops(server: Server) -> None:
    """On its own loop directly; in another, and in a sync call, by a sync twin."""
    client = redis.asyncio.Redis(unix_socket_path=f"{server.folder}/s")
    one = Process(client)

    async def call() -> Any:
        return await one.guarded_async()

    async def first() -> None:
        assert await one.guarded_async() == "fine"
        await client.aclose()

    asyncio.run(first())
    assert asyncio.run(call()) == "fine"
    assert one.good() == "fine"
    assert server.asked() == 3


@pytest.mark.real
@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("loop", [True, False])
def test_fault_094_however_the_client_reads(
    server: Server, decode: bool, protocol: int, loop: bool
) -> None:
    """`decode_responses` either way, RESP2 and RESP3."""
    kind = redis.asyncio.Redis if loop else redis.Redis
    client = kind(unix_socket_path=f"{server.folder}/s", decode_responses=decode, protocol=protocol)
    one = Process(client, failures=1)

    async def main() -> None:
        with pytest.raises(ConnectionError):
            await one.guarded_async(ConnectionError("down"))
        if loop:
            await client.aclose()

    asyncio.run(main())
    Process(server.url).refused()


@pytest.mark.real
@pytest.mark.parametrize("package", [each for each in ("redis", "valkey") if find_spec(each)])
def test_a_sync_client_of_valkey_will_do(server: Server, package: str) -> None:
    """It has the methods of redis-py's, and of its errors those names that matter."""
    client = import_module(package).StrictRedis(unix_socket_path=f"{server.folder}/s")
    one = Process(client, failures=1)
    server.client().script_flush()
    one.bad()
    Process(server.url).refused()


@pytest.mark.real
def test_breakers_without_a_name_share_one_circuit(server: Server) -> None:
    """As the page says: it may be meant."""
    one, two = Process(server.url, failures=1, name=None), Process(server.url, name=None)
    one.bad()
    two.refused()


@pytest.mark.real
def test_fault_094_a_cluster() -> None:
    """A client of a cluster finds the slot of a circuit, whatever its names are."""
    server = Server("--cluster-enabled", "yes", tcp=True)
    try:
        server.client().execute_command("CLUSTER", "ADDSLOTS", *range(16384))
        until(lambda: server.client().cluster("info")["cluster_state"] == "ok")
        client = redis.RedisCluster(host="127.0.0.1", port=server.port)
        one = Process(client, failures=1, name="{a}:*", key="model")
        one.bad(model="{b}")
        with pytest.raises(CircuitOpenError):
            Process(client, failures=1, name="{a}:*", key="model").guarded(model="{b}")
        client.close()
    finally:
        server.close()


# Keys


@pytest.mark.real
def test_a_keyed_breaker_shares_each_circuit(server: Server) -> None:
    """One RedisCircuit serves all keys, odd ones too."""
    one = Process(server.url, failures=1, key="model")
    two = Process(server.url, failures=1, key="model")
    names = ["a", "", "ä:{*}", "x" * 10_000, ("a", 1), None, 7]
    for name in names[::2]:
        one.bad(model=name)
    for index, name in enumerate(names):
        if index % 2:
            assert two.guarded(model=name) == "fine"
        else:
            with pytest.raises(CircuitOpenError):
                two.guarded(model=name)


class _Model(str, Enum):
    SMALL = "small"


class _Size(Enum):
    SMALL = "small"


def test_fault_080_no_two_circuits_have_one_name() -> None:
    """Whatever is in a name or a key's value; equal values have equal names."""
    parts = ["", "a", "a:b", "b", "{a}", "*", "~", "ä", "\ud800", "x" * 10_000, "1", None, 1, 1.5]
    parts += [b"a", ("a",), ("a", "b"), (("a",), "b"), frozenset("ab"), _Size.SMALL, float("nan")]
    parts += [(), (None,), (None, "a"), ("",), frozenset([None])]
    texts = [part for part in parts if isinstance(part, str)] + [None]
    names = {
        (name, index): key_name("p", name, parts[index])
        for name in texts
        for index in range(len(parts))
    }
    assert len(set(names.values())) == len(names)
    assert all(len(name) < 200 and name.isascii() for name in names.values())
    assert key_name("p", "n", 1) == key_name("p", "n", 1.0) == key_name("p", "n", True)
    small = key_name("p", "n", "small")
    assert key_name("p", "n", _Model.SMALL) == small == "p:circuit1:n:small"


def test_a_key_that_others_could_not_name_is_refused() -> None:
    """An object's address means nothing elsewhere."""
    one = Process("redis://127.0.0.1:1", key="model", link={"timeout": 0.05})
    with pytest.raises(TypeError, match="needs a key of text, numbers or tuples of them"):
        one.guarded(model=object())


# Advice


@pytest.mark.real
def test_advice_opens_the_others_once_and_each_closes_for_itself(server: Server) -> None:
    """They stay away as long as the first does, then try for themselves."""
    advice = {"advisory": True}
    one, two = (Process(server.url, failures=1, link=advice) for _ in range(2))
    one.bad()
    two.refused()
    time.sleep(0.31)
    assert two.good() == "fine"
    assert (one.state, two.state) == ("open", "closed")
    one.bad()  # its own trial: a single bad process does not keep the others away
    assert two.good() == "fine"
    one.refused()


@pytest.mark.real
def test_advice_counts_no_failures_together(server: Server) -> None:
    """Each process has its own opinion."""
    one, two = (Process(server.url, failures=2, link={"advisory": True}) for _ in range(2))
    one.bad()
    two.bad()
    assert one.good() == two.good() == "fine"


@pytest.mark.real
def test_advice_by_hand_holds_for_all(server: Server) -> None:
    """Isolating is for an operator, and reaches everybody."""
    one, two = (Process(server.url, link={"advisory": True}) for _ in range(2))
    one.breaker.isolate()
    one.refused()
    two.refused()
    one.breaker.close()
    one.good()
    assert two.good() == "fine"


# The cost


@pytest.mark.real
def test_fault_096_a_healthy_call_asks_nothing(server: Server) -> None:
    """One look for the first call, and no command for the next thousand."""
    one = Process(server.url, refresh=60)
    for _ in range(1_000):
        one.good()
    assert server.asked() == 1


@pytest.mark.real
def test_fault_100_commands_are_bounded_by_the_refresh_time(server: Server) -> None:
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


@pytest.mark.real
def test_fault_100_an_open_circuit_asks_no_more_often(server: Server) -> None:
    """Refused calls look once per refresh time, half open elsewhere or not."""
    one = Process(server.url, failures=1, reset_after=0.05, refresh=60)
    two = Process(server.url, failures=1, reset_after=0.05, refresh=60)
    one.bad()
    time.sleep(0.06)

    def long() -> str:
        before = server.asked()
        for _ in range(100):
            two.refused()
        assert server.asked() - before <= 2
        return "tried"

    assert one.guarded(long) == "tried"


@pytest.mark.real
def test_fault_099_the_script_is_sent_again(server: Server) -> None:
    """A server that has lost it is given it anew, in the same call."""
    one, two = Process(server.url, failures=1), Process(server.url, failures=1)
    one.good()
    server.client().script_flush()
    one.bad()
    server.client().script_flush()
    two.refused()


@pytest.mark.real
def test_fault_099_every_key_runs_out(server: Server) -> None:
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
    one.refused()
    assert all(0 < ttl <= 86_400 for ttl in lives())
    one.breaker.close()
    one.good()
    assert all(0 < ttl <= 200 for ttl in lives())
    assert len(lives()) == 1


# Construction


def test_nothing_is_imported_or_connected_before_it_is_needed() -> None:
    """`import resilience.shared` brings no redis; without it a RedisCircuit names the extra."""
    code = """
import sys
import resilience.shared
assert "redis" not in sys.modules
sys.modules["redis"] = None
try:
    resilience.shared.RedisCircuit("redis://localhost")
except ImportError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert "pip install 'resilience-policies[redis]'" in done.stdout


@pytest.mark.parametrize("source", [None, 5, object(), "", "localhost:6379"])
def test_something_else_than_a_url_or_a_client_is_refused(source: Any) -> None:
    """At construction, by name."""
    with pytest.raises((TypeError, ValueError), match=r"client|URL"):
        RedisCircuit(source)


@pytest.mark.parametrize(
    "source",
    [redis.Redis().pipeline(), redis.asyncio.Redis().pipeline(), redis.Redis, redis.asyncio.Redis],
    ids=["a pipeline", "an asyncio pipeline", "a class", "an asyncio class"],
)
def test_a_pipeline_or_a_class_is_refused(source: Any) -> None:
    """A pipeline would answer nothing until somebody executes it."""
    with pytest.raises(TypeError, match="no class and no pipeline"):
        RedisCircuit(source)


def test_an_asyncio_client_without_a_sync_twin_is_refused() -> None:
    """A sync call could not be served, and a place not be given back."""
    client = redis.asyncio.RedisCluster(host="127.0.0.1", port=1)
    with pytest.raises(TypeError, match="plain asyncio client"):
        RedisCircuit(client)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("prefix", ""),
        ("prefix", 5),
        ("prefix", "\ud800"),
        ("lease", 0),
        ("timeout", -1),
        ("back_off", "soon"),
        ("advisory", 1),
    ],
)
def test_bad_options_are_refused(option: str, value: Any) -> None:
    """With the option's name in the message."""
    with pytest.raises((TypeError, ValueError), match=option):
        RedisCircuit("redis://localhost", **{option: value})


def test_its_repr_keeps_the_password() -> None:
    """A URL may have one in it."""
    shown = repr(RedisCircuit("redis://:secret@localhost", lease=timedelta(seconds=5)))
    assert shown == "RedisCircuit(lease=5)"
