"""Any pipeline over any script: what always holds, and that all worlds and paths agree."""

from __future__ import annotations

import asyncio
import os
import time
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from attrs import define, field, frozen
from hypothesis import event, given, settings
from hypothesis import strategies as st

from conftest import World
from resilience import (
    CircuitBreaker,
    CircuitOpenError,
    DeadlineExceededError,
    Fallback,
    ModelFallback,
    Pipeline,
    Retry,
    Timeout,
    history,
)
from resilience.events import AttemptEnded, CallEnded, WaitBegan
from resilience.failures import Advice, Failure, Kind, describe
from resilience.testing import virtual_time
from resilience.waits import Decorrelated, Exponential, Fixed, FullJitter, Linear, RetryAfter
from support.grammar import Watch

settings.register_profile("suite", max_examples=50, deadline=None)
settings.register_profile("deep", max_examples=2500, deadline=None)
profile = settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))

# Scripts


class ScriptedError(Exception):
    """An error whose meaning is written in the script."""

    def __init__(self, label: str, **meaning: Any) -> None:
        super().__init__(label)
        self.meaning = meaning


@describe.register(ScriptedError)
def _read(error: ScriptedError) -> Failure:
    return Failure(error=error, **error.meaning)


MEANINGS: dict[str, dict[str, Any]] = {
    "overloaded": {"kind": Kind.OVERLOADED, "advice": Advice.WAIT},
    "unsent": {"kind": Kind.UNAVAILABLE, "advice": Advice.RETRY, "sent": False},
    "once": {"kind": Kind.SERVER, "advice": Advice.RETRY, "retry_limit": 1},
    "soon": {"kind": Kind.RATE_LIMIT, "advice": Advice.WAIT, "retry_after": 0.31, "sent": False},
    "later": {"kind": Kind.RATE_LIMIT, "advice": Advice.WAIT, "retry_after": 7.3},
    "tomorrow": {"kind": Kind.RATE_LIMIT, "advice": Advice.WAIT, "retry_after": 86_400.0},
    "quota": {"kind": Kind.QUOTA, "advice": Advice.FALLBACK},
    "invalid": {"kind": Kind.INVALID, "advice": Advice.STOP},
}
PLAIN = {"connection": ConnectionError, "own timeout": TimeoutError, "caller": KeyError}
ENDINGS = [*MEANINGS, *PLAIN, "connection", "connection", "own timeout", "ok", "ok"]


@frozen
class Step:
    """What one attempt does, after how long."""

    ending: str
    seconds: float = 0.0

    def error(self) -> BaseException | None:
        if self.ending == "interrupt":
            return KeyboardInterrupt("scripted")
        if self.ending in PLAIN:
            return PLAIN[self.ending]("scripted")
        if self.ending in MEANINGS:
            return ScriptedError(self.ending, **MEANINGS[self.ending])
        return None


@frozen
class Call:
    """One call of a story: after a pause, perhaps for a model of its own."""

    pause: float
    model: str | None
    steps: tuple[Step, ...]


@st.composite
def a_step(draw: st.DrawFn, slow: bool = True) -> Step:
    if draw(st.integers(0, 24)) == 24:
        return Step("interrupt")
    seconds = draw(st.sampled_from([0.0, 0.0, 0.0, 0.25, 2.0, 30.0])) if slow else 0.0
    return Step(draw(st.sampled_from(ENDINGS)), seconds)


def calls(slow: bool = True, most: int = 5) -> st.SearchStrategy[list[Call]]:
    return st.lists(
        st.builds(
            Call,
            st.sampled_from([0.0, 0.0, 1.0, 20.0]),
            st.sampled_from([None, None, "a", "b", "stranger"]),
            st.lists(a_step(slow), min_size=1, max_size=8).map(tuple),
        ),
        min_size=1,
        max_size=most,
    )


# Pipelines, as recipes: every world gets policies of its own

Recipe = list[tuple[type, dict[str, Any]]]

plain_waits = st.sampled_from(
    [
        Fixed(0),
        Fixed(0.4),
        Linear(0.2, 0.3, 0.9),
        Exponential(),
        Exponential(initial=0.1, factor=3, max=2, jitter=1),
        FullJitter(initial=1, max=3),
        Decorrelated(initial=0.2, max=5),
    ]
)
waits = st.one_of(
    plain_waits,
    st.builds(
        RetryAfter,
        plain_waits,
        longest=st.sampled_from([5.0, 60.0]),
        too_long=st.sampled_from(["stop", "clamp"]),
        spread=st.sampled_from([0.0, 0.25, 1.0]),
    ),
)
# No sums of the other times: what falls on the same instant may go either way.
limits = st.sampled_from([0.70710678, 1.73205081, 4.23606798, 9.86960440, 41.7331])

retries = st.fixed_dictionaries(
    {"attempts": st.integers(1, 4), "wait": waits},
    optional={
        "within": limits,
        "patience": st.sampled_from([1.0, 100.0]),
        "idempotent": st.booleans(),
        "on": st.sampled_from([Exception, [Kind.QUOTA, Advice.RETRY], ConnectionError]),
    },
)
breakers = st.fixed_dictionaries(
    {"failures": st.integers(1, 3), "reset_after": st.sampled_from([0.6180339, 11.0901699])},
    optional={
        "key": st.just("model"),
        "trials": st.integers(1, 2),
        "successes": st.integers(1, 2),
        "on": st.just(Exception),
    },
)
models = st.fixed_dictionaries(
    {"models": st.sampled_from([("a",), ("a", "b"), ("b", "c", "a")])},
    optional={"on": st.just(Exception)},
)
fallbacks = st.fixed_dictionaries(
    {"value": st.just("else")}, optional={"on": st.sampled_from([ConnectionError, TimeoutError])}
)


@st.composite
def recipes(draw: st.DrawFn, timed: bool = True) -> Recipe:
    """Some of the policies, one of each (up to two Timeouts), more often in the standard order."""
    choices: Recipe = []
    for policy, options in [
        (Fallback, fallbacks),
        (Timeout, st.fixed_dictionaries({"seconds": limits})),
        (ModelFallback, models),
        (Retry, retries),
        (CircuitBreaker, breakers),
        (Timeout, st.fixed_dictionaries({"seconds": limits})),
    ]:
        often = 2 if policy in (Retry, CircuitBreaker) else 1
        if (timed or policy is not Timeout) and draw(st.integers(0, often)):
            choices.append((policy, draw(options)))
    return draw(st.permutations(choices)) if draw(st.booleans()) else choices


def made(recipe: Recipe) -> list[Any]:
    """The policies of a recipe, new ones."""
    return [
        policy(*options["models"], **{k: v for k, v in options.items() if k != "models"})
        if policy is ModelFallback
        else policy(**options)
        for policy, options in recipe
    ]


def pipeline(policies: list[Any], **options: Any) -> Pipeline:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PolicyOrderWarning: any order will do here
        return Pipeline(*policies, **options)


def position(recipe: Recipe, policy: type) -> int:
    """Where the outermost one is; beyond the end if there is none."""
    return next((at for at, (kind, _) in enumerate(recipe) if kind is policy), len(recipe))


# Running a story


@define(eq=False)
class Record:
    """What happened in one call of a story."""

    call: Call
    began: float
    starts: list[tuple[float, str]] = field(factory=list)
    raised: list[BaseException | None] = field(factory=list)
    events: list[Any] = field(factory=list)
    waits: list[tuple[float, float]] = field(factory=list)  # when begun, how long
    error: BaseException | None = None
    value: Any = None
    ended: float = 0.0

    def in_short(self) -> Any:
        """To be compared over worlds: no identities, times rounded."""
        return (
            [(round(at - self.began, 6), model) for at, model in self.starts],
            [(round(at - self.began, 6), round(pause, 6)) for at, pause in self.waits],
            type(self.error).__name__,
            str(self.error) if isinstance(self.error, (ScriptedError, TimeoutError)) else None,
            self.value,
            round(self.ended - self.began, 6),
            [type(each).__name__ for each in self.events],
        )


def circuits(policies: list[Any]) -> list[tuple[Any, Any]]:
    """All circuits so far, with their keys."""
    return [
        item
        for policy in policies
        if isinstance(policy, CircuitBreaker)
        for item in sorted(policy._circuits._all.items(), key=str)
    ]


def run_story(world_name: str, recipe: Recipe, story: list[Call]) -> tuple[list[Record], list[Any]]:
    """Play a story in one world, and check on the way that every permit comes back."""
    policies = made(recipe)
    states: list[Any] = []
    records: list[Record] = []
    with virtual_time(seed=7) as clock:
        world = World(world_name, clock)

        def listen(happening: Any) -> None:
            record = records[-1]
            record.events.append(happening)
            if isinstance(happening, WaitBegan):
                record.waits.append((clock.now(), happening.seconds))

        def next_step(model: str) -> tuple[float, Callable[[], str]]:
            record = records[-1]
            step = record.call.steps[min(len(record.starts), len(record.call.steps) - 1)]
            number = len(record.starts)
            record.starts.append((clock.now(), model))
            record.raised.append(None)

            def finish() -> str:
                error = record.raised[number] = step.error()
                if error is not None:
                    raise error
                return f"{model} {number}"

            return step.seconds, finish

        def function(*, model: str = "mine") -> str:
            seconds, finish = next_step(model)
            if seconds:
                clock.sleep(seconds)
            return finish()

        async def afunction(*, model: str = "mine") -> str:
            seconds, finish = next_step(model)
            if seconds:
                await clock.asleep(seconds)
            return finish()

        watch = Watch()
        listeners = [(listen, AttemptEnded, WaitBegan, CallEnded), watch]
        guarded = pipeline(policies, listeners=listeners).wrap(
            afunction if world.asynchronous else function
        )
        for call in story:
            clock.advance(call.pause)
            record = Record(call, clock.now())
            records.append(record)
            arguments = {} if call.model is None else {"model": call.model}
            before = len(clock.sleeps)
            try:
                record.value = world.run(guarded, **arguments)
            except (Exception, KeyboardInterrupt) as error:
                record.error = error
            record.ended = clock.now()
            assert clock.sleeps[before:] == [pause for _, pause in record.waits]
            for key, circuit in circuits(policies):
                assert circuit.snapshot().trials == 0, f"a slot for {key!r} is still taken"
                left = circuit.retry_after
                states.append((key, circuit.state, circuit.failures, left and round(left, 6)))
    assert watch.faults() == []
    return records, states


# What holds for every call


def check(recipe: Recipe, record: Record) -> None:
    interrupted = isinstance(record.error, KeyboardInterrupt)
    check_counts(recipe, record)
    check_events(record, interrupted)
    check_waits(recipe, record)
    if interrupted:
        assert record.error is record.raised[-1]  # the very one, and nothing was done after it
    else:
        assert not any(isinstance(error, KeyboardInterrupt) for error in record.raised)
        check_outcome(recipe, record)


def check_counts(recipe: Recipe, record: Record) -> None:
    """No more starts than attempts x models, each of a model of the chain or the call's own."""
    options = dict(recipe)
    chain = options.get(ModelFallback, {}).get("models", ())
    named = record.call.model
    allowed = max(1, len(chain) + bool(chain and named and named not in chain))
    assert len(record.starts) <= allowed * options.get(Retry, {}).get("attempts", 1)
    if chain:
        order = [named or chain[0], *(name for name in chain if name != (named or chain[0]))]
        assert {model for _, model in record.starts} <= set(order)


def check_events(record: Record, interrupted: bool) -> None:
    """Attempts numbered 1..n, each ended once, waits between them, and one outcome last."""
    ended = [each.attempt for each in record.events if isinstance(each, AttemptEnded)]
    assert [each.number for each in ended] == list(range(1, len(record.starts) + 1))
    word = "".join(
        {AttemptEnded: "a", WaitBegan: "w", CallEnded: "e"}[type(e)] for e in record.events
    )
    assert word.count("e") == 1
    assert word.endswith("e")
    assert "ww" not in word
    assert not word.startswith("w")
    last = record.events[-1]
    assert last.error is record.error
    assert last.attempts == tuple(ended[:-1] if interrupted else ended)
    assert last.elapsed == pytest.approx(record.ended - record.began)
    if isinstance(record.error, Exception) and record.starts:
        assert [a.number for a in history(record.error)] == [a.number for a in ended]


def bounds(wait: Any, failure: Failure | None) -> tuple[float, float]:
    """The shortest and the longest that a wait object allows."""
    if isinstance(wait, RetryAfter):
        asked = failure.retry_after if failure is not None else None
        if asked is None:
            return bounds(wait.otherwise, failure)
        if asked > wait.longest:
            assert wait.too_long == "clamp"
            return wait.longest, wait.longest
        return asked, asked * (1 + wait.spread)
    if isinstance(wait, Fixed):
        return wait.seconds, wait.seconds
    if isinstance(wait, Exponential):
        return wait.initial * (1 - wait.jitter), wait.max * (1 + wait.jitter)
    return 0.0 if isinstance(wait, FullJitter) else wait.initial, wait.max


def check_waits(recipe: Recipe, record: Record) -> None:
    """Within the wait object's bounds, and over before any deadline.

    A chain that comes round waits for what is left of the model's wait, or for its circuit.
    """
    retry = position(recipe, Retry)
    circuit = position(recipe, CircuitBreaker) < len(recipe)
    begun = [each for each in record.events if isinstance(each, WaitBegan)]
    whole = min(retry, position(recipe, ModelFallback))
    for (at, pause), happening in zip(record.waits, begun, strict=True):
        options = recipe[retry][1]
        failed = happening.attempt
        later = record.events[record.events.index(happening) :]
        ended = [each.attempt for each in later if isinstance(each, AttemptEnded)]
        if whole < retry and ended and failed.model != ended[0].model:
            assert circuit
        else:
            least, most = bounds(options["wait"], failed.failure)
            assert at + pause >= record.began + failed.started + failed.duration + least - 1e-9
            assert pause <= most + 1e-9 or (whole < retry and circuit)
        for number, (policy, given_) in enumerate(recipe[:retry]):
            if policy is Timeout:
                if number < whole or not circuit:  # a chain waits for a circuit outside of it
                    assert pause < given_["seconds"]
                if number < whole:  # it began with the call
                    assert at + pause < record.began + given_["seconds"]
        if "within" in options:
            assert pause < options["within"]
            if whole == retry:
                assert at + pause < record.began + options["within"]
    outermost = recipe[0] if recipe else (None, {})
    if outermost[0] is Timeout:
        assert record.ended <= record.began + outermost[1]["seconds"] + 1e-9


def check_outcome(recipe: Recipe, record: Record) -> None:
    """A value that somebody gave, or the call's own last error; ours only where nothing ran, or
    where time ran out while something did."""
    if record.error is None:
        assert (
            record.value == "else"
            or record.value == f"{record.starts[-1][1]} {len(record.starts) - 1}"
        )
        if record.value == "else":
            assert position(recipe, Fallback) < len(recipe)
        else:
            assert record.raised[-1] is None
        return
    if recipe and recipe[0][0] is Fallback and "on" not in recipe[0][1]:
        raise AssertionError("nothing gets past an outermost Fallback") from record.error
    if not record.starts:
        assert isinstance(record.error, CircuitOpenError)
        return
    last = [each.attempt for each in record.events if isinstance(each, AttemptEnded)][-1]
    assert last.failure is not None
    assert last.failure.error is record.error
    if isinstance(record.error, DeadlineExceededError):
        limit = record.error.seconds
        assert any(p is Timeout and o["seconds"] == limit for p, o in recipe)
        assert record.raised[-1] is None  # it was under way
        assert record.ended - record.began >= limit - 1e-9
    else:
        assert record.error is record.raised[-1]


@profile
@given(recipe=recipes(), story=calls())
def test_whatever_the_pipeline_and_the_script(recipe: Recipe, story: list[Call]) -> None:
    """In every world the same story, and in each of its calls what always holds."""
    records, states = run_story("sync", recipe, story)
    for each in records:
        check(recipe, each)
        event(f"{min(len(each.starts), 4)} attempts, {type(each.error).__name__}")
    for other in ("asyncio", "trio"):
        records_there, states_there = run_story(other, recipe, story)
        for here, there in zip(records, records_there, strict=True):
            check(recipe, there)
            assert here.in_short() == there.in_short(), other
        assert states == states_there, other


# At rest


def command(policies: list[Any], what: str) -> None:
    """A manual command for a circuit between two calls, or its open time ends."""
    for policy in policies:
        if isinstance(policy, CircuitBreaker):
            circuit = policy.circuit("a") if policy.key else policy._only
            if what in ("open", "close", "isolate"):
                getattr(circuit, what)()
            elif what == "time" and circuit.state == "open":
                circuit._state.until = time.monotonic()  # not long ago, or it is forgotten


def play(recipe: Recipe, story: list[Call], commands: list[str], *, loop: bool, full: bool) -> Any:
    """Calls one after the other in real time; what was seen, and how many of them began at rest."""
    policies = made(recipe)
    seen: list[Any] = []
    watch = Watch()
    guarded_by = pipeline(policies, listeners=[watch] if full else [])
    steps: list[Step] = []
    started: list[str] = []

    def function(*, model: str = "mine") -> str:
        started.append(model)
        error = steps[min(len(started), len(steps)) - 1].error()
        if error is not None:
            raise error
        return f"{model} {len(started)}"

    async def afunction(*, model: str = "mine") -> str:
        await asyncio.sleep(0)
        return function(model=model)

    guarded: Any = guarded_by.wrap(afunction if loop else function)

    async def awaited(arguments: dict[str, Any]) -> Any:
        try:
            return await guarded(**arguments)
        except KeyboardInterrupt as interruption:  # the loop is not to see it: it would end
            return interruption

    rested = 0
    for call, what in zip(story, commands, strict=False):
        command(policies, what)
        steps[:], started[:] = call.steps, []
        rested += guarded_by._idle.period is not None
        arguments = {} if call.model is None else {"model": call.model}
        record: Any
        attempts: tuple[Any, ...] = ()
        try:
            record = asyncio.run(awaited(arguments)) if loop else guarded(**arguments)
        except (Exception, KeyboardInterrupt) as error:
            record = error
            attempts = history(error) if isinstance(error, Exception) else ()
        if isinstance(record, BaseException):
            notes = getattr(record, "__notes__", None)
            record = (
                type(record),
                None if isinstance(record, CircuitOpenError) else str(record),
                notes,
            )
        kinds = [(a.number, a.model, a.failure and a.failure.kind, a.waited) for a in attempts]
        looked = [(key, c.state, c.failures, c.snapshot().trials) for key, c in circuits(policies)]
        assert all(out == 0 for *_, out in looked)
        # A circuit that nothing has happened to may as well not be there.
        moved = [each for each in looked if each[1:] != ("closed", 0, 0)]
        seen.append((list(started), record, kinds, moved))
    assert watch.faults() == []
    return seen, rested


@pytest.mark.parametrize("loop", [False, True], ids=["sync", "asyncio"])
@profile
@given(
    recipe=recipes(timed=False),
    story=calls(slow=False, most=8),
    commands=st.lists(
        st.sampled_from(["", "", "", "", "", "time", "time", "open", "close", "isolate"]),
        min_size=8,
        max_size=8,
    ),
)
def test_any_pipeline_at_rest_does_what_it_does_in_full(
    loop: bool, recipe: Recipe, story: list[Call], commands: list[str]
) -> None:
    """Any pipeline without time limits, whose first attempts run directly: nothing is different."""
    unhurried = [
        (
            p,
            {**{k: v for k, v in o.items() if k != "within"}, "wait": Fixed(0)}
            if p is Retry
            else o,
        )
        for p, o in recipe
    ]
    patient = [
        (p, {**o, "reset_after": 3600.0} if p is CircuitBreaker else o) for p, o in unhurried
    ]
    direct, rested = play(patient, story, commands, loop=loop, full=False)
    full, never = play(patient, story, commands, loop=loop, full=True)
    assert (rested > 0, never) == (True, 0) if commands[0] == "" else never == 0
    assert direct == full
