"""Whose answers count: of calls that the circuit has not changed state since; each of them once."""

from __future__ import annotations

from contextvars import copy_context
from typing import Any

import pytest

from conftest import World
from resilience import CircuitBreaker, CircuitOpenError, FailureRate, Pipeline
from resilience import guarded as handle
from resilience.testing import virtual_time
from support.calling import error_of
from support.circuits import Recorder, Told, admit, fail, rejected
from support.gates import Stream


@pytest.mark.fault(21)
@pytest.mark.parametrize("command", ["close", "isolate", "open"])
@pytest.mark.parametrize("outcome", ["late", ConnectionError])
def test_late_answers_change_nothing(world: World, command: str, outcome: Any) -> None:
    """An answer to a call begun before the last change of state changes nothing."""
    breaker = CircuitBreaker(failures=1, reset_after=50)

    def meanwhile() -> Any:
        getattr(breaker, command)()
        if isinstance(outcome, type):
            raise outcome
        return outcome

    world.run(handle(Pipeline(breaker).wrap(world.function(meanwhile))).outcome)

    expected = {"close": "closed", "isolate": "isolated", "open": "open"}[command]
    assert breaker.state == expected
    assert breaker.snapshot().failures == 0


@pytest.mark.fault(21)
@pytest.mark.parametrize("outcome", ["late", ConnectionError])
def test_late_answers_of_calls_begun_at_rest_change_nothing(outcome: Any) -> None:
    """The same outside of virtual time, where nothing notes the call before it ends."""
    breaker = CircuitBreaker(failures=1, reset_after=50)

    def meanwhile() -> Any:
        breaker.open()
        breaker.close()
        if isinstance(outcome, type):
            raise outcome
        return outcome

    Pipeline(breaker).outcome(meanwhile)
    assert (breaker.state, breaker.snapshot().failures) == ("closed", 0)


@pytest.mark.fault(21)
def test_a_late_failure_does_not_extend_the_open_time(world: World) -> None:
    """Calls that were under way when it opened do not keep it open for longer."""
    breaker = CircuitBreaker(failures=1, reset_after=50)

    def meanwhile() -> None:
        breaker.open()
        world.clock.advance(30)
        raise ConnectionError

    guarded = Pipeline(breaker).wrap(world.function(meanwhile))
    error_of(world, guarded)

    assert rejected(world, guarded).retry_after == pytest.approx(20)


@pytest.mark.fault(21)
@pytest.mark.parametrize("late", ["late", ConnectionError])
def test_late_answers_while_half_open(late: Any) -> None:
    """A call begun while closed settles no trial, though it ends while half open."""
    with virtual_time() as clock:
        world = World("sync", clock)
        breaker = CircuitBreaker(failures=1, reset_after=50, successes=2)
        pipeline = Pipeline(breaker)

        def meanwhile() -> Any:
            breaker.open()
            clock.advance(50)
            pipeline.call(lambda: "one of two")
            assert breaker.state == "half-open"
            if isinstance(late, type):
                raise late
            return late

        world.run(handle(pipeline.wrap(meanwhile)).outcome)
        assert breaker.state == "half-open"
        pipeline.call(lambda: "two of two")
        assert breaker.state == "closed"


@pytest.mark.fault(21)
def test_a_late_success_does_not_end_a_new_run() -> None:
    """A success from before the closing does not excuse failures since."""
    with virtual_time():
        breaker = CircuitBreaker(failures=2)
        pipeline = Pipeline(breaker)

        def meanwhile() -> str:
            breaker.close()
            with pytest.raises(ConnectionError):
                pipeline.call(fail)
            return "late"

        assert pipeline.call(meanwhile) == "late"
        with pytest.raises(ConnectionError):
            pipeline.call(fail)
        assert breaker.state == "open"


@pytest.mark.fault(21)
def test_a_slow_trial_of_an_earlier_half_open_time_settles_no_later_one() -> None:
    """Nor does it free a slot of the later one."""
    with virtual_time() as clock:
        breaker = CircuitBreaker(failures=1, reset_after=10, trials=2, successes=1)
        pipeline = Pipeline(breaker)
        breaker.open()
        clock.advance(10)
        elsewhere = copy_context()  # not inside the trial

        def slow_trial() -> str:
            with pytest.raises(ConnectionError):
                elsewhere.run(pipeline.call, fail)  # the other trial opens it again
            return "late"

        assert pipeline.call(slow_trial) == "late"
        assert breaker.state == "open"


def test_whose_answers_count() -> None:
    """Those of calls begun in this stretch of being closed."""
    with virtual_time():
        circuit = Told(failures=9).circuit
        early = admit(circuit)
        circuit.open()
        between = circuit._resume(0, 0.0)
        circuit.close()
        early.fail()
        circuit._settle(between, True, 0.0)
        assert circuit.failures == 0
        admit(circuit).fail()
        assert circuit.failures == 1


@pytest.mark.fault(29)
def test_a_trial_is_settled_once() -> None:
    """Settling or dropping it twice has no effect: no slot is freed twice."""
    with virtual_time() as clock:
        told = Told(trials=2, successes=9, failable_trials=9)
        told.circuit.open()
        clock.advance(10)
        first, second = admit(told.circuit), admit(told.circuit)
        first.fail()
        first.succeed()
        first.drop()
        assert told.circuit.snapshot().trials == 1
        held = admit(told.circuit)
        with pytest.raises(CircuitOpenError):
            admit(told.circuit)
        assert (told.circuit.snapshot().passed, told.circuit.snapshot().failed) == (0, 1)
        assert held.trial
        assert second.trial


@pytest.mark.fault(29)
@pytest.mark.parametrize("first", ["end", "fail"])
def test_a_result_that_is_settled_twice_counts_once(world: World, first: str) -> None:
    """A stream that says more than once how it ended: the first word counts."""
    breaker = CircuitBreaker(failures=9)
    stream = Stream()
    assert world.run(Pipeline(breaker).wrap(world.function(stream))) is stream
    assert breaker.snapshot().failures == 0
    stream.fail(ConnectionError()) if first == "fail" else stream.end()
    for _ in range(3):
        stream.fail(ConnectionError())
        stream.close()

    assert breaker.snapshot().failures == (1 if first == "fail" else 0)


@pytest.mark.parametrize(
    ("verdict", "state"), [("end", "closed"), ("fail", "open"), ("close", "half-open")]
)
def test_a_trial_whose_result_is_settled_later(world: World, verdict: str, state: str) -> None:
    """Until then its slot is taken; its verdict is the trial's."""
    breaker = CircuitBreaker(reset_after=10)
    breaker.open()
    world.clock.advance(10)
    stream = Stream()
    world.run(Pipeline(breaker).wrap(world.function(stream)))
    assert breaker.snapshot().trials == 1
    rejected(world, Pipeline(breaker).wrap(world.function("ok")))
    stream.fail(ConnectionError()) if verdict == "fail" else getattr(stream, verdict)()

    assert (breaker.state, breaker.snapshot().trials) == (state, 0)


def _boom(*args: Any) -> Any:
    raise ZeroDivisionError


@pytest.mark.fault(8, 10, 28)
@pytest.mark.parametrize(
    ("ending", "options", "listeners"),
    [
        pytest.param(KeyboardInterrupt, {}, (), id="keyboard interrupt"),
        pytest.param(SystemExit, {}, (), id="system exit"),
        pytest.param(GeneratorExit, {}, (), id="generator exit"),
        pytest.param(ValueError, {}, (), id="unmatched"),
        pytest.param(ConnectionError, {"on": _boom}, (), id="classifier"),
        pytest.param(ValueError, {}, (_boom,), id="listener"),
    ],
)
def test_permits_in_are_permits_out(
    world: World, ending: Any, options: Any, listeners: Any
) -> None:
    """However a trial ends without a verdict, its slot is free again and nothing is counted."""
    breaker = CircuitBreaker(failures=1, reset_after=60, **options)
    breaker.open()
    world.clock.advance(60)
    pipeline = Pipeline(breaker, listeners=listeners)
    for _ in range(3):
        with pytest.raises(BaseException):  # noqa: B017, PT011
            world.run(pipeline.wrap(world.function(ending)))
        assert (breaker.state, breaker.snapshot().trials) == ("half-open", 0)

    assert world.run(pipeline.wrap(world.function("ok"))) == "ok"
    assert breaker.state == "closed"


@pytest.mark.fault(8)
def test_keyboard_interrupt_is_not_counted(world: World) -> None:
    """Ctrl-C in a call is the same Ctrl-C outside, and tells nothing of the service."""
    breaker = CircuitBreaker(failures=1)
    same = KeyboardInterrupt()

    with pytest.raises(BaseException) as info:  # noqa: PT011
        world.run(Pipeline(breaker).wrap(world.function(same)))

    assert info.value is same
    assert breaker.state == "closed"


@pytest.mark.parametrize("rate", [False, True])
def test_a_listener_hears_of_late_answers_too(world: World, rate: bool) -> None:
    """They change nothing, but the call was made."""
    heard: list[str] = []

    class Listener(Recorder):
        def failure(self, cb: Any, exc: BaseException) -> None:
            heard.append(f"failure, {cb.current_state}")

    options: dict[str, Any] = {"trip": FailureRate(0.5)} if rate else {"failures": 1}
    breaker = CircuitBreaker(listeners=[Listener()], **options)

    def meanwhile() -> None:
        breaker.isolate()
        raise ConnectionError

    error_of(world, Pipeline(breaker).wrap(world.function(meanwhile)))
    assert heard == ["failure, isolated"]


def test_the_first_circuits_of_a_process_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything has ever changed."""
    from resilience._core.idle import epochs

    monkeypatch.setattr(epochs, "now", 0)
    breaker = CircuitBreaker(failures=1, key="model")

    with pytest.raises(ConnectionError):
        Pipeline(breaker).call(fail, model="a")
    assert breaker.circuit("a").state == "open"
