"""A storage that is made for each key: what happens if it cannot be made."""

from __future__ import annotations

from typing import Any

import pytest

from resilience import CircuitBreaker, Pipeline


def test_a_storage_factory_that_fails_leaves_the_circuit_to_itself() -> None:
    """One warning, and every call is made with local state."""

    def dead(key: str) -> Any:
        raise ConnectionError("redis down")

    pipeline = Pipeline(CircuitBreaker(key="model", storage=dead))
    with pytest.warns(RuntimeWarning, match="local") as warned:
        assert pipeline.call(lambda *, model: "ok", model="a") == "ok"
    assert len(warned) == 1
    assert pipeline.call(lambda *, model: "ok", model="a") == "ok"
