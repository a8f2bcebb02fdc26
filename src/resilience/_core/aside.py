"""What nobody may wait for where it comes up: on an event loop, in code that is not awaited."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from resilience._runtimes import runtime_for, workers
from resilience._runtimes.loops import loop_runs_here

from .around import around
from .driver import drive

if TYPE_CHECKING:
    from resilience.typing import Runtime

    from .record import Record

__all__ = ["aside", "hurried"]


def hurried(record: Record, runtime: Runtime) -> bool:
    """Whether a call runs on an event loop without being awaited, so that waiting stops the loop.

    A function that is not yet known, as its result may have to be awaited; and a block in an
    `async for`, as it is entered and left by a plain `with`.
    """
    if runtime.asynchronous:
        return False
    unknown = record.settled is None and not record.facts.synchronous
    return (record.asynchronous or unknown) and loop_runs_here()


def aside(job: Callable[[Runtime], Coroutine[Any, Any, object]]) -> None:
    """Have `job` done in a worker thread, by a sync runtime, and do not wait for it.

    Where no thread is to be had, it is not done. In virtual time nothing is slow: done at once.
    """
    surroundings = around.get()
    runtime = runtime_for(surroundings, asynchronous=False)
    if surroundings is not None and surroundings.world is not None:
        drive(job(runtime))
        return
    try:
        workers.start(lambda: drive(job(runtime)))
    except Exception:
        pass
