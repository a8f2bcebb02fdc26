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


@pytest.mark.parametrize("other", [KeyError, 429, "x", Kind.AUTH, Advice.WAIT, about_vectors, [7]])
def test_any_form_joins_with_a_match(other: Any) -> None:
    """`|` and `&` take on both sides whatever `on=` takes, and refuse what it refuses."""
    if other == [7]:
        for join in (lambda: TRANSIENT | other, lambda: other & TRANSIENT):
            with pytest.raises(ValueError, match="100 to 599"):
                join()
        return
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
    ("spec", "problem", "told"),
    [
        (True, TypeError, r"^on must be an HTTP status .*, got True$"),
        ([False], TypeError, r"^on must be an HTTP status .*, got False$"),
        (42, ValueError, r"^on must be within 100 to 599 as an HTTP status, got 42$"),
        (600, ValueError, r"^on must be within 100 to 599 .*, got 600$"),
        (range(500, 601), ValueError, r"within 100 to 599 .*, got range\(500, 601\)$"),
        (range(600, 500, -1), ValueError, r"within 100 to 599"),
        (range(500, 500), ValueError, r"within 100 to 599 .*, got range\(500, 500\)$"),
        ("", ValueError, r"^on must not be empty as a code, got ''$"),
        ([], ValueError, r"^on must name at least one item, got \(\)$"),
        ([429, ()], ValueError, r"^on must name at least one item"),
        (BaseException, ValueError, r"^on .* control-flow .* never handled, got BaseException$"),
        (KeyboardInterrupt, ValueError, r"control-flow .* got KeyboardInterrupt$"),
        (SystemExit, ValueError, r"control-flow .* got SystemExit$"),
        (GeneratorExit, ValueError, r"control-flow .* got GeneratorExit$"),
        ([KeyError, asyncio.CancelledError], ValueError, r"control-flow .* got CancelledError$"),
        (int, TypeError, r"^on must be an exception class, got <class 'int'>$"),
        (KeyError("s"), TypeError, r"^on .*, got an instance of KeyError; write KeyError$"),
        (KeyboardInterrupt(), TypeError, r"instance of KeyboardInterrupt"),
        (None, TypeError, r"^on must be an exception class, a status, .*, got None$"),
        (429.0, TypeError, r"^on must be an exception class, a status, .*, got 429\.0$"),
        ({"a": 1}, TypeError, r"^on must be an exception class, a status"),
        (b"x", TypeError, r"^on must be an exception class, a status"),
        (async_condition, TypeError, r"^on must be a plain function, got the async"),
    ],
    ids=repr,
)
def test_what_is_refused(spec: Any, problem: type[Exception], told: str) -> None:
    """What can never match, or is no item, is refused with field, rule and value."""
    with pytest.raises(problem, match=told):
        as_match(spec)
    with pytest.raises(problem, match=told.replace("^on", "^trip")):
        as_match(spec, field="trip")


def test_the_functions_refuse_too() -> None:
    """`status`, `code`, `kind` and `raised` check what they are given."""
    calls: list[tuple[Any, type[Exception], str]] = [
        (lambda: status(), ValueError, "status must name at least one item"),
        (lambda: code(), ValueError, "code must name at least one item"),
        (lambda: kind(), ValueError, "kind must name at least one item"),
        (lambda: raised(), ValueError, "raised must name at least one item"),
        (lambda: status(True), TypeError, "status must be an HTTP status"),
        (lambda: status("429"), TypeError, "status must be an HTTP status .*, got '429'"),
        (lambda: status(429, 99), ValueError, "status must be within 100 to 599"),
        (lambda: code(429), TypeError, r"code must be a code \(a string\), got 429"),
        (lambda: code(""), ValueError, "code must not be empty"),
        (lambda: kind("auth"), TypeError, "kind must be a Kind, got 'auth'"),
        (lambda: raised(SystemExit), ValueError, "raised .* control-flow"),
        (lambda: raised("KeyError"), TypeError, "raised must be an exception class"),
    ]
    for call, problem, told in calls:
        with pytest.raises(problem, match=told):
            call()


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
