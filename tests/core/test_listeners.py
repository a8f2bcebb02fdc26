"""Listeners that misbehave."""

from __future__ import annotations

from typing import Any

import pytest

from conftest import World
from resilience import Pipeline, Retry
from support.calling import error_of


@pytest.mark.fault(114)
def test_a_listener_that_raises(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The result is kept, and so is the error; the next listener is notified all the same."""
    received: list[str] = []

    def bad(event: Any) -> None:
        raise ConnectionError("of the listener")

    def good(event: Any) -> None:
        received.append(type(event).__name__)

    pipeline = Pipeline(Retry(attempts=2, wait=0), listeners=[bad, good])
    assert world.run(pipeline.wrap(world.function(TimeoutError, "ok"))) == "ok"
    assert received == ["AttemptEnded", "WaitBegan", "AttemptEnded", "CallEnded"]
    own = KeyError("own")
    assert error_of(world, pipeline.wrap(world.function(own))) is own
    assert "listener" in caplog.text


@pytest.mark.fault(114)
def test_an_async_listener_is_refused() -> None:
    """Nobody would await it."""

    async def listen(event: Any) -> None:
        pass

    with pytest.raises(TypeError, match="listeners"):
        Pipeline(listeners=[listen])
