"""The innermost step of every chain: one attempt is opened, made and settled."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import CoroutineType
from typing import Any

from attrs import evolve

from resilience.failures import describe
from resilience.sdks.tokens import tokens_of

from .arguments import time_slot
from .attempt import Attempt
from .call import Call, attempt_of
from .completion import Verdict
from .context import ambient
from .in_hand import InHand
from .results import (
    PLAIN,
    completion_of,
    is_awaitable,
    is_deferred,
    is_plain,
    is_raw_stream,
)
from .runtime import Inner, Runtime
from .signals import NO_VERDICT, Carried, Deferred, Expired, HandOver

__all__ = ["into_journal", "invoke"]

_SHORTEST = 0.001
"""Seconds that are passed on where hardly any are left: some clients take 0 for no limit."""

_set, _reset = ambient.set, ambient.reset


def invoke(runtime: Runtime) -> Inner:  # noqa: C901, PLR0915
    """The step that calls the user's function, for chains bound to `runtime`."""
    # One long body: every function more is a frame more in each attempt.
    now, asynchronous = runtime.now, runtime.asynchronous
    prepare = None if asynchronous else runtime._prepare

    async def attempt(call: Call) -> Any:  # noqa: C901, PLR0912, PLR0915
        branch = call.branch
        if branch.in_hand is not None:
            return await _in_hand(call, runtime, attempt)
        if call.deadline is None:
            fn = call.fn
        else:
            if call.deadline.passed_on:
                call = _passing_on(call, now())
            fn = call.fn if prepare is None else prepare(call)
        if call.terms is not None:
            fn = call.terms.limited(fn, call, runtime)
        journal = call.journal
        if branch is journal:
            journal.numbers = branch.number = journal.numbers + 1
        else:
            branch.number = journal.next_number()
        branch.waited = branch.waiting
        branch.waiting = 0.0
        branch.started = started = now()
        if journal.began is None:
            journal.began = started
        token: Any = None
        leave: Any = None
        try:
            if journal.keeps:
                emit = journal.guard.emit
                emit.attempt_started(call)
                if emit.enters:
                    leave = emit.enter(journal.serial, branch.number)
            token = _set(call)
            result = fn(*call.args, **call.kwargs)
            if type(result) is CoroutineType and asynchronous:
                result = await result
                if type(result) not in PLAIN and not is_plain(result):
                    result = await _opened(call, runtime, result)
            elif type(result) not in PLAIN:
                result = await _looked(call, runtime, result)
            if call.judge is not None:
                _judge(call, result)
        except Exception as error:
            _failed(call, now(), error)
            raise
        except BaseException as error:
            _interrupted(call, now(), error)
            raise
        finally:
            # The very first thing, and no function of ours: Ctrl-C is heard between two calls, and
            # a call that stays behind would keep this thread from ever being at rest again.
            try:
                _reset(token)
            except ValueError:
                pass  # an abandoned coroutine is being closed in another context
            except TypeError:
                _set(journal.outer)  # Ctrl-C came before there was a token
            if leave is not None:
                leave()
        if type(result) in PLAIN:
            if not asynchronous:
                journal.guard.facts.plain = True
            if not journal.keeps:
                return result
        return _succeeded(call, now, result)

    return attempt


def into_journal(chain: Inner) -> Inner:
    """The outermost step: the chain's result goes into the journal, and None is returned."""

    async def call(call: Call) -> None:
        call.journal.result = await chain(call)

    return call


async def _opened(call: Call, runtime: Runtime, result: Any) -> Any:
    """A stream, read up to its first content; any other result as it is."""
    if is_deferred(result, asynchronous=runtime.asynchronous):
        raise Deferred(InHand(call.args, call.kwargs, ready=result))
    if not is_raw_stream(result):
        return result
    from .streams import open_async, open_sync  # imported where first needed

    if runtime.asynchronous and hasattr(result, "__aiter__"):
        return await open_async(call, runtime, result)
    return open_sync(call, runtime, result)


async def _looked(call: Call, runtime: Runtime, result: Any) -> Any:
    """What to take for the result: awaited where there is a loop, handed over where there is
    none."""
    asynchronous = runtime.asynchronous
    guard = call.journal.guard
    if guard.pipeline.asynchronous is False or not is_awaitable(result):
        plain = is_plain(result)
        guard.facts.plain = True
        return result if plain else await _opened(call, runtime, result)
    guard.facts.awaitable = True
    if asynchronous:
        result = await result
        return result if is_plain(result) else await _opened(call, runtime, result)
    in_hand = InHand(call.args, call.kwargs, ready=result)
    if call.fn is guard.fn:
        raise HandOver(in_hand)
    in_hand.discard()
    raise TypeError(
        "Model(call=...) returned an awaitable in a sync call; give it a sync function, or say "
        "asynchronous=True if the guarded one is async"
    )


async def _in_hand(call: Call, runtime: Runtime, attempt: Inner) -> Any:
    """The same with the outcome, or the awaitable, of an attempt begun before the chain was."""
    branch = call.branch
    found, branch.in_hand = branch.in_hand, None
    assert found is not None
    if not found.made:
        if call.fn is call.journal.guard.fn and found.serves(call.args, call.kwargs):
            call = call.replace(fn=found.serve)
        else:
            found.discard()
        return await attempt(call)
    branch.number = call.journal.next_number()
    branch.waited, branch.waiting = branch.waiting, 0.0
    branch.started = found.started
    if call.journal.began is None:
        call.journal.began = found.started
    for report in found.reports:
        branch.report(report)
    try:
        if call.journal.keeps:
            call.journal.guard.emit.attempt_started(call)
        result = found.deliver()
        if type(result) not in PLAIN:
            result = await _opened(call, runtime, result)
        if call.judge is not None:
            _judge(call, result)
    except Exception as error:
        _failed(call, runtime.now(), error)
        raise
    return _succeeded(call, runtime.now, result)


def _judge(call: Call, result: Any) -> None:
    """Raise the error that a policy finds in a result."""
    assert call.judge is not None
    bad = call.judge(result)
    if bad is not None:
        if call.journal.keeps:
            call.journal.guard.emit.tokens_used(call, tokens_of, result)
        try:
            raise bad
        finally:
            del bad


def _failed(call: Call, ended: float, error: Exception) -> None:
    """Record an attempt's error; a StopIteration goes on in a carrier."""
    branch = call.branch
    if branch.number:  # else it was withdrawn
        call.journal.add(attempt_of(call, ended - branch.started, describe(error)))
    if issubclass(type(error), StopIteration):
        raise Carried(error) from None


def _interrupted(call: Call, ended: float, error: BaseException) -> None:
    """Remember an attempt that was unwound: a `Timeout` further out may have done that."""
    branch = call.branch
    if type(error) in (HandOver, Deferred):
        call.withdraw()
    else:
        call.journal.interrupted += (attempt_of(call, ended - branch.started),)


def _succeeded(call: Call, now: Callable[[], float], result: Any) -> Any:
    """Record an attempt that went well, or will be settled later, where anybody asks for that."""
    pending = None if type(result) in PLAIN else completion_of(result)
    if pending is None and not call.journal.keeps:
        return result
    started = call.branch.started
    if pending is None:
        try:
            call.journal.guard.emit.tokens_used(call, tokens_of, result)
        finally:  # also after Ctrl-C in a listener
            call.journal.add(attempt_of(call, now() - started))
        return result
    attempt = attempt_of(call)
    call.journal.add(attempt)
    pending.then(partial(_settled, call, attempt, started, now))
    return result


def _settled(
    call: Call, attempt: Attempt, started: float, now: Callable[[], float], verdict: Verdict
) -> None:
    """Record how an attempt ended that was settled later than it returned."""
    failure = describe(verdict) if isinstance(verdict, Exception) else None
    ended = evolve(attempt, duration=now() - started, failure=failure)
    attempts = call.journal.attempts
    if type(attempts) is list and attempt in attempts:
        attempts[attempts.index(attempt)] = ended
    call.journal.guard.emit.attempt_ended(call.journal, ended, interrupted=verdict is NO_VERDICT)


def _passing_on(call: Call, now: float) -> Call:
    """A copy whose arguments have what is left of the time, where a `Timeout` passes it on.

    A deadline from further out than this call concerns somebody else's function.
    """
    deadline, born_in = call.deadline, call.journal.born_in
    args, kwargs = call.args, call.kwargs
    while deadline is not None and deadline is not born_in:
        if deadline.pass_as is not None and not deadline.ended:
            if deadline.end <= now:
                raise Expired(deadline)
            left = max(call.room(now), _SHORTEST)
            slot = time_slot(call.fn, deadline.pass_as)
            own = slot.given(args, kwargs)
            number = isinstance(own, (int, float)) and not isinstance(own, bool)
            if own is None or (number and not 0 <= own <= left):
                args, kwargs = slot.replaced(args, kwargs, left)
        deadline = deadline.outer
    return call.replace(args=args, kwargs=kwargs)
