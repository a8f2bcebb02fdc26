"""What stands behind an error: the cause it was raised from, or the members of a group."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
import weakref
from collections.abc import Callable
from typing import Any

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience import Pipeline, Retry
from resilience.errors import CircuitOpenError
from resilience.failures import Advice, Describe, Failure, Kind, describe
from resilience.testing import script, virtual_time

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup


class Wrapped(Exception):
    """A framework's own."""


def raised_from(error: BaseException, *causes: BaseException | None) -> Any:
    """`error`, raised from the first of the causes, that one from the next, and so on."""
    outer = error
    for cause in causes:
        outer.__cause__ = cause
        if cause is not None:
            outer = cause
    return error


def test_a_wrapped_error_is_read_by_its_cause() -> None:
    """A framework's error means what the SDK's behind it means, and is still itself."""
    error = raised_from(Wrapped(), RuntimeError(), ConnectionRefusedError())

    failure = describe(error)

    assert (failure.kind, failure.advice, failure.sent) == (Kind.CONNECTION, Advice.RETRY, False)
    assert failure.error is error


def test_a_wrapped_error_is_retried() -> None:
    """Policies act on what is behind it; the error that comes out is the framework's."""
    with virtual_time():
        ask = script(*[raised_from(Wrapped(), TimeoutError()) for _ in range(2)], "answer")
        assert Pipeline(Retry()).call(ask) == "answer"


@pytest.mark.parametrize(
    "error",
    [
        Wrapped(),
        raised_from(Wrapped(), Wrapped(), KeyError()),
        raised_from(Wrapped(), asyncio.CancelledError(), ConnectionError()),
        raised_from(Wrapped(), KeyboardInterrupt()),
    ],
)
def test_a_cause_that_nobody_knows_is_unknown(error: Exception) -> None:
    """Nothing is guessed; and behind a cancellation nothing is looked for."""
    assert describe(error) == Failure(Kind.UNKNOWN, Advice.STOP)


def test_the_nearest_known_cause_is_read_by_its_own_reader() -> None:
    """Whatever stands between; the failure belongs to the error that was raised."""
    own = Describe()

    @own.register(LookupError)
    def read(error: LookupError) -> Failure:
        return Failure(Kind.NOT_FOUND, Advice.STOP, code=error.args[0])

    error = raised_from(Wrapped(), Wrapped(), KeyError("mine"), KeyError("further"))

    assert own(error).code == "mine"
    assert own(error).error is error


def test_the_context_is_no_cause() -> None:
    """An error in the handling of another one is the program's, not the service's."""
    error = Wrapped()
    error.__context__ = ConnectionError()

    assert describe(error).kind is Kind.UNKNOWN


def test_a_ring_and_a_long_chain_of_causes_have_an_end() -> None:
    """A cause may be its own, or a thousand deep: unknown, at once."""
    ring = raised_from(Wrapped(), other := Wrapped())
    other.__cause__ = ring
    deep = raised_from(Wrapped(), *[Wrapped() for _ in range(1000)], ConnectionError())

    for error in (ring, deep):
        began = time.perf_counter()
        assert describe(error).kind is Kind.UNKNOWN
        assert time.perf_counter() - began < 0.1


def test_a_cause_that_lies_is_not_asked() -> None:
    """`__cause__` is read where Python keeps it, past any property."""

    class Liar(Exception):
        @property
        def __cause__(self) -> Any:
            raise RuntimeError("asked")

    assert describe(Liar()).kind is Kind.UNKNOWN


def test_a_reader_may_leave_it_to_the_cause() -> None:
    """A registered reader that returns None has nothing to say; one that returns junk is wrong."""
    own = Describe()
    own.register(Wrapped)(lambda error: None)
    own.register(KeyError)(lambda error: "junk")  # type: ignore[arg-type, return-value]

    assert own(raised_from(Wrapped(), ConnectionError())).kind is Kind.CONNECTION
    assert own(raised_from(KeyError(), ConnectionError())).kind is Kind.UNKNOWN


STOP = KeyError()
RETRY = ConnectionResetError()
ONCE = raised_from(Wrapped(), TimeoutError())


@pytest.mark.fault(60)
@pytest.mark.parametrize(
    ("members", "kind", "advice"),
    [
        ([RETRY], Kind.CONNECTION, Advice.RETRY),
        ([RETRY, TimeoutError()], Kind.CONNECTION, Advice.RETRY),
        ([RETRY, STOP], Kind.UNKNOWN, Advice.STOP),
        ([RETRY, ExceptionGroup("inner", [ONCE, STOP])], Kind.UNKNOWN, Advice.STOP),
        ([RETRY, ExceptionGroup("inner", [ONCE])], Kind.CONNECTION, Advice.RETRY),
        ([RETRY, CircuitOpenError(3.0)], Kind.REJECTED, Advice.STOP),
    ],
)
def test_a_group_is_as_bad_as_its_worst_member(
    members: list[Exception], kind: Kind, advice: Advice
) -> None:
    """It is retried only if all that is in it would be, at any depth."""
    group = ExceptionGroup("several", members)

    failure = describe(group)

    assert (failure.kind, failure.advice) == (kind, advice)
    assert failure.error is group


@pytest.mark.fault(60)
def test_a_group_waits_for_all_and_was_sent_if_any_was() -> None:
    """The longest wait, the smallest limit, and the worst that may have happened."""
    own = {
        "a": Failure(Kind.RATE_LIMIT, Advice.WAIT, retry_after=2.0, sent=False),
        "b": Failure(Kind.RATE_LIMIT, Advice.WAIT, retry_after=7.0, retry_limit=3, sent=True),
        "c": Failure(Kind.TIMEOUT, Advice.RETRY, retry_limit=1),
    }

    class Told(Exception):
        pass

    describe.register(Told)(lambda error: own[error.args[0]])

    def group(*names: str) -> Failure:
        return describe(ExceptionGroup("several", [Told(name) for name in names]))

    both = group("a", "b", "c")
    assert (both.advice, both.retry_after, both.retry_limit) == (Advice.WAIT, 7.0, 1)
    assert both.sent is True
    assert group("a", "c").sent is None
    assert group("a").sent is False


@pytest.mark.fault(60)
def test_a_subclass_of_a_group_and_a_huge_one() -> None:
    """A group of one's own is read like its base; one with too many members is not judged."""

    class Mine(ExceptionGroup):
        pass

    assert describe(Mine("mine", [RETRY])).advice is Advice.RETRY
    assert describe(ExceptionGroup("many", [RETRY] * 256)).advice is Advice.RETRY
    assert describe(ExceptionGroup("many", [RETRY] * 257)).advice is Advice.STOP


@pytest.mark.fault(60)
def test_a_group_that_is_nested_too_deep_is_not_judged() -> None:
    """Not by those of its members that are near the surface either."""
    deep: Exception = STOP
    for _ in range(300):
        deep = ExceptionGroup("deep", [deep])

    for group in (deep, ExceptionGroup("several", [RETRY, deep])):
        failure = describe(group)
        assert (failure.kind, failure.advice) == (Kind.UNKNOWN, Advice.STOP)


@pytest.mark.parametrize(
    "break_it",
    [lambda: json.loads("{"), lambda: pydantic.TypeAdapter(int).validate_python("x")],
)
def test_a_parsers_error_of_the_programs_own_is_unknown(break_it: Callable[[], Any]) -> None:
    """Bad JSON and bad models are the program's business, unless an SDK was reading an answer."""
    with pytest.raises(ValueError, match=r".") as caught:
        break_it()

    assert describe(caught.value).kind is Kind.UNKNOWN


def through(module: str, function: str, error: Exception) -> Exception:
    """The error, come through a function of that module."""
    space: dict[str, Any] = {"__name__": module, "error": error}
    exec(f"def {function}():\n    raise error", space)
    try:
        space[function]()
    except Exception as caught:
        return caught
    raise AssertionError


@pytest.mark.parametrize(
    ("module", "function", "kind"),
    [
        ("auriko._base_client", "_parse_response", Kind.SERVER),
        ("openai._streaming", "__stream__", Kind.SERVER),
        ("auriko.resources.chat", "_build_chat_body", Kind.UNKNOWN),
        ("app.parse", "parse_response", Kind.UNKNOWN),
        ("json.decoder", "decode", Kind.UNKNOWN),
    ],
)
def test_a_parsers_error_is_known_by_the_frames_it_came_through(
    module: str, function: str, kind: Kind
) -> None:
    """An SDK that reads an answer is told from one that builds a request, and from the program."""
    error = through(module, function, json.JSONDecodeError("bad", "{", 0))

    failure = describe(error)

    assert failure.kind is kind
    if kind is Kind.SERVER:
        assert (failure.advice, failure.retry_limit, failure.sent) == (Advice.RETRY, 1, True)
        assert failure.sdk == module.partition(".")[0]


def test_a_parsers_error_from_very_deep_is_unknown() -> None:
    """Only so many frames are looked at, and the SDK's is not among them."""
    error = json.JSONDecodeError("bad", "{", 0)

    def descend(frames: int) -> None:
        if frames:
            descend(frames - 1)
        raise through("openai._streaming", "__stream__", error)

    with pytest.raises(json.JSONDecodeError):
        descend(300)

    assert describe(error).kind is Kind.UNKNOWN


ERRORS = st.sampled_from([ConnectionError, KeyError, Wrapped, TimeoutError, OSError, SystemExit])


@settings(deadline=None)
@given(st.recursive(ERRORS, lambda inner: st.lists(inner, min_size=1, max_size=3), max_leaves=12))
def test_whatever_stands_behind_an_error_it_is_described_and_let_go(shape: Any) -> None:
    """Any tree of groups and causes gives a Failure, and nothing of it is kept alive."""

    def build(shape: Any) -> BaseException:
        if isinstance(shape, type):
            return shape()  # type: ignore[no-any-return]
        members = [build(each) for each in shape]
        if all(isinstance(member, Exception) for member in members):
            return raised_from(ExceptionGroup("g", members), members[0])  # type: ignore[no-any-return, type-var, list-item]
        return raised_from(Wrapped(), *members)  # type: ignore[no-any-return]

    error: Any = raised_from(Wrapped(), build(shape))
    alive = weakref.ref(error)

    failure = describe(error)
    assert failure.error is error
    assert isinstance(failure.kind, Kind)

    del error, failure
    if alive() is not None:
        gc.collect()
    assert alive() is None


def ring_of_groups() -> Exception:
    """As `for each in group.exceptions: try: raise each from group` makes it."""
    members = [RuntimeError(str(number)) for number in range(2)]
    group = ExceptionGroup("g", members)
    for member in members:
        member.__cause__ = group
    return group


def tower_of_groups(levels: int) -> Exception:
    """Groups of four errors that nobody knows, each caused by the next such group."""
    error: Exception = ConnectionResetError()
    for _ in range(levels):
        error = ExceptionGroup("g", [raised_from(Wrapped(), error) for _ in range(4)])
    return error


@pytest.mark.fault(60)
@pytest.mark.parametrize("make", [ring_of_groups, lambda: tower_of_groups(12)])
def test_groups_that_groups_were_caused_by(make: Callable[[], Exception]) -> None:
    """Bounded, whatever the shape: what is too much to look at is not judged."""
    began = time.process_time()

    assert describe(make()) == Failure(Kind.UNKNOWN, Advice.STOP)
    assert time.process_time() - began < 1


def test_a_group_within_bounds_is_read_through_its_causes() -> None:
    """Three levels of groups, each the cause of the members above."""
    assert describe(tower_of_groups(3)).advice is Advice.RETRY
    assert describe(tower_of_groups(1)).kind is Kind.CONNECTION


def test_a_group_of_too_many_is_not_read_by_its_cause() -> None:
    """What it was raised from says nothing about its members."""
    many = raised_from(ExceptionGroup("many", [KeyError()] * 300), ConnectionResetError())

    assert describe(many).advice is Advice.STOP
