"""Rate limits: whose they are, and when they are full again."""

from __future__ import annotations

from typing import Any

import auriko
import pytest

from conftest import World
from resilience import Model, ModelFallback, Pipeline, Retry, history
from resilience.failures import Advice, Failure, Kind, describe
from resilience.matching import status
from resilience.testing.gateway import Error, Gateway
from resilience.waits import Fixed, RetryAfter


class Limited(Exception):
    """A rate limit, with what a server says of it."""

    def __init__(self, **facts: Any) -> None:
        super().__init__()
        self.facts = facts


@describe.register(Limited)
def _read(error: Limited) -> Failure:
    return Failure(Kind.RATE_LIMIT, Advice.WAIT, status=429, **error.facts)


def models_asked(world: World) -> list[str]:
    return [kwargs["model"] for _, kwargs in world.calls]


def test_a_limit_upstream_sends_the_call_to_the_next_model(world: World) -> None:
    """Another provider is not limited: the next model at once, without a wait."""
    fn = world.function(Limited(retry_after=5.0, elsewhere=True), "answer")

    assert world.run(Pipeline(ModelFallback("a", "b"), Retry()).call, fn) == "answer"
    assert models_asked(world) == ["a", "b"]
    assert world.clock.sleeps == []


def test_a_limit_of_the_accounts_own_is_waited_out(world: World) -> None:
    """It holds for every model: the same one is asked again, after the wait."""
    fn = world.function(Limited(retry_after=5.0, elsewhere=False), "answer")
    pipeline = Pipeline(ModelFallback("a", "b"), Retry(wait=RetryAfter(spread=0)))

    assert world.run(pipeline.call, fn) == "answer"
    assert models_asked(world) == ["a", "a"]
    assert world.clock.sleeps == [5.0]


def test_a_limit_of_the_accounts_own_ends_the_chain(world: World) -> None:
    """When its attempts are spent the error comes out: the other models would answer the same."""
    fn = world.function(Limited(elsewhere=False))
    pipeline = Pipeline(ModelFallback("a", "b"), Retry(attempts=2, wait=Fixed(1)))

    with pytest.raises(Limited) as caught:
        world.run(pipeline.call, fn)
    assert models_asked(world) == ["a", "a"]
    assert len(history(caught.value)) == 2


def test_who_names_the_status_means_it(world: World) -> None:
    """`on=status(429)` moves on whosever limit it is."""
    fn = world.function(Limited(elsewhere=False), "answer")

    assert world.run(Pipeline(ModelFallback("a", "b", on=status(429))).call, fn) == "answer"


def test_a_model_of_another_service_is_no_part_of_the_limit(world: World) -> None:
    """A `Model(call=)` goes elsewhere: the models before it are passed over."""
    fn = world.function(Limited(elsewhere=False))
    other = world.function("from elsewhere")
    chain = ModelFallback("a", "b", Model("c", call=other))

    assert world.run(Pipeline(chain, Retry()).call, fn) == "from elsewhere"
    assert models_asked(world) == ["a", "c"]


def test_reset_headers_are_waited_by_only_where_asked_for(world: World) -> None:
    """`resets=True` waits until the limit is full again, at most `longest`."""
    fn = world.function(Limited(reset_after=40.0), Limited(reset_after=400.0), "answer")
    wait = RetryAfter(otherwise=1, spread=0)

    world.run(Pipeline(Retry(wait=wait)).call, fn)
    assert world.clock.sleeps == [1.0, 1.0]

    fn = world.function(Limited(reset_after=40.0), Limited(reset_after=400.0), "answer")
    world.run(Pipeline(Retry(wait=RetryAfter(spread=0, resets=True))).call, fn)
    assert world.clock.sleeps[2:] == [40.0, 60.0]


def test_retry_after_goes_before_the_resets(world: World) -> None:
    """A server's own Retry-After is what it asks for now."""
    fn = world.function(Limited(retry_after=3.0, reset_after=None), "answer")

    world.run(Pipeline(Retry(wait=RetryAfter(spread=0, resets=True))).call, fn)
    assert world.clock.sleeps == [3.0]


@pytest.mark.real
@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({"X-Rate-Limit-Source": "upstream"}, (Kind.RATE_LIMIT, Advice.WAIT, True)),
        ({"X-Rate-Limit-Source": "auriko"}, (Kind.RATE_LIMIT, Advice.WAIT, False)),
        ({"X-Budget-Exceeded": "true"}, (Kind.QUOTA, Advice.STOP, None)),
    ],
)
def test_aurikos_headers_over_the_wire(headers: dict[str, str], told: object) -> None:
    """What the gateway says beside the code is read from the real SDK's error."""
    with (
        Gateway(Error("rate_limit_exceeded", headers=headers)) as gateway,
        auriko.Client(api_key="none", base_url=gateway.base_url, max_retries=0) as client,
        pytest.raises(auriko.RateLimitError) as caught,
    ):
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}])
    failure = describe(caught.value)

    assert (failure.kind, failure.advice, failure.elsewhere) == told
    assert failure.reset_after == pytest.approx(60, abs=5) or failure.advice is Advice.STOP
