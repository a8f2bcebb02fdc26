"""The order of a pipeline's policies: outermost first, seen in its repr, warned of if needed."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from conftest import World
from resilience import (
    CircuitBreaker,
    Fallback,
    ModelFallback,
    Pipeline,
    PolicyOrderWarning,
    Retry,
    Timeout,
    resilient,
)


@pytest.mark.fault(75)
@pytest.mark.parametrize(
    ("policies", "word"),
    [
        (lambda: [Retry(), Retry()], "two Retry"),
        (lambda: [Retry(), Pipeline(Retry())], "two Retry"),
        (lambda: [CircuitBreaker(), Retry()], "CircuitBreaker outside Retry"),
        (lambda: [Timeout(60), Retry(), CircuitBreaker()], "none inside"),
        (lambda: [ModelFallback("a", "b"), Timeout(9), Retry()], "no total"),
        (
            lambda: [Timeout(30), ModelFallback("a", "b"), Retry(attempts=2), Timeout(15)],
            "second model's turn",
        ),
        (lambda: [Retry(), ModelFallback("a", "b")], "Retry outside ModelFallback"),
    ],
)
def test_an_order_that_defeats_a_policy_is_warned_of_once(policies: Any, word: str) -> None:
    """At the line that builds the pipeline, also where a part is a pipeline itself."""
    with pytest.warns(PolicyOrderWarning, match=word) as warned:
        Pipeline(*policies())

    assert len(warned) == 1
    assert warned[0].filename == __file__


@pytest.mark.fault(75)
@pytest.mark.parametrize(
    "policies",
    [
        list,
        lambda: [Retry(), CircuitBreaker()],
        lambda: [Retry(), CircuitBreaker(), Timeout(5)],
        lambda: [Timeout(60), Retry(), CircuitBreaker(), Timeout(5)],
        lambda: [Timeout(60), Retry(), Timeout(5)],
        lambda: [Timeout(60), Retry()],
        lambda: [
            Fallback(None),
            Timeout(60),
            ModelFallback("a", "b"),
            Retry(attempts=2),
            CircuitBreaker(key="model"),
            Timeout(15),
        ],
        lambda: [Timeout(60, pass_as="t"), Retry(attempts=None), Timeout(lambda **kwargs: 5)],
    ],
)
def test_orders_that_are_fine(policies: Any) -> None:
    """The standard order and its parts are not warned of."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Pipeline(*policies())
        resilient(*policies())


def test_a_decorator_is_warned_of_at_its_own_line() -> None:
    """`@resilient(...)` points at the user's line as well."""
    with pytest.warns(PolicyOrderWarning) as warned:
        resilient(Retry(), Retry())

    assert warned[0].filename == __file__


def test_policies_apply_outermost_first(world: World) -> None:
    """They run in the order in which they are written."""
    inside, outside = Fallback("inside"), Fallback("outside")
    fn = world.function(ConnectionError)

    assert world.run(Pipeline(outside, inside).wrap(fn)) == "inside"
    with pytest.warns(PolicyOrderWarning):
        hidden = Pipeline(Retry(), outside)
    assert world.run(hidden.wrap(fn)) == "outside"
    assert len(world.calls) == 2


@pytest.mark.fault(75)
def test_a_pipeline_shows_its_order() -> None:
    """The repr is the code that makes it."""
    pipeline = Pipeline(
        Fallback(None),
        Pipeline(Retry(attempts=2), CircuitBreaker(key="model")),
        Timeout(60, pass_as="t"),
        name="chat",
        asynchronous=True,
    )

    text = repr(pipeline)
    assert text.startswith(
        "Pipeline(Fallback(None), "
        "Pipeline(Retry(attempts=2), CircuitBreaker(key='model')), Timeout(60"
    )
    assert text.endswith("asynchronous=True, name='chat')")
