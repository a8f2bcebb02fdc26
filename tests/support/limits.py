"""What the tests of rate limits and holds share."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai

from resilience import Pipeline
from resilience.policy import Policy
from resilience.testing import virtual_time
from resilience.testing.gateway import Gateway, Limited, Ok

__all__ = ["Admitted", "Told", "batch", "herd", "most_in", "under"]


def under(*policies: Policy, **options: Any) -> Any:
    """A pipeline, of which the type checker asks nothing: for lambdas."""
    return Pipeline(*policies, **options)


class Told(Exception):
    """A failure by which a server asks to be left alone for so many seconds."""

    def __init__(self, retry_after: float, **headers: str) -> None:
        super().__init__("429")
        self.status_code = 429
        self.headers = {"retry-after": f"{retry_after:.6f}", **headers}


class Admitted:
    """When calls were let go. Safe from any thread."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self.at: list[float] = []
        self.order: list[Any] = []
        self._lock = threading.Lock()

    def __call__(self, number: Any = None) -> Any:
        with self._lock:
            self.at.append(self.now())
            self.order.append(number)
        return number


def most_in(seconds: float, times: list[float]) -> int:
    """The most of these times that lie within any so many seconds."""
    times = sorted(times)
    first = most = 0
    for last, time_ in enumerate(times):
        while time_ - times[first] >= seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def batch(
    *policies: Policy, prompts: int = 200, threads: int = 16, limit: int = 20
) -> tuple[int, int, float]:
    """Prompts in threads, through the real client, to a gateway that allows so many a second: how
    many were answered and how many refused, and the seconds it took."""
    with (
        Gateway(Limited(requests=limit, per=1, answer=Ok("yes"))) as gateway,
        openai.OpenAI(base_url=gateway.base_url, api_key="any", max_retries=0) as client,
    ):

        def ask(prompt: str) -> str | None:
            answer = client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": prompt}]
            )
            return answer.choices[0].message.content

        guarded = Pipeline(*policies).wrap(ask)
        with ThreadPoolExecutor(threads) as pool:
            began = time.monotonic()
            answers = list(pool.map(guarded, map(str, range(prompts))))
            took = time.monotonic() - began
        refused = sum(each.answer != "ok" for each in gateway.requests)
        return answers.count("yes"), refused, took


def herd(
    policies: Callable[[], list[Any]], clients: int, *, rate: float, seed: int = 1
) -> list[float]:
    """When clients, each a process of its own, call that were all told the same date 30 s ahead,
    until they are served: by a server that takes `rate` a second, by a bucket of a tenth of that,
    and tells those it refuses to come back in 30 s."""
    arrivals: list[float] = []
    room, full = rate / 10, 0.0

    async def client(chance: random.Random) -> None:
        nonlocal full
        told = False

        async def ask() -> None:
            nonlocal told, full
            now = clock.now()
            if not told:
                told = True
                raise Told(date - now)
            arrivals.append(now)
            full = max(full, now) + 1 / rate
            if full - now > room / rate:
                full -= 1 / rate
                raise Told(30)

        await clock.asleep(chance.random())
        await Pipeline(*policies()).wrap(ask)()

    async def main() -> None:
        chance = random.Random(seed)
        await asyncio.gather(*(client(chance) for _ in range(clients)))

    with virtual_time(start=0, seed=seed) as clock:
        date = 31.0
        asyncio.run(main())
    return arrivals
