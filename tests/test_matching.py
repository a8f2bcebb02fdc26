"""The `on=` language: every form, what it matches, how it reads, and what it refuses."""

from __future__ import annotations

import asyncio
import logging
import pickle
import re
import sys
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import World
from resilience import CircuitBreaker, Fallback, ModelFallback, Pipeline, Retry
from resilience._core.meeting import may_meet
from resilience.errors import BadResultError
from resilience.failures import Advice, Describe, Failure, Kind, describe
from resilience.matching import (
    RECOVERABLE,
    SERVICE_FAULT,
    TOO_LONG_BY_TEXT,
    TRANSIENT,
    Match,
    as_match,
    code,
    kind,
    message,
    raised,
    status,
)
from support.calling import error_of, message_of

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup


def failure(
    advice: Advice = Advice.STOP,
    kind: Kind = Kind.UNKNOWN,
    *,
    error: Exception | None = None,
    status: int | None = None,
    code: str | None = None,
) -> Failure:
    return Failure(kind, advice, status=status, code=code, error=error)


def from_cause(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


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
        ("filter", failure(code="filter"), failure(), "code('filter')"),
        (code("429"), failure(code="429"), failure(), "code('429')"),
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
            raised(KeyError, cause=True),
            failure(error=from_cause(ValueError(), KeyError())),
            failure(error=from_cause(ValueError(), ValueError())),
            "raised(KeyError, cause=True)",
        ),
        (message("a+b", "c"), failure(error=KeyError("xAAb")), failure(), "message('a+b', 'c')"),
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


READY_MADE = ("TRANSIENT", "RECOVERABLE", "SERVICE_FAULT", "TOO_LONG_BY_TEXT")


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
        ("429", ValueError, "on=429"),
        (["x", "503"], ValueError, "on=503"),
        ("5xx", ValueError, "range(500, 600)"),
        ("4XX", ValueError, "range(400, 500)"),
        ("ConnectionError", ValueError, "on=ConnectionError"),
        ("CircuitOpenError", ValueError, "on=CircuitOpenError"),
        *((name, ValueError, f"on=matching.{name}") for name in READY_MADE),
        ("connection", ValueError, "on=Kind.CONNECTION"),
        ("CONNECTION", ValueError, "on=Kind.CONNECTION"),
        (["x", "rate_limit"], ValueError, "on=Kind.RATE_LIMIT"),
        ("unavailable", ValueError, "on=Kind.UNAVAILABLE"),
        ("retry", ValueError, "on=Advice.RETRY"),
    ],
    ids=repr,
)
def test_what_is_refused(spec: Any, problem: type[Exception], word: str) -> None:
    """What can never match, or is no item, is refused with field, rule and value."""
    refused = spec[-1] if isinstance(spec, list) and spec else spec
    value = getattr(refused, "__qualname__", type(refused).__qualname__)
    for text, field in (
        (message_of(problem, as_match, spec), "on"),
        (message_of(problem, as_match, spec, field="trip"), "trip"),
    ):
        assert text.startswith(f"{field} must")
        assert word.replace("on=", f"{field}=") in text
        assert repr(refused) in text or value in text or refused == []


SENT = {"timeout", "not_found", "server", "overloaded", "content_filter"}
"""Names of kinds that servers send as codes, by `codes.csv`."""


@pytest.mark.fault(326)
@pytest.mark.parametrize("word", [*sorted(SENT), "UNKNOWN"])
def test_a_kinds_name_that_a_server_sends_is_a_code(word: str) -> None:
    """It is in the table of codes, so it may be meant as one."""
    assert as_match(word) == code(word)


@pytest.mark.fault(326)
@pytest.mark.parametrize("kind", [kind for kind in Kind if str(kind) not in SENT])
def test_the_name_of_any_other_kind_is_refused(kind: Kind) -> None:
    """By the policies too, as the text that the kind prints."""
    assert f"Kind.{kind.name}" in message_of(ValueError, Retry, on=str(kind))


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
    text = message_of(TypeError, join)

    assert text.startswith(f"{operator} must")
    assert "3.5" in text


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
        (lambda: raised(KeyError, cause=1), TypeError, "cause", "1"),
        (lambda: message(), ValueError, "message", "least"),
        (lambda: message(""), TypeError, "message", "''"),
        (lambda: message(b"x"), TypeError, "message", "b'x'"),
        (lambda: message("("), ValueError, "message", "'('"),
    ],
)
def test_the_functions_refuse_too(
    call: Any, problem: type[Exception], field: str, word: str
) -> None:
    """`status`, `code`, `kind` and `raised` check what they are given."""
    text = message_of(problem, call)

    assert text.startswith(f"{field} must")
    assert word in text


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


# Inside an error


def test_a_class_sees_into_groups() -> None:
    """A group matches whose members all match, at any depth; one of a mixed kind does not."""
    inner = ExceptionGroup("x", [ConnectionError(), BrokenPipeError()])
    alike = ExceptionGroup("y", [inner, ConnectionError()])
    mixed = ExceptionGroup("z", [inner, KeyError()])

    assert raised(ConnectionError)(failure(error=alike))
    assert not raised(ConnectionError)(failure(error=mixed))
    assert raised(ConnectionError, KeyError)(failure(error=mixed))
    assert raised(ExceptionGroup)(failure(error=mixed))


@pytest.mark.parametrize(("members", "matching"), [(256, True), (257, False)])
def test_a_group_of_too_many_is_not_looked_into(members: int, matching: bool) -> None:
    """It matches by its own class only."""
    crowd = failure(error=ExceptionGroup("c", [KeyError() for _ in range(members)]))

    assert raised(KeyError)(crowd) is matching
    assert raised(ExceptionGroup)(crowd)


def test_a_class_sees_into_causes_where_that_is_asked_for() -> None:
    """Of the error, or of all members of a group; not into what it was raised while handling."""
    wrapped = from_cause(ValueError(), from_cause(RuntimeError(), ConnectionError()))
    group = ExceptionGroup("x", [wrapped, ConnectionError()])
    handled = ValueError()
    handled.__context__ = ConnectionError()

    assert not raised(ConnectionError)(failure(error=wrapped))
    assert raised(ConnectionError, cause=True)(failure(error=wrapped))
    assert raised(ConnectionError, cause=True)(failure(error=group))
    assert not raised(ConnectionError)(failure(error=group))
    assert not raised(ConnectionError, cause=True)(failure(error=handled))
    ring = ValueError()
    ring.__cause__ = from_cause(KeyError(), ring)
    assert not raised(ConnectionError, cause=True)(failure(error=ring))


class Mute(Exception):
    """Its text cannot be had."""

    @property
    def response(self) -> Any:
        raise RuntimeError

    def __str__(self) -> str:
        raise RuntimeError


class Answered(Exception):
    """Has a response, as those of httpx and requests have."""

    def __init__(self, content: Any, **told: Any) -> None:
        super().__init__("Bad Request")
        self.response = type("Response", (), {"_content": content, **told})()


@pytest.mark.fault(278)
@pytest.mark.parametrize(
    ("error", "found"),
    [
        (ValueError("the prompt is TOO long"), True),
        (ValueError("x" * 20_000 + "too long"), False),
        (Answered(b'{"message": "too long"}'), True),
        (Answered(False), False),
        (Answered(b"\xff too long"), True),
        (Answered(None, error={"message": "too long"}), True),
        (BadResultError({"error": {"message": "too long"}}), True),
        (BadResultError({"text": "too long"}), False),
        (ExceptionGroup("too long", [ValueError()]), False),
        (ExceptionGroup("x", [ValueError("too long"), ValueError("Too long")]), True),
        (Mute(), False),
        (None, False),
    ],
    ids=lambda given: type(given).__name__,
)
def test_message(error: Any, found: bool) -> None:
    """The error's own text and what its response says, where that was read; letters in any case."""
    assert message("too long")(failure(error=error)) is found
    assert not message(re.compile("too long"))(failure(error=ValueError("Too long")))


def test_each_text_has_lines_of_its_own() -> None:
    """A pattern may ask for a whole line. An error that says nothing has no text at all."""
    error = Answered(b"too long")

    assert message("(?m)^too long$")(failure(error=error))
    assert message("(?m)^Bad Request$")(failure(error=error))
    assert not message(r"\S")(failure(error=Mute()))


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("prompt is too long: 208310 tokens > 200000 maximum", 400),
        ("input length and `max_tokens` exceed context limit: 178959 + 64000 > 200000", 400),
        ("This model's maximum context length is 16384 tokens. However, you requested 19591", 400),
        ("The decoder prompt (length 2136) is longer than the maximum model length of 2048.", 400),
        ("The prompt (total length 25938) is too long to fit into the model", 400),
        ("The input (61709 tokens) is longer than the model's context length (40960 tokens).", 400),
        ("Input is too long for requested model.", 400),
        ("The input token count (461428) exceeds the maximum number of tokens allowed", 400),
    ],
)
def test_too_long_by_text(text: str, status: int) -> None:
    """What providers say in words only, with the status of a bad request."""
    assert TOO_LONG_BY_TEXT(failure(error=ValueError(text), status=status))
    assert not TOO_LONG_BY_TEXT(failure(error=ValueError(text), status=500))
    assert not TOO_LONG_BY_TEXT(failure(error=ValueError("max_tokens must be >= 1"), status=400))
    assert repr(TOO_LONG_BY_TEXT) == "TOO_LONG_BY_TEXT"


# What nobody knows


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Any:
    """What the log tells about unknown errors."""
    monkeypatch.setattr(describe, "_logged", Describe()._logged)
    caplog.set_level(logging.INFO, "resilience")
    return lambda: [each for each in caplog.messages if "is unknown" in each]


def unknown(name: str, base: type = Exception) -> type[Exception]:
    return type(name, (base,), {"__module__": "their.package"})


@pytest.mark.fault(279)
@pytest.mark.parametrize("policy", [Retry(), CircuitBreaker(), ModelFallback("a")], ids=repr)
def test_an_unknown_error_is_told_once_for_each_class(world: World, said: Any, policy: Any) -> None:
    """With the two ways to teach it; by a policy with its default `on`."""
    mine, other = unknown("Mine"), unknown("Other")
    fn = Pipeline(policy).wrap(world.function(mine("secret"), mine(), other()))
    for _ in range(3):
        error_of(world, fn)

    first, second = said()
    assert first == (
        "their.package.Mine is unknown, so policies with their default on= do not act on it. If "
        f"they should, name it (on={policy.on!r} | raised(Mine)) or say what it means "
        "(@describe.register(Mine))"
    )
    assert "their.package.Other" in second


@pytest.mark.parametrize(
    ("policy", "error"),
    [
        (Retry(on=Exception), unknown("Named")()),
        (Fallback("sorry"), unknown("Replaced")()),
        (Retry(), KeyError("the program's own")),
        (Retry(), ConnectionError()),
        (Retry(), from_cause(unknown("Wrapping")(), ConnectionError())),
    ],
)
def test_what_is_not_told(world: World, said: Any, policy: Any, error: Exception) -> None:
    """What `on` names, what somebody knows, and mistakes of the program."""
    world.run(guarded_outcome(policy), world.function(error, "ok"))

    assert said() == []


def guarded_outcome(policy: Any) -> Any:
    return Pipeline(policy).outcome


def test_a_taught_error_is_not_told(world: World, said: Any, monkeypatch: Any) -> None:
    """A reader's UNKNOWN is an answer."""
    monkeypatch.setattr(describe, "_registered", dict(describe._registered))
    monkeypatch.setattr(describe, "_chosen", {})
    mine = unknown("Taught")
    describe.register(mine)(lambda error: Failure(Kind.UNKNOWN, Advice.STOP))
    error_of(world, Pipeline(Retry()).wrap(world.function(mine())))

    assert said() == []


def test_no_more_than_so_many_classes_are_told(world: World, said: Any, monkeypatch: Any) -> None:
    """Some libraries make a class per client."""
    monkeypatch.setattr("resilience.failures._MOST_LOGGED", 3)
    for n in range(9):
        error_of(world, Pipeline(Retry()).wrap(world.function(unknown(f"Mine{n}")())))

    assert len(said()) == 3


# Two that cannot meet


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        (429, 503, False),
        (429, range(400, 500), True),
        (range(500, 600, 2), range(501, 600, 2), False),
        ("x", ["y", "z"], False),
        ("x", ["y", "x"], True),
        (Kind.QUOTA, Kind.AUTH, False),
        (Advice.RETRY, Advice.WAIT, False),
        (TRANSIENT, Advice.FALLBACK, False),
        (TRANSIENT, RECOVERABLE, True),
        (TRANSIENT, Kind.SERVER, True),
        (ConnectionError, TimeoutError, False),
        (ConnectionError, OSError, True),
        (ConnectionError, 429, False),
        (KeyError, 429, True),
        (TRANSIENT & ~status(429), 429, False),
        (~raised(KeyError), KeyError, False),
        (about_vectors, 429, True),
        (message("x"), 429, True),
    ],
    ids=repr,
)
def test_whether_two_may_meet(one: Any, other: Any, meet: bool) -> None:
    """Only where no failure can match both they cannot; in doubt they can."""
    assert may_meet(as_match(one), as_match(other)) is meet
    assert may_meet(as_match(other), as_match(one)) is meet


def test_a_class_that_is_hard_to_make_may_meet_any() -> None:
    """And so may a predicate of tenacity's."""

    class Hard(Exception):
        def __new__(cls, thing: int) -> Any:
            return super().__new__(cls)

    assert may_meet(as_match(Hard), as_match(429))
    assert may_meet(object(), as_match(429))
