"""Failures: the seconds in them."""

from __future__ import annotations

import logging
import math
from datetime import timedelta
from typing import Any

import pytest

from resilience import failures
from resilience.failures import Advice, Describe, Failure, Kind

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
    with pytest.raises(ValueError, match=rf"^{name} must be "):
        Failure(Kind.RATE_LIMIT, Advice.WAIT, **{name: bad})


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        (("timeout", Advice.STOP), "kind must be a Kind, got 'timeout'"),
        ((Kind.TIMEOUT, "stop"), "advice must be an Advice, got 'stop'"),
    ],
)
def test_words_of_ones_own_are_none(facts: Any, told: str) -> None:
    """The message names the field, and what was given."""
    with pytest.raises(TypeError) as caught:
        Failure(*facts)
    assert str(caught.value) == told


def test_a_readers_own_failure_is_handed_on() -> None:
    """If it names the very error it is not copied."""
    describe = Describe()
    made: list[Failure] = []

    @describe.register(LookupError)
    def read(error: LookupError) -> Failure:
        made.append(Failure(Kind.NOT_FOUND, Advice.STOP, error=error))
        return made[-1]

    assert describe(KeyError()) is made[-1]


def test_an_error_that_nobody_knows_is_read_by_its_nearest_known_cause() -> None:
    """By the reader of the cause's own class."""
    describe = Describe()

    class UnknownError(Exception): ...

    @describe.register(LookupError)
    def read(error: LookupError) -> Failure:
        return Failure(Kind.NOT_FOUND, Advice.STOP, code=error.args[0])

    error, between = UnknownError(), UnknownError()
    error.__cause__, between.__cause__ = between, KeyError("mine")
    assert describe(error).code == "mine"
    assert describe(error).error is error


def test_what_a_reader_does_wrong_goes_to_the_librarys_own_logger(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With the class of what it raised, and that of the error."""
    describe = Describe()

    @describe.register(LookupError)
    def read(error: LookupError) -> Failure:
        raise OSError("secret")

    assert describe(KeyError()).kind is Kind.UNKNOWN
    assert caplog.record_tuples == [
        (
            "resilience",
            logging.WARNING,
            "OSError from the reader of KeyError: taken for unknown",
        )
    ]


def test_a_servers_wait_is_read_from_headers_alone() -> None:
    """Where there is no error to be described."""
    assert failures.asked_wait({"Retry-After": "8"}) == 8


def test_a_class_of_errors_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who reads it is remembered, of so many classes at a time."""
    asked: list[type] = []

    def reader_for(cls: type) -> Any:
        asked.append(cls)
        return lambda error: None

    monkeypatch.setattr(failures, "reader_for", reader_for)
    monkeypatch.setattr(failures, "_REMEMBERED", 2)
    describe = Describe()
    for error in (KeyError(), KeyError(), IndexError(), KeyError()):
        describe(error)
    assert asked == [KeyError, IndexError]
    for error in (OSError(), KeyError()):
        describe(error)
    assert asked == [KeyError, IndexError, OSError, KeyError]
