"""IdempotencyKey: one key for all attempts of a call, in a header and for the function to see."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any
from uuid import UUID

import httpx
import pytest

from conftest import World
from resilience import (
    IdempotencyKey,
    Model,
    ModelFallback,
    Pipeline,
    Retry,
    Streaming,
    Timeout,
    current_attempt,
    guarded,
    history,
)
from support.calling import error_of, message_of
from support.functions import coloured
from support.streams import Source, consumed

HEADER = "Idempotency-Key"


class Server:
    """A function that takes headers, fails a few times, and sees what it is sent."""

    def __init__(self, world: World, failures: int = 0) -> None:
        self.headers: list[Any] = []
        self.keys: list[str | None] = []
        self.models: list[str | None] = []
        self.failures = failures
        self.create = coloured(world, self._create)

    def _create(self, *, model: str | None = None, extra_headers: Any = None) -> str:
        self.models.append(model)
        self.headers.append(extra_headers)
        self.keys.append(current_attempt().key)
        if len(self.keys) <= self.failures:
            raise ConnectionError
        return "done"


@pytest.mark.fault(287)
@pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])
def test_one_key_for_all_attempts(world: World, inside: bool) -> None:
    """Wherever it stands; the function sees it, and the next call has another."""
    policies = [Retry(wait=0), IdempotencyKey()]
    server = Server(world, failures=2)
    fn = Pipeline(*(policies if inside else policies[::-1])).wrap(server.create)

    assert world.run(fn) == "done"
    assert world.run(fn) == "done"
    first, other = server.keys[0], server.keys[-1]
    assert server.keys == [first, first, first, other]
    assert server.headers == [{HEADER: key} for key in server.keys]
    assert first != other
    assert str(UUID(first)) == first


@pytest.mark.fault(287)
@pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])
def test_one_key_for_all_models(world: World, inside: bool) -> None:
    """Those with headers of their own as well."""
    policies: list[Any] = [
        ModelFallback("a", Model("b", extra_headers={"X-Own": "1"})),
        IdempotencyKey(),
    ]
    order = policies if inside else policies[::-1]
    server = Server(world, failures=3)
    world.run(Pipeline(*order, Retry(attempts=2, wait=0)).wrap(server.create))

    key = server.keys[0]
    assert server.models == ["a", "a", "b", "b"]
    assert server.keys == [key] * 4
    assert server.headers == [{HEADER: key}] * 2 + [{HEADER: key, "X-Own": "1"}] * 2


def test_a_model_of_another_function(world: World) -> None:
    """Gets the header where it takes it; one that does not is called without."""
    server = Server(world, failures=1)
    seen: list[Any] = []
    plain = coloured(world, lambda model: seen.append((model, current_attempt().key)) or 1 / 0)
    other = Server(world)
    fn = Pipeline(
        ModelFallback("a", Model("b", call=plain), Model("c", call=other.create), on=Exception),
        IdempotencyKey(),
    ).wrap(server.create)

    assert world.run(fn) == "done"
    (key,) = server.keys
    assert seen == [("b", key)]
    assert other.headers == [{HEADER: key}]


@pytest.mark.fault(287)
@pytest.mark.parametrize(
    "given",
    [
        {HEADER: "mine"},
        {"idempotency-key": "mine", "X-Team": "blue"},
        MappingProxyType({"IDEMPOTENCY-KEY": "mine"}),
        httpx.Headers({HEADER: "mine"}),
        [("X-Team", "blue"), (HEADER, "mine")],
        ((b"idempotency-key", b"mine"),),
    ],
    ids=lambda given: type(given).__name__,
)
def test_a_key_of_the_callers_stays(world: World, given: Any) -> None:
    """In whatever case it is written; it is passed as it is, and it is what the function sees."""
    server = Server(world, failures=1)
    world.run(Pipeline(IdempotencyKey(), Retry(wait=0)).wrap(server.create), extra_headers=given)

    assert all(headers is given for headers in server.headers)
    assert server.keys == ["mine", "mine"]


@pytest.mark.parametrize(
    "given",
    [
        {"X-Team": "blue"},
        MappingProxyType({"X-Team": "blue"}),
        httpx.Headers({"X-Team": "blue"}),
        [("X-Team", "blue")],
        (("X-Team", "blue"),),
        {},
        [],
    ],
    ids=lambda given: type(given).__name__,
)
def test_other_headers_of_the_callers_stay(world: World, given: Any) -> None:
    """The key is added to a copy."""
    before = list(given.items()) if isinstance(given, Mapping) else list(given)
    server = Server(world)
    world.run(Pipeline(IdempotencyKey()).wrap(server.create), extra_headers=given)

    (headers,), (key,) = server.headers, server.keys
    assert type(headers) is (dict if isinstance(given, Mapping) else list)
    assert [*before, (HEADER, key)] == [*(headers.items() if type(headers) is dict else headers)]
    assert before == (list(given.items()) if isinstance(given, Mapping) else list(given))


@pytest.mark.parametrize("given", ["text", 5, [1, 2], [("a", "b", "c")], object()])
def test_headers_that_are_none(world: World, given: Any) -> None:
    """Refused by name and type, without their text."""
    server = Server(world)
    error = error_of(world, Pipeline(IdempotencyKey()).wrap(server.create), extra_headers=given)

    assert type(error) is TypeError
    assert "extra_headers must be" in str(error)
    assert type(given).__name__ in str(error)
    assert server.keys == []


def test_another_header_and_argument(world: World) -> None:
    """As httpx has it; by position, too."""
    seen: list[Any] = []

    def post(url: str, headers: Any = None) -> None:
        seen.append((url, headers, current_attempt().key))

    policy = IdempotencyKey(header="X-Request-Id", argument="headers")
    fn = Pipeline(policy).wrap(coloured(world, post))
    world.run(fn, "u", {"a": "b"})
    ((url, headers, key),) = seen
    assert (url, headers) == ("u", {"a": "b", "X-Request-Id": key})


def test_only_shown(world: World) -> None:
    """With `argument=None` a function that takes no headers gets none, and sees the key."""
    seen: list[str | None] = []

    def book(order: str) -> None:
        seen.append(current_attempt().key)
        if len(seen) == 1:
            raise ConnectionError

    world.run(
        Pipeline(IdempotencyKey(argument=None), Retry(wait=0)).wrap(coloured(world, book)), "o1"
    )
    assert len(seen) == 2
    assert len({*seen}) == 1
    assert seen[0] is not None


def test_a_function_that_takes_no_headers() -> None:
    """Refused at decoration, and told what to do: its key would never be sent."""
    message = message_of(TypeError, Pipeline(IdempotencyKey()).wrap, lambda order: None)

    assert "'extra_headers'" in message
    assert "argument=None" in message
    bound = partial(Server._create, extra_headers={})
    assert "partial" in message_of(TypeError, Pipeline(IdempotencyKey()).wrap, bound)


def test_without_the_policy_there_is_no_key(world: World) -> None:
    """Nor outside of any call."""
    server = Server(world)
    world.run(Pipeline(Retry(), Timeout(9)).wrap(server.create))

    assert server.keys == [None]
    assert server.headers == [None]
    assert current_attempt().key is None


def test_two_of_them_have_one_key(world: World) -> None:
    """A call has one key, in two headers if need be; each is added by its own policy."""
    server = Server(world)
    policies = IdempotencyKey(), IdempotencyKey(header="X-Other")
    world.run(Pipeline(*policies).wrap(server.create))

    (key,) = server.keys
    assert server.headers == [{HEADER: key, "X-Other": key}]


def test_history_and_outcome_have_the_key(world: World) -> None:
    """To ask the server what became of it; it is in no text."""
    server = Server(world, failures=9)
    fn = Pipeline(IdempotencyKey(), Retry(wait=0, attempts=2)).wrap(server.create)
    error = error_of(world, fn)
    outcome = world.run(guarded(fn).outcome)

    assert [attempt.key for attempt in history(error)] == server.keys[:2]
    assert [attempt.key for attempt in outcome.attempts] == server.keys[2:]
    assert str(server.keys[0]) not in repr(history(error)) + "".join(error.__notes__)


@pytest.mark.fault(287)
@pytest.mark.real
@pytest.mark.steady
def test_the_key_survives_a_hand_over() -> None:
    """A function that turns out to be async when it is called: it is called once, with the key
    that the attempt after it has, too."""
    made: list[Any] = []
    sent: list[Any] = []

    async def send(key: str | None) -> str:
        sent.append((key, current_attempt().key))
        if len(sent) == 1:
            raise ConnectionError
        return "done"

    def create(*, extra_headers: Any = None) -> Any:
        made.append(extra_headers[HEADER])
        return send(current_attempt().key)

    async def main() -> None:
        create_robustly: Any = Pipeline(Retry(wait=0), IdempotencyKey()).wrap(create)
        assert await create_robustly() == "done"

    asyncio.run(main())
    key = made[0]
    assert made == [key, key]
    assert sent == [(key, key), (key, key)]


def test_in_a_block(world: World) -> None:
    """Code in a block sees it as well."""
    seen: list[str | None] = []
    pipeline = Pipeline(Retry(wait=0), IdempotencyKey())

    def block() -> None:
        for attempt in pipeline.attempts():
            with attempt:
                seen.append(current_attempt().key)
                if len(seen) == 1:
                    raise ConnectionError

    async def ablock() -> None:
        async for attempt in pipeline.attempts():
            async with attempt:
                seen.append(current_attempt().key)
                if len(seen) == 1:
                    raise ConnectionError

    world.run(ablock if world.asynchronous else block)
    assert len(seen) == 2
    assert len({*seen} - {None}) == 1


def test_as_text_and_in_another_process() -> None:
    """It prints as it is made, and pickles."""
    policy = IdempotencyKey(header="X-Key", argument=None)
    assert repr(policy) == "IdempotencyKey(header='X-Key', argument=None)"
    assert repr(IdempotencyKey()) == "IdempotencyKey()"
    assert repr(pickle.loads(pickle.dumps(policy))) == repr(policy)


# Streams that go on


def keys_of(world: World, streaming: Streaming, **given: Any) -> list[str]:
    """The keys that a server is sent for a stream that breaks off twice."""
    source = Source(world, ["a", ConnectionError()], ["b", ConnectionError()], ["c"])
    policies = IdempotencyKey(), ModelFallback("m", "n"), streaming
    consumed(world, Pipeline(*policies).wrap(source.function), **given)
    return [kwargs["extra_headers"][HEADER] for _, kwargs in source.calls]


@pytest.mark.fault(333)
def test_a_stream_that_is_restarted_keeps_its_key(world: World) -> None:
    """It is the same request once more."""
    first, second, third = keys_of(world, Streaming(on_interrupted="restart"))
    assert first == second == third


@pytest.mark.fault(333)
def test_each_continuation_of_a_stream_has_a_key_of_its_own(world: World) -> None:
    """It is another request, with what was received in it; other headers stay."""

    def go_on(error: Any, args: Any, kwargs: Any) -> Any:
        assert kwargs["extra_headers"]["x-mine"] == "1"
        return args, {**kwargs, "said": error.text}

    streaming = Streaming(on_interrupted=go_on)
    keys = keys_of(world, streaming, extra_headers={"x-mine": "1"})
    assert len(set(keys)) == 3


@pytest.mark.fault(333)
def test_a_callers_own_key_stays_in_a_continuation(world: World) -> None:
    """The function that continues the stream may change it."""
    streaming = Streaming(on_interrupted=lambda error, args, kwargs: (args, kwargs))
    assert keys_of(world, streaming, extra_headers={HEADER: "own"}) == ["own"] * 3
