"""A world of events for whole-system simulations: hundreds of thousands of calls in seconds.

The library itself runs in it, policies, guards and all, by a runtime of its own: as under
`virtual_time()`, but with no event loop to turn. A task is a coroutine that stops where it waits.

    with simulated(seed=1) as world:
        world.spawn(pipeline.call(fn))        # fn awaits world.rest(seconds), or world.moment()
        world.run(until=60)
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Hashable
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from itertools import count
from typing import Any, TypeVar

from resilience._core.context import Surroundings, ambient, get_ambient
from resilience._core.deadline import Deadline
from resilience._core.signals import Expired
from resilience.policy import Call, Inner, Runtime

T = TypeVar("T")


class Moment:
    """What a task waits for, and something sets."""

    def __init__(self, world: Simulated) -> None:
        self._world = world
        self._task: _Task | None = None
        self.come = False

    def set(self) -> None:
        self.come = True
        if self._task is not None:
            task, self._task = self._task, None
            self._world.ready.append(task)

    def __await__(self) -> Generator[Moment, None, None]:
        if not self.come:
            task: _Task = self._world.current
            self._task = task
            task.waits_for = self
            yield self

    async def wait(self, seconds: float, call: Call | None) -> bool:
        """As a policy's `Waiter`."""
        self._world.at(self._world.now() + seconds, self._wake)
        await self
        return self.come

    def _wake(self) -> None:
        if self._task is not None:
            task, self._task = self._task, None
            self._world.ready.append(task)

    def leave(self) -> None:
        """Nobody waits any more."""
        self._task = None


class _Task:
    def __init__(self, body: Coroutine[Any, Any, object]) -> None:
        self.body = body
        self.context = copy_context()
        self.waits_for: Moment | None = None


class Simulated(Runtime):
    """The clock, the tasks, and the runtime of their calls."""

    asynchronous = True

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.random = self.chance.random  # type: ignore[method-assign]
        self.ready: deque[_Task] = deque()
        self.current: Any = None
        self._now = 0.0
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = count()

    # A world

    def now(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._now + 1.8e9

    def random(self) -> float:
        return self.chance.random()

    def runtime(self, *, asynchronous: bool, may_wait: bool = True) -> Simulated:
        return self

    # Tasks

    def at(self, when: float, do: Callable[[], object]) -> None:
        """Do something at a moment."""
        if when < math.inf:
            heapq.heappush(self._due, (when, next(self._numbers), do))

    def spawn(self, body: Coroutine[Any, Any, object]) -> None:
        """Begin a task."""
        self.ready.append(_Task(body))

    def run(self, until: float = math.inf) -> None:
        """Let time pass until there is nothing left to be done, or until that moment."""
        while True:
            while self.ready:
                self._step(self.ready.popleft(), None)
            if not self._due or self._due[0][0] > until:
                return
            self._now, _, do = heapq.heappop(self._due)
            do()

    def _step(self, task: _Task, error: BaseException | None) -> None:
        self.current, task.waits_for = task, None
        try:
            if error is None:
                task.context.run(task.body.send, None)
            else:
                task.context.run(task.body.throw, error)
        except StopIteration:
            return

    def moment(self) -> Moment:
        """Something for the current task to wait for."""
        return Moment(self)

    async def rest(self, seconds: float) -> None:
        """Take that long."""
        moment = Moment(self)
        self.at(self._now + seconds, moment.set)
        await moment

    # A runtime

    async def _sleep(self, seconds: float, call: Call) -> None:
        await self.rest(seconds)

    def bounded(self, seconds: float, inner: Inner) -> Inner:
        async def timeout(call: Call) -> Any:
            deadline = Deadline(self._now + seconds, call.deadline)
            self.at(deadline.end, partial(self._expire, self.current, deadline))
            try:
                return await inner(call.until(deadline))
            except Expired as expired:
                if expired.deadline is not deadline:
                    raise
            finally:
                deadline.ended = True
            raise call.expired(seconds)

        return timeout

    def _expire(self, task: _Task, deadline: Deadline) -> None:
        if not deadline.ended and task.waits_for is not None and not task.waits_for.come:
            task.waits_for.leave()
            self._step(task, Expired(deadline))

    def home(self) -> Hashable:
        return self

    def waiter(self) -> Moment:
        return Moment(self)

    async def blocking(self, fn: Callable[[], T], call: Call | None = None) -> T:
        return fn()

    def background(self, job: Callable[[Runtime], Coroutine[Any, Any, object]]) -> None:
        self.spawn(job(self))


@contextmanager
def simulated(*, seed: int = 0) -> Generator[Simulated, None, None]:
    """Have guarded calls made in this context be of a simulated world, which is given."""
    world = Simulated(seed)
    token = ambient.set(Surroundings(get_ambient(), world=world))
    try:
        yield world
    finally:
        ambient.reset(token)
