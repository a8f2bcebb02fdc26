"""A rate limit that processes share through Redis or Valkey: exact, through its loss and return."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
import redis.asyncio

from resilience import Pipeline, RateLimit, RateLimitExceededError, Timeout
from resilience._core.guard import drive
from resilience._core.outside import NO_CALL
from resilience._core.pacing import Turn
from resilience._runtimes.threads import not_waiting, threads
from resilience.limits.script import SCRIPT
from resilience.shared import RedisLimit
from support import redis_server
from support.concurrency import in_threads
from support.limits import Admitted, most_in, under
from support.redis_server import Warned

pytestmark = [pytest.mark.real]
running, server = redis_server.running, redis_server.server
own_server = redis_server.own_server


@pytest.fixture(autouse=True)
def _our_script(request: pytest.FixtureRequest) -> None:
    """The server knows ours from before, too."""
    if "server" in request.fixturenames:
        request.getfixturevalue("server").client().script_load(SCRIPT.text)


def limit(source: Any, *, storage: Any = None, **options: Any) -> RateLimit:
    """As of another process: with connections of its own."""
    named: dict[str, Any] = {"prefix": "app", "timeout": 5.0, **(storage or {})}
    shared = RedisLimit(source, **named)
    given: dict[str, Any] = {"requests": 100, "per": 1, "name": "llm", "storage": shared, **options}
    return RateLimit(**given)


def calls(policy: RateLimit, number: int, fn: Any = time.monotonic, **kwargs: Any) -> list[float]:
    guarded = under(policy).wrap(lambda **kwargs: fn())
    return [guarded(**kwargs) for _ in range(number)]


def test_two_processes_take_turns(server: redis_server.Server) -> None:
    """Together they go at the limit's rate: one command a call."""
    one, other = limit(server.url), limit(server.url)
    asked = server.asked()
    at = sorted([time_ for _ in range(15) for each in (one, other) for time_ in calls(each, 1)])
    assert at[-1] - at[0] >= (30 - 5) / 100 - 0.01
    assert most_in(0.1, at) <= 10 + 5
    assert server.asked() - asked == 30


def test_the_burst_is_one_for_all(server: redis_server.Server) -> None:
    """And limits of other names, prefixes and keys are others."""
    policies = [limit(server.url, requests=10, per=100, burst=0.3, patience=0) for _ in range(3)]
    for policy in policies:
        calls(policy, 1)
    with pytest.raises(RateLimitExceededError) as rejection:
        calls(policies[0], 1)
    assert rejection.value.retry_after == pytest.approx(10, abs=0.5)
    calls(limit(server.url, requests=1, per=100, name="other"), 1)
    calls(limit(server.url, requests=1, per=100, storage={"prefix": "b"}), 1)
    keyed = limit(server.url, requests=1, per=100, key="user", patience=0)
    calls(keyed, 1, user=1)
    calls(keyed, 1, user=2)
    with pytest.raises(RateLimitExceededError):
        calls(keyed, 1, user=1)


def test_what_was_used_is_told_in_the_background(server: redis_server.Server) -> None:
    """In place of what was thought: the others need not wait for it."""
    one, other = (
        limit(server.url, requests=None, tokens=1000, per=1000, burst=1.0, estimate=lambda: 600)
        for _ in range(2)
    )
    answer = {"usage": {"prompt_tokens": 1, "completion_tokens": 2}}
    asked = server.asked()

    def asked_in_all(times: int) -> bool:
        return server.asked() - asked == times

    for number, policy in enumerate((one, one, other), 1):
        began = time.monotonic()
        assert under(policy).call(lambda: answer) == answer
        assert time.monotonic() - began < 5
        redis_server.until(partial(asked_in_all, 2 * number))
    left = float(server.client().hget("{app:limit1:llm:~}", "k")) / 1e6 - time.time()
    assert left == pytest.approx(9, abs=1)


def used(policy: RateLimit, tokens: int) -> Any:
    """A call that says how many it has used."""
    return under(policy).call(lambda: {"usage": {"prompt_tokens": tokens, "completion_tokens": 0}})


def drained(server: redis_server.Server, which: str) -> float:
    """In how many seconds what the server knows of the requests (`r`) or tokens (`k`) is used up
    no more."""
    return float(server.client().hget("{app:limit1:llm:~}", which)) / 1e6 - time.time()


def test_an_estimate_that_was_right_is_not_reported(server: redis_server.Server) -> None:
    """One question a call, and no other."""
    policy = limit(server.url, requests=None, tokens=10**6, per=1, estimate=lambda: 3)
    asked = server.asked()
    for _ in range(20):
        used(policy, 3)
    under(policy).call(lambda: "the last says nothing")
    time.sleep(0.05)  # a report would come now
    assert server.asked() - asked == 21


def test_no_correction_is_lost(server: redis_server.Server) -> None:
    """However many come while others are being reported."""
    policy = limit(server.url, requests=None, tokens=1000, per=1000, estimate=lambda: 1)
    under(policy).call(lambda: "in")
    pace: Any = policy._paces.only
    for _ in range(500):
        pace.correct(1.0)
    redis_server.until(lambda: drained(server, "k") > 490)
    assert drained(server, "k") == pytest.approx(501, abs=5)


def test_a_correction_with_nobody_to_report_to_counts_here(tmp_path: Path) -> None:
    """By this process's share, of which all is thought to be used up when the server is lost."""
    policy = limit(
        f"unix://{tmp_path}/none",
        requests=None,
        tokens=1000,
        burst=1.0,
        estimate=lambda: 600,
    )
    at = [time.monotonic()]
    with Warned():
        for tokens in (3, 3, 3, 999, 3):
            used(policy, tokens)
            at.append(time.monotonic())
    assert at[1] - at[0] >= 0.55
    assert at[4] - at[1] < 1.5  # by the estimates it would be 1.8
    assert at[5] - at[4] >= 0.9


def test_a_request_that_was_not_sent_gives_its_turn_back(server: redis_server.Server) -> None:
    """To the next call; the server knows of it with that one's question, and of the tokens."""
    options: Any = {"requests": 10, "tokens": 100, "per": 100, "burst": 0.2, "patience": 0}
    one, other = (limit(server.url, estimate=lambda: 20, **options) for _ in range(2))

    def refused() -> None:
        raise ConnectionRefusedError(111, "refused")

    for _ in range(5):
        with pytest.raises(ConnectionRefusedError):
            under(one).call(refused)
        redis_server.until(lambda: drained(server, "k") < 1)
    calls(one, 1)
    assert drained(server, "r") == pytest.approx(10, abs=0.5)
    with pytest.raises(RateLimitExceededError):
        calls(other, 1)


def test_a_request_that_was_not_sent_without_a_server_gives_its_turn_back_here(
    own_server: redis_server.Server,
) -> None:
    """To this process's share: the server, which never knew of it, gives nobody one more."""
    options: Any = {"requests": 10, "per": 1, "storage": {"timeout": 0.5, "back_off": 0.2}}
    policy, other = (limit(own_server.url, **options) for _ in range(2))
    own_server.stop()

    def refused() -> None:
        raise ConnectionRefusedError(111, "refused")

    with Warned():
        began = time.monotonic()
        for _ in range(50):
            with pytest.raises(ConnectionRefusedError):
                under(policy).call(refused)
        assert time.monotonic() - began < 2.5  # of which none counts: they would take 5 s
    own_server.start()
    time.sleep(0.2)  # the back-off
    before = calls(other, 3)
    assert calls(policy, 1)[0] - before[-1] >= 0.08


def test_what_the_service_says_of_its_limits_is_followed(server: redis_server.Server) -> None:
    """In this process, which has been told."""
    policy = limit(server.url, follow=True, patience=0)
    headers = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "500"}
    under(policy).call(lambda: SimpleNamespace(headers=headers))
    with pytest.raises(RateLimitExceededError) as rejection:
        calls(policy, 1)
    assert rejection.value.retry_after == pytest.approx(500, abs=5)


def test_by_an_asyncio_client_on_its_own_loop(server: redis_server.Server) -> None:
    """Also where the server does not know our script yet; others share the limit with it."""
    client = redis.asyncio.Redis(unix_socket_path=f"{server.folder}/s")
    options: Any = {"requests": 10, "per": 100, "burst": 0.2, "patience": 0}
    policy = limit(client, **options)
    server.client().script_flush()

    @Pipeline(policy)
    async def work() -> str:
        return "in"

    async def main() -> None:
        try:
            assert [await work(), await work()] == ["in", "in"]
            with pytest.raises(RateLimitExceededError):
                await work()
        finally:
            await client.aclose()

    asyncio.run(main())
    with pytest.raises(RateLimitExceededError):
        calls(limit(server.url, **options), 1)


class Odd(redis.Redis):
    """A client that answers what no script of ours would."""

    def evalsha(self, *args: Any) -> Any:
        return "OK"


def test_a_client_that_answers_something_else(server: redis_server.Server) -> None:
    """Counts as a server that cannot be reached: the call goes."""
    policy = limit(Odd(unix_socket_path=f"{server.folder}/s"), requests=100)
    with Warned() as warned:
        assert len(calls(policy, 3)) == 3
    assert warned.of("cannot be reached (ValueError)") == 1


def test_a_call_that_would_wait_too_long_books_nothing(server: redis_server.Server) -> None:
    """By its deadline: the next one takes the turn."""
    one = limit(server.url, requests=1, per=0.5, burst=0.0)
    calls(one, 1)
    for _ in range(3):
        with pytest.raises(RateLimitExceededError):
            under(Timeout(0.1), one).call(lambda: "never")
    began = time.monotonic()
    calls(one, 1)
    assert time.monotonic() - began < 0.6


def test_a_turn_that_was_booked_goes_to_the_next_in_the_queue(server: redis_server.Server) -> None:
    """Where its task is cancelled; and nobody waits for those who have left."""
    policy = limit(server.url, requests=5, per=1, burst=0.0)
    admitted = Admitted()

    @Pipeline(policy)
    async def work(number: int) -> None:
        admitted(number)

    async def main() -> None:
        tasks = [asyncio.create_task(work(number)) for number in range(20)]
        await asyncio.sleep(0.3)
        for number in range(2, 19):
            tasks[number].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())
    assert admitted.order == [0, 1, 19]
    assert admitted.at[2] - admitted.at[0] <= 0.65
    assert policy.waiting == 0


def test_a_turn_goes_to_one_that_costs_more(server: redis_server.Server) -> None:
    """At its time; the difference is reported with the next question."""
    options: Any = {"requests": None, "tokens": 100, "per": 1, "burst": 0.1}
    policy = limit(server.url, estimate=lambda tokens: tokens, **options)
    admitted = Admitted()

    @Pipeline(policy)
    async def work(tokens: int) -> None:
        admitted(tokens)

    async def main() -> None:
        first = asyncio.create_task(work(40))
        booked = asyncio.create_task(work(10))
        tasks = [asyncio.create_task(work(tokens)) for tokens in (50, 8)]
        await asyncio.sleep(0.2)
        booked.cancel()
        await asyncio.gather(first, *tasks)

    asyncio.run(main())
    assert admitted.order == [40, 50, 8]
    took = [at - admitted.at[0] for at in admitted.at]
    assert took[1] == pytest.approx(0.4, abs=0.08)
    assert took[2] >= 0.85


def test_threads_of_one_process_are_served_in_order(server: redis_server.Server) -> None:
    """Each books one turn; the rate holds."""
    policy, admitted = limit(server.url, requests=200), Admitted()
    work = under(policy).wrap(lambda: admitted())
    in_threads(16, lambda n: [work() for _ in range(5)])
    assert len(admitted.at) == 80
    assert most_in(0.2, admitted.at) <= 200 * (0.2 + 0.05 + 0.1) + 1


def test_where_nothing_may_be_waited_for_the_server_is_told_later(
    server: redis_server.Server,
) -> None:
    """A call on a loop's own thread goes by what is known, and counts."""
    policy = limit(server.url, requests=100, per=100, burst=1.0)
    pace = policy._paces.only
    assert pace is not None
    asked = server.asked()
    assert drive(pace.wait(not_waiting, NO_CALL, Turn(0.0), time.monotonic()))
    assert server.asked() == asked
    calls(policy, 1)
    left = float(server.client().hget("{app:limit1:llm:~}", "r")) / 1e6 - time.time()
    assert left == pytest.approx(2, abs=0.5)
    assert drive(pace.wait(threads, NO_CALL, Turn(0.0), time.monotonic() + 9))


def test_a_turn_that_another_call_has_just_taken_is_not_counted(
    server: redis_server.Server,
) -> None:
    """By a call that must not wait: it leaves without one, and the server is told of one call."""
    policy = limit(server.url, requests=1, per=100)
    pace: Any = policy._paces.only
    taken = [drive(pace.wait(not_waiting, NO_CALL, Turn(0.0), time.monotonic())) for _ in range(3)]
    assert taken == [True, False, False]
    pace.correct(1.0)
    redis_server.until(lambda: server.client().exists("{app:limit1:llm:~}"))
    assert drained(server, "r") == pytest.approx(100, abs=2)


def test_where_nothing_may_be_waited_for_what_is_used_up_rejects(
    server: redis_server.Server,
) -> None:
    """Without a question, as far as this process knows."""
    policy = limit(server.url, requests=1, per=100)
    pipeline = under(policy)
    asked = server.asked()

    async def main() -> None:
        assert pipeline.call(lambda: "in") == "in"
        with pytest.raises(RateLimitExceededError) as rejection:
            pipeline.call(lambda: "never")
        assert rejection.value.retry_after == pytest.approx(100, abs=1)

    asyncio.run(main())
    assert server.asked() == asked


@pytest.mark.fault(93)
def test_what_lies_under_the_key_and_is_not_ours(server: redis_server.Server) -> None:
    """Is left as it is: the limit is kept by each process itself, with one warning."""
    client = server.client()
    client.set("{app:limit1:llm:~}", "somebody's")
    policy = limit(server.url, requests=20)
    with Warned() as warned:
        at = calls(policy, 5)
    assert warned.of("no rate limit of this version") == 1
    assert at[-1] - at[0] >= 4 * 0.05 - 0.01
    assert client.get("{app:limit1:llm:~}") == "somebody's"
    client.delete("{app:limit1:llm:~}")
    client.hset("{app:limit1:llm:~}", mapping={"v": "1", "r": "junk"})
    assert len(calls(limit(server.url), 2)) == 2
    assert 0 < client.pttl("{app:limit1:llm:~}") < 60_000


@pytest.mark.fault(91, 92)
def test_a_server_that_hangs_costs_a_moment_once(own_server: redis_server.Server) -> None:
    """Then it is left alone, and the process goes on with its share."""
    policy = limit(own_server.url, requests=1000, storage={"timeout": 0.05, "back_off": 60.0})
    other = limit(own_server.url, requests=1000)
    for each in (policy, other):
        calls(each, 1)
    calls(policy, 1)
    own_server.hang()
    try:
        with Warned() as warned:
            began = time.monotonic()
            calls(policy, 101)
            took = time.monotonic() - began
    finally:
        own_server.wake()
    assert warned.of("cannot be reached") == 1
    assert 100 * 2 / 1000 - 0.11 <= took < 2


def test_one_that_was_never_there(tmp_path: Path) -> None:
    """The first call goes, too."""
    policy = limit(f"unix://{tmp_path}/none", requests=100)
    with Warned():
        assert len(calls(policy, 5)) == 5


def test_bad_options_and_the_missing_client() -> None:
    """As of `RedisCircuit`; the URL is not shown."""
    with pytest.raises(TypeError, match="client must be a URL"):
        RedisLimit(5)
    with pytest.raises(ValueError, match="timeout must be more than 0"):
        RedisLimit("redis://localhost", timeout=0)
    assert repr(RedisLimit("redis://:secret@localhost")) == "RedisLimit()"


PROCESS = """
import sys, time, warnings
warnings.simplefilter("ignore")
from concurrent.futures import ThreadPoolExecutor
from resilience import Pipeline, RateLimit, RateLimitExceededError
from resilience.shared import RedisLimit
url, seconds = sys.argv[1], float(sys.argv[2])
shared = RedisLimit(url, prefix="app", timeout=0.5, back_off=0.3)
limit = RateLimit(requests=80, per=1, burst=0.05, patience=None, storage=shared)
at = []
call = Pipeline(limit).wrap(lambda: at.append(time.monotonic()))
print("ready", flush=True)
sys.stdin.readline()
end = time.monotonic() + seconds
def work(_):
    while time.monotonic() < end:
        call()
with ThreadPoolExecutor(2) as pool:
    list(pool.map(work, range(2)))
print(*at, flush=True)
"""


def run_processes(url: str, seconds: float, meanwhile: Any) -> list[float]:
    """When the calls of 8 processes went that call as often as they may."""
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, url, str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")},
        )
        for _ in range(8)
    ]
    try:
        for program in programs:
            assert program.stdout is not None
            assert program.stdout.readline() == "ready\n"
        for program in programs:
            assert program.stdin is not None
            program.stdin.write("\n")
            program.stdin.flush()
        meanwhile()
        found = [program.communicate(timeout=60)[0] for program in programs]
    finally:
        for program in programs:
            program.kill()
            program.communicate()
    return sorted(float(each) for text in found for each in text.split())


@pytest.mark.fault(30, 101, 367)
@pytest.mark.timeout(120)
def test_8_processes_are_exact_through_loss_and_return(own_server: redis_server.Server) -> None:
    """No more than the limit allows goes in any time, while the server is there, while it is gone,
    and when it is back with nothing of what it knew. Nor do they stand still."""
    moments: list[float] = []

    def meanwhile() -> None:
        for act in (None, own_server.stop, own_server.start):
            moments.append(time.monotonic())
            if act is not None:
                act()
            time.sleep(3)
        moments.append(time.monotonic())

    at = run_processes(own_server.url, 12, meanwhile)
    began, lost, back, found = moments
    for seconds in (0.5, 1.0, 2.0):
        # A call that is woken late goes late, by 0.1 s at most of what it was let go for.
        assert most_in(seconds, at) <= 80 * (seconds + 0.1) + 4
    for since, until in ((began + 0.5, lost), (lost + 1.5, back), (found, began + 12)):
        rate = sum(since <= each < until for each in at) / (until - since)
        assert 0.75 * 80 <= rate <= 1.1 * 80, (since - began, rate)
