"""What the clients and frameworks of `families` raise beside what their tables show."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

import boto3.exceptions
import openai
import pytest
from azure.core import exceptions as azure
from huggingface_hub import errors as hub
from mcp import MCPError
from mcp_types import ErrorData
from ollama import RequestError, ResponseError
from replicate.exceptions import ModelError, ReplicateError
from replicate.prediction import Prediction

from providers import replicate as served
from resilience.failures import Advice, Failure, Kind, describe
from test_providers import installed

HERE = installed("pydantic_ai")
"""Not on Python 3.10."""


def read(error: Exception) -> tuple[Kind, Advice, bool | None]:
    """What matters of most."""
    failure = describe(error)
    return failure.kind, failure.advice, failure.sent


def pydantic_ai(name: str, *arguments: object, **options: object) -> Any:
    """An error of Pydantic AI's that was raised from nothing."""
    from pydantic_ai import exceptions

    return getattr(exceptions, name)(*arguments, **options)


@pytest.mark.fault(252)
@pytest.mark.skipif(not HERE, reason="no Pydantic AI for this Python")
@pytest.mark.parametrize(
    ("name", "kind", "advice"),
    [
        ("ModelAuthenticationError", Kind.AUTH, Advice.STOP),
        ("ModelConnectionError", Kind.CONNECTION, Advice.RETRY),
        ("ModelContextWindowExceededError", Kind.CONTEXT_LENGTH, Advice.FALLBACK),
        ("ModelNotFoundError", Kind.NOT_FOUND, Advice.FALLBACK),
        ("ModelOverloadedError", Kind.OVERLOADED, Advice.WAIT),
        ("ModelQuotaExceededError", Kind.QUOTA, Advice.STOP),
        ("ModelRateLimitError", Kind.RATE_LIMIT, Advice.WAIT),
        ("ModelRequestRejectedError", Kind.INVALID, Advice.STOP),
        ("ModelServerError", Kind.SERVER, Advice.RETRY),
        ("ModelTimeoutError", Kind.TIMEOUT, Advice.RETRY),
        ("ModelUnavailableError", Kind.UNAVAILABLE, Advice.WAIT),
        ("ModelAPIError", Kind.UNKNOWN, Advice.STOP),
    ],
)
def test_pydantic_ais_categories(name: str, kind: Kind, advice: Advice) -> None:
    """Without a cause, as a durable run has them back, the class says what happened."""
    failure = describe(pydantic_ai(name, "m", "It is a text."))

    assert (failure.kind, failure.advice) == (kind, advice)


@pytest.mark.skipif(not HERE, reason="no Pydantic AI for this Python")
@pytest.mark.parametrize(
    ("name", "kind", "advice"),
    [
        ("ConcurrencyLimitExceeded", Kind.RATE_LIMIT, Advice.WAIT),
        ("ContentFilterError", Kind.CONTENT_FILTER, Advice.STOP),
        ("IncompleteToolCall", Kind.UNKNOWN, Advice.FALLBACK),
        ("RunCancelled", Kind.CANCELLED, Advice.STOP),
        ("RunTimedOut", Kind.TIMEOUT, Advice.RETRY),
        ("SuspendedResponseExpired", Kind.NOT_FOUND, Advice.STOP),
        ("UnexpectedModelBehavior", Kind.UNKNOWN, Advice.RETRY),
        ("UsageLimitExceeded", Kind.QUOTA, Advice.STOP),
        ("UserError", Kind.INVALID, Advice.STOP),
    ],
)
def test_what_pydantic_ai_finds_itself(name: str, kind: Kind, advice: Advice) -> None:
    """No server has a part in these."""
    failure = describe(pydantic_ai(name, "It is a text."))

    assert (failure.kind, failure.advice) == (kind, advice)


@pytest.mark.fault(252)
@pytest.mark.skipif(not HERE, reason="no Pydantic AI for this Python")
def test_pydantic_ais_attributes() -> None:
    """Status, code, headers and body are in the error itself."""
    body = {"code": "rate_limit_exceeded", "type": "requests", "message": "m"}
    headers = {"Retry-After": "7", "X-Request-Id": "r1"}
    error = pydantic_ai("ModelHTTPError", 429, "m", body, headers=headers)

    assert describe(error) == Failure(
        Kind.RATE_LIMIT,
        Advice.WAIT,
        status=429,
        code="rate_limit_exceeded",
        type="requests",
        retry_after=7.0,
        request_id="r1",
        sdk="pydantic_ai",
        sent=False,
        error=error,
    )


@pytest.mark.skipif(not HERE, reason="no Pydantic AI for this Python")
def test_pydantic_ais_event_in_a_stream() -> None:
    """What came of it has been seen, and its headers are the stream's."""
    error = pydantic_ai(
        "ModelHTTPError", 503, "m", headers={"retry-after": "7"}, retry_after=2.0, in_stream=True
    )
    failure = describe(error)

    assert (failure.kind, failure.retry_after, failure.sent) == (Kind.UNAVAILABLE, 2.0, True)


@pytest.mark.skipif(not HERE, reason="no Pydantic AI for this Python")
@pytest.mark.parametrize(("phase", "sent"), [("connect", False), ("pool", False), ("read", None)])
def test_pydantic_ais_phases(phase: str, sent: bool | None) -> None:
    """It knows how far the request came."""
    assert describe(pydantic_ai("ModelConnectionError", "m", "m", phase=phase)).sent is sent


@pytest.mark.skipif(not HERE, reason="no Pydantic AI for this Python")
def test_a_category_says_more_than_a_400() -> None:
    """It may have read the message; a status that says more is left alone."""
    from pydantic_ai import exceptions

    long = exceptions.ModelHTTPError.for_category(
        exceptions.ModelContextWindowExceededError, status_code=400, model_name="m"
    )
    denied = exceptions.ModelHTTPError.for_category(
        exceptions.ModelAuthenticationError, status_code=403, model_name="m"
    )

    assert read(long) == (Kind.CONTEXT_LENGTH, Advice.FALLBACK, False)
    assert read(denied)[:2] == (Kind.PERMISSION, Advice.STOP)


@pytest.mark.fault(253)
@pytest.mark.parametrize(
    ("code", "kind", "advice"),
    [
        (-32000, Kind.CONNECTION, Advice.RETRY),
        (-32001, Kind.TIMEOUT, Advice.RETRY),
        (-32002, Kind.NOT_FOUND, Advice.STOP),
        (-32022, Kind.UNSUPPORTED, Advice.STOP),
        (-32600, Kind.INVALID, Advice.STOP),
        (-32601, Kind.UNSUPPORTED, Advice.STOP),
        (-32602, Kind.INVALID, Advice.STOP),
        (-32603, Kind.SERVER, Advice.RETRY),
        (-32700, Kind.SERVER, Advice.RETRY),
        (429, Kind.RATE_LIMIT, Advice.WAIT),
        (5, Kind.UNKNOWN, Advice.STOP),
    ],
)
def test_mcps_codes(code: int, kind: Kind, advice: Advice) -> None:
    """JSON-RPC's, MCP's, and a server's own, which may be HTTP's."""
    failure = describe(MCPError.from_error_data(ErrorData(code=code, message="m")))

    assert (failure.kind, failure.advice, failure.code) == (kind, advice, str(code))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RequestError("must be a text"), (Kind.INVALID, Advice.STOP, False)),
        (ResponseError("of a stream"), (Kind.SERVER, Advice.RETRY, True)),
        (ResponseError("no model", 404), (Kind.NOT_FOUND, Advice.FALLBACK, None)),
        (ReplicateError(status=410), (Kind.NOT_FOUND, Advice.FALLBACK, None)),
        (ReplicateError("Model does not stream"), (Kind.UNKNOWN, Advice.STOP, None)),
        (
            ModelError(Prediction(**served.prediction("failed"))),
            (Kind.SERVER, Advice.RETRY, True),
        ),
        (hub.OfflineModeIsEnabled("off"), (Kind.INVALID, Advice.STOP, False)),
        (hub.LocalTokenNotFoundError("no token"), (Kind.AUTH, Advice.STOP, None)),
        (hub.InferenceEndpointTimeoutError("late"), (Kind.TIMEOUT, Advice.RETRY, None)),
        (hub.OverloadedError("busy"), (Kind.OVERLOADED, Advice.WAIT, None)),
        (azure.ClientAuthenticationError("no token"), (Kind.AUTH, Advice.STOP, None)),
        (azure.ServiceRequestTimeoutError("late"), (Kind.TIMEOUT, Advice.RETRY, False)),
        (azure.SerializationError("a number"), (Kind.INVALID, Advice.STOP, False)),
        (azure.DeserializationError("a list"), (Kind.SERVER, Advice.RETRY, True)),
        (
            boto3.exceptions.ResourceNotExistsError("x", [], False),
            (Kind.INVALID, Advice.STOP, False),
        ),
        (boto3.exceptions.S3UploadFailedError("m"), (Kind.UNKNOWN, Advice.STOP, None)),
        (
            boto3.exceptions.RetriesExceededError(ConnectionRefusedError()),
            (Kind.CONNECTION, Advice.RETRY, False),
        ),
    ],
    ids=lambda each: type(each).__name__,
)
def test_by_class(error: Exception, expected: tuple[Kind, Advice, bool | None]) -> None:
    """What a class means where no answer says more."""
    assert read(error) == expected


def test_an_error_that_was_at_hand() -> None:
    """What a program was handling when it called is not what the client's error was made from."""
    error = boto3.exceptions.S3UploadFailedError("m")
    error.__context__ = ConnectionRefusedError()

    assert read(error) == (Kind.UNKNOWN, Advice.STOP, None)


def test_a_program_with_a_package_of_that_name() -> None:
    """`agents` is a name that many have: an SDK's error of their own making is still the SDK's."""
    mine: Any = type("Mine", (openai.APIConnectionError,), {"__module__": "agents.mine"})

    assert read(mine(request=None)) == (Kind.CONNECTION, Advice.RETRY, None)


@pytest.mark.fault(254)
@pytest.mark.parametrize("ring", [1, 2, 3])
def test_errors_that_caused_one_another(ring: int) -> None:
    """A ring of causes ends."""
    made: list[Exception] = [azure.AzureError(str(each)) for each in range(ring)]
    for each, cause in zip(made, [*made[1:], made[0]], strict=True):
        each.__cause__ = cause

    assert describe(made[0]).advice is Advice.STOP


@pytest.mark.fault(254)
def test_attributes_that_raise() -> None:
    """No attribute is trusted."""

    class Bad(azure.AzureError):
        def __init__(self) -> None:
            Exception.__init__(self)

        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError(name)

    assert read(Bad()) == (Kind.UNKNOWN, Advice.STOP, None)


@pytest.mark.fault(254)
def test_attributes_that_answer_to_everything() -> None:
    """A mocked response has every header and every status; none of them counts."""
    error = azure.HttpResponseError("m")
    error.response = MagicMock()
    error.status_code = 429

    assert describe(error) == Failure(
        Kind.RATE_LIMIT, Advice.WAIT, status=429, sdk="azure", sent=False, error=error
    )
