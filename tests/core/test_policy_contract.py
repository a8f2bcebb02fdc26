"""`Policy` and `Gate`: what a policy of a user's gets when it says no more than it must."""

from __future__ import annotations

import math
from typing import Any

import pytest

from conftest import World
from resilience import (
    CircuitOpenError,
    DeadlineExceededError,
    Fallback,
    Gate,
    ModelFallback,
    Pipeline,
    Policy,
    RejectedError,
    Retry,
    Timeout,
    history,
)
from resilience.policy import NO_VERDICT, Call, Idle, InHand, Inner, Runtime, Verdict
from support.calling import error_of, message_of


class Stamp(Policy):
    """Adds an argument to each attempt, and nothing else."""

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        async def stamp(call: Call) -> Any:
            return await inner(call.replace(kwargs={**call.kwargs, "sent": runtime.now()}))

        return stamp


class Resting(Stamp):
    """The same, for those who do not need it in a healthy call."""

    resting = True


class Door(Gate):
    """Lets in whom `answers` has a permit for, by turns; the last answer is repeated."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.left: list[tuple[Any, Verdict]] = []
        self.calls: list[Call] = []

    def try_enter(self, call: Call, runtime: Runtime) -> Any:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def leave(self, permit: Any, call: Call, error: Verdict) -> None:
        self.left.append((permit, error))
        self.calls.append(call)


# A policy


def test_the_defaults_of_a_policy(world: World) -> None:
    """It guards everything, refuses nothing, is never busy, and is not at rest."""
    policy = Stamp()
    seen: list[Call] = []

    class Spy(Policy):
        def bind(self, inner: Inner, runtime: Runtime) -> Inner:
            async def spy(call: Call) -> Any:
                seen.append(call)
                return await inner(call)

            return spy

    world.run(Pipeline(policy, Spy()).call, world.function("ok"))
    (call,) = seen
    policy.check(len)
    policy.check_block(asynchronous=False)
    policy.watch(Pipeline()._idle)
    assert policy.rewrite_first(len) is None
    assert policy.at_rest(len) is None
    assert policy.busy() is False
    assert policy.refuses(call) is False
    assert policy.free_in(call) == 0
    assert (policy.resting, policy.role) == (False, None)
    assert world.calls == [((), {"sent": 1_000})]


def test_how_long_a_gate_may_let_calls_wait() -> None:
    """Without a limit, as far as anybody knows, if it waits at all."""

    class Barrier(Gate):
        def try_enter(self, call: Call, runtime: Runtime) -> Any:
            return True

        def leave(self, permit: Any, call: Call, error: Verdict) -> None: ...

    class Queue(Barrier):
        async def enter(self, call: Call, runtime: Runtime) -> Any: ...

    assert (Barrier().effect().waits, Queue().effect().waits) == (0, math.inf)


def test_what_a_policy_must_have() -> None:
    """`bind`; a gate `try_enter` and `leave`."""

    class Nothing(Policy): ...

    class NoDoor(Gate): ...

    assert "bind" in message_of(TypeError, Nothing)
    message = message_of(TypeError, NoDoor)
    assert "try_enter" in message
    assert "leave" in message


@pytest.mark.parametrize("policy", [Stamp(), Resting()])
def test_a_policy_acts_on_every_attempt_unless_it_rests(policy: Stamp) -> None:
    """One that rests is passed by in a healthy call, and acts on what follows a failed one."""
    calls: list[dict[str, Any]] = []

    def ask(**kwargs: Any) -> str:
        calls.append(kwargs)
        if len(calls) == 2:
            raise ConnectionError
        return "ok"

    fn = Pipeline(Retry(wait=0), policy).wrap(ask)
    fn()
    fn()
    assert [len(kwargs) for kwargs in calls] == ([0, 0, 1] if policy.resting else [1, 1, 1])


def test_policies_are_bound_in_any_place(world: World) -> None:
    """Outside of ours, between them and inside, one object in several places too."""
    stamp = Stamp()
    policies = stamp, Fallback("else"), ModelFallback("a", "b"), stamp, Retry(attempts=2, wait=1)
    assert world.run(Pipeline(*policies, stamp).call, world.function(ConnectionError)) == "else"
    assert [kwargs["sent"] for _, kwargs in world.calls] == [1_000, 1_001, 1_001, 1_002]


# A gate


def test_a_gate_hears_how_each_attempt_ended(world: World) -> None:
    """Once for each permit: well, by its error, and for a failed one before it is tried again."""
    door = Door("first", "second")
    error = ConnectionError()
    world.run(Pipeline(Retry(wait=0), door).call, world.function(error, "ok"))

    assert door.left == [("first", error), ("second", None)]
    assert [call.args for call in door.calls] == [(), ()]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interruption_is_no_verdict(interruption: Any) -> None:
    """The permit goes back all the same."""
    door = Door("permit")

    def interrupted() -> None:
        raise interruption

    with pytest.raises(interruption):
        Pipeline(door).call(interrupted)
    assert door.left == [("permit", NO_VERDICT)]


def test_a_call_cut_from_outside_is_no_verdict(world: World) -> None:
    """In every world."""
    door = Door("permit")

    def hang() -> None:
        world.clock.sleep(9)

    async def ahang() -> None:
        await world.clock.asleep(9)

    error = error_of(world, Pipeline(Timeout(5), door).call, ahang if world.asynchronous else hang)
    assert type(error) is DeadlineExceededError
    assert door.left == [("permit", NO_VERDICT)]


def test_a_gate_that_does_not_wait_rejects(world: World) -> None:
    """Where `try_enter` gives None, and where it raises a refusal of its own; nothing is left."""
    fn = world.function("never")
    assert type(error_of(world, Pipeline(Door(None)).call, fn)) is RejectedError
    refusal = CircuitOpenError(5.0)
    door = Door(refusal)
    assert error_of(world, Pipeline(Retry(), door).call, fn) is refusal
    assert door.left == []
    assert world.calls == []


def test_a_rejection_after_an_attempt_lets_the_calls_own_error_out(world: World) -> None:
    """The refusal is told in the note."""
    door = Door("permit", None)
    own = ConnectionError()
    error = error_of(world, Pipeline(Retry(wait=0), door).call, world.function(own))

    assert error is own
    assert len(history(error)) == 1
    assert "rejected" in error.__notes__[0]
    assert door.left == [("permit", own)]


class Counting(Door):
    """Rests, and knows its permits by what it held for a call at rest."""

    resting = True

    def __init__(self) -> None:
        super().__init__("in full")
        self.resumed: list[tuple[Any, Any]] = []

    def at_rest(self, fn: Any) -> Any:
        return (lambda args, kwargs: "at rest"), (lambda held, error, result: True)

    def resume(self, permit: Any, call: Call, in_hand: InHand) -> Any:
        self.resumed.append((permit, type(in_hand.error)))
        return f"{permit}, resumed"


def test_a_gate_resumes_a_call_that_began_at_rest() -> None:
    """It is not asked to let it in again: it has what it held, and gives the permit for that."""
    door = Counting()
    calls: list[int] = []

    def ask() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise ConnectionError
        return "ok"

    fn = Pipeline(Retry(wait=0), door).wrap(ask)
    assert fn() == "ok"
    assert [permit for permit, _ in door.left] == ["at rest, resumed", "in full"]
    assert [permit for permit, _ in door.resumed] == ["at rest"]
    fn()
    assert len(door.left) == 2


def test_a_gate_that_rests_may_hold_nothing() -> None:
    """Without an `at_rest` it lets healthy calls pass unseen, and hears of a failed one."""

    class Watching(Door):
        resting = True
        idle: Idle

        def watch(self, idle: Idle) -> None:
            self.idle = idle

    door = Watching("in full")
    calls: list[int] = []

    def ask() -> str:
        calls.append(1)
        if len(calls) == 2:
            raise ConnectionError
        return "ok"

    fn = Pipeline(Retry(wait=0), door).wrap(ask)
    fn()
    assert door.left == []
    fn()
    assert [type(error) for _, error in door.left] == [ConnectionError, type(None)]


def test_no_verdict_has_a_name() -> None:
    """For whoever prints what a gate has heard."""
    assert repr(NO_VERDICT) == "NO_VERDICT"
