"""Streams of the real SDKs that are abandoned at random points, in every way; and what is left."""

from __future__ import annotations

import asyncio
import gc
import inspect
import random
import threading
from collections import Counter
from typing import Any

from attrs import Factory, define

from resilience import CircuitBreaker, Pipeline, Retry, Streaming

from .gates import Bulkhead
from .playing import Player, Silence
from .polling import until
from .streaming_cases import CASES, Case, aclosed, closed

__all__ = ["Left", "abandon"]

AT_ONCE = 8
PERMITS = 1000
WORDS = 8
WAYS = ("break", "close", "raise", "interrupt", "collect", "drop")
"""Leave the loop; close the stream; raise in the loop; be interrupted: cancelled at any point, or
by Ctrl-C in a sync loop; leave it in a cycle, for the collector; drop it before the first read."""


@define
class Left:
    """What is left after so many streams."""

    streams: int
    ways: Counter[str] = Factory(Counter)
    connections: int = 0
    permits: int = 0
    tasks: int = 0
    threads: int = 0
    counted: int = 0
    """Of the circuit: trials under way, failures."""

    @property
    def nothing(self) -> bool:
        """Whether all is as before."""
        return not any((self.connections, self.permits, self.tasks, self.threads, self.counted))


class Stop(Exception):
    """Raised in the consumer's loop."""


def abandon(name: str, number: int, seed: int = 0, *, bare: bool = False) -> Left:
    """Abandon so many streams of an SDK; async ones several at the same time. `bare`: without a
    pipeline, to compare."""
    case, chance = CASES[name], random.Random(seed)
    left = Left(number)
    permits, breaker = Bulkhead(PERMITS), CircuitBreaker(failures=1)
    pipeline = Pipeline(Retry(), breaker, permits, Streaming(first=30, idle=30))
    wrap = (lambda fn: fn) if bare else pipeline.wrap
    # It never ends by itself, so no connection is free to be used again.
    script = [*case.wire.opening, *[case.wire.words[0]] * WORDS, Silence(60)]
    with Player([script], content_type=case.content_type) as server:
        threads = _threads()
        if case.asynchronous:
            asyncio.run(_async(case, wrap, server, left, chance))
        else:
            _sync(case, wrap, server, left, chance)
        left.threads = max(0, _threads() - threads)
    left.permits = PERMITS - permits.slots.free
    snapshot = breaker.snapshot()
    left.counted = snapshot.trials + snapshot.failures
    return left


def _threads() -> int:
    """Without the server's, and the watchdog, which stays for a while. (A client that is cancelled
    while it connects may leave a connection on which it never asks for anything: so it does bare.)
    """
    apart = ("player", "resilience-watchdog")
    return sum(thread.name not in apart for thread in threading.enumerate())


def _gone(server: Player, left: Left) -> None:
    """Wait until the server has no connection left, while the client is still there."""
    try:
        until(lambda: not server.busy, 5)
    except AssertionError:
        left.connections = server.busy


def _sync(case: Case, wrap: Any, server: Player, left: Left, chance: random.Random) -> None:
    client = case.make(server.url)
    fn = wrap(lambda: case.ask(client))
    for _ in range(left.streams):
        way, most = chance.choice(WAYS), chance.randint(1, WORDS)
        left.ways[way] += 1
        try:
            _abandoned(fn, way, most)
        except (Stop, KeyboardInterrupt):
            pass
        if way == "collect":
            gc.collect(1)
    gc.collect()
    _gone(server, left)
    closed(client)


def _abandoned(fn: Any, way: str, most: int) -> None:
    """One stream of a sync client."""
    found = fn()
    if not hasattr(found, "__iter__"):
        with found as stream:
            _left_in_its_loop(stream, way, most)
    else:
        _left_in_its_loop(found, way, most)


def _left_in_its_loop(stream: Any, way: str, most: int) -> None:
    if way == "drop":
        return
    if way == "collect":
        cycle: list[Any] = [stream]
        cycle.append(cycle)
    for number, _ in enumerate(stream, start=1):
        if number < most:
            continue
        if way == "close":
            stream.close()
        elif way == "raise":
            raise Stop
        elif way == "interrupt":
            raise KeyboardInterrupt
        break


async def _async(case: Case, wrap: Any, server: Player, left: Left, chance: random.Random) -> None:
    client = case.make(server.url)
    fn = wrap(lambda: case.ask(client))
    begun = len(asyncio.all_tasks())
    todo = [(chance.choice(WAYS), chance.randint(1, WORDS)) for _ in range(left.streams)]
    left.ways.update(way for way, _ in todo)

    async def worker() -> None:
        while todo:
            way, most = todo.pop()
            task = asyncio.create_task(_aabandoned(fn, way, most))
            if way == "interrupt":
                await asyncio.sleep(chance.random() * 0.02)
                while not task.done():  # on 3.10 clients lose a cancellation now and then
                    task.cancel()
                    await asyncio.wait([task], timeout=1)
            try:
                await task
            except (Stop, asyncio.CancelledError):
                pass
            except ValueError:  # so anyio on 3.10, where it is cancelled while it connects
                if way != "interrupt":
                    raise
            del task
            if way == "collect":
                gc.collect(1)

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    gc.collect()
    await asyncio.to_thread(_gone, server, left)
    for _ in range(100):  # generators are closed in tasks of their own
        left.tasks = len(asyncio.all_tasks()) - begun
        if not left.tasks:
            break
        await asyncio.sleep(0.02)
    await aclosed(client)


async def _aabandoned(fn: Any, way: str, most: int) -> None:
    """One stream of an async client."""
    found = fn()
    if inspect.isawaitable(found):
        found = await found
    if not hasattr(found, "__aiter__"):
        async with found as stream:
            await _aleft_in_its_loop(stream, way, most)
    else:
        await _aleft_in_its_loop(found, way, most)


async def _aleft_in_its_loop(stream: Any, way: str, most: int) -> None:
    if way == "drop":
        return
    if way == "collect":
        cycle: list[Any] = [stream]
        cycle.append(cycle)
    number = 0
    async for _ in stream:
        number += 1
        if number < most or way == "interrupt":  # that one is cancelled from outside
            continue
        if way == "close":
            await (stream.aclose() if hasattr(stream, "aclose") else stream.close())
        elif way == "raise":
            raise Stop
        break
