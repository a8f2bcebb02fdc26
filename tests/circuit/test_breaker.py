"""CircuitBreaker: when it opens and closes, what counts, what a rejected call gets."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from typing import Any

import pybreaker
import pytest

from conftest import Takes, World
from resilience import (
    BadResult,
    CircuitBreaker,
    CircuitOpenError,
    DeadlineExceededError,
    FailureRate,
    Pipeline,
    RejectedError,
    Retry,
    Timeout,
    WorkersBusyError,
    history,
)
from resilience import guarded as handle
from resilience.failures import Advice, Failure, Kind
from resilience.testing import virtual_time
from resilience.waits import Exponential
from support.calling import error_of, passing
from support.circuits import Recorder, fail, rejected, states_after
from support.errors import DescribedError


def quota() -> Exception:
    """An error that is the caller's affair."""
    return DescribedError(Advice.STOP, Kind.QUOTA)


# Opening and closing


def test_opens_after_five_failures_in_a_row(world: World) -> None:
    """The default: five failures open it for some 5 s, then one good trial closes it."""
    breaker = CircuitBreaker()
    guarded = Pipeline(breaker).wrap(world.function(*[ConnectionError] * 5, "ok"))
    for _ in range(4):
        error_of(world, guarded)
        assert breaker.state == "closed"
    error_of(world, guarded)
    assert breaker.state == "open"

    left = rejected(world, guarded).retry_after
    assert left is not None
    assert 4 <= left <= 6
    world.clock.advance(left - 0.1)
    rejected(world, guarded)
    world.clock.advance(0.2)
    assert world.run(guarded) == "ok"
    assert breaker.state == "closed"


def test_the_open_time_grows_up_to_twelve_seconds(world: World) -> None:
    """By default it doubles with each opening in a row, up to its cap, and is jittered."""
    breaker = CircuitBreaker(failures=1)
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError))
    found = []
    for _ in range(4):
        error_of(world, guarded)
        found.append(breaker.snapshot().retry_after or 0)
        world.clock.advance(found[-1])

    jittered = 1 + Exponential(5).jitter
    for seconds, whole in zip(found, [5, 10, 12, 12], strict=True):
        assert whole / jittered <= seconds <= whole * jittered


def test_a_success_ends_the_run_of_failures(world: World) -> None:
    """Failures count in a row: a success between them starts the count anew."""
    breaker = CircuitBreaker(failures=2)
    bad = ConnectionError

    assert states_after(world, breaker, bad, 1, bad, 1, bad, bad) == ["closed"] * 5 + ["open"]


@pytest.mark.fault(66)
def test_other_errors_are_no_verdict(world: World) -> None:
    """An error that `on` leaves out neither counts nor ends the run."""
    breaker = CircuitBreaker(failures=2)
    steps = [ConnectionError, ValueError, quota(), ConnectionError]

    assert states_after(world, breaker, *steps) == ["closed"] * 3 + ["open"]


@pytest.mark.fault(66)
def test_another_error_of_a_trial_gives_its_slot_back(world: World) -> None:
    """Half open, an error that is no verdict leaves it half open, with its slot free."""
    breaker = CircuitBreaker(reset_after=60)
    breaker.open()
    world.clock.advance(60)

    assert states_after(world, breaker, ValueError, quota(), "ok") == ["half-open"] * 2 + ["closed"]


def test_a_failed_trial_opens_it_for_the_whole_time_again(world: World) -> None:
    """One failed trial, and it is open for `reset_after` from then."""
    breaker = CircuitBreaker(failures=3, reset_after=10)
    breaker.open()
    world.clock.advance(15)
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError, "ok"))
    error_of(world, guarded)

    assert breaker.state == "open"
    assert rejected(world, guarded).retry_after == pytest.approx(10)


def test_successes_close_it(world: World) -> None:
    """With `successes=3`, three good trials in a row close it; one bad one opens it."""
    breaker = CircuitBreaker(successes=3, reset_after=60)
    breaker.open()
    world.clock.advance(60)
    guarded = Pipeline(breaker).wrap(world.function(1, 2, ConnectionError, 3, 4, 5))
    found = []
    for _ in range(6):
        world.run(handle(guarded).outcome)
        found.append(breaker.state)
        if breaker.state == "open":
            world.clock.advance(60)

    assert found == ["half-open", "half-open", "open", "half-open", "half-open", "closed"]


def test_after_closing_the_count_starts_anew(world: World) -> None:
    """A circuit that has closed again takes as many failures to open as at first."""
    breaker = CircuitBreaker(failures=2, reset_after=60)
    assert states_after(world, breaker, ConnectionError, ConnectionError)[-1] == "open"
    world.clock.advance(60)

    assert states_after(world, breaker, 1, OSError) == ["closed", "closed"]


def test_state_names_are_pybreakers() -> None:
    """Our three names are pybreaker's."""
    breaker = CircuitBreaker(reset_after=5, successes=2)
    with virtual_time() as clock:
        found = [breaker.state]
        breaker.open()
        found.append(breaker.state)
        clock.advance(5)
        Pipeline(breaker).call(lambda: "one of two")
        found.append(breaker.state)

    assert found == [
        pybreaker.STATE_CLOSED,
        pybreaker.STATE_OPEN,
        pybreaker.STATE_HALF_OPEN,
    ]


# What counts


def test_a_bad_result_counts_as_a_failure(world: World) -> None:
    """One that `BadResult` reads as the service's failure counts, in a trial as well; the result
    is returned all the same."""
    breaker = CircuitBreaker(failures=2, reset_after=60)
    body = Failure(Kind.SERVER, Advice.RETRY)
    pipeline = Pipeline(breaker, BadResult(lambda text: None if text else body))
    guarded = pipeline.wrap(world.function(""))

    assert [world.run(guarded), world.run(guarded)] == ["", ""]
    assert breaker.state == "open"
    rejected(world, guarded)
    world.clock.advance(60)
    assert world.run(guarded) == ""
    assert breaker.state == "open"


def test_a_bad_result_that_tells_nothing_is_no_verdict(world: World) -> None:
    """A check that only says True does not open circuits."""
    breaker = CircuitBreaker(failures=1)
    guarded = Pipeline(breaker, BadResult(lambda text: not text)).wrap(world.function(""))

    assert world.run(guarded) == ""
    assert breaker.state == "closed"


@pytest.mark.parametrize(
    ("on", "state"), [(ValueError, "open"), (Kind.UNKNOWN, "open"), (OSError, "closed")]
)
def test_on_forms(world: World, on: Any, state: str) -> None:
    """`on=` is the same language as everywhere."""
    breaker = CircuitBreaker(failures=1, on=on)
    error_of(world, Pipeline(breaker).wrap(world.function(ValueError)))

    assert breaker.state == state


def test_a_predicate_that_raises_is_no_verdict(world: World) -> None:
    """A broken `on` neither hides the error nor counts; the note names what it raised."""
    breaker = CircuitBreaker(failures=1, on=lambda failure: 1 / 0)
    error = error_of(world, Pipeline(breaker).wrap(world.function(ConnectionError)))

    assert type(error) is ConnectionError
    assert "ZeroDivisionError" in error.__notes__[0]
    assert breaker.state == "closed"


@pytest.mark.fault(204)
def test_our_own_rejections_are_not_charged_to_the_service(world: World) -> None:
    """Neither an open circuit further in nor busy workers tell of the service, even with
    `on=Exception`; a trial that ends so gives its slot back."""
    inner = CircuitBreaker(reset_after=1e6)
    inner.open()
    breaker = CircuitBreaker(failures=1, on=Exception, reset_after=10)
    within = Pipeline(breaker).wrap(passing(world, Pipeline(inner).wrap(world.function("ok"))))
    beside = Pipeline(breaker, inner).wrap(world.function("ok"))
    busy = Pipeline(breaker).wrap(world.function(WorkersBusyError(workers=1)))
    for guarded in (within, beside, busy):
        assert isinstance(error_of(world, guarded), RejectedError)
        assert breaker.state == "closed"

    breaker.open()
    world.clock.advance(10)
    for guarded in (within, beside, busy):
        assert isinstance(error_of(world, guarded), RejectedError)
        assert (breaker.state, breaker.snapshot().trials) == ("half-open", 0)
    assert world.run(Pipeline(breaker).wrap(world.function("ok"))) == "ok"
    assert breaker.state == "closed"


@pytest.mark.fault(204)
@pytest.mark.parametrize("rejection", [WorkersBusyError, CircuitOpenError])
def test_rejections_at_rest_are_not_charged_either(rejection: type[RejectedError]) -> None:
    """The same outside of virtual time, where the first attempt is made at rest."""
    breaker = CircuitBreaker(failures=1, on=Exception)
    error = WorkersBusyError(workers=1) if rejection is WorkersBusyError else None

    def ask() -> None:
        raise error or CircuitOpenError(None, None, None, None)

    with pytest.raises(rejection):
        Pipeline(breaker).call(ask)
    assert (breaker.state, breaker.snapshot().failures) == ("closed", 0)


def test_cut_by_a_timeout_outside_is_no_verdict(world: World) -> None:
    """A call cut by a Timeout outside the breaker tells nothing, and a trial's slot is free."""
    breaker = CircuitBreaker(failures=1, reset_after=60)
    with pytest.warns(UserWarning, match="hung"):
        pipeline = Pipeline(Timeout(5), breaker)
    guarded = pipeline.wrap(world.function(Takes(9)))

    assert type(error_of(world, guarded)) is DeadlineExceededError
    assert breaker.state == "closed"
    breaker.open()
    world.clock.advance(60)
    for _ in range(2):
        assert type(error_of(world, guarded)) is DeadlineExceededError
        assert breaker.state == "half-open"


def test_cut_by_a_timeout_inside_is_a_failure(world: World) -> None:
    """A Timeout inside the breaker lets it hear of hung calls."""
    breaker = CircuitBreaker(failures=2)
    guarded = Pipeline(breaker, Timeout(5)).wrap(world.function(Takes(9)))
    error_of(world, guarded)
    error_of(world, guarded)

    assert breaker.state == "open"
    assert type(rejected(world, guarded).__cause__) is DeadlineExceededError


# What a rejected call gets


def test_the_rejection_tells_when_and_why(world: World) -> None:
    """It carries name, seconds, the UTC time, and as its cause the failure that opened it."""
    breaker = CircuitBreaker(failures=2, reset_after=30, name="gateway")
    first, second = ConnectionError("first"), ConnectionError("second")
    guarded = Pipeline(breaker).wrap(world.function(first, second))
    error_of(world, guarded)
    error_of(world, guarded)
    world.clock.advance(10)
    error = rejected(world, guarded)

    assert isinstance(error, RejectedError)
    assert (error.name, error.key) == ("gateway", None)
    assert error.retry_after == pytest.approx(20)
    now = datetime.fromtimestamp(world.clock.wall(), timezone.utc)
    assert error.retry_at is not None
    assert abs(error.retry_at - now - timedelta(seconds=20)) < timedelta(milliseconds=1)
    assert error.retry_at.utcoffset() == timedelta(0)
    assert breaker.retry_at == error.retry_at
    assert error.__cause__ is second
    assert "gateway" in str(error)
    assert history(error) == ()


def test_a_stop_iteration_that_opens_it_is_the_cause() -> None:
    """The cause is the user's own exception, also where it is a StopIteration."""
    same = StopIteration()
    breaker = CircuitBreaker(failures=1, on=StopIteration)
    with virtual_time() as clock:
        world = World("sync", clock)
        guarded = Pipeline(breaker).wrap(world.function(same))
        with pytest.raises(StopIteration):
            guarded()
        assert rejected(world, guarded).__cause__ is same


@pytest.mark.fault(63)
def test_a_rejection_is_new_each_time(world: World) -> None:
    """Rejections are new objects, and the failure that opened it does not grow with them."""
    breaker = CircuitBreaker(failures=1)
    cause = ConnectionError()
    guarded = Pipeline(breaker).wrap(world.function(cause))
    error_of(world, guarded)

    def length() -> int:
        found, trace = 0, cause.__traceback__
        while trace is not None:
            found, trace = found + 1, trace.tb_next
        return found

    before = length()
    errors = [rejected(world, guarded) for _ in range(20)]
    assert len(set(map(id, errors))) == 20
    assert length() == before
    assert cause.__context__ is None


# Clocks


@pytest.mark.fault(35)
@pytest.mark.parametrize("jump", [-3600, 3600])
def test_the_wall_clock_may_jump(world: World, jump: float) -> None:
    """Setting the wall clock neither shortens nor lengthens the open time."""
    breaker = CircuitBreaker(reset_after=60)
    guarded = Pipeline(breaker).wrap(world.function("ok"))
    breaker.open()
    world.clock.move_wall(jump)
    assert rejected(world, guarded).retry_after == pytest.approx(60)
    world.clock.advance(59)
    rejected(world, guarded)
    world.clock.advance(2)

    assert world.run(guarded) == "ok"


@pytest.mark.fault(37)
def test_a_clock_that_leaps(world: World) -> None:
    """Thirty years later an open circuit lets its trial through; a still clock rejects for
    ever."""
    breaker = CircuitBreaker(reset_after=60)
    guarded = Pipeline(breaker).wrap(world.function("ok"))
    breaker.open()
    for _ in range(100):
        assert rejected(world, guarded).retry_after == 60
    world.clock.advance(1e9)

    assert world.run(guarded) == "ok"


def test_a_reset_time_beyond_all_dates(world: World) -> None:
    """An open time longer than dates go has no `retry_at`, and rejects all the same."""
    breaker = CircuitBreaker(reset_after=1e15)
    breaker.open()

    assert breaker.retry_at is None
    assert rejected(world, Pipeline(breaker).wrap(world.function("ok"))).retry_after == 1e15


# Sharing it


@pytest.mark.fault(77)
def test_two_pipelines_share_the_circuit_of_one_breaker(world: World) -> None:
    """The breaker object is what is shared: every pipeline that holds it heeds its circuit."""
    breaker = CircuitBreaker(failures=2)
    one = Pipeline(Retry(attempts=1), breaker).wrap(world.function(ConnectionError))
    two = Pipeline(breaker).wrap(world.function("ok"))
    error_of(world, one)
    error_of(world, one)

    rejected(world, two)
    breaker.close()
    assert world.run(two) == "ok"


@pytest.mark.fault(80)
def test_any_name_will_do(world: World) -> None:
    """Long, odd and equal names tell people something and share nothing."""
    names = ["ü:{*}\n", "x" * 10_000, "same", "same"]
    breakers = [CircuitBreaker(name=name) for name in names]
    breakers[2].open()

    assert [breaker.state for breaker in breakers] == ["closed", "closed", "open", "closed"]
    breakers[0].open()
    error = rejected(world, Pipeline(breakers[0]).wrap(world.function(1)))
    assert error.name == names[0]
    assert repr(names[0]) in str(error)


def test_a_copy_of_a_breaker_is_the_breaker() -> None:
    """There is one of it in one process: `copy` and `deepcopy` give the thing itself."""
    breaker = CircuitBreaker()

    assert copy.copy(breaker) is breaker
    assert copy.deepcopy([breaker])[0] is breaker


# In another process


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"failures": 3, "reset_after": 7, "trials": 2, "successes": 4, "tolerate": 0.2},
        {"trip": FailureRate(0.5, calls=10), "ramp": 5, "trial_timeout": 9, "wait_for_trial": 1},
        {"key": "model", "name": "llm", "keep": 10, "forget_after": 60, "refresh": 2},
        {"on": Kind.TIMEOUT, "reset_after": Exponential(1, factor=3)},
    ],
)
def test_a_breaker_pickles_as_its_options(options: dict[str, Any]) -> None:
    """What comes out of a pickle has the same options, and circuits of its own that are fresh."""
    breaker = CircuitBreaker(**options)
    (breaker.circuit("m") if breaker.key else breaker).open()
    there = pickle.loads(pickle.dumps(breaker))

    assert type(there) is CircuitBreaker
    assert there is not breaker
    circuit = there.circuit("m") if there.key else there
    assert circuit.state == "closed"
    for name in ("failures", "trip", "trials", "successes", "tolerate", "key", "name", "ramp"):
        assert getattr(there, name) == getattr(breaker, name)
    assert repr(there.reset_after) == repr(breaker.reset_after)
    assert repr(there.on) == repr(breaker.on)


class Named(CircuitBreaker):
    """A breaker of the user's own kind."""


def test_a_breaker_of_the_users_own_kind_pickles_as_that() -> None:
    """The class is kept."""
    assert type(pickle.loads(pickle.dumps(Named(failures=2)))) is Named


def test_a_pipeline_pickles_with_a_fresh_circuit() -> None:
    """It goes on guarding there, and what it has learnt here stays here."""
    breaker = CircuitBreaker(failures=1)
    pipeline = Pipeline(Retry(attempts=2), breaker)
    breaker.open()
    there = pickle.loads(pickle.dumps(pipeline))

    assert repr(there) == repr(Pipeline(Retry(attempts=2), CircuitBreaker(failures=1)))
    assert there.outcome(fail).error is not None
    assert there.policies[1].state == "open"
    assert breaker.snapshot().refused == 0


def test_a_circuit_does_not_pickle() -> None:
    """What it knows belongs to this process; the error says what to send instead."""
    with pytest.raises(TypeError, match="process"):
        pickle.dumps(CircuitBreaker(key="model").circuit("m"))


# Options


def test_listeners_are_given_as_a_list_or_a_tuple() -> None:
    """Any iterable will do; what is no pybreaker listener is refused."""
    listener = Recorder()
    for given in ([listener], (listener,), iter([listener])):
        breaker = CircuitBreaker(listeners=given)
        assert list(breaker.listeners) == [listener]
        breaker.open()
    assert len(listener.changes) == 3
    for wrong in (listener, "listener", [print]):
        with pytest.raises(TypeError, match="listeners"):
            CircuitBreaker(listeners=wrong)  # type: ignore[arg-type]


def test_a_breaker_must_have_something_to_trip_on() -> None:
    """`failures=None` wants a `trip`."""
    with pytest.raises(TypeError, match="failures"):
        CircuitBreaker(failures=None)


def test_repr_tells_the_options() -> None:
    """It reads like the code that makes it, defaults left out, and tells the state of its one
    circuit."""
    single = CircuitBreaker(failures=3)
    assert repr(single) == "<CircuitBreaker(failures=3): closed>"
    single.open()
    assert repr(single) == "<CircuitBreaker(failures=3): open>"
    single.shadow()
    assert repr(single) == "<CircuitBreaker(failures=3): closed, in shadow>"
    assert (
        repr(CircuitBreaker(failures=3, reset_after=10, key="model", name="x"))
        == "CircuitBreaker(failures=3, reset_after=10, key='model', name='x')"
    )
    assert repr(CircuitBreaker(on=fail)) == "<CircuitBreaker(on=fail): closed>"
    assert CircuitBreaker(name="x") != CircuitBreaker(name="x")


@pytest.mark.fault(79)
def test_options_cannot_be_changed() -> None:
    """Setting an option after building is refused, as it would have no effect on the circuit."""
    breaker = CircuitBreaker(failures=5)
    with pytest.raises(AttributeError):
        breaker.failures = 1  # type: ignore[misc]


def test_a_circuit_shows_only_what_is_for_users() -> None:
    """A dozen names: state, times, counts and manual commands."""
    names = {name for name in dir(CircuitBreaker(key="model").circuit("m")) if name[0] != "_"}

    assert names == {
        *("name", "key", "state", "failures", "retry_after", "retry_at", "snapshot"),
        *("open", "close", "isolate", "disable", "shadow"),
    }


# Imports


@pytest.mark.real
@pytest.mark.fault(124)
def test_pybreaker_is_imported_only_when_used() -> None:
    """A plain breaker does without pybreaker (and redis); a listener brings it in."""
    code = (
        "import sys, resilience\n"
        "breaker = resilience.CircuitBreaker(key='model')\n"
        "resilience.Pipeline(resilience.Retry(), breaker).call(lambda model: 1, 'm')\n"
        "print(sorted({'pybreaker', 'redis', 'asyncio', 'trio', 'httpx', 'openai', 'auriko'}"
        " & set(sys.modules)))\n"
    )
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
