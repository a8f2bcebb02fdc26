"""`describe` reads any exception whatever, and never raises."""

from __future__ import annotations

import asyncio
import copy
import logging
import math
import pickle
from collections.abc import Callable
from datetime import timedelta
from http import HTTPStatus
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience import failures
from resilience.errors import (
    BadResultError,
    CircuitOpenError,
    DeadlineExceededError,
    RejectedError,
    ResilienceError,
    WorkersBusyError,
)
from resilience.failures import Advice, Describe, Failure, Kind, describe
from support.calling import message_of

REQUEST = httpx2.Request("POST", "http://service.test")


def openai_error(**attributes: Any) -> openai.APIError:
    """A real OpenAI error whose attributes somebody has spoilt."""
    error = openai.APIError("boom", REQUEST, body=None)
    for name, value in attributes.items():
        setattr(error, name, value)
    return error


def spoilt(**members: Any) -> Exception:
    """An instance of a subclass of OpenAI's error with members of its own."""
    return type("Spoilt", (openai.APIError,), members)("boom", REQUEST, body=None)


def refuse(*_: object) -> Any:
    raise RuntimeError("touched")


@pytest.fixture
def own_describe() -> Describe:
    """A `describe` that a test may teach things."""
    return Describe()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            DeadlineExceededError(2.0),
            Failure(Kind.TIMEOUT, Advice.RETRY, sdk="resilience"),
        ),
        (
            RejectedError(3.0),
            Failure(Kind.REJECTED, Advice.STOP, retry_after=3.0, sent=False, sdk="resilience"),
        ),
        (
            CircuitOpenError(-1e-9),
            Failure(Kind.REJECTED, Advice.STOP, retry_after=0.0, sent=False, sdk="resilience"),
        ),
        (
            WorkersBusyError(workers=3),
            Failure(Kind.REJECTED, Advice.STOP, sent=False, sdk="resilience"),
        ),
        (BadResultError("text"), Failure(Kind.UNKNOWN, Advice.RETRY, sdk="resilience")),
        (
            BadResultError("text", Failure(Kind.SERVER, Advice.WAIT, status=503)),
            Failure(Kind.SERVER, Advice.WAIT, status=503),
        ),
        (ResilienceError(), Failure(Kind.UNKNOWN, Advice.STOP)),
        (ValueError("503"), Failure(Kind.UNKNOWN, Advice.STOP)),
        (FileNotFoundError(2, "no"), Failure(Kind.UNKNOWN, Advice.STOP)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_own_and_unknown_errors(error: Exception, expected: Failure) -> None:
    """Our own errors are known, a bad result by its own failure; what nobody knows is UNKNOWN and
    STOP."""
    failure = describe(error)

    assert failure == expected
    assert failure.error is error


@pytest.mark.fault(52)
@pytest.mark.parametrize(
    ("value", "status"),
    [
        (None, None),
        (503, 503),
        ("503", None),
        ("503 Service", None),
        (503.0, 503),
        (503.5, None),
        (float("nan"), None),
        (HTTPStatus.SERVICE_UNAVAILABLE, 503),
        (type("int64", (), {"__index__": lambda self: 503})(), 503),
        (999, None),
        (99, None),
        (100, 100),
        (599, 599),
        (600, None),
        (0, None),
        (-1, None),
        (10**400, None),
        (True, None),
        ([503], None),
        (refuse, None),
    ],
)
def test_only_whole_numbers_are_statuses(value: object, status: int | None) -> None:
    """Whatever is found where a status should be, the status is a plain int or None."""
    failure = describe(openai_error(status_code=value))

    assert failure.status == status
    assert type(failure.status) in (int, type(None))
    assert failure.sdk == "openai"


@pytest.mark.fault(53)
@pytest.mark.parametrize("name", ["status_code", "code", "type", "body", "response", "request_id"])
def test_an_attribute_that_raises_is_none(name: str) -> None:
    """One unreadable attribute does not hide the others."""
    error = spoilt(**{name: property(refuse, lambda self, value: None)})
    told = {"status_code": 503, "code": "no_such_code", "request_id": "r1"}
    for other, value in told.items():
        if other != name:
            setattr(error, other, value)

    failure = describe(error)

    assert failure.status == (None if name == "status_code" else 503)
    assert failure.code == (None if name == "code" else "no_such_code")
    assert failure.request_id == (None if name == "request_id" else "r1")


@pytest.mark.parametrize("value", ["", b"upstream_error", 5.5, True, ["upstream_error"], {}])
def test_only_text_is_a_code_or_a_type(value: object) -> None:
    """A code or a type that is no string, or an empty one, is none."""
    failure = describe(openai_error(code=value, type=value))

    assert (failure.code, failure.type) == (None, None)


def test_a_code_may_be_a_whole_number() -> None:
    """Some providers have such codes, and only some versions of the SDK make a text of them."""
    failure = describe(openai_error(code=1113, type=5020))

    assert (failure.code, failure.type) == ("1113", None)


def test_a_code_of_a_string_type_is_made_plain() -> None:
    """A member of a string enumeration counts as its value."""
    failure = describe(openai_error(code=Kind.AUTH, type=Kind.AUTH))

    assert type(failure.code) is type(failure.type) is str
    assert failure.code == "auth"


@pytest.mark.fault(53)
def test_an_async_attribute_is_none() -> None:
    """A status that is a coroutine is no status, and nothing warns of it never being awaited."""

    async def status_code(self: object) -> int:
        return 503

    assert describe(spoilt(status_code=property(status_code))).status is None


@pytest.mark.fault(53)
@pytest.mark.parametrize("invented", [object(), 7, [], "", lambda: None])
def test_getattr_that_invents(invented: object) -> None:
    """An exception that has every attribute one could ask for says nothing by that."""
    error = spoilt(__getattr__=lambda self, name: invented)

    assert describe(error).kind is Kind.UNKNOWN


@pytest.mark.fault(56, 57)
def test_neither_truth_nor_equality_is_asked() -> None:
    """Exceptions may be false, empty, unequal to themselves and unhashable."""
    members = dict.fromkeys(["__bool__", "__len__", "__eq__", "__hash__"], refuse)
    error = spoilt(**members)
    error.status_code = 503  # type: ignore[attr-defined]

    failure = describe(error)

    assert failure.status == 503
    assert failure.error is error
    assert failure == describe(error)
    assert hash(failure) == hash(describe(error))


@pytest.mark.fault(58)
def test_the_text_of_an_error_is_never_asked_for() -> None:
    """Neither describing nor printing touches an error's own text."""
    error = spoilt(__str__=refuse, __repr__=refuse)

    assert repr(describe(error)) == (
        "Failure(kind=Kind.UNKNOWN, advice=Advice.STOP, sdk='openai', sent=True, error=<Spoilt>)"
    )


def test_a_class_that_lies_about_itself() -> None:
    """`__class__` may claim anything, or raise."""

    class Liar(Exception):
        @property
        def __class__(self) -> Any:
            return ConnectionError

    class Mute(Exception):
        __class__ = property(refuse)  # type: ignore[assignment]

    assert describe(Liar()).kind is Kind.UNKNOWN
    assert describe(Mute()).kind is Kind.UNKNOWN


@settings(deadline=None)  # the first example imports modules
@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ["status_code", "code", "type", "body", "response", "request_id", "__cause__"],
            st.one_of(
                st.none(),
                st.integers(),
                st.floats(),
                st.text(),
                st.binary(),
                st.booleans(),
                st.dictionaries(st.text(), st.one_of(st.text(), st.integers())),
                st.just({"error": {"code": ["x"], "type": {}}}),
                st.just(property(refuse)),
                st.sampled_from([refuse, object(), Exception, ConnectionResetError()]),
            ),
        ),
    )
)
def test_describe_never_raises(members: dict[str, Any]) -> None:
    """Whatever an SDK's exception looks like, a well-formed `Failure` comes back."""
    odd = type("Odd", (openai.APIError,), members)
    error = odd.__new__(odd)

    failure = describe(error)

    assert type(failure) is Failure
    assert failure.error is error
    assert failure.retry_after is None or failure.retry_after >= 0
    repr(failure)


def test_register_the_most_specific_class_wins(own_describe: Describe) -> None:
    """A registration covers subclasses until one of them has its own."""

    class Base(Exception): ...

    class Derived(Base): ...

    class Leaf(Derived): ...

    own_describe.register(Derived)(lambda error: Failure(Kind.QUOTA, Advice.STOP))
    own_describe.register(Base)(lambda error: Failure(Kind.SERVER, Advice.RETRY))

    assert own_describe(Base()).kind is Kind.SERVER
    assert own_describe(Leaf()).kind is Kind.QUOTA


def test_register_wins_over_what_is_built_in_and_is_heard_at_once(own_describe: Describe) -> None:
    """A registration replaces the reader that was chosen before it."""
    assert own_describe(ConnectionResetError()).kind is Kind.CONNECTION

    @own_describe.register(ConnectionError)
    def read(error: ConnectionError) -> Failure:
        return Failure(Kind.OVERLOADED, Advice.WAIT, retry_after=1)

    error = ConnectionResetError()
    assert own_describe(error) == Failure(Kind.OVERLOADED, Advice.WAIT, retry_after=1)
    assert own_describe(error).error is error
    assert read(error).error is None
    assert describe(error).kind is Kind.CONNECTION


@pytest.mark.parametrize(
    ("reader", "problem"),
    [
        (refuse, "RuntimeError"),
        (lambda error: "retry", "TypeError"),
        (lambda error: Failure(Kind.SERVER, "retry"), "TypeError"),  # type: ignore[arg-type]
        (lambda error: Failure("server", Advice.RETRY), "TypeError"),  # type: ignore[arg-type]
        (lambda error: Failure(Kind.SERVER, Advice.WAIT, retry_after=float("nan")), "ValueError"),
        (lambda error: Failure(Kind.SERVER, Advice.WAIT, retry_after=-1.0), "ValueError"),
    ],
)
def test_a_reader_that_fails_makes_unknown(
    own_describe: Describe,
    reader: Callable[[Exception], Failure],
    problem: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A registered reader that raises or returns nonsense makes UNKNOWN and STOP. The library's own
    logger has the class of what it raised, and that of the error."""
    own_describe.register(KeyError)(reader)

    assert own_describe(KeyError("secret")) == Failure(Kind.UNKNOWN, Advice.STOP)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("resilience", logging.WARNING)
    assert record.getMessage() == f"{problem} from the reader of KeyError: taken for unknown"


def test_a_reader_that_says_nothing_leaves_it_to_the_next(own_describe: Describe) -> None:
    """To one that is registered for a base, then to what is known without any."""
    own_describe.register(ConnectionError)(
        lambda error: Failure(Kind.OVERLOADED, Advice.WAIT) if error.args else None
    )
    own_describe.register(ConnectionRefusedError)(lambda error: None)

    assert own_describe(ConnectionRefusedError("full")).kind is Kind.OVERLOADED
    assert own_describe(ConnectionRefusedError()) == describe(ConnectionRefusedError())
    assert own_describe(ConnectionRefusedError()).kind is Kind.CONNECTION


def test_a_readers_own_failure_is_handed_on(own_describe: Describe) -> None:
    """If it names the very error it is not copied."""
    made: list[Failure] = []

    @own_describe.register(LookupError)
    def read(error: LookupError) -> Failure:
        made.append(Failure(Kind.NOT_FOUND, Advice.STOP, error=error))
        return made[-1]

    assert own_describe(KeyError()) is made[-1]


def test_a_reader_may_describe_the_cause(own_describe: Describe) -> None:
    """What is read off another error still belongs to the error that was raised."""

    @own_describe.register(LookupError)
    def read(error: LookupError) -> Failure:
        return describe(ConnectionRefusedError())

    error = KeyError()
    failure = own_describe(error)
    assert failure.kind is Kind.CONNECTION
    assert failure.error is error


def test_control_flow_passes_through(own_describe: Describe) -> None:
    """Only `Exception` is caught: a reader interrupted by Ctrl-C is interrupted."""

    def interrupted(error: Exception) -> Failure:
        raise KeyboardInterrupt

    own_describe.register(KeyError)(interrupted)

    with pytest.raises(KeyboardInterrupt):
        own_describe(KeyError())


@pytest.mark.parametrize(
    ("cls", "problem", "word"),
    [
        ("KeyError", TypeError, "'KeyError'"),
        (int, TypeError, "'int'"),
        (KeyError("x"), TypeError, "instance"),
        (asyncio.CancelledError, ValueError, "control-flow"),
        (BaseException, ValueError, "control-flow"),
    ],
)
def test_register_checks_the_class(cls: Any, problem: type[Exception], word: str) -> None:
    """Only classes of exceptions that policies handle can be registered."""
    message = message_of(problem, describe.register, cls)

    assert message.startswith("cls must")
    assert word in message


def test_register_checks_the_reader() -> None:
    """A reader is a plain function: nobody would await another."""

    async def read(error: KeyError) -> Failure: ...

    for reader in (None, "read", read):
        with pytest.raises(TypeError, match=r"^reader must"):
            describe.register(KeyError)(reader)  # type: ignore[arg-type]


def test_the_readers_remembered_are_bounded(
    own_describe: Describe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library that makes a class per client does not fill the memory."""
    monkeypatch.setattr(failures, "_REMEMBERED", 10)

    for _ in range(100):
        own_describe(type("Fresh", (ConnectionError,), {})())

    assert len(own_describe._chosen) <= 10


def test_a_class_of_errors_is_looked_up_once(
    own_describe: Describe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who reads it is remembered, of so many classes at a time."""
    asked: list[type] = []

    def reader_for(cls: type) -> Any:
        asked.append(cls)
        return lambda error: None

    monkeypatch.setattr(failures, "reader_for", reader_for)
    monkeypatch.setattr(failures, "_REMEMBERED", 2)
    for error in (KeyError(), KeyError(), IndexError(), KeyError()):
        own_describe(error)
    assert asked == [KeyError, IndexError]
    for error in (OSError(), KeyError()):
        own_describe(error)
    assert asked == [KeyError, IndexError, OSError, KeyError]


def test_a_servers_wait_is_read_from_headers_alone() -> None:
    """Where there is no error to be described."""
    assert failures.asked_wait({"Retry-After": "8"}) == 8


# Failures as values


def test_failures_are_values() -> None:
    """Failures compare, hash, copy and pickle, and cannot be changed."""
    failure = Failure(Kind.SERVER, Advice.RETRY, status=500, error=KeyError("secret"))

    assert failure == Failure(Kind.SERVER, Advice.RETRY, status=500)
    assert len({failure, Failure(Kind.SERVER, Advice.RETRY, status=500)}) == 1
    assert pickle.loads(pickle.dumps(failure)) == copy.deepcopy(failure) == failure
    assert repr(failure) == (
        "Failure(kind=Kind.SERVER, advice=Advice.RETRY, status=500, error=<KeyError>)"
    )
    with pytest.raises(AttributeError):
        failure.status = 501  # type: ignore[misc]


def test_words_read_as_words() -> None:
    """Kinds and advice print as their value and show as the code that names them."""
    assert f"{Kind.RATE_LIMIT}" == str(Kind.RATE_LIMIT) == "rate_limit" == Kind.RATE_LIMIT
    assert repr(Advice.WAIT) == "Advice.WAIT"
    assert Kind("timeout") is Kind.TIMEOUT


TIMES = ["retry_after", "reset_after"]


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("good", [0.0, 0.5, 0, 3, timedelta(0)])
def test_seconds_from_nothing_up(name: str, good: Any) -> None:
    """No time at all is a time."""
    assert getattr(Failure(Kind.RATE_LIMIT, Advice.WAIT, **{name: good}), name) == good


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("bad", [-0.5, -1, math.inf, math.nan])
def test_seconds_that_are_none(name: str, bad: Any) -> None:
    """Neither less than nothing nor endless; the message names the field."""
    with pytest.raises(ValueError, match=rf"^{name} must"):
        Failure(Kind.RATE_LIMIT, Advice.WAIT, **{name: bad})


@pytest.mark.parametrize(
    ("facts", "field"),
    [(("timeout", Advice.STOP), "kind"), ((Kind.TIMEOUT, "stop"), "advice")],
)
def test_words_of_ones_own_are_none(facts: Any, field: str) -> None:
    """The message names the field, and what was given."""
    message = message_of(TypeError, Failure, *facts)

    assert message.startswith(f"{field} must")
    assert any(repr(fact) in message for fact in facts if type(fact) is str)
