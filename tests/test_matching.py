"""The `on=` language: every form, what it matches, how it reads, and what it refuses."""

from __future__ import annotations

import asyncio
import pickle
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.failures import Advice, Failure, Kind
from resilience.matching import (
    RECOVERABLE,
    SERVICE_FAULT,
    TRANSIENT,
    Match,
    as_match,
    code,
    kind,
    raised,
    status,
)
from support.calling import message_of


def failure(
    advice: Advice = Advice.STOP,
    kind: Kind = Kind.UNKNOWN,
    *,
    error: Exception | None = None,
    status: int | None = None,
    code: str | None = None,
) -> Failure:
    return Failure(kind, advice, status=status, code=code, error=error)


def about_vectors(failure: Failure) -> bool:
    """A user's own condition."""
    return failure.code == "vector"


@pytest.mark.parametrize(
    ("spec", "matching", "other", "text"),
    [
        (KeyError, failure(error=KeyError()), failure(error=ValueError()), "raised(KeyError)"),
        (LookupError, failure(error=KeyError()), failure(), "raised(LookupError)"),
        (429, failure(status=429), failure(status=430), "status(429)"),
        (HTTPStatus.CONFLICT, failure(status=409), failure(), "status(409)"),
        (
            range(500, 600),
            failure(status=599),
            failure(status=499),
            "status(range(500, 600))",
        ),
        ("x", failure(code="x"), failure(code="y"), "code('x')"),
        ("timeout", failure(code="timeout"), failure(kind=Kind.TIMEOUT), "code('timeout')"),
        (Kind.QUOTA, failure(kind=Kind.QUOTA), failure(code="quota"), "kind(Kind.QUOTA)"),
        (Advice.WAIT, failure(Advice.WAIT), failure(Advice.RETRY), "Advice.WAIT"),
        (about_vectors, failure(code="vector"), failure(), "about_vectors"),
        ([429, KeyError], failure(error=KeyError()), failure(), "status(429) | raised(KeyError)"),
        ((429, [KeyError]), failure(status=429), failure(), "status(429) | raised(KeyError)"),
        ({429}, failure(status=429), failure(status=1), "status(429)"),
        (frozenset({"x"}), failure(code="x"), failure(), "code('x')"),
        (TRANSIENT, failure(Advice.RETRY), failure(Advice.FALLBACK), "TRANSIENT"),
        (status(408, range(500, 600, 2)), failure(status=502), failure(status=503), None),
        (code("x", "y"), failure(code="y"), failure(), "code('x', 'y')"),
        (kind(Kind.AUTH, Kind.QUOTA), failure(kind=Kind.AUTH), failure(), None),
        (raised(KeyError, OSError), failure(error=TimeoutError()), failure(), None),
        (~status(429), failure(status=428), failure(status=429), "~status(429)"),
        (
            TRANSIENT & ~status(500),
            failure(Advice.RETRY, status=502),
            failure(Advice.RETRY, status=500),
            "TRANSIENT & ~status(500)",
        ),
        (
            raised(KeyError) | code("x"),
            failure(code="x"),
            failure(code="z"),
            "raised(KeyError) | code('x')",
        ),
        (
            (TRANSIENT | SERVICE_FAULT) & ~(code("x") | code("y")),
            failure(Advice.WAIT),
            failure(Advice.WAIT, code="y"),
            "(TRANSIENT | SERVICE_FAULT) & ~(code('x') | code('y'))",
        ),
        (
            ~(TRANSIENT & RECOVERABLE),
            failure(),
            failure(Advice.WAIT),
            "~(TRANSIENT & RECOVERABLE)",
        ),
    ],
    ids=repr,
)
def test_every_form(spec: Any, matching: Failure, other: Failure, text: str | None) -> None:
    """Each form matches what it says, and reads like the code that makes it."""
    match = as_match(spec)

    assert match(matching) is True
    assert match(other) is False
    assert (~match)(matching) is False
    if text is not None:
        assert repr(match) == text
    assert match == as_match(spec)
    assert pickle.loads(pickle.dumps(match)) == match


@pytest.mark.parametrize(
    ("match", "kinds", "advice"),
    [
        (TRANSIENT, set(), {Advice.RETRY, Advice.WAIT}),
        (RECOVERABLE, {Kind.REJECTED}, {Advice.RETRY, Advice.WAIT, Advice.FALLBACK}),
        (
            SERVICE_FAULT,
            {Kind.CONNECTION, Kind.TIMEOUT, Kind.UNAVAILABLE, Kind.OVERLOADED, Kind.SERVER},
            set(),
        ),
    ],
    ids=repr,
)
def test_the_ready_made_ones(match: Match, kinds: set[Kind], advice: set[Advice]) -> None:
    """TRANSIENT and RECOVERABLE go by the advice, SERVICE_FAULT by the kind."""
    for each_kind in Kind:
        for each_advice in Advice:
            expected = each_kind in kinds or each_advice in advice
            assert match(failure(each_advice, each_kind)) is expected


@pytest.mark.parametrize("other", [KeyError, 429, "x", Kind.AUTH, Advice.WAIT, about_vectors])
def test_any_form_joins_with_a_match(other: Any) -> None:
    """`|` and `&` take on both sides whatever `on=` takes."""
    assert TRANSIENT | other == as_match([TRANSIENT, other])
    assert other | TRANSIENT == as_match([other, TRANSIENT])
    assert repr(other & TRANSIENT) == f"{as_match(other)!r} & TRANSIENT"
    assert repr(TRANSIENT & other) == f"TRANSIENT & {as_match(other)!r}"


@pytest.mark.parametrize(
    ("spec", "told", "by_advice"),
    [
        (TRANSIENT, failure(Advice.RETRY), True),
        (TRANSIENT, failure(), False),
        (RECOVERABLE, failure(Advice.FALLBACK), True),
        (Advice.RETRY, failure(Advice.RETRY), True),
        (Exception, failure(Advice.RETRY, error=KeyError()), False),
        (504, failure(Advice.RETRY, status=504), False),
        ("x", failure(Advice.RETRY, code="x"), False),
        (Kind.TIMEOUT, failure(Advice.RETRY, Kind.TIMEOUT), False),
        (SERVICE_FAULT, failure(Advice.RETRY, Kind.TIMEOUT), False),
        (lambda failure: True, failure(Advice.RETRY), False),
        (TRANSIENT | status(504), failure(Advice.RETRY, status=504), False),
        (TRANSIENT | status(504), failure(Advice.RETRY, status=500), True),
        (TRANSIENT | status(504), failure(status=504), False),
        (TRANSIENT | status(504), failure(), False),
        (TRANSIENT & status(504), failure(Advice.RETRY, status=504), False),
        (TRANSIENT & RECOVERABLE, failure(Advice.RETRY), True),
        (TRANSIENT & ~status(500), failure(Advice.RETRY, status=504), True),
        (TRANSIENT & ~status(500), failure(Advice.RETRY, status=500), False),
        ([Advice.RETRY, 504], failure(Advice.RETRY, status=504), False),
    ],
)
def test_by_advice(spec: Any, told: Failure, by_advice: bool) -> None:
    """A match rests on the advice unless some item that matches names the error."""
    assert as_match(spec).by_advice(told) is by_advice


@pytest.mark.parametrize("good", [100, 599, range(100, 600)])
def test_the_first_and_the_last_status(good: Any) -> None:
    """100 and 599 are statuses."""
    first = good if isinstance(good, int) else good[0]

    assert status(good)(failure(status=first))


def test_a_list_of_one_is_that_one() -> None:
    """Written either way, it is the same match."""
    assert as_match([ConnectionError]) == as_match(ConnectionError)
    assert as_match({429}) == as_match(429)


class Asks:
    """A function of the failure that has no name of its own."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    def __call__(self, failure: Failure) -> bool:
        return True

    def __repr__(self) -> str:
        return "asks"


@pytest.mark.parametrize(
    ("match", "text"),
    [
        (raised(ConnectionError, TimeoutError), "raised(ConnectionError, TimeoutError)"),
        (as_match(Asks()), "asks"),
        (as_match(Asks(__qualname__=3)), "asks"),
        (as_match(Asks(__qualname__="asks.it")), "asks.it"),
    ],
    ids=["classes", "no name", "no text", "name"],
)
def test_how_matches_are_printed(match: Match, text: str) -> None:
    """Classes by their names; a function by its own, or as it prints itself."""
    assert repr(match) == text


def test_a_class_is_matched_as_except_does_it() -> None:
    """An exception is of the type it is, not of the one it claims."""

    class Liar(Exception):
        @property
        def __class__(self) -> Any:
            return KeyError

    assert not raised(KeyError)(failure(error=Liar()))
    assert raised(Liar)(failure(error=Liar()))
    assert not raised(Exception)(failure(error=None))


def test_what_a_function_raises_comes_out() -> None:
    """The policy knows what to do when a user's condition is broken; the match does not."""

    def broken(failure: Failure) -> bool:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        as_match([429, broken])(failure())


async def async_condition(failure: Failure) -> bool:
    return True


@pytest.mark.parametrize(
    ("spec", "problem", "word"),
    [
        (True, TypeError, "status"),
        ([False], TypeError, "status"),
        (42, ValueError, "599"),
        (99, ValueError, "599"),
        (600, ValueError, "599"),
        (range(500, 601), ValueError, "599"),
        (range(99, 200), ValueError, "599"),
        (range(600, 500, -1), ValueError, "599"),
        (range(500, 500), ValueError, "599"),
        ("", ValueError, "empty"),
        ([], ValueError, "least"),
        ([429, ()], ValueError, "least"),
        (BaseException, ValueError, "control-flow"),
        (KeyboardInterrupt, ValueError, "control-flow"),
        (SystemExit, ValueError, "control-flow"),
        (GeneratorExit, ValueError, "control-flow"),
        ([KeyError, asyncio.CancelledError], ValueError, "control-flow"),
        (int, TypeError, "class"),
        (KeyError("s"), TypeError, "instance"),
        (KeyboardInterrupt(), TypeError, "instance"),
        (None, TypeError, "Match"),
        (429.0, TypeError, "Match"),
        ({"a": 1}, TypeError, "Match"),
        (b"x", TypeError, "Match"),
        (async_condition, TypeError, "async"),
    ],
    ids=repr,
)
def test_what_is_refused(spec: Any, problem: type[Exception], word: str) -> None:
    """What can never match, or is no item, is refused with field, rule and value."""
    refused = spec[-1] if isinstance(spec, list) and spec else spec
    value = getattr(refused, "__qualname__", type(refused).__qualname__)
    for message, field in (
        (message_of(problem, as_match, spec), "on"),
        (message_of(problem, as_match, spec, field="trip"), "trip"),
    ):
        assert message.startswith(f"{field} must")
        assert word in message
        assert repr(refused) in message or value in message or refused == []


@pytest.mark.parametrize(
    ("join", "operator"),
    [
        (lambda: TRANSIENT | 3.5, "|"),
        (lambda: 3.5 | TRANSIENT, "|"),
        (lambda: TRANSIENT & 3.5, "&"),
        (lambda: 3.5 & TRANSIENT, "&"),
        (lambda: TRANSIENT | [3.5], "|"),
        (lambda: [3.5] & TRANSIENT, "&"),
    ],
)
def test_a_bad_operand_is_refused_in_the_operators_name(join: Any, operator: str) -> None:
    """What stands beside `|` or `&` is checked like any item, and the message says where."""
    message = message_of(TypeError, join)

    assert message.startswith(f"{operator} must")
    assert "3.5" in message


@pytest.mark.parametrize(
    ("call", "problem", "field", "word"),
    [
        (lambda: status(), ValueError, "status", "least"),
        (lambda: code(), ValueError, "code", "least"),
        (lambda: kind(), ValueError, "kind", "least"),
        (lambda: raised(), ValueError, "raised", "least"),
        (lambda: status(True), TypeError, "status", "True"),
        (lambda: status("429"), TypeError, "status", "'429'"),
        (lambda: status(429, 99), ValueError, "status", "99"),
        (lambda: code(429), TypeError, "code", "429"),
        (lambda: code(""), ValueError, "code", "empty"),
        (lambda: kind("auth"), TypeError, "kind", "'auth'"),
        (lambda: raised(SystemExit), ValueError, "raised", "SystemExit"),
        (lambda: raised("KeyError"), TypeError, "raised", "'KeyError'"),
    ],
)
def test_the_functions_refuse_too(
    call: Any, problem: type[Exception], field: str, word: str
) -> None:
    """`status`, `code`, `kind` and `raised` check what they are given."""
    message = message_of(problem, call)

    assert message.startswith(f"{field} must")
    assert word in message


ITEMS = st.sampled_from([TRANSIENT, SERVICE_FAULT, status(500), code("x"), raised(KeyError)])
MATCHES = st.recursive(
    ITEMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda two: two[0] | two[1]),
        st.tuples(inner, inner).map(lambda two: two[0] & two[1]),
        inner.map(lambda one: ~one),
    ),
    max_leaves=8,
)
FAILURES = st.builds(
    failure,
    st.sampled_from(Advice),
    st.sampled_from([Kind.SERVER, Kind.AUTH]),
    error=st.sampled_from([KeyError(), ValueError()]),
    status=st.sampled_from([None, 500, 429]),
    code=st.sampled_from([None, "x"]),
)


@given(MATCHES, FAILURES)
def test_a_printed_match_means_the_same(match: Match, told: Failure) -> None:
    """The text of a match, read as code, decides as the match does; advice implies a match."""
    again = eval(repr(match))

    assert again(told) is match(told)
    assert not match.by_advice(told) or match(told)
