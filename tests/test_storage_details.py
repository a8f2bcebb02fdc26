"""What shares a circuit with others: what is written and read, and when; what listeners hear."""

from __future__ import annotations

import logging
import time
import warnings
from datetime import datetime, timedelta, timezone
from typing import Any

import pybreaker
import pytest

from conftest import World
from resilience import CircuitBreaker, CircuitOpenError, ModelFallback, Pipeline
from resilience.failures import Failure
from resilience.policies._circuit import Circuit
from resilience.policies._permit import Permit
from resilience.policies._pybreaker import Listeners, Storages
from resilience.policies._states import Change

# pybreaker's storages


class Recording(pybreaker.CircuitMemoryStorage):
    """Notes what is done to it."""

    def __init__(self, state: str = "closed") -> None:
        self.done: list[Any] = []
        super().__init__(state)

    @property
    def state(self) -> str:
        self.done.append("state?")
        return str(super().state)

    @state.setter
    def state(self, value: str) -> None:
        self.done.append(value)
        pybreaker.CircuitMemoryStorage.state.fset(self, value)

    @property
    def counter(self) -> int:
        self.done.append("counter?")
        return int(super().counter)

    @property
    def opened_at(self) -> datetime | None:
        self.done.append("opened_at?")
        return super().opened_at  # type: ignore[no-any-return]

    @opened_at.setter
    def opened_at(self, moment: datetime) -> None:
        self.done.append("opened_at")
        pybreaker.CircuitMemoryStorage.opened_at.fset(self, moment)

    def increment_counter(self) -> None:
        self.done.append("+1")
        super().increment_counter()

    def reset_counter(self) -> None:
        self.done.append("0")
        super().reset_counter()


@pytest.mark.parametrize(
    ("steps", "done"),
    [
        (["ok", "ok"], []),
        ([ConnectionError, "ok", "ok"], ["+1", "0"]),
        (
            [ConnectionError, ConnectionError, ConnectionError],
            ["+1", "+1", "+1", "opened_at", "open"],
        ),
        ([KeyError, KeyError], []),
    ],
)
def test_what_calls_write(world: World, steps: Any, done: list[str]) -> None:
    """Failures, the end of a run of them, and changes; healthy calls nothing."""
    storage = Recording()
    guarded = Pipeline(CircuitBreaker(failures=3, storage=storage)).wrap(world.function(*steps))
    for _ in steps:
        world.run(guarded.outcome)

    assert storage.done == ["state?", "counter?", *done]


@pytest.mark.parametrize(
    ("act", "done"),
    [
        ("open", ["opened_at", "open"]),
        ("isolate", ["opened_at", "open"]),
        ("disable", ["closed"]),
    ],
)
@pytest.mark.parametrize("keyed", [False, True])
def test_what_is_done_by_hand_is_written_with_the_next_call(
    world: World, act: str, done: list[str], keyed: bool
) -> None:
    """Once, in words that pybreaker has; refused or not, before anything is read."""
    storage = Recording()
    breaker = CircuitBreaker(
        failures=1,
        key="model" if keyed else None,
        storage=(lambda value: storage) if keyed else storage,
    )
    getattr(breaker.circuit("m") if keyed else breaker, act)()
    guarded = Pipeline(breaker).wrap(world.function("ok"))
    world.run(guarded.outcome, model="m")
    assert storage.done == done
    world.run(guarded.outcome, model="m")
    assert storage.done[: len(done) + 1] == [*done, "state?"]


def test_closing_by_hand_ends_the_run_in_the_storage(world: World) -> None:
    """Failures that it counted are forgotten with ours; opening by hand leaves them."""
    storage = Recording()
    breaker = CircuitBreaker(failures=9, storage=storage)
    guarded = Pipeline(breaker).wrap(world.function(ConnectionError))
    world.run(guarded.outcome)
    breaker.open()
    world.run(guarded.outcome)
    assert storage.done[-3:] == ["+1", "opened_at", "open"]
    breaker.close()
    world.run(guarded.outcome)
    assert storage.done[-4:] == ["open", "0", "closed", "+1"]


@pytest.mark.parametrize(("counter", "state"), [(0, "closed"), (1, "open")])
def test_a_single_failure_of_others_counts(world: World, counter: int, state: str) -> None:
    """With one of our own it makes two."""
    storage = Recording()
    for _ in range(counter):
        storage.increment_counter()
    breaker = CircuitBreaker(failures=2, storage=storage)
    world.run(Pipeline(breaker).wrap(world.function(ConnectionError)).outcome)

    assert breaker.state == state


def test_an_opening_is_taken_over_once(world: World) -> None:
    """If it is there again after we have closed the circuit, it is an old story."""
    storage = pybreaker.CircuitMemoryStorage("open")
    breaker = CircuitBreaker(failures=1, reset_after=10, storage=storage, refresh=0)
    now = datetime.fromtimestamp(world.clock.wall(), timezone.utc)
    storage._opened_at = now
    guarded = Pipeline(breaker).wrap(world.function("ok"))
    with pytest.raises(CircuitOpenError):
        world.run(guarded)
    world.clock.advance(10)
    assert world.run(guarded) == "ok"
    storage.state = "open"
    assert world.run(guarded) == "ok"
    storage._opened_at = now + timedelta(seconds=10)
    with pytest.raises(CircuitOpenError):
        world.run(guarded)


def test_times_are_written_as_pybreaker_writes_them(world: World) -> None:
    """In UTC, with or without saying so."""
    ours, theirs = (pybreaker.CircuitMemoryStorage("closed") for _ in range(2))
    pybreaker.CircuitBreaker(state_storage=theirs).open()
    world.run(
        Pipeline(CircuitBreaker(failures=1, storage=ours))
        .wrap(world.function(ConnectionError))
        .outcome
    )

    assert ours._opened_at.tzinfo == theirs._opened_at.tzinfo
    assert ours._opened_at.replace(tzinfo=timezone.utc).timestamp() == world.clock.wall()


@pytest.mark.parametrize("aware", [False, True])
def test_times_are_read_in_utc_wherever_this_runs(
    world: World, monkeypatch: pytest.MonkeyPatch, aware: bool
) -> None:
    """One that names no zone is UTC; one that does is what it says."""
    zone = timezone(timedelta(hours=9)) if aware else timezone.utc
    storage = pybreaker.CircuitMemoryStorage("open")
    moment = datetime.fromtimestamp(world.clock.wall() - 10, zone)
    storage._opened_at = moment if aware else moment.replace(tzinfo=None)
    breaker = CircuitBreaker(reset_after=30, storage=storage)
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    try:
        with pytest.raises(CircuitOpenError) as caught:
            world.run(Pipeline(breaker).wrap(world.function("ok")))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert caught.value.retry_after == pytest.approx(20)


class Dead(pybreaker.CircuitMemoryStorage):
    """Cannot be read."""

    @property
    def state(self) -> str:
        raise OSError("away")

    @state.setter
    def state(self, value: str) -> None: ...


def never(value: Any) -> Any:
    raise OSError("away")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"storage": Dead("closed")}, "chat"),
        ({"storage": never, "key": "model"}, "chat for 'm'"),
    ],
)
@pytest.mark.parametrize("strict", [False, True])
def test_what_is_said_of_a_dead_storage(
    world: World, caplog: pytest.LogCaptureFixture, options: Any, named: str, strict: bool
) -> None:
    """Whose it is and what went wrong: a warning, or an error in the log where those are errors."""
    guarded = Pipeline(CircuitBreaker(name="chat", **options)).wrap(world.function("ok"))
    with warnings.catch_warnings(record=not strict) as warned:
        warnings.simplefilter("error" if strict else "always")
        assert world.run(guarded, model="m") == "ok"

    said = caplog.messages if warned is None else [str(each.message) for each in warned]
    assert said == [
        f"the storage of <circuit {named}: closed> failed (OSError); the circuit goes on by itself"
    ]


def test_without_a_storage_none_is_attached(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Nor is one missed."""
    assert Storages.of(None, True, 1.0) is None
    breaker = CircuitBreaker(key="model")
    assert world.run(Pipeline(breaker).wrap(world.function("ok")), model="m") == "ok"
    assert breaker.circuit("m").backing is None
    assert caplog.messages == []


# What shares circuits in its own way


class Shared:
    """Notes what a circuit asks and tells."""

    def __init__(self, grants: Any = True) -> None:
        self.grants = grants
        self.told: list[Any] = []
        self.asked: list[float] = []

    def share(self, circuit: Circuit, refresh: float) -> Shared:
        self.asked.append(refresh)
        return self

    async def refresh(self, runtime: Any) -> None:
        self.told.append("refresh")

    async def claim(self, runtime: Any, permit: Permit) -> bool:
        assert runtime.now() >= 0
        assert permit.trial
        if isinstance(self.grants, BaseException):
            raise self.grants
        self.told.append("claim")
        return bool(self.grants)

    def blame(self, cause: BaseException, failure: Failure) -> None:
        assert failure.error is cause
        self.told.append("blame")

    async def verdict(self, runtime: Any, permit: Permit, *, failed: bool) -> None:
        assert type(permit) is Permit
        self.told.append(("verdict", failed))

    def released(self, permit: Permit) -> None:
        assert type(permit) is Permit
        self.told.append("released")

    def note(self, change: Change) -> None:
        self.told.append((change.old, change.new))


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ("ok", [("verdict", False)]),
        (ConnectionError, ["blame", ("verdict", True)]),
        (KeyError, ["released"]),
        (KeyboardInterrupt, ["released"]),
    ],
)
def test_what_a_circuit_tells_of_a_call(world: World, step: Any, told: Any) -> None:
    """From the first call on: before it, and how it ended."""
    shared = Shared()
    guarded = Pipeline(CircuitBreaker(failures=9, storage=shared, refresh=3)).wrap(
        world.function(step)
    )
    for _ in range(2):
        try:
            world.run(guarded)
        except (Exception, KeyboardInterrupt):
            assert step != "ok"

    assert shared.told == ["refresh", *told] * 2
    assert shared.asked == [3]


@pytest.mark.parametrize("patience", [None, 5])
def test_a_trial_is_made_where_the_others_leave_it_to_us(world: World, patience: Any) -> None:
    """Otherwise the call is refused, and the place is free again."""
    shared = Shared(grants=False)
    breaker = CircuitBreaker(reset_after=10, storage=shared, wait_for_trial=patience)
    guarded = Pipeline(breaker).wrap(world.function("ok"))
    breaker.open()
    world.clock.advance(10)
    with pytest.raises(CircuitOpenError) as caught:
        world.run(guarded)
    assert caught.value.retry_after == 0
    assert (breaker.state, breaker.snapshot().trials, world.calls) == ("half-open", 0, [])
    shared.grants = True
    assert world.run(guarded) == "ok"
    assert shared.told[-3:] == ["claim", ("half-open", "closed"), ("verdict", False)]
    assert world.run(guarded) == "ok"
    assert shared.told[-2:] == ["refresh", ("verdict", False)]


def test_refused_by_others_who_have_closed_it_meanwhile(world: World) -> None:
    """The refusal tells how long the ramp will last."""

    class Closed(Shared):
        async def claim(self, runtime: Any, permit: Permit) -> bool:
            permit.circuit.follow("closed", 0.0, runtime.now())
            return False

    breaker = CircuitBreaker(reset_after=10, storage=Closed(), ramp=20)
    breaker.open()
    world.clock.advance(10)
    with pytest.raises(CircuitOpenError) as caught:
        world.run(Pipeline(breaker).wrap(world.function("ok")))
    assert caught.value.retry_after == 20


def test_a_place_is_not_lost_while_others_are_asked(world: World) -> None:
    """If the call is interrupted there, the next one finds it free."""
    shared = Shared(grants=KeyboardInterrupt())
    breaker = CircuitBreaker(reset_after=10, storage=shared)
    guarded = Pipeline(breaker).wrap(world.function("ok"))
    breaker.open()
    world.clock.advance(10)
    with pytest.raises(KeyboardInterrupt):
        world.run(guarded)
    assert breaker.snapshot().trials == 0
    shared.grants = True
    assert world.run(guarded) == "ok"


# pybreaker's listeners


def test_no_listeners_are_nobody_to_tell() -> None:
    """pybreaker is not imported for nothing."""
    assert Listeners.of(()) is None


class Heard(pybreaker.CircuitBreakerListener):
    """Notes calls; raises at successes."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def before_call(self, cb: Any, func: Any, *args: Any, **kwargs: Any) -> None:
        self.calls.append((cb.name, cb.current_state, func, args, kwargs))

    def success(self, cb: Any) -> None:
        raise LookupError("secret")


def test_a_listener_is_told_which_function_is_called(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """With its arguments, and the circuit; of what it raises, the class is logged."""
    caplog.set_level(logging.WARNING, logger="resilience")
    listener, fn = Heard(), world.function("ok")
    breaker = CircuitBreaker(name="chat", listeners=[listener])
    assert world.run(Pipeline(breaker).wrap(fn), 1, size=2) == "ok"

    assert listener.calls == [("chat", "closed", fn, (1,), {"size": 2})]
    assert caplog.messages == ["a pybreaker listener raised LookupError"]


# A key that cannot be worked out


def test_a_call_whose_key_raises_goes_on_with_its_arguments(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The first model was asked at rest, and failed; the second is asked the same."""
    calls: list[Any] = []

    def ask(*args: Any, **kwargs: Any) -> str:
        calls.append((args, kwargs))
        if len(calls) == 1:
            raise ConnectionError
        return "ok"

    def key(*args: Any, **kwargs: Any) -> Any:
        raise LookupError

    guarded = Pipeline(CircuitBreaker(key=key), ModelFallback("a", "b")).wrap(ask)
    assert guarded(1, size=2) == "ok"
    assert calls == [((1,), {"size": 2, "model": model}) for model in "ab"]
    assert caplog.messages == ["key raised LookupError"]
