"""Waits that servers tell in other ways than `Retry-After: 7`, through a client over a socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest

from providers.faults import Fault
from providers.server import Server
from resilience.failures import Advice, Failure, Kind, describe

pytestmark = [pytest.mark.real, pytest.mark.steady, pytest.mark.fault(236)]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One that answers as told."""
    with Server(import_module("providers.openai")) as found:
        yield found


def reading(server: Server, status: int, headers: dict[str, str], body: object = None) -> Failure:
    told = Fault(f"{status} {headers} {body}", status, "", headers, json.dumps(body).encode())
    with pytest.raises(Exception) as caught:  # noqa: PT011  # httpx's
        import_module("providers.httpx").fail(server.url(told), streaming=False)
    return describe(caught.value)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after": "30s"}, 30.0),
        ({"retry-after": "1m0s"}, 60.0),
        ({"retry-after": "500ms"}, 0.5),
        ({"retry-after": "1h, 1h"}, 3600.0),
        ({"retry-after": "30 s"}, None),
        ({"retry-after": "-30s"}, None),
        ({"retry-after": "30d"}, None),
        ({"x-ratelimit-reset-after": "0.234"}, 0.234),
        ({"x-ratelimit-reset-after": "soon"}, None),
        ({"x-rate-limit-reset-tokens": "55"}, 55.0),
        ({"x-rate-limit-reset-requests": "6m0s"}, 360.0),
        (
            {
                "x-rate-limit-reset-tokens": "55",
                "x-rate-limit-reset-requests": "2",
                "x-rate-limit-remaining-requests": "0",
            },
            2.0,
        ),
        (
            {"x-rate-limit-reset": "1777334430", "date": "Tue, 28 Apr 2026 00:00:00 GMT"},
            30.0,
        ),
        ({"retry-after": "7", "x-rate-limit-reset-tokens": "55"}, 7.0),
        ({"x-ratelimit-reset-tokens": "6m0s"}, None),  # the whole limit's: for who asks for it
    ],
    ids=repr,
)
def test_headers(server: Server, headers: dict[str, str], wait: float | None) -> None:
    """A duration in `Retry-After`, and the headers of services that have others instead."""
    failure = reading(server, 429, headers)

    assert (failure.kind, failure.advice) == (Kind.RATE_LIMIT, Advice.WAIT)
    assert failure.retry_after == wait


def test_a_limits_window_is_no_wait_of_other_failures(server: Server) -> None:
    """Those headers are on every response."""
    assert reading(server, 503, {"x-rate-limit-reset-tokens": "55"}).retry_after is None
    assert reading(server, 500, {"x-ratelimit-reset-after": "9"}).retry_after is None


@pytest.mark.parametrize(
    ("status", "headers", "body", "wait"),
    [
        (429, {}, {"retry_after": 0.3}, 0.3),
        (429, {"x-ratelimit-reset-after": "0.234"}, {"retry_after": 0.3}, 0.3),
        (429, {"retry-after": "7"}, {"retry_after": 0.3}, 7.0),
        (429, {}, {"retry_after": "12"}, 12.0),
        (429, {}, {"retry_after": True}, None),
        (429, {}, {"retry_after": -1}, None),
        (429, {}, {"retry_after": [3]}, None),
        (429, {}, {"error": {"error": {"error": {"retry_after": 3}}}}, None),
        (503, {}, {"error": "Loading", "estimated_time": 20}, 20.0),
        (400, {}, {"retry_after": 3}, None),
    ],
    ids=repr,
)
def test_bodies(
    server: Server, status: int, headers: dict[str, str], body: Any, wait: float | None
) -> None:
    """A number of the body's own goes after `Retry-After` and before a limit's window."""
    assert reading(server, status, headers, body).retry_after == wait


@pytest.mark.parametrize(
    ("headers", "kind", "wait"),
    [
        ({"retry-after": "60"}, Kind.RATE_LIMIT, 60.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "30"}, Kind.RATE_LIMIT, 30.0),
        ({"x-ratelimit-remaining": "7", "x-ratelimit-reset": "30"}, Kind.PERMISSION, None),
        ({}, Kind.PERMISSION, None),
    ],
    ids=repr,
)
def test_a_403_that_is_a_rate_limit(
    server: Server, headers: dict[str, str], kind: Kind, wait: float | None
) -> None:
    """As GitHub's: its headers say so."""
    failure = reading(server, 403, headers, {"message": "m"})

    assert (failure.kind, failure.retry_after) == (kind, wait)
