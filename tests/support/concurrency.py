"""Many threads at once, and programs of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

__all__ = ["fast_switching", "in_threads", "run_apart"]


@pytest.fixture
def fast_switching() -> Iterator[None]:
    """Threads take turns every microsecond."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def in_threads(number: int, fn: Callable[[int], Any], limit: float = 30) -> None:
    """Run `fn(n)` in so many threads and wait for them; what one raises is raised here."""
    problems: list[BaseException] = []

    def run(n: int) -> None:
        try:
            fn(n)
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(limit)
        assert not thread.is_alive(), "a thread hangs"
    if problems:
        raise problems[0]


def run_apart(code: str, *, measured: bool = True) -> list[str]:
    """What a program of its own prints; if it hangs it is killed, and the test fails.

    `measured=False` keeps `make coverage` out of it: its lock, which every call takes, is neither
    reentrant nor free again after a fork, so a signal or a fork at any moment would hang in there.
    """
    env = {k: v for k, v in os.environ.items() if measured or not k.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code],
        capture_output=True,
        text=True,
        timeout=25,
        env=env,
    )
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout.split()
