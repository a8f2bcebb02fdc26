"""What retries do to a service that is in trouble: two worlds, with the library's own policies."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen

from resilience import DeadlineExceededError, Pipeline, RejectedError, Retry, Timeout
from resilience.policy import Policy

from .simulated import Simulated, simulated


class Overloaded(Exception):
    """The service's queue is full."""

    status_code = 503


@frozen
class Layered:
    """How many calls reached the backend for each request, and how many requests went well."""

    load: float
    well: float


def layered(
    budgets: Sequence[Sequence[Policy]], *, failing: float, requests: int, seed: int = 0
) -> Layered:
    """Three layers that call one another, three attempts each, around a backend that fails with
    this probability; `budgets`: for each layer, what stands outside its `Retry`."""
    reached = answered = 0
    with simulated(seed=seed) as world:

        async def backend() -> str:
            nonlocal reached
            reached += 1
            if world.chance.random() < failing:
                raise ConnectionError
            return "well"

        layer: Callable[[], Any] = backend
        for outside in reversed(budgets):
            retry = Retry(attempts=3, retry_exhausted=True)
            layer = Pipeline(*outside, retry, asynchronous=True).wrap(layer)

        async def request() -> None:
            nonlocal answered
            try:
                await layer()
            except ConnectionError:
                return
            answered += 1

        async def user() -> None:
            for _ in range(requests):
                await request()

        world.spawn(user())
        world.run()
    return Layered(reached / requests, answered / requests)


@frozen
class Storm:
    """A service that serves `rate` calls a second, in order, and a tenth of that during a brown-out
    of 10 s. 70 % of what it can serve is offered to it, at random moments. Its queue has places for
    what it serves in 5 s; a call that finds it full fails at once. A client waits a second for its
    answer, and the service does not notice when it has gone."""

    rate: float = 1000.0
    before: float = 5.0
    brownout: float = 10.0
    horizon: float = 120.0
    seed: int = 0


@frozen
class Course:
    """Seconds from the end of the brown-out until nine of ten requests that are made in a second go
    well again, infinite for never within the horizon; how many went wrong; and what was sent during
    the brown-out for each request made in it."""

    recovered: float
    lost: int
    sent: float


class _Service:
    """The service, with what it is sent in each second."""

    def __init__(self, world: Simulated, storm: Storm) -> None:
        self._world = world
        self._storm = storm
        self._ends: deque[float] = deque()  # of the calls in its queue
        self.sent: Counter[int] = Counter()

    async def call(self) -> str:
        storm, ends, now = self._storm, self._ends, self._world.now()
        self.sent[int(now)] += 1
        while ends and ends[0] <= now:
            ends.popleft()
        if len(ends) >= 5 * storm.rate:
            raise Overloaded
        start = ends[-1] if ends else now
        slow = 0 <= start - storm.before < storm.brownout
        ends.append(start + (10 if slow else 1) / storm.rate)
        await self._world.rest(ends[-1] - now)
        return "answer"


def weather(storm: Storm, policies: Callable[[], Sequence[Policy]]) -> Course:
    """How a storm goes for clients that share these policies, inside which each attempt has a
    second."""
    made: Counter[int] = Counter()
    well: Counter[int] = Counter()
    end = storm.before + storm.brownout
    with simulated(seed=storm.seed) as world:
        service = _Service(world, storm)
        call = Pipeline(*policies(), Timeout(1), asynchronous=True).wrap(service.call)

        async def request() -> None:
            second = int(world.now())
            made[second] += 1
            try:
                await call()
            except (Overloaded, DeadlineExceededError, RejectedError):
                return
            well[second] += 1

        async def users() -> None:
            while world.now() < end + storm.horizon:
                await world.rest(world.chance.expovariate(0.7 * storm.rate))
                world.spawn(request())

        world.spawn(users())
        world.run()
    seconds = range(int(end), int(end + storm.horizon))
    again = (second + 1 - end for second in seconds if well[second] >= 0.9 * made[second])
    during = range(int(storm.before), int(end))
    return Course(
        next(again, math.inf),
        made.total() - well.total(),
        sum(service.sent[each] for each in during) / sum(made[each] for each in during),
    )
