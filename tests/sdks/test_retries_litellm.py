"""What LiteLLM repeats by itself, counted on the wire."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from resilience import Pipeline, Retry, RetryMultiplicationWarning, own_retries, retries_of
from support.refusing import Refusing, refusing

litellm: Any = pytest.importorskip("litellm")

pytestmark = [pytest.mark.real, pytest.mark.steady]
__all__ = ["refusing"]

MESSAGES: Any = [{"role": "user", "content": "Hi"}]
ROBUST = Pipeline(Retry(attempts=2, wait=0))


def counted(refusing: Refusing, call: Callable[[], object]) -> int:
    refusing.requests.clear()
    with contextlib.suppress(Exception):
        call()
    return len(refusing.requests)


def asking(refusing: Refusing, model: str = "openai/gpt-4o", **options: Any) -> Any:
    return functools.partial(
        litellm.completion,
        model=model,
        messages=MESSAGES,
        api_base=refusing.url,
        api_key="any",
        **options,
    )


@pytest.mark.parametrize(
    ("options", "own"),
    [
        ({}, 2),
        ({"max_retries": 0}, 0),
        ({"max_retries": 1}, 1),
        ({"num_retries": 0}, 0),
        ({"num_retries": 1}, 2),
        ({"num_retries": 2, "max_retries": 0}, 4),
        ({"model": "anthropic/claude-3"}, 0),
    ],
)
def test_the_arguments_of_a_call(options: dict[str, Any], own: int, refusing: Refusing) -> None:
    """As they are given, or bound."""
    call = asking(refusing, **options)
    assert retries_of(call) == own
    assert counted(refusing, call) == 1 + own
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert counted(refusing, lambda: ROBUST.call(call)) == 2 + 2 * own


def test_the_global_number(refusing: Refusing, monkeypatch: pytest.MonkeyPatch) -> None:
    assert retries_of(litellm.completion) == retries_of(litellm.acompletion) == 2
    monkeypatch.setattr(litellm, "num_retries", 1)
    assert retries_of(litellm.completion) == 3
    assert counted(refusing, asking(refusing)) == 4


def test_one_warning_and_none_without_its_own(refusing: Refusing) -> None:
    """`own_retries` gives a function of the same kind."""
    options = {**asking(refusing).keywords}

    def ask(function: Any) -> int:
        return counted(refusing, lambda: asyncio.run(ROBUST.wrap(function)(**options)))

    own = own_retries(litellm.acompletion)
    assert retries_of(own) == 0
    assert ask(own) == 2
    with pytest.warns(RetryMultiplicationWarning, match="2 x 3 = 6"):
        assert ask(litellm.acompletion) == 6
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", RetryMultiplicationWarning)
        assert ask(litellm.acompletion) == 6
    assert found == []


def test_a_router(refusing: Refusing) -> None:
    """Its number is its own."""
    served = {"model": "openai/gpt-4o", "api_base": refusing.url, "api_key": "any"}
    router = litellm.Router(
        model_list=[{"model_name": "m", "litellm_params": served}], num_retries=1, retry_after=0
    )
    call = functools.partial(router.completion, model="m", messages=MESSAGES)
    assert retries_of(router) == retries_of(call) == 1
    assert retries_of(functools.partial(call, num_retries=0)) == 0
    with pytest.warns(RetryMultiplicationWarning, match="2 x 2 = 4"):
        assert counted(refusing, lambda: ROBUST.call(call)) == 4
    own_retries(router)
    assert retries_of(call) == 0
    assert counted(refusing, lambda: ROBUST.call(call)) == 2
