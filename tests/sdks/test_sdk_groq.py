"""Groq's SDK: codes that are its own, and bodies in two wrappings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from providers import groq as module
from providers.raising import Provider, answer, providing
from resilience.failures import Advice, Failure, Kind, describe

pytestmark = [pytest.mark.real, pytest.mark.steady]


@pytest.fixture(scope="module")
def groq() -> Iterator[Provider]:
    with providing(module) as provider:
        yield provider


@pytest.mark.parametrize(
    ("status", "code", "kind", "advice", "limit"),
    [
        (400, "blocked_api_access", Kind.QUOTA, Advice.STOP, None),
        (400, "json_validate_failed", Kind.SERVER, Advice.RETRY, 1),
        (400, "model_decommissioned", Kind.NOT_FOUND, Advice.FALLBACK, None),
        (400, "tool_use_failed", Kind.SERVER, Advice.RETRY, 1),
        (413, "rate_limit_exceeded", Kind.CONTEXT_LENGTH, Advice.FALLBACK, None),
        (413, "request_too_large", Kind.INVALID, Advice.STOP, None),
        (429, "rate_limit_exceeded", Kind.RATE_LIMIT, Advice.WAIT, None),
        (498, "capacity_exceeded", Kind.OVERLOADED, Advice.WAIT, None),
        (498, None, Kind.OVERLOADED, Advice.WAIT, None),
    ],
)
def test_codes_of_its_own(
    groq: Provider, status: int, code: str | None, kind: Kind, advice: Advice, limit: int | None
) -> None:
    """What the status alone would say is not what happened."""
    failure = describe(groq.raised(answer(status, {"error": {"message": "m", "code": code}})))

    assert (failure.kind, failure.advice, failure.retry_limit) == (kind, advice, limit)
    assert (failure.status, failure.code, failure.sdk) == (status, code, "groq")
    assert failure.request_id == "req_1"


@pytest.mark.parametrize(
    ("code", "status", "kind", "advice"),
    [
        ("502", 502, Kind.SERVER, Advice.RETRY),
        ('"429"', 429, Kind.RATE_LIMIT, Advice.WAIT),
        ("400", 400, Kind.INVALID, Advice.STOP),
        ("7", None, Kind.UNKNOWN, Advice.STOP),
    ],
)
def test_a_status_in_a_stream(
    groq: Provider, code: str, status: int | None, kind: Kind, advice: Advice
) -> None:
    """An event in a stream has no status but the one that is its code."""
    chunk = f'data: {{"error": {{"message": "m", "code": {code}}}}}'
    failure = describe(groq.raised(groq.broken_off(chunk)))

    assert (failure.kind, failure.advice, failure.sent) == (kind, advice, True)
    assert (failure.status, failure.code) == (status, code.strip('"'))


@pytest.mark.parametrize("way", ["fail", "fail_async"])
def test_a_stream_that_is_cut(groq: Provider, way: str) -> None:
    """The transport's error comes out as it is."""
    failure = describe(groq.raised(groq.cut(), way))

    assert failure == Failure(Kind.CONNECTION, Advice.RETRY, sdk="httpx")
