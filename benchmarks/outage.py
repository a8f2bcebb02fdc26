"""A backend is dead for a minute: how many of the calls offered still reach it?

    python benchmarks/outage.py [--check]

100 processes offer two calls a second each, evenly, 12,000 in all; a call takes a second and
fails. The breaker itself runs, under the virtual clock; where circuits are shared, through a real
server, whose script is given the virtual time instead of asking the server's clock. With --check
the exit status is 1 if more gets through than promised.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import frozen

from resilience import CircuitBreaker, CircuitOpenError, Pipeline
from resilience.circuit.redis.script import SCRIPT
from resilience.shared import RedisCircuit
from resilience.testing import VirtualTime, virtual_time

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.redis_server import Server

PROCESSES = 100
EVERY = 0.5  # seconds between the calls of one process
SECONDS = 60.0
TAKES = 1.0
OFFERED = int(PROCESSES * SECONDS / EVERY)


@frozen
class Way:
    """A name, the policies of one process, and the share of calls that may get through."""

    name: str
    policies: Callable[[], tuple[Any, ...]]
    limit: float


class VirtualServer:
    """A client of the real server that gives the script the virtual time."""

    REAL = "redis.call('TIME')"
    VIRTUAL = "{ tonumber(ARGV[#ARGV - 1]), tonumber(ARGV[#ARGV]) }"

    def __init__(self, client: Any, clock: VirtualTime) -> None:
        assert SCRIPT.text.count(self.REAL) == 1
        self._client = client
        self._clock = clock
        self._digest = client.script_load(SCRIPT.text.replace(self.REAL, self.VIRTUAL))

    def evalsha(self, digest: str, keys: int, *arguments: Any) -> Any:
        now = int(self._clock.wall() * 1e6)
        times = now // 1_000_000, now % 1_000_000
        return self._client.evalsha(self._digest, keys, *arguments, *times)

    def eval(self, text: str, keys: int, *arguments: Any) -> Any:
        raise AssertionError("the server lost the script")

    def execute_command(self, *arguments: Any) -> Any:
        return self._client.execute_command(*arguments)


def run(policies: Callable[[], tuple[Any, ...]], clock: VirtualTime) -> int:
    """Calls that reach the backend."""
    reached = 0

    async def backend() -> None:
        nonlocal reached
        reached += 1
        await clock.asleep(TAKES)
        raise ConnectionError("dead")

    async def call(pipeline: Pipeline) -> None:
        try:
            await pipeline.call(backend)
        except (ConnectionError, CircuitOpenError):
            pass

    async def process(phase: float) -> None:
        pipeline = Pipeline(*policies(), asynchronous=True)
        calls = []
        await clock.asleep(phase)
        for _ in range(int(SECONDS / EVERY)):
            calls.append(asyncio.ensure_future(call(pipeline)))
            await clock.asleep(EVERY)
        await asyncio.gather(*calls)

    async def main() -> None:
        chance = random.Random(0)
        await asyncio.gather(*(process(chance.uniform(0, EVERY)) for _ in range(PROCESSES)))

    asyncio.run(main())
    return reached


def ways(server: Server, clock: VirtualTime) -> list[Way]:
    def shared(**options: Any) -> Callable[[], tuple[Any, ...]]:
        def make() -> tuple[Any, ...]:
            storage = RedisCircuit(VirtualServer(server.client(), clock), timeout=10, **options)
            return (CircuitBreaker(failures=5, reset_after=5, storage=storage),)

        return make

    return [
        Way("no breaker", lambda: (), 1.0),
        Way("each its own, one trial", lambda: (CircuitBreaker(failures=5, reset_after=5),), 0.13),
        Way("shared as advice", shared(advisory=True), 0.13),
        Way("shared, one trial", shared(), 0.019),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    logging.getLogger("resilience").setLevel(logging.CRITICAL)
    server = Server()
    over = 0
    try:
        for index in range(4):
            server.client().flushall()
            with virtual_time() as clock:
                way = ways(server, clock)[index]
                reached = run(way.policies, clock)
            share = reached / OFFERED
            over += share > way.limit
            print(f"{way.name:28} {reached:6} of {OFFERED} reach the backend, {share:6.1%}")
    finally:
        server.close()
    return int(check and over > 0)


if __name__ == "__main__":
    raise SystemExit(main())
