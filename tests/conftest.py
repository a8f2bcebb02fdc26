"""One test body, every world: sync, asyncio and trio, each under virtual time."""

from __future__ import annotations

import asyncio
import asyncio.constants
import faulthandler
import gc
import inspect
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import frozen

from resilience.testing import VirtualTime, virtual_time

# LiteLLM goes with few others: its tests are for environments that have it (`make test-sdks`).
LITELLM = find_spec("litellm") is not None
collect_ignore = [] if LITELLM else ["sdks/test_sdk_litellm.py", "sdks/test_retries_litellm.py"]
if sys.version_info < (3, 11):  # there Google's SDK has stopped at version 2
    collect_ignore.append("sdks/test_sdk_google_interactions.py")
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it fetches one from afar when it is imported
# Nobody here calls the world: to read its certificates would take every client 20 to 100 ms.
os.environ["SSL_CERT_FILE"] = str(Path(__file__).parent / "support" / "nobody.pem")
# In debug mode asyncio records where each task, future and handle was made, only to say so in
# messages: ten frames of pytest for each take a quarter of the time. All its checks stay.
asyncio.constants.DEBUG_STACK_DEPTH = 1


def pytest_configure(config: pytest.Config) -> None:
    """Ctrl-C is heard, also where a shell starts the suite with `&`, which ignores it.

    What LiteLLM leaves behind is its own: models that pydantic warns of, clients, a loop.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    global errors
    with config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        errors = os.dup(2)
    if LITELLM:
        config.addinivalue_line("filterwarnings", "ignore:Items? .* on TypedDict class:UserWarning")
        config.addinivalue_line("filterwarnings", "ignore::ResourceWarning")


def put_aside() -> None:
    """Have the collector leave alone what is alive by now: it is cheap then, and sees new objects.

    Every SDK and thousands of tests stay to the end anyway.
    """
    gc.collect()
    gc.freeze()


errors = 2
"""Where errors are seen although pytest captures what tests print."""
watched = 0.0
"""When the watch was begun, by the monotonic clock."""


def pytest_runtest_setup() -> None:
    """A test that not even its timeout ends has stopped the interpreter: show where, and leave.

    pytest's own `faulthandler_timeout` starts a thread for each test, which takes 1.5 ms.
    """
    global watched
    if time.monotonic() - watched > 10:
        watched = time.monotonic()
        faulthandler.dump_traceback_later(180, exit=True, file=errors)


def pytest_collection_finish() -> None:
    put_aside()


def pytest_sessionfinish() -> None:
    faulthandler.cancel_dump_traceback_later()
    gc.unfreeze()


@frozen
class Takes:
    """A step of a script that takes (virtual) seconds before it does `then`."""

    seconds: float
    then: Any = None


class World:
    """Makes functions of this world's colour and runs calls in it to their end."""

    def __init__(self, name: str, clock: VirtualTime) -> None:
        self.name = name
        self.clock = clock
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.debug: bool | None = None  # asyncio's debug mode; None: on under `python -X dev`

    @property
    def asynchronous(self) -> bool:
        return self.name != "sync"

    def function(self, *steps: Any) -> Callable[..., Any]:
        """A function whose nth call does the nth step: an exception (or a class of one) is raised,
        a function is called with the arguments, `Takes` takes its time, the rest is returned.

        The last step is repeated. `calls` has every call's arguments.
        """

        def next_step(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            self.calls.append((args, kwargs))
            return steps[min(len(made), len(steps) - 1)]

        made: list[None] = []

        def finish(step: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if isinstance(step, BaseException) or (
                isinstance(step, type) and issubclass(step, BaseException)
            ):
                raise step
            return step(*args, **kwargs) if inspect.isroutine(step) else step

        if not self.asynchronous:

            def fn(*args: Any, **kwargs: Any) -> Any:
                step = next_step(args, kwargs)
                made.append(None)
                if isinstance(step, Takes):
                    self.clock.sleep(step.seconds)
                    step = step.then
                return finish(step, args, kwargs)

            return fn

        async def afn(*args: Any, **kwargs: Any) -> Any:
            step = next_step(args, kwargs)
            made.append(None)
            if isinstance(step, Takes):
                await self.clock.asleep(step.seconds)
                step = step.then
            return finish(step, args, kwargs)

        return afn

    def run(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call and, where it is this world's way, await."""
        if not self.asynchronous:
            return fn(*args, **kwargs)

        async def main() -> Any:
            return await fn(*args, **kwargs)

        if self.name == "asyncio":
            return asyncio.run(main(), debug=self.debug)
        return trio.run(main)


@pytest.fixture(params=["sync", "asyncio", "trio"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Every test that takes this runs in all three worlds."""
    with virtual_time() as clock:
        yield World(request.param, clock)


@pytest.fixture(params=["sync", "asyncio", "trio"])
def real_world(request: pytest.FixtureRequest) -> World:
    """The same in real time: only there calls are at rest. Its functions take no time (`Takes`)."""
    return World(request.param, VirtualTime())


async_worlds = pytest.mark.parametrize("world", ["asyncio", "trio"], indirect=True)
"""For a test that makes no sense in a sync call."""


@pytest.fixture(autouse=True)
def _no_real_sleep(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """No unit test sleeps for real; those with sockets, threads or processes are marked `real`."""
    if "real" in request.keywords:
        yield
        return
    slept: list[str] = []

    def refuse(module: Any) -> None:
        real = module.sleep

        def sleep(seconds: float, *args: Any) -> Any:
            if seconds > 0:
                slept.append(f"{module.__name__}.sleep({seconds})")
                raise AssertionError(f"a unit test sleeps for real: {slept[-1]}")
            return real(seconds, *args)

        monkeypatch.setattr(module, "sleep", sleep)

    for module in (time, asyncio, trio):
        refuse(module)
    yield
    assert not slept  # where the error was caught, it is told here
