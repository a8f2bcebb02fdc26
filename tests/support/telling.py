"""A pytest plugin: while it is active, everything is listened to, and after each test the order of
the events of its calls is checked: `make test-events`.

Nothing is at rest then. What a test itself says of that is no matter of this run, so that only the
order of events can fail it.
"""

from __future__ import annotations

import gc
from collections.abc import Generator
from typing import Any

import pytest

from resilience import listen
from support.grammar import Watch

_told = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_told] = 0
    # A test that ends early leaves what it was about to await, and threads.
    config.addinivalue_line("filterwarnings", "ignore:coroutine:RuntimeWarning")
    unhandled = "ignore::pytest.PytestUnhandledThreadExceptionWarning"
    config.addinivalue_line("filterwarnings", unhandled)


@pytest.fixture(autouse=True)
def _each_call_tells_its_course(request: pytest.FixtureRequest) -> Generator[None]:
    watch = Watch()
    stop = listen(watch)
    yield
    if watch.faults():
        gc.collect()  # what was abandoned ends with that
    stop()
    request.config.stash[_told] += watch.events
    if "disorderly" not in request.keywords:
        assert watch.faults() == []


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    try:
        return (yield)
    except (Exception, pytest.fail.Exception):
        return True


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    terminalreporter.write_line(f"{config.stash[_told]} events of calls, each where it may be")
