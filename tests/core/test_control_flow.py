"""Control flow: exceptions that are no failures, those of known frameworks and one's own.

The frameworks' real classes are in `tests/sdks/test_sdk_frameworks.py`.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest
import tenacity

from conftest import World
from resilience import CircuitBreaker, Fallback, ModelFallback, Pipeline, Retry
from resilience._core import control_flow as known
from resilience.failures import Advice, Failure, Kind, control_flow
from resilience.matching import TRANSIENT, as_match, raised, status
from support.calling import error_of, message_of

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup


@pytest.fixture(autouse=True)
def _only_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "_added", set())
    monkeypatch.setattr(known, "answers", {})


class AppError(Exception):
    """A user's own root."""


class Redirect(AppError):
    """What the user's framework raises as an answer."""


class Elsewhere(Redirect):
    """A kind of it."""


@pytest.mark.fault(271)
@pytest.mark.parametrize("policy", [Fallback("sorry"), Retry(on=Exception), Retry(on=AppError)])
def test_ones_own_passes(world: World, policy: Any) -> None:
    """A class and its subclasses pass untouched; the base of theirs does not name them."""
    guarded = Pipeline(policy).wrap(world.function(Elsewhere()))
    assert control_flow(Redirect) is Redirect
    error = error_of(world, guarded)

    assert type(error) is Elsewhere
    assert len(world.calls) == 1
    assert not hasattr(error, "__notes__")


@pytest.mark.fault(271)
def test_it_passes_tenacitys_predicates_and_a_chain(world: World) -> None:
    """One of tenacity's that wants any exception, and a chain that raises its first error."""
    control_flow(Redirect)
    retrying = Pipeline(Retry(on=tenacity.retry_if_exception_type()))
    assert type(error_of(world, retrying.wrap(world.function(Elsewhere())))) is Elsewhere
    assert len(world.calls) == 1

    chain = Pipeline(ModelFallback("a", "b", raise_first=True))
    fn = chain.wrap(world.function(ConnectionError(), Elsewhere()))
    assert type(error_of(world, fn)) is Elsewhere


def test_it_may_decorate_a_class() -> None:
    """And answers that were remembered before are looked up anew."""
    assert not known.is_control_flow(Elsewhere)

    @control_flow
    class Skip(Exception):
        pass

    assert known.is_control_flow(Skip)
    control_flow(Redirect)
    assert known.is_control_flow(Elsewhere)
    assert not known.is_control_flow(AppError)


@pytest.mark.parametrize("thing", [KeyboardInterrupt, Redirect(), "Redirect", int, None])
def test_what_is_no_class_of_exceptions_is_refused(thing: Any) -> None:
    """With field, rule and value."""
    assert repr(thing) in message_of(TypeError, control_flow, thing)


@pytest.mark.parametrize(
    ("on", "matches"),
    [
        (Redirect, True),
        (Elsewhere, True),
        ([429, Redirect], True),
        (TRANSIENT | raised(Redirect), True),
        (raised(Redirect) & ~status(429), True),
        (AppError, False),
        (Exception, False),
        (Kind.UNKNOWN, False),
        (~status(429), False),
        (~raised(Redirect), False),
        (lambda failure: True, False),
        (raised(Exception, cause=True), False),
    ],
    ids=repr,
)
def test_only_its_class_brings_it_in(on: Any, matches: bool) -> None:
    """Whatever else would match."""
    control_flow(Redirect)
    failure = Failure(Kind.UNKNOWN, Advice.STOP, error=Elsewhere())

    assert as_match(on)(failure) is matches


@pytest.mark.fault(272)
def test_a_group_with_one_of_them_passes(world: World) -> None:
    """It has to reach the framework, whatever else is in it."""
    control_flow(Redirect)
    group = ExceptionGroup("x", [ConnectionError(), ExceptionGroup("y", [Redirect()])])
    breaker = CircuitBreaker(failures=1, on=Exception)
    pipeline = Pipeline(Fallback("sorry"), Retry(on=Exception, wait=1), breaker)

    assert error_of(world, pipeline.wrap(world.function(group))) is group
    assert len(world.calls) == 1
    assert breaker.state == "closed"
    named = Pipeline(Fallback("sorry", on=raised(Redirect) | TRANSIENT)).wrap(world.function(group))
    assert error_of(world, named) is group  # not all of its members are Redirects
    both = Fallback("sorry", on=raised(Exception, Redirect))
    assert world.run(Pipeline(both).wrap(world.function(group))) == "sorry"


def test_a_group_without_them_is_a_failure(world: World) -> None:
    """As any other."""
    group = ExceptionGroup("x", [ConnectionError(), ConnectionError()])
    fn = Pipeline(Retry(wait=1)).wrap(world.function(group, "ok"))

    assert world.run(fn) == "ok"


def test_a_trial_with_control_flow_gives_its_slot_back(world: World) -> None:
    """It is no verdict."""
    control_flow(Redirect)
    breaker = CircuitBreaker(reset_after=5, on=Exception)
    breaker.open()
    world.clock.advance(5)
    fn = Pipeline(breaker).wrap(world.function(Redirect(), "ok"))

    assert type(error_of(world, fn)) is Redirect
    assert breaker.state == "half-open"
    assert world.run(fn) == "ok"
    assert breaker.state == "closed"


def test_a_chain_stops_at_it(world: World) -> None:
    """After another model's failure, too."""
    control_flow(Redirect)
    fn = world.function(ConnectionError(), Redirect(), "late")
    error = error_of(world, Pipeline(ModelFallback("a", "b", "c")).wrap(fn))

    assert type(error) is Redirect
    assert [kwargs["model"] for _, kwargs in world.calls] == ["a", "b"]


def test_a_class_that_refuses_to_be_looked_at_is_a_failure() -> None:
    """Nothing is raised over it."""

    class Hostile(type):
        @property
        def __module__(cls) -> Any:  # type: ignore[override]
            raise RuntimeError("no")

    class Odd(Exception, metaclass=Hostile):
        pass

    assert known.control_flow_in(Odd()) == []


def test_answers_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some libraries make a class per client."""
    monkeypatch.setattr(known, "_REMEMBERED", 8)
    for _ in range(30):
        assert not known.is_control_flow(type("Mine", (Exception,), {}))
    assert len(known.answers) <= 8


def test_a_group_of_too_many_is_a_failure() -> None:
    """Looking at it ends."""
    control_flow(Redirect)
    group = ExceptionGroup("x", [ValueError()] * 300 + [Redirect()])

    assert known.control_flow_in(group) == []
