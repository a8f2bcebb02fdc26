"""SpendLimit: what may be spent, what is reserved for an attempt, and what it has cost."""

from __future__ import annotations

import copy
import inspect
import math
import os
import pickle
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from conftest import Takes, World, async_worlds
from resilience import (
    BadResult,
    CircuitBreaker,
    ModelFallback,
    Pipeline,
    RejectedError,
    Retry,
    SpendLimit,
    SpendLimitExceededError,
    Streaming,
    history,
    recording,
)
from resilience import policy as contract
from resilience._core import guard
from resilience.events import CallRejected, ModelSkipped
from resilience.policies import spend_limit as module
from resilience.policies.spend_limit import SpendLevel
from support.arriving import arriving, interrupt
from support.calling import error_of, message_of
from support.own_policies import Asks


def tokens(model: str | None, prompt: int, answer: int) -> int:
    """A price: each token costs one."""
    return prompt + answer


def limit(cost: float = 100, per: float = 60, most: float = 40, **options: Any) -> SpendLimit:
    """One of tokens, for attempts that may take `most` of them."""
    return SpendLimit(cost, per, price=tokens, estimate=lambda *_, **__: most, **options)


def used(prompt: int, answer: int) -> dict[str, Any]:
    """A result."""
    return {"usage": {"prompt_tokens": prompt, "completion_tokens": answer}}


def spent(policy: SpendLimit) -> float:
    level = policy.snapshot()
    assert level.reserved == 0
    return level.spent


# Admission


def test_an_attempt_is_admitted_by_the_most_that_it_may_cost(world: World) -> None:
    """And costs what its result says."""
    policy = limit(cost=100, most=40)
    fn = Pipeline(policy).wrap(world.function(used(10, 15)))
    for _ in range(3):
        world.run(fn)
    assert spent(policy) == 75
    error = error_of(world, fn)  # 75 and 40 are more than 100
    assert type(error) is SpendLimitExceededError
    assert (error.spent, error.most, error.limit, error.per) == (75, 40, 100, 60)
    assert len(world.calls) == 3


def test_amounts_may_be_parts_of_a_dollar(world: World) -> None:
    """Less than one, both the limit and what an attempt costs."""
    policy = SpendLimit(0.5, 60, price=lambda *_: 0.125, estimate=lambda: 0.25)
    fn = Pipeline(policy).wrap(world.function(used(1, 1)))
    for _ in range(3):
        world.run(fn)
    assert spent(policy) == 0.375
    assert error_of(world, fn).most == 0.25


def test_it_is_reserved_while_the_attempt_is_under_way(world: World) -> None:
    """So that no number of calls at the same time can spend more."""
    policy = limit(cost=100, most=40)
    pipeline = Pipeline(policy)
    inside: list[SpendLevel] = []

    def look(*within: Any) -> Any:
        inside.append(policy.snapshot())
        if within:
            within[0](*within[1:])
        return used(1, 1)

    def reject() -> None:
        with pytest.raises(SpendLimitExceededError):
            pipeline.call(look)

    world.run(pipeline.wrap(world.function(look)), pipeline.call, look, reject)
    assert inside == [SpendLevel(0, 40, 100), SpendLevel(0, 80, 100)]
    assert policy.snapshot() == SpendLevel(4, 0, 100)


def test_what_was_spent_counts_for_the_period(world: World) -> None:
    """It is rejected until `retry_at`, and no longer than a sixtieth more than that."""
    policy = limit(cost=100, per=60, most=40)
    fn = Pipeline(policy).wrap(world.function(used(30, 10)))
    world.run(fn)
    world.clock.advance(30)
    world.run(fn)
    error = error_of(world, fn)
    assert 30 <= error.retry_after <= 31
    assert error.retry_at is not None
    world.clock.advance(error.retry_after - 0.001)
    error_of(world, fn)
    world.clock.advance(0.002)
    world.run(fn)
    assert spent(policy) == 80
    world.clock.advance(61)
    assert spent(policy) == 0


def test_it_waits_until_enough_is_free(world: World) -> None:
    """What was spent first may not be enough."""
    policy = limit(cost=100, per=60, most=40)
    fn = Pipeline(policy).wrap(world.function(used(10, 0), used(40, 0), used(30, 0)))
    world.run(fn)
    world.clock.advance(20)
    world.run(fn)
    world.clock.advance(20)
    world.run(fn)
    assert 40 <= error_of(world, fn).retry_after <= 41


def test_no_period_has_more_than_the_limit(world: World) -> None:
    """Wherever it begins."""
    policy = limit(cost=100, per=10, most=7)
    fn = Pipeline(policy).wrap(world.function(used(7, 0)))
    times: list[float] = []
    for _ in range(2_000):
        world.clock.advance(world.clock.random() / 10)
        if not _rejected(world, fn):
            times.append(world.clock.now())
    assert len(times) > 100
    for begin in times:
        assert sum(7 for at in times if begin <= at < begin + 10) <= 100


def _rejected(world: World, fn: Any) -> bool:
    try:
        world.run(fn)
    except SpendLimitExceededError:
        return True
    return False


def test_an_attempt_that_may_cost_more_than_the_limit(world: World) -> None:
    """No time will come for it."""
    error = error_of(world, Pipeline(limit(cost=10, most=40)).wrap(world.function("never")))
    assert error.retry_after is error.retry_at is None
    assert world.calls == []


@async_worlds
def test_nobody_knows_when_others_end(world: World) -> None:
    """What is reserved may be free soon, or be spent."""
    policy = limit(cost=50, most=40)
    slow = Pipeline(policy).wrap(world.function(Takes(5, used(1, 1))))
    errors: list[Any] = []

    async def main() -> None:
        async def second() -> None:
            await world.clock.asleep(1)
            with pytest.raises(SpendLimitExceededError) as caught:
                await slow()
            errors.append(caught.value)

        if world.name == "asyncio":
            import asyncio

            await asyncio.gather(slow(), second())
        else:
            import trio

            async with trio.open_nursery() as nursery:
                nursery.start_soon(slow)
                nursery.start_soon(second)

    world.run(main)
    assert errors[0].retry_after is None
    assert errors[0].spent == 40


# What an attempt has cost


@pytest.mark.parametrize(
    ("step", "cost"),
    [
        (used(3, 4), 7),
        ({"usage": {"input_tokens": 5}}, 5),
        ("says nothing", 40),
        (TimeoutError, 40),
        (ConnectionRefusedError, 0),
    ],
    ids=["usage", "half of it", "nothing", "timeout", "refused"],
)
def test_what_an_attempt_has_cost(world: World, step: Any, cost: float) -> None:
    """What its result says; else the most, unless it was surely not executed."""
    policy = limit(most=40)
    fn = Pipeline(policy).wrap(world.function(step))
    try:
        world.run(fn)
    except OSError:
        pass
    assert spent(policy) == cost


@pytest.mark.parametrize(("status", "cost"), [(400, 0), (404, 0), (429, 0), (408, 40), (500, 40)])
def test_what_a_status_has_cost(world: World, status: int, cost: float) -> None:
    """A request that the server has refused costs nothing."""

    class Refused(Exception):
        def __init__(self) -> None:
            self.status_code = status

    policy = limit(most=40)
    error_of(world, Pipeline(policy).wrap(world.function(Refused)))
    assert spent(policy) == cost


@pytest.mark.parametrize(("result", "cost"), [(used(3, 4), 7), ("says nothing", 40)])
def test_a_bad_result_has_cost_what_it_says(world: World, result: Any, cost: float) -> None:
    """It was an answer."""
    policy = limit(most=40)
    bad = BadResult(lambda result: True, finally_="raise")
    error_of(world, Pipeline(policy, bad).wrap(world.function(result)))
    assert spent(policy) == cost


def test_each_attempt_costs(world: World) -> None:
    """Those of a `Retry` and of a chain."""
    policy = limit(cost=1000, most=40)
    fn = Pipeline(Retry(attempts=3, wait=0), policy).wrap(
        world.function(TimeoutError, ConnectionRefusedError, used(3, 4))
    )
    world.run(fn)
    assert spent(policy) == 47


def test_a_rejection_inside_costs_nothing(world: World) -> None:
    """There was no attempt."""
    breaker = CircuitBreaker()
    breaker.isolate()
    policy = limit()
    error_of(world, Pipeline(policy, breaker).wrap(world.function("never")))
    assert spent(policy) == 0


@pytest.mark.fault(386)
def test_a_stream_costs_at_its_end() -> None:
    """What its items say; the most where it breaks off, or is left before its end."""
    policy = limit(cost=1000, most=40)

    def ask(*, broken: bool = False, said: bool = False) -> Iterator[Any]:
        yield {"choices": [{"delta": {"content": "well"}}]}
        if said:  # as Anthropic does at the start
            yield used(2, 1)
        if broken:
            raise ConnectionError
        yield used(2, 3)

    fn = Pipeline(policy, Streaming(complete=False)).wrap(ask)
    stream = fn()
    next(stream)
    assert policy.snapshot() == SpendLevel(0, 40, 1000)
    list(stream)
    assert spent(policy) == 5
    with pytest.raises(Exception, match=r".*"):
        list(fn(broken=True))
    assert spent(policy) == 45
    stream = fn(said=True)
    next(stream)
    next(stream)
    del stream
    assert spent(policy) == 85


@pytest.mark.fault(384)
def test_functions_that_raise(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Without an estimate the default one is reserved; without a price the most is spent, and
    without both nothing."""
    policy = SpendLimit(100, 60, price=tokens, estimate=lambda: 1 / 0, answer=101)
    with pytest.raises(SpendLimitExceededError, match="may cost 101"):
        world.run(Pipeline(policy).wrap(world.function(used(1, 1))))
    policy = SpendLimit(100, 60, price=lambda *_: 1 / 0, answer=101)
    world.run(Pipeline(policy).wrap(world.function(used(1, 1))))
    assert spent(policy) == 0
    policy = SpendLimit(100, 60, price=lambda *_: 1 / 0, estimate=lambda: 40)
    world.run(Pipeline(policy).wrap(world.function(used(1, 1))))
    assert spent(policy) == 40
    policy = SpendLimit(100, 60, price=tokens, estimate=lambda: "much", answer=1)  # type: ignore[arg-type]
    world.run(Pipeline(policy).wrap(world.function(used(1, 1))))
    assert spent(policy) == 2
    assert "SpendLimit(price=) raised ZeroDivisionError" in caplog.text
    assert "SpendLimit(estimate=) raised TypeError" in caplog.text
    assert {text.split(" raised")[0] for text in caplog.messages if "raised" in text} == {
        "SpendLimit(price=)",
        "SpendLimit(estimate=)",
    }


def test_an_estimate_is_asked_with_the_arguments_of_the_call(world: World) -> None:
    policy = SpendLimit(100, 60, price=tokens, estimate=lambda prompt, *, copies: 30 * copies)
    error = error_of(world, Pipeline(policy).wrap(world.function("never")), "x", copies=4)
    assert error.most == 120


# The most that a call may cost, by itself


@pytest.mark.parametrize(
    ("kwargs", "most"),
    [
        ({"messages": [{"role": "user", "content": "hi"}]}, 4 + 4 + 7 + 2 + 8 + 4096),
        ({"max_tokens": 10}, 10 + 10),
        ({"max_completion_tokens": 10, "max_tokens": 99}, 21 + 10 + 10),
        ({"max_output_tokens": 10, "n": 3}, 17 + 1 + 30),
        ({"max_tokens": 0, "prompt": "é" * 5}, 10 + 6 + 10 + 4096),
        ({"prompt": b"123", "n": True}, 6 + 1 + 3 + 4096),
        ({"contents": "hi", "config": {"max_output_tokens": 9}}, 8 + 2 + 6 + 17 + 9),
        ({"max_tokens": -1}, 10 + 4096),
        ({"max_tokens": "7"}, 10 + 1 + 4096),
        ({"max_tokens": 1}, 10 + 1),
    ],
)
def test_the_most_by_itself(world: World, kwargs: dict[str, Any], most: int) -> None:
    """No text has more tokens than bytes; an answer has as many as the call allows for."""
    policy = SpendLimit(1, 60, price=tokens)
    error = error_of(world, Pipeline(policy).wrap(world.function("never")), **kwargs)
    assert error.most >= most - sum(len(name) for name in kwargs)
    assert error.most <= most + 2


@pytest.mark.parametrize("wrap", [lambda each: [each], lambda each: {"": each}])
def test_text_far_down_counts(world: World, wrap: Any) -> None:
    """A value that contains itself comes to an end."""
    policy = SpendLimit(1, 60, price=tokens, answer=1)
    fn = Pipeline(policy).wrap(world.function("never"))
    value: Any = "x" * 100
    for _ in range(15):
        value = wrap(value)
    assert error_of(world, fn, value).most == 101
    ring: list[Any] = ["x" * 100]
    ring.append(wrap(ring))
    assert 101 < error_of(world, fn, ring).most < 2_101


def test_the_text_of_messages_that_are_objects_counts(world: World) -> None:
    """In a list, as LangChain's and Google's; nothing is read of an argument that is one."""
    policy = SpendLimit(1, 60, price=tokens, answer=1)
    fn = Pipeline(policy).wrap(world.function("never"))
    parts = [SimpleNamespace(text="x" * 50), SimpleNamespace(text=None)]
    said = [SimpleNamespace(content="x" * 50), SimpleNamespace(parts=parts), object()]
    assert error_of(world, fn, said).most == 101
    assert error_of(world, fn, "x", SimpleNamespace(content="x" * 50)).most == 2


def test_a_signature_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for each call, even where a function has none of the arguments that are looked for."""
    read: list[object] = []
    signature = inspect.signature
    monkeypatch.setattr(inspect, "signature", lambda fn: (read.append(fn), signature(fn))[1])
    ask = Pipeline(SpendLimit(1e6, 60, price=tokens)).wrap(lambda prompt: "answer")
    ask("first")
    assert read
    read.clear()
    ask("second")
    assert not read


def test_the_longest_answer_is_in_the_signature() -> None:
    """As a default, or given by place; `answer` is for calls that do not say."""

    def ask(prompt: str, max_tokens: int = 7) -> None:
        """Never called."""

    pipeline = Pipeline(SpendLimit(1, 60, price=tokens))
    for call, most in (
        (lambda: pipeline.call(ask, "abc"), 10),
        (lambda: pipeline.call(ask, "", 5), 5),
    ):
        with pytest.raises(SpendLimitExceededError) as caught:
            call()
        assert caught.value.most == most
    with pytest.raises(SpendLimitExceededError) as caught:
        Pipeline(SpendLimit(1, 60, price=tokens, answer=50)).call(lambda: None)
    assert caught.value.most == 50


def test_the_price_gets_the_model(world: World) -> None:
    """Of the chain, or the one that the call names."""
    asked: list[Any] = []

    def price(model: str | None, prompt: int, answer: int) -> float:
        asked.append(model)
        return 0

    policy = SpendLimit(100, 60, price=price)
    world.run(Pipeline(policy).wrap(world.function(used(1, 1))), model="named")
    world.run(Pipeline(ModelFallback("a", "b"), policy).wrap(world.function(used(1, 1))))
    world.run(Pipeline(policy).wrap(world.function(used(1, 1))))
    assert asked == ["named", "named", "a", "a", None, None]


# Together with others


def test_a_chain_skips_a_model_whose_money_is_spent(world: World) -> None:
    """With the reason in its event."""
    policy = limit(cost=50, most=40, key="model")
    fn = Pipeline(ModelFallback("dear", "cheap"), policy).wrap(world.function(used(10, 10)))
    with recording(ModelSkipped, CallRejected) as events:
        world.run(fn)
        world.run(fn)
    assert [kwargs["model"] for _, kwargs in world.calls] == ["dear", "cheap"]
    rejected, skipped = events
    assert skipped.error is rejected.error
    assert rejected.error.model == "dear"
    assert {key: level.spent for key, level in policy.snapshots().items()} == {
        "dear": 20,
        "cheap": 20,
    }


def test_a_retry_waits_for_it_where_it_is_told_to(world: World) -> None:
    """Until `retry_at`."""
    policy = limit(cost=50, per=10, most=40)
    fn = Pipeline(Retry(on=RejectedError), policy).wrap(world.function(used(40, 0)))
    world.run(fn)
    world.run(fn)
    assert 10 <= sum(world.clock.sleeps) <= 13


def test_a_retry_gives_up_on_a_failure_when_it_is_spent(world: World) -> None:
    """It would be rejected; the call's own error comes out."""
    policy = limit(cost=50, most=40)
    error = error_of(world, Pipeline(Retry(), policy).wrap(world.function(TimeoutError)))
    assert type(error) is TimeoutError
    assert len(history(error)) == 1
    assert world.clock.sleeps == []


@pytest.mark.parametrize("key", [None, "tenant", lambda tenant: tenant])
def test_asked_beforehand(world: World, key: Any) -> None:
    """Whether it would reject a call, and when it would not."""
    policy = limit(cost=100, per=60, most=40, key=key)
    asks = Asks()
    answer = world.function(used(35, 0))

    def ask(tenant: str) -> Any:
        return answer(tenant)

    fn = Pipeline(asks, policy).wrap(ask)
    world.run(fn, "a")
    world.run(fn, tenant="a")
    error_of(world, fn, tenant="a")
    first, *_, last = asks.found
    assert first == (False, 0)
    assert last == (True, pytest.approx(61))


def test_asked_beforehand_for_what_can_never_be(world: World) -> None:
    """It may cost more than the limit; or nobody knows the key."""
    asks = Asks()
    never = Pipeline(asks, limit(cost=10, most=40)).wrap(world.function("never"))
    error_of(world, never)
    unlimited = limit(cost=10, most=40, key=lambda: 1 / 0)
    world.run(Pipeline(asks, unlimited).wrap(world.function("well")))
    assert asks.found == [(True, math.inf), (False, 0)]


def test_a_function_that_turns_out_to_be_async_costs_once() -> None:
    """What a sync call has reserved goes back when the call goes on in the event loop."""
    import asyncio

    policy = limit(cost=1000, most=40)

    async def answer() -> Any:
        return used(1, 1)

    async def main() -> None:
        fn = Pipeline(policy).wrap(lambda: answer())
        await fn()
        await fn()

    asyncio.run(main())
    assert spent(policy) == 4


# Keys


def test_a_key_that_cannot_be_computed(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The call is not limited, and the log says so."""
    policy = limit(cost=1, most=40, key=lambda: 1 / 0)
    assert world.run(Pipeline(policy).wrap(world.function("well"))) == "well"
    assert "SpendLimit(key=) raised" in caplog.text
    assert policy.snapshots() == {}


@pytest.mark.fault(387)
def test_values_of_the_key_are_forgotten(world: World) -> None:
    """Those with nothing spent in the period; and the oldest when there are too many."""
    policy = limit(per=10, most=1, key="tenant")
    fn = Pipeline(policy).wrap(world.function(used(1, 0)))
    for number in range(300):
        world.clock.advance(0.1)
        world.run(fn, tenant=number)
    assert 100 <= len(policy.snapshots()) <= 104
    world.clock.advance(20)
    for number in range(50):
        world.run(fn, tenant=number)
    assert len(policy.snapshots()) <= 104
    crowded = limit(per=1e6, most=1, key="tenant", keep=10)
    fn = Pipeline(crowded).wrap(world.function(used(1, 0)))
    for number in range(30):
        world.run(fn, tenant=number)
        world.run(fn, tenant="always")
    assert {*crowded.snapshots()} == {*range(21, 30), "always"}
    assert crowded.snapshots()["always"].spent == 30


def test_an_argument_that_is_not_there() -> None:
    """TypeError where the function is guarded."""
    with pytest.raises(TypeError, match="tenant"):
        Pipeline(limit(key="tenant")).wrap(lambda x: x)


# Being a value, and an object


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"cost": 0}, ValueError, "cost"),
        ({"cost": -1}, ValueError, "cost"),
        ({"cost": "5"}, TypeError, "cost"),
        ({"cost": math.inf}, ValueError, "cost"),
        ({"per": 0}, ValueError, "per"),
        ({"per": None}, TypeError, "per"),
        ({"price": 5}, TypeError, "price"),
        ({"estimate": 5}, TypeError, "estimate"),
        ({"answer": 0}, ValueError, "answer"),
        ({"key": 5}, TypeError, "key"),
        ({"name": ""}, ValueError, "name"),
        ({"keep": 0}, ValueError, "keep"),
        ({"prices": tokens}, TypeError, "price"),
    ],
)
def test_bad_options(options: dict[str, Any], kind: type[Exception], said: str) -> None:
    """Field, rule and value."""
    given = {"cost": 5, "per": 60, "price": tokens} | options
    assert said in message_of(kind, SpendLimit, **given)


def test_a_limit_of_nothing() -> None:
    """Is a mistake."""
    said = message_of(ValueError, SpendLimit, cost=0, per=60, price=tokens)
    assert said == "cost must be more than 0, got 0"


@pytest.mark.fault(65)
def test_the_error_travels() -> None:
    """Other keys than a model's name may be secrets."""
    error = SpendLimitExceededError(3.0, None, "ours", "secret", None, 5, 60, 4, 2)
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert (again.key, again.most, again.retry_after) == ("secret", 2, 3.0)
    for word in ("spend limit 'ours'", "4 is spent", "may cost 2", "retry after 3 s"):
        assert word in str(error)
    assert "secret" not in str(error) + repr(error)
    assert "for 'gpt'" in str(SpendLimitExceededError(model="gpt"))


@pytest.mark.fault(24)
def test_a_pickled_one_begins_anew() -> None:
    """A copy is the thing itself."""
    policy = SpendLimit(5, 60, price=tokens, name="ours", key="model")
    again = pickle.loads(pickle.dumps(policy))
    assert repr(again) == repr(policy)
    assert repr(policy) == "SpendLimit(5, 60, price=tokens, key='model', name='ours')"
    assert copy.deepcopy(policy) is policy
    assert message_of(TypeError, policy.snapshot) == (
        "this limit is keyed: use snapshots(), which has each value's"
    )


@pytest.mark.parametrize(("key", "whose"), [(None, ""), ("model", " for each model")])
def test_it_is_explained(key: str | None, whose: str) -> None:
    """In a line."""
    assert SpendLimit(5, 60, price=tokens, key=key).effect().line == (
        "rejects calls that could bring what is spent in 60 s to more than 5" + whose
    )


# Threads, forks and Ctrl-C


@pytest.mark.real
@pytest.mark.steady
def test_32_threads_never_spend_more() -> None:
    """What is reserved and spent stays within the limit."""
    policy = limit(cost=200, per=1e6, most=3)
    fn = Pipeline(policy).wrap(lambda: used(1, 1))
    well: list[None] = []
    seen: list[float] = []

    def client() -> None:
        for _ in range(20):
            level = policy.snapshot()
            seen.append(level.spent + level.reserved)
            try:
                fn()
            except SpendLimitExceededError:
                continue
            well.append(None)

    threads = [threading.Thread(target=client) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert spent(policy) == 2 * len(well) <= 200
    assert max(seen) <= 200


@pytest.mark.fault(23)
@pytest.mark.real
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_reserves_nothing_for_its_parents_threads() -> None:
    """They are not there; what was spent was spent."""
    policy = limit()
    read, write = os.pipe()

    def inside() -> Any:
        child = os.fork()
        if child == 0:
            os.write(write, f"{policy.snapshot().reserved:g}".encode())
            os._exit(0)
        os.waitpid(child, 0)
        return used(1, 1)

    Pipeline(policy).call(inside)
    assert os.read(read, 10) == b"0"
    os.close(read)
    os.close(write)
    assert spent(policy) == 2


FILES = {module.__file__, guard.__file__, contract.__file__}


@pytest.mark.disorderly
@pytest.mark.fault(28, 386)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # in a finalizer
@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")  # one that was just to be awaited
def test_ctrl_c_at_any_step_leaves_nothing_reserved() -> None:
    """It has cost nothing before the function ran, and what it may have cost afterwards."""
    for step in range(1, 10_000):
        policy = limit(most=40)
        ran: list[None] = []
        guarded = Pipeline(policy).wrap(lambda ran=ran: ran.append(None) or used(1, 1))
        reached = False
        try:
            reached = arriving(interrupt, step, guarded, FILES)
        except KeyboardInterrupt:
            reached = True
        for ledger in policy._ledgers.all().values():
            if ledger._lock._is_owned():
                ledger._lock.release()  # Ctrl-C at the end of a `with` itself
        level = policy.snapshot()
        assert level.reserved == 0, step
        assert level.spent in ((2, 40, 42) if ran else (0,)), (step, level)
        if not reached:
            assert step > 50
            return
