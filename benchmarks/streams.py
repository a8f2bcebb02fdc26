"""What guarding a stream costs: to its first content, for each item, and in memory.

    python benchmarks/streams.py [--check]

The streams are OpenAI's classes with items that are there already, so that only the guard is
timed, by the wall clock: in many rounds so short that some are not disturbed by other processes.
With --check, exit status 1 if a figure is over its limit.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import openai
from openai.types.chat import ChatCompletionChunk

from resilience import CircuitBreaker, Pipeline, Retry, Streaming

ITEMS = 2_000
LONG = 1_000_000
ROUNDS = 70
OPENED = 50


def chunk(text: str, reason: str | None = None) -> ChatCompletionChunk:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": reason}
    facts = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return ChatCompletionChunk.model_validate({**facts, "choices": [choice]})


TEXT, LAST = chunk("text"), chunk("", "stop")


class Stream(openai.Stream[ChatCompletionChunk]):
    __module__ = "openai"

    def __init__(self, items: int) -> None:
        self.left = items

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> ChatCompletionChunk:
        self.left -= 1
        if self.left > 0:
            return TEXT
        if self.left == 0:
            return LAST
        raise StopIteration

    def close(self) -> None:
        pass


class AsyncStream(openai.AsyncStream[ChatCompletionChunk]):
    __module__ = "openai"

    def __init__(self, items: int) -> None:
        self.left = items

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> ChatCompletionChunk:
        self.left -= 1
        if self.left > 0:
            return TEXT
        if self.left == 0:
            return LAST
        raise StopAsyncIteration

    async def close(self) -> None:
        pass


def opened(items: int) -> Stream:
    return Stream(items)


async def aopened(items: int) -> AsyncStream:
    return AsyncStream(items)


def sync_items(fn: Callable[..., Any]) -> float:
    stream = fn(ITEMS)
    began = time.perf_counter()
    for _ in stream:
        pass
    return (time.perf_counter() - began) / ITEMS


def sync_first(fn: Callable[..., Any]) -> float:
    began = time.perf_counter()
    for _ in range(OPENED):
        next(fn(9))
    return (time.perf_counter() - began) / OPENED


def async_items(fn: Callable[..., Any]) -> float:
    async def main() -> float:
        stream = await fn(ITEMS)
        began = time.perf_counter()
        async for _ in stream:
            pass
        return (time.perf_counter() - began) / ITEMS

    return asyncio.run(main())


def async_first(fn: Callable[..., Any]) -> float:
    async def main() -> float:
        began = time.perf_counter()
        for _ in range(OPENED):
            await (await fn(9)).__anext__()
        return (time.perf_counter() - began) / OPENED

    return asyncio.run(main())


def added(measure: Callable[..., float], bare: Any, guarded: Any) -> float:
    """Microseconds that the guard adds: the least of interleaved rounds of both."""
    rounds = [(measure(bare), measure(guarded)) for _ in range(ROUNDS)]
    return (min(g for _, g in rounds) - min(b for b, _ in rounds)) * 1e6


def memory(fn: Callable[..., Any]) -> float:
    """Kilobytes more at the end of a long stream than after its first tenth."""
    tracemalloc.start()
    stream = fn(LONG)
    at_first = 0
    for number, _ in enumerate(stream):
        if number == LONG // 10:
            gc.collect()
            at_first = tracemalloc.get_traced_memory()[0]
    gc.collect()
    more = tracemalloc.get_traced_memory()[0] - at_first
    tracemalloc.stop()
    return more / 1000


def main() -> int:
    pipeline = Pipeline(Retry(), CircuitBreaker())
    limited = Pipeline(Retry(), CircuitBreaker(), Streaming(first=10, idle=10))
    figures = [
        ("first content, sync", added(sync_first, opened, limited.wrap(opened)), 50, "us"),
        ("first content, asyncio", added(async_first, aopened, limited.wrap(aopened)), 50, "us"),
        ("each item, sync", added(sync_items, opened, pipeline.wrap(opened)), 1, "us"),
        ("with limits", added(sync_items, opened, limited.wrap(opened)), 1, "us"),
        ("each item, asyncio", added(async_items, aopened, pipeline.wrap(aopened)), 1, "us"),
        ("with limits", added(async_items, aopened, limited.wrap(aopened)), 1, "us"),
        (f"memory over {LONG:,} items", memory(limited.wrap(opened)), 100, "kB"),
    ]
    failed = False
    for name, figure, most, unit in figures:
        over = figure > most
        failed = failed or over
        print(f"{name:32s} {figure:8.2f} {unit} (at most {most}){'  OVER' if over else ''}")
    return 1 if failed and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
