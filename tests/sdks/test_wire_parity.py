"""Beside the retries that Auriko's SDK has of its own: the same, where its guide says so.

The guide: two retries by default, of 429, 500, 502, 503, 504, connection and timeout errors;
500 ms, growing by 1.5, at most 30 s, with jitter; `Retry-After` overrides. Where the SDK and its
guide disagree, or we differ on purpose, the tables here say so.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import auriko
import openai
import pytest

from resilience import Pipeline, Retry, RetryMultiplicationWarning
from resilience.testing import virtual_time
from resilience.testing.gateway import Drop, Error, Gateway, Hang, Ok, Plan, ProxyError
from test_wire import SDKS, Sdk, every_sdk

pytestmark = pytest.mark.real

ERRORS = (auriko.AurikoAPIError, openai.APIError)


Made = tuple[int, list[float]]
"""How many requests, and the waits between them."""


def by_itself(plan: Plan, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Made:
    """The bare SDK with its own retries on; its waits are noted and do not happen."""
    waits: list[float] = []
    with (
        Gateway(plan) as gateway,
        SDKS["auriko"].open(gateway, **options) as connection,
        monkeypatch.context() as patch,
    ):
        patch.setattr(time, "sleep", waits.append)
        with suppress(*ERRORS):
            connection.bare()
        return len(gateway.requests), waits


def by_us(sdk: Sdk, plan: Plan, retry: Retry, **options: Any) -> Made:
    """The same for `Retry` around an SDK whose own retries are off."""
    with (
        Gateway(plan) as gateway,
        sdk.open(gateway, **options) as connection,
        virtual_time() as clock,
    ):
        with suppress(*ERRORS):
            connection.ask(Pipeline(retry))
        return len(gateway.requests), clock.sleeps


DOCUMENTED: list[tuple[Any, int, int]] = [
    # answer for ever, the SDK's own requests, ours
    (Error("rate_limit_exceeded"), 3, 3),
    (Error("concurrent_requests_exceeded"), 3, 3),
    (ProxyError(500), 3, 3),
    (Error("upstream_error"), 3, 3),  # 502
    (ProxyError(502), 3, 3),
    (Error("service_unavailable"), 3, 3),  # 503
    (Error("no_provider_available"), 3, 3),
    (ProxyError(503), 3, 3),
    (ProxyError(504), 3, 3),
    (Hang(), 3, 3),
    # The guide lists 500, the SDK does not retry this code: once.
    (Error("internal_error"), 1, 2),
    # An upstream that took all its time will do so again: once.
    (Error("upstream_timeout"), 3, 2),
    # It is the model that is down: another one, or nobody.
    (Error("model_unavailable"), 3, 1),
    # The guide has connection errors retried, the SDK leaves this one out.
    (Drop(), 1, 3),
    # What the guide does not list, neither retries.
    (Error("insufficient_quota"), 1, 1),
    (Error("budget_exhausted"), 1, 1),
    (Error("invalid_request"), 1, 1),
    (Error("invalid_api_key"), 1, 1),
    (Error("duplicate_resource"), 1, 1),
    # The SDK takes any body without the envelope for a passing error, whatever its status.
    (ProxyError(400), 3, 1),
]


@pytest.mark.parametrize(("answer", "theirs", "ours"), DOCUMENTED, ids=lambda case: repr(case))
def test_as_many_requests_as_the_guide_says(
    answer: Any, theirs: int, ours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Retry()` makes the requests that the SDK's guide promises, which the SDK mostly makes."""
    options = {"timeout": 0.1 if isinstance(answer, Hang) else 5.0}
    assert by_itself(answer, monkeypatch, **options, max_retries=2)[0] == theirs
    assert by_us(SDKS["auriko"], answer, Retry(), **options)[0] == ours


@pytest.mark.parametrize(
    "failure",
    [
        Error("rate_limit_exceeded"),
        Error("internal_error"),
        Error("upstream_error"),
        Error("service_unavailable"),
        Error("upstream_timeout"),
        Drop(),
        Hang(),
    ],
    ids=lambda failure: failure.name,
)
@every_sdk
def test_every_documented_failure_is_got_over(sdk: Sdk, failure: Any) -> None:
    """Each status and error of the guide's list, once, costs one wait and one more request."""
    options = {"timeout": 0.1 if isinstance(failure, Hang) else 5.0}
    requests, waits = by_us(sdk, [failure, Ok()], Retry(), **options)
    assert requests == 2
    assert [0.4 <= wait <= 0.6 for wait in waits] == [True]


def bounds(number: int) -> tuple[float, float]:
    """Between what seconds the guide's nth wait is."""
    middle = min(0.5 * 1.5**number, 30.0)
    return middle * 0.8, middle * 1.2


@every_sdk
def test_the_default_waits(sdk: Sdk) -> None:
    """Two waits: around half a second and around three quarters."""
    requests, waits = by_us(sdk, "upstream_error", Retry())
    assert requests == 3
    assert len(waits) == 2
    for number, wait in enumerate(waits):
        least, most = bounds(number)
        assert least <= wait <= most


def test_the_waits_grow_as_the_sdks_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """With many retries, both wait within the same bounds, up to the longest wait of 30 s."""
    _, theirs = by_itself("upstream_error", monkeypatch, max_retries=15)
    _, ours = by_us(SDKS["auriko"], "upstream_error", Retry(attempts=16))
    assert len(theirs) == len(ours) == 15
    for number, waits in enumerate(zip(theirs, ours, strict=True)):
        least, most = bounds(number)
        assert [least <= wait <= most for wait in waits] == [True, True]
    assert bounds(14) == (24.0, 36.0)
    assert len({wait / bounds(number)[0] for number, wait in enumerate(ours)}) > 1  # jitter


@pytest.mark.parametrize("code", ["rate_limit_exceeded", "service_unavailable"])
@every_sdk
def test_retry_after_overrides(sdk: Sdk, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven seconds asked for are waited for: by the SDK exactly, by us with jitter upward."""
    plan: Plan = [Error(code, retry_after=7), Ok()]
    _, theirs = by_itself(plan, monkeypatch, max_retries=2)
    requests, ours = by_us(sdk, plan, Retry())
    assert theirs == [7.0]
    assert requests == 2
    assert [7.0 <= wait <= 7.0 * 1.25 for wait in ours] == [True]


@every_sdk
def test_a_short_retry_after_overrides_too(sdk: Sdk) -> None:
    """The guide: the header's value instead of the calculated one, also where it is less."""
    _, waits = by_us(sdk, [Error("rate_limit_exceeded", retry_after=0.1), Ok()], Retry())
    assert [0.1 <= wait <= 0.125 for wait in waits] == [True]


@every_sdk
def test_a_date_is_a_retry_after(sdk: Sdk) -> None:
    """An HTTP date, which the SDK does not read, is measured by the answer's own clock."""
    headers = {
        "date": "Wed, 21 Oct 2037 07:28:00 GMT",
        "retry-after": "Wed, 21 Oct 2037 07:28:09 GMT",
    }
    _, waits = by_us(sdk, [Error("rate_limit_exceeded", headers=headers), Ok()], Retry())
    assert [9.0 <= wait <= 9.0 * 1.25 for wait in waits] == [True]


@pytest.mark.parametrize("value", ["inf", "1e400", "nan", "-1", "soon", "99999999999999999999"])
@pytest.mark.parametrize("name", ["auriko", "openai"])
def test_nonsense_is_not_waited_for(name: str, value: str) -> None:
    """What makes Auriko's own SDK raise OverflowError, or sleep for ever, is no hint."""
    answer = Error("rate_limit_exceeded", retry_after=value)
    requests, waits = by_us(SDKS[name], [answer, Ok()], Retry())
    assert requests == 2
    assert [0.4 <= wait <= 0.6 for wait in waits] == [True]


def test_retries_of_both_multiply() -> None:
    """Why the SDK's own retries are to be off: three times three requests."""
    with (
        pytest.MonkeyPatch.context() as patch,
        Gateway("upstream_error") as gateway,
        SDKS["auriko"].open(gateway, max_retries=2) as connection,
    ):
        patch.setattr(time, "sleep", lambda seconds: None)
        with (
            pytest.warns(RetryMultiplicationWarning, match="3 x 3 = 9"),
            pytest.raises(auriko.APIStatusError),
            virtual_time(),
        ):
            connection.ask(Pipeline(Retry()))
        assert len(gateway.requests) == 9
