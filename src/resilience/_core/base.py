"""The innermost step of every chain: one attempt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from resilience.typing import Call, Runtime

from .handover import Carried, HandOver, Ready
from .record import Record, current
from .results import check, is_awaitable

__all__ = ["base", "plainly"]


def base(runtime: Runtime) -> Call:
    """The step that calls the user's function, for chains bound to `runtime`."""

    async def attempt(*args: Any, **kwargs: Any) -> Any:
        record = current()
        resumed, record.resumed = record.resumed, None
        if resumed is None:
            this = record.begin(runtime.now(), kwargs)
        else:
            this = record.begin(resumed.started, kwargs, since=resumed.started)
        try:
            if resumed is None:
                result = await _result(runtime, record, args, kwargs)
            else:
                result = resumed.deliver()
        except HandOver:
            record.withdraw(this)
            raise
        except Exception as error:
            if record.tries and record.tries[-1] is this:
                record.failed(this, error, runtime.now())
            raise
        record.succeeded(this, runtime.now())
        return result

    return attempt


async def _result(
    runtime: Runtime, record: Record, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """What the function gives: awaited where there is a loop, handed over where there is none."""
    ready, record.ready = record.ready, None
    if ready is not None and ready.serves(args, kwargs):
        return await ready.take()
    if ready is not None:
        ready.discard()
    if record.scope is None:
        result = await runtime.invoke(record.fn, args, kwargs)
    else:
        result = await runtime.invoke(record.fn, *record.lend(args, kwargs, runtime.now()))
    if record.settled is False or not is_awaitable(result):
        check(result)
        record.facts.plain = True
        return result
    record.facts.awaitable = True
    if runtime.asynchronous:
        return await result
    if record.substituted:
        Ready(result, args, kwargs).discard()
        raise TypeError(
            "Model(call=...) returned an awaitable in a sync call; give it a sync function, or "
            "say asynchronous=True if the guarded one is async"
        )
    raise HandOver(result, args, kwargs)


def plainly(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a function; a StopIteration of its own is carried past the coroutines above us."""
    try:
        return fn(*args, **kwargs)
    except StopIteration as error:
        raise Carried(error) from None
