"""The interpreter's odd options, other event loops, other threads: all is as ever."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.real

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SAID = """\
retry answer 3
models ('b', 'from b') open ('b', 'again b') closed
fallback else True [1, 2]
bad result better 0
error ServiceError / resilience: 2 attempts (500, 400 after 2 s) 2 INVALID
rejected a a
attempts [1, 2, 3]
header str 7.0
header bytes 7.0
header float 7.5
header str None
header bytes None
header NoneType None
slept 9
awaited ok
timed out 0.01
awaited ok
timed out 0.01
worker 6 True
handle 9 Pipeline(Timeout(10), Retry(attempts=2, wait=Fixed(seconds=0)))
left behind DeadlineExceededError
Pipeline(Retry(on=status(500, 503)), CircuitBreaker(key='model'), Timeout(5))
"""


def run(*args: str, limit: float = 50) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args], capture_output=True, text=True, timeout=limit, cwd=ROOT
    )


def files_of(*names: str) -> list[str]:
    """The files of these names beside this one."""
    return [str(HERE / f"test_{name}.py") for name in names]


@pytest.mark.fault(70)
@pytest.mark.parametrize("options", ["", "-bb", "-O", "-OO", "-W error", "-X dev -W error -bb"])
def test_a_bit_of_everything_under(options: str) -> None:
    """The same is said, and nothing else: no assertion is needed, no warning given."""
    done = run(*options.split(), str(HERE.parent / "support" / "exercise.py"))
    assert (done.stdout, done.stderr, done.returncode) == (SAID, "", 0)


@pytest.mark.fault(70)
def test_the_runtimes_in_development_mode() -> None:
    """Their tests pass with asyncio's debug mode and the checks of the allocator."""
    tests = files_of("runtimes", "asyncio_timers", "semaphore")
    done = run("-X", "dev", "-bb", "-m", "pytest", "-q", *tests)
    assert done.returncode == 0, done.stdout


# uvloop makes tasks as later versions do: their factories take one argument more.
NO_EAGER = ["--deselect", "tests/runtimes/test_runtimes.py::test_loops_of_another_kind[eager]"]
EARLY = NO_EAGER if (3, 13) <= sys.version_info < (3, 13, 3) else []

UVLOOP = """
import asyncio, sys, pytest, uvloop
asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
kind = []
async def look():
    kind.append(type(asyncio.get_running_loop()))
asyncio.run(look())
assert kind == [uvloop.Loop]
sys.exit(pytest.main(["-q", *sys.argv[1:]]))
"""

if sys.platform != "win32":  # uvloop is not to be had there

    @pytest.mark.fault(104)
    @pytest.mark.parametrize(
        ("names", "options"),
        [(["runtimes", "semaphore"], EARLY), (["cancellation_matrix"], ["-k", "asyncio or large"])],
    )
    def test_under_uvloop(names: list[str], options: list[str]) -> None:
        """Cancellations and deadlines are told apart on another loop as well."""
        done = run("-c", UVLOOP, *files_of(*names), *options)
        assert done.returncode == 0, done.stdout


GEVENT = """
import gevent.monkey
gevent.monkey.patch_all()
import logging
import time
import gevent
logging.getLogger("resilience").addHandler(logging.NullHandler())  # what fails does so on purpose
from resilience import CircuitBreaker, Pipeline, Retry, Timeout
from resilience.waits import Fixed

begun = time.monotonic()
failed = set()

def flaky(number):
    if number not in failed:
        failed.add(number)
        raise ConnectionError
    time.sleep(0.2)
    return number

flock = Pipeline(Retry(wait=Fixed(0.05)), CircuitBreaker(failures=99))
calls = [gevent.spawn(flock.call, flaky, number) for number in range(50)]
gevent.joinall(calls, raise_error=True)
print([call.value for call in calls] == list(range(50)), time.monotonic() - begun < 5)

timed = Pipeline(Timeout(0.2))
calls = [gevent.spawn(timed.outcome, time.sleep, 30 if n % 2 else 0.01) for n in range(50)]
gevent.joinall(calls, raise_error=True)
print(*sorted({f"{n % 2} {type(call.value.error).__name__}" for n, call in enumerate(calls)}))
print(timed.call(time.sleep, 0.01), time.monotonic() - begun < 10)

breaker = CircuitBreaker(failures=1, reset_after=0.01)
breaker.open()
time.sleep(0.02)
through = []

def trial():
    through.append(1)
    time.sleep(0.1)

calls = [gevent.spawn(Pipeline(breaker).outcome, trial) for _ in range(30)]
gevent.joinall(calls, raise_error=True)
print(through, breaker.state)
"""


@pytest.mark.fault(34)
def test_under_gevent() -> None:
    """Patched before the import: calls, waits, time limits and trial slots among greenlets."""
    done = run("-c", GEVENT)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "True True",
        "0 NoneType 1 DeadlineExceededError",
        "None True",
        "[1] closed",
    ]
