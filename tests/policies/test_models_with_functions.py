"""`Model(call=)`: another function for a model's turn, and for that turn only."""

from __future__ import annotations

import pytest

from resilience import Model, ModelFallback, Pipeline, PolicyOrderWarning, Retry


def test_a_retry_outside_the_chain_starts_it_with_the_guarded_function_again() -> None:
    """What stood in for one model's turn does not stay."""
    log: list[tuple[str, str]] = []

    def main_create(*, model: str) -> None:
        log.append(("main", model))
        raise ConnectionError

    def other_create(*, model: str) -> None:
        log.append(("other", model))
        raise ConnectionError

    with pytest.warns(PolicyOrderWarning):
        pipeline = Pipeline(
            Retry(attempts=2, wait=0, retry_exhausted=True),
            ModelFallback("a", Model("b", call=other_create)),
        )
    with pytest.raises(ConnectionError):
        pipeline.call(main_create)
    assert log == [("main", "a"), ("other", "b")] * 2
