"""What is learnt of a function, from its code and from what came back, and what is refused."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from resilience import Fallback, Pipeline, Retry, resilient
from resilience._core.functions import Facts, facts_of, refuse_unguardable, underlying
from support.calling import message_of


def plain() -> int:
    return 1


async def coroutine() -> int:
    return 1


class Calls:
    """A callable object."""

    def __call__(self) -> int:
        return 1

    def method(self) -> int:
        return 2

    @classmethod
    def of_class(cls) -> int:
        return 3


class CallsLater:
    async def __call__(self) -> int:
        return 1


class Silent:
    """No function of the language behind its call."""

    __call__ = functools.partial(plain)


@functools.wraps(coroutine)
def adapted() -> Awaitable[int]:
    return coroutine()


# What is behind a callable


@pytest.mark.parametrize(
    ("fn", "behind"),
    [
        (plain, plain),
        (functools.partial(plain), plain),
        (functools.partial(functools.partial(plain)), plain),
        (Calls().method, Calls.method),
        (functools.partial(Calls().method), Calls.method),
        (Calls(), Calls.__call__),
        (functools.partial(Calls()), Calls.__call__),
        (Calls.of_class, Calls.__dict__["of_class"].__func__),
        (len, len),
        (dict, dict),
    ],
)
def test_the_function_behind_a_callable(fn: Any, behind: Any) -> None:
    """Partials, bound methods and callable objects are looked through; builtins and classes are
    what they are."""
    assert underlying(fn) is behind


def test_an_object_without_a_function_behind_it_is_itself() -> None:
    """A `__call__` that is no function of the language is not looked into."""
    silent = Silent()

    assert underlying(silent) is silent


# What is known


@pytest.mark.parametrize(
    ("fn", "certain", "likely"),
    [
        (plain, False, False),
        (coroutine, True, True),
        (CallsLater(), True, False),
        (Calls(), False, False),
        (adapted, False, True),
        (len, False, False),
    ],
)
def test_facts_from_the_code(fn: Any, certain: bool, likely: bool) -> None:
    """A coroutine function is certain, what wraps one is likely, all else is to be seen."""
    facts = Facts(fn)

    assert (facts.certain, facts.likely) == (certain, likely)
    assert (facts.plain, facts.awaitable) == (False, False)
    assert facts.asynchronous is certain


def test_what_came_back_counts_where_a_loop_runs() -> None:
    """Once awaitable, a function is taken for async in a loop; once both, it is looked at anew."""

    async def there() -> bool:
        return facts.asynchronous

    facts = Facts(plain)
    facts.awaitable = True
    assert facts.asynchronous is False
    assert asyncio.run(there()) is True

    facts.plain = True
    assert asyncio.run(there()) is False


def test_a_ring_of_wrappers_has_an_end() -> None:
    """A function that says it wraps itself is judged by itself."""

    def ring() -> None: ...

    ring.__wrapped__ = ring  # type: ignore[attr-defined]

    assert Facts(ring).likely is False


def test_a_functions_facts_are_remembered() -> None:
    """By the function, also behind partials; by a callable object itself."""
    one, other = Calls(), Calls()

    assert facts_of(plain) is facts_of(plain)
    assert facts_of(functools.partial(functools.partial(plain))) is facts_of(plain)
    assert facts_of(plain) is not facts_of(coroutine)
    assert facts_of(coroutine).certain
    assert facts_of(one) is facts_of(one)
    assert facts_of(one) is not facts_of(other)


def test_a_methods_facts_are_its_classs() -> None:
    """Bound methods are new objects each time; a subclass may be of another colour."""

    class Calls:
        def method(self) -> int:
            return 2

    class Other(Calls):
        pass

    class Later:
        async def method(self) -> int:
            return 1

    assert facts_of(Calls().method) is facts_of(Calls().method)
    assert facts_of(Calls().method) is not facts_of(Other().method)
    assert facts_of(Other().method) is facts_of(Other().method)
    assert facts_of(Later().method).certain
    assert not facts_of(Calls().method).certain


def test_what_cannot_be_remembered_is_learnt_each_time() -> None:
    """Objects without a hash, or without weak references, have facts all the same."""

    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

        async def __call__(self) -> None: ...

    class Slotted:
        __slots__ = ()

        async def __call__(self) -> None: ...

    for fn in (Unhashable(), Slotted()):
        assert facts_of(fn).certain
        assert facts_of(fn) is not facts_of(fn)


# What is refused


class Awaitable_:
    def __await__(self) -> Iterator[None]:
        yield


@pytest.mark.fault(81, 89)
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: property(plain), ("property", "below")),
        (lambda: 7, ("callable", "int")),
        (Awaitable_, ("function", "Awaitable_", "apart")),
    ],
)
def test_what_cannot_be_guarded_is_refused_by_name(
    make: Callable[[], Any], words: tuple[str, ...]
) -> None:
    """With what it is, and what to do instead; in every way of guarding."""
    for use in (
        functools.partial(refuse_unguardable, decorating=False),
        Pipeline(Retry()).call,
        Pipeline(Retry()).wrap,
        resilient,
    ):
        message = message_of(TypeError, use, make())
        assert all(word in message for word in words)


@pytest.mark.fault(89)
def test_a_coroutine_is_refused() -> None:
    """It can be awaited only once; the message says how to do it."""
    begun = coroutine()
    for use in (Pipeline(Retry()).call, Pipeline(Retry()).wrap, resilient):
        assert "coroutine" in message_of(TypeError, use, begun)
    begun.close()


@pytest.mark.parametrize("fn", [plain, coroutine, len, dict, Calls(), adapted, Calls().method])
def test_what_can_be_guarded_passes(fn: Any) -> None:
    """Functions of both colours, builtins, classes to be made, objects that are called."""
    refuse_unguardable(fn, decorating=False)


@pytest.mark.fault(81)
def test_a_class_is_no_function_to_decorate() -> None:
    """Making an object of it can be guarded by a call."""
    for use in (Pipeline(Retry()).wrap, resilient):
        message = message_of(TypeError, use, Calls)
        assert "Calls" in message
        assert "decorate its methods" in message
    refuse_unguardable(plain, decorating=True)
    assert isinstance(Pipeline(Retry()).call(Calls), Calls)
    assert Pipeline(Fallback(None)).call(Calls).__call__() == 1
