"""Being at rest: when a pipeline is, when not, and that it is decided last."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from resilience import (
    BadResult,
    CircuitBreaker,
    FailureRate,
    Fallback,
    ModelFallback,
    Pipeline,
    Retry,
    Timeout,
    guarded,
)
from resilience._core.emitter import Emitter
from resilience._core.idle import Epochs, Idle, epochs
from resilience.policy import Idle as IdleProtocol
from resilience.policy import Inner, Policy, Runtime
from resilience.testing import disabled, script
from support.gates import Bulkhead
from support.policies import Busy


class Switch(Policy):
    """At rest while it is off. `look` is called whenever it is asked."""

    resting = True

    def __init__(self) -> None:
        self.on = False
        self.look: Callable[[], None] = lambda: None
        self.idles: list[IdleProtocol] = []

    def watch(self, idle: IdleProtocol) -> None:
        self.idles.append(idle)

    def busy(self) -> bool:
        on = self.on
        self.look()
        return on

    def turn(self, on: bool) -> None:
        for idle in self.idles:
            idle.suspend()
        self.on = on
        for idle in self.idles:
            idle.update()

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        return inner


def test_an_epoch_follows_the_other() -> None:
    """Each change of a circuit begins the next epoch."""
    before = epochs.now

    assert epochs.advance() == before + 1
    assert epochs.now == before + 1

    fresh = Epochs()
    assert fresh.now == 0
    assert [fresh.advance(), fresh.advance()] == [1, 2]


def test_rest_comes_back_when_no_policy_is_busy() -> None:
    """Not before the last one has changed back; then as a new period, in a new epoch."""
    first, second = Switch(), Switch()
    idle = Idle([first, second], Emitter(None, ()))
    period = idle.period
    assert period is not None

    first.turn(True)
    second.turn(True)
    assert idle.period is None
    first.turn(False)
    assert idle.period is None
    epochs.advance()
    second.turn(False)
    assert idle.period is not None
    assert idle.period is not period
    assert idle.period.epoch == period.epoch + 1 == epochs.now


def test_suspending_and_updating_is_a_new_period() -> None:
    """A call that looks again afterwards sees that something happened meanwhile."""
    idle = Idle([Switch()], Emitter(None, ()))
    before = idle.period
    idle.suspend()
    assert idle.period is None
    idle.update()
    assert idle.period is not before
    assert idle.period is not None


def test_what_happens_while_it_is_decided_is_decided_too() -> None:
    """A handler between any two steps: its suspension is not overwritten."""
    switch = Switch()
    idle = Idle([switch], Emitter(None, ()))

    def handler() -> None:
        switch.look = lambda: None
        switch.turn(True)

    switch.look = handler
    idle.suspend()
    idle.update()
    assert switch.on
    assert idle.period is None

    def back() -> None:
        switch.look = lambda: None
        switch.turn(False)

    switch.look = back
    idle.suspend()
    idle.update()
    assert idle.period is not None


def test_a_suspension_while_it_is_decided_is_not_lost() -> None:
    """Also where whoever suspends has not yet come to the change: `update` follows that."""
    switch = Switch()
    idle = Idle([switch], Emitter(None, ()))

    def handler() -> None:
        switch.look = lambda: None
        idle.suspend()
        switch.on = True

    switch.look = handler
    idle.update()
    assert idle.period is None
    switch.turn(False)
    assert idle.period is not None


CHAIN, WINDOW = ModelFallback("a", "b"), CircuitBreaker(trip=FailureRate(0.5))


@pytest.mark.parametrize(
    ("policies", "rests"),
    [
        ([], True),
        ([CHAIN, Retry(), WINDOW], True),
        ([WINDOW, CircuitBreaker(trip=FailureRate(0.5))], True),
        ([Fallback(1), Retry(), CircuitBreaker(), BadResult(callable), Bulkhead(1)], True),
        ([Pipeline(Retry(), Pipeline(CircuitBreaker()))], True),
        ([WINDOW, Timeout(9)], False),
        ([Busy()], False),
        ([Retry(), Pipeline(Busy())], False),
        ([ModelFallback("a", "b", per_model=9)], False),
    ],
)
def test_who_can_be_at_rest(policies: list[Any], rests: bool) -> None:
    """Any number of those that say so; what says nothing of it is not."""
    assert (Pipeline(*policies)._idle.period is not None) is rests


def test_nobody_rests_while_all_is_switched_off() -> None:
    """Each call looks at the switch, however many hold it; then rest comes back."""
    pipeline = Pipeline(Retry(wait=0))
    with disabled(everywhere=True):
        with disabled(everywhere=True):
            assert pipeline._idle.period is None
        assert pipeline._idle.period is None
        with pytest.raises(ConnectionError):
            pipeline.call(script(ConnectionError, "ok"))
    assert pipeline._idle.period is not None
    assert pipeline.call(script(ConnectionError, "ok")) == "ok"


def test_two_chains_of_models_rewrite_one_after_the_other() -> None:
    """At rest, too: each rewrites the first attempt's arguments for its own chain."""
    pipeline = Pipeline(ModelFallback("a"), Retry(), ModelFallback("b", argument="engine"))

    def chat(model: str = "", engine: str = "") -> tuple[str, str]:
        return model, engine

    fn = pipeline.wrap(chat)
    assert fn() == ("a", "b")
    assert guarded(fn)._guard.idle.period is not None


def test_who_is_listened_to_or_always_async_is_never_at_rest() -> None:
    """Listeners get events of healthy calls; `asynchronous=True` has its own way to call."""
    assert Pipeline(Retry())._idle.period is not None
    assert Pipeline(Retry(), listeners=[print])._idle.period is None
    assert Pipeline(Pipeline(Retry(), listeners=[print]))._idle.period is None
    assert Pipeline(Retry(), asynchronous=True)._idle.period is None
    assert Pipeline(Retry(), asynchronous=False)._idle.period is not None


def test_a_circuit_that_is_busy_suspends_all_its_pipelines() -> None:
    """Those that were made before and after; a clean circuit lets them be again."""
    breaker = CircuitBreaker()
    pipelines = [Pipeline(breaker), Pipeline(Retry(), breaker)]
    breaker.open()
    pipelines.append(Pipeline(breaker))
    assert [each._idle.period for each in pipelines] == [None] * 3
    breaker.close()
    assert all(each._idle.period is not None for each in pipelines)


def test_a_policy_does_not_keep_its_pipelines() -> None:
    """A breaker that is used in very many of them holds none."""
    breaker = CircuitBreaker()
    pipeline = Pipeline(breaker)
    gone = weakref.ref(pipeline._idle)
    del pipeline
    gc.collect()
    assert gone() is None
    breaker.open()
    breaker.close()
