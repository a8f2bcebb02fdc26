"""Google's errors, made by its own SDK and packages, and what they are taken for."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import requests
from google import genai
from google.api_core import exceptions as core
from google.auth import exceptions as auth
from google.genai import errors
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2 as rpc

from providers import google as gemini
from providers.faults import FAULTS
from providers.server import Server
from resilience.failures import Advice, Failure, Kind, describe

TYPE = "type.googleapis.com/google.rpc."


def envelope(code: int, status: str, *details: dict[str, Any]) -> dict[str, Any]:
    told = [{**each, "@type": TYPE + each["@type"]} for each in details]
    return {"error": {"code": code, "message": "m", "status": status, "details": told}}


def client(status: int, **content: Any) -> genai.Client:
    """The real client, answered so."""
    http = gemini.library()
    transport = http.MockTransport(lambda request: http.Response(status, **content))
    options: Any = {"client_args": {"transport": transport}, "retry_options": {"attempts": 1}}
    return genai.Client(api_key="none", http_options=options)


def ask(status: int, *, stream: bool = False, **content: Any) -> None:
    """Call with the real client, which is answered so."""
    with client(status, **content) as gemini:
        if stream:
            list(gemini.models.generate_content_stream(model="m", contents="?"))
        else:
            gemini.models.generate_content(model="m", contents="?")


def raised(status: int, **options: Any) -> Exception:
    """What the client raises over that."""
    with pytest.raises(Exception, match=r".") as caught:
        ask(status, **options)
    return caught.value


def retry_in(delay: Any) -> dict[str, Any]:
    return {"@type": "RetryInfo", "retryDelay": delay}


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [("36s", 36.0), ("36.5s", 36.5), ("0.250s", 0.25), ("0s", 0.0), ("1m0s", 60.0)],
)
def test_the_body_tells_how_long_to_wait(delay: str, seconds: float) -> None:
    """`RetryInfo` is the wait where no header gives one."""
    error = raised(429, json=envelope(429, "RESOURCE_EXHAUSTED", retry_in(delay)))

    assert describe(error).retry_after == seconds


@pytest.mark.parametrize(
    "delay", ["soon", "-3s", "nans", "1e400s", "9" * 70 + "s", 36, None, [], {}]
)
def test_nonsense_in_the_body_is_no_wait(delay: Any) -> None:
    """A delay that is none is as if absent."""
    failure = describe(raised(429, json=envelope(429, "RESOURCE_EXHAUSTED", retry_in(delay))))

    assert (failure.advice, failure.retry_after) == (Advice.WAIT, None)


def test_a_header_goes_before_the_body() -> None:
    """`Retry-After` wins over `RetryInfo`."""
    body = envelope(429, "RESOURCE_EXHAUSTED", retry_in("36s"))

    assert describe(raised(429, json=body, headers={"retry-after": "2"})).retry_after == 2.0


@pytest.mark.parametrize(
    ("quota", "kind"),
    [
        ({"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}, Kind.QUOTA),
        ({"quotaId": "GenerateRequestsPerMinutePerProjectPerModel"}, Kind.RATE_LIMIT),
        ({"quotaId": "GenerateRequestsPerMinutePerProject", "quotaValue": "0"}, Kind.QUOTA),
        ({"quotaId": "GenerateRequestsPerMinutePerProject", "quotaValue": "15"}, Kind.RATE_LIMIT),
        ({}, Kind.RATE_LIMIT),
        ("PerDay", Kind.RATE_LIMIT),
    ],
)
def test_a_quota_of_days_is_no_rate_limit(quota: Any, kind: Kind) -> None:
    """RESOURCE_EXHAUSTED is both: only the quotas that are violated tell them apart."""
    violated = {"@type": "QuotaFailure", "violations": [{"quotaId": "PerMinute"}, quota]}
    failure = describe(raised(429, json=envelope(429, "RESOURCE_EXHAUSTED", violated)))

    assert failure.kind is kind
    assert failure.advice is (Advice.STOP if kind is Kind.QUOTA else Advice.WAIT)
    assert failure.sent is False


@pytest.mark.parametrize(
    ("status", "name", "reason", "kind", "code"),
    [
        (400, "INVALID_ARGUMENT", "API_KEY_INVALID", Kind.AUTH, "API_KEY_INVALID"),
        (403, "PERMISSION_DENIED", "BILLING_DISABLED", Kind.QUOTA, "BILLING_DISABLED"),
        (400, "INVALID_ARGUMENT", "NEVER_HEARD_OF", Kind.INVALID, "INVALID_ARGUMENT"),
        (400, "INVALID_ARGUMENT", None, Kind.INVALID, "INVALID_ARGUMENT"),
    ],
)
def test_the_finer_reason_decides(
    status: int, name: str, reason: str | None, kind: Kind, code: str
) -> None:
    """A key that is wrong comes as status 400; the reason in the details is the code then."""
    info = {"@type": "ErrorInfo", "reason": reason}
    failure = describe(raised(status, json=envelope(status, name, info)))

    assert (failure.kind, failure.advice) == (kind, Advice.STOP)
    assert (failure.code, failure.type, failure.status) == (code, name, status)


def test_the_request_id_is_among_the_details() -> None:
    """Google's headers have none."""
    info = {"@type": "RequestInfo", "requestId": "r1"}

    assert describe(raised(500, json=envelope(500, "INTERNAL", info))).request_id == "r1"


def test_a_list_around_the_error() -> None:
    """A stream that cannot begin is answered with a list of one error."""
    body = [envelope(503, "UNAVAILABLE")]
    failure = describe(raised(503, json=body, stream=True))

    assert (failure.kind, failure.code, failure.sent) == (Kind.UNAVAILABLE, "UNAVAILABLE", None)


@pytest.mark.parametrize("status", ["UNKNOWN", "SOMETHING_NEW"])
def test_a_status_that_says_nothing(status: str) -> None:
    """An unknown status leaves it to HTTP's, whose 404 is about the model that was asked for."""
    assert describe(raised(500, json=envelope(500, status))).advice is Advice.RETRY
    assert describe(raised(404, json=envelope(404, status))).advice is Advice.FALLBACK


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_is_no_json(stream: bool) -> None:
    """A page with status 200: asked again once, as the server has done its work."""
    error = raised(200, content=b"<html>", stream=stream)
    assert isinstance(error, errors.UnknownApiResponseError if stream else json.JSONDecodeError)

    assert describe(error) == Failure(
        Kind.SERVER, Advice.RETRY, retry_limit=1, sent=True, sdk="google"
    )


def test_a_live_session_that_was_closed() -> None:
    """A web socket's closing code is no HTTP status."""
    with pytest.raises(errors.APIError) as caught:
        errors.APIError.raise_error(1011, "Deadline expired", None)
    assert caught.value.code == 1011

    assert describe(caught.value) == Failure(Kind.UNKNOWN, Advice.STOP, sdk="google")


def test_a_call_over_grpc() -> None:
    """google.api_core keeps Google's status and details as messages."""
    details = [
        rpc.RetryInfo(retry_delay=Duration(seconds=2, nanos=500_000_000)),
        rpc.RequestInfo(request_id="r1"),
    ]
    error = core.ResourceExhausted("m", details=details)
    told = Failure(
        Kind.RATE_LIMIT,
        Advice.WAIT,
        status=429,
        code="RESOURCE_EXHAUSTED",
        type="RESOURCE_EXHAUSTED",
        retry_after=2.5,
        request_id="r1",
        sdk="google",
        sent=False,
    )

    assert describe(error) == told
    given_up = core.RetryError("m", error)
    given_up.__cause__ = error
    assert describe(given_up) == told
    daily = rpc.QuotaFailure(violations=[rpc.QuotaFailure.Violation(quota_id="RequestsPerDay")])
    assert describe(core.ResourceExhausted("m", details=[daily])).kind is Kind.QUOTA
    key = rpc.ErrorInfo(reason="API_KEY_INVALID")
    assert describe(core.InvalidArgument("m", details=[key])).kind is Kind.AUTH


def test_a_call_over_rest() -> None:
    """There the details are JSON, and headers may be read."""
    answer = requests.Response()
    answer.status_code = 503
    answer.headers["Retry-After"] = "4"
    answer.request = requests.Request("GET", "http://service.test").prepare()
    answer._content = json.dumps(envelope(503, "UNAVAILABLE", retry_in("36s"))).encode()
    failure = describe(core.from_http_response(answer))

    assert (failure.kind, failure.advice, failure.retry_after) == (
        Kind.UNAVAILABLE,
        Advice.WAIT,
        4.0,
    )
    del answer.headers["Retry-After"]
    assert describe(core.from_http_response(answer)).retry_after == 36.0


@pytest.mark.parametrize(
    ("error", "kind", "advice"),
    [
        (auth.DefaultCredentialsError("m"), Kind.AUTH, Advice.STOP),
        (auth.RefreshError("m"), Kind.AUTH, Advice.STOP),
        (auth.RefreshError("m", retryable=True), Kind.SERVER, Advice.RETRY),
        (auth.TransportError("m"), Kind.CONNECTION, Advice.RETRY),
    ],
)
def test_no_token_was_to_be_had(error: Exception, kind: Kind, advice: Advice) -> None:
    """google.auth fails before the call: nothing of it was sent."""
    assert describe(error) == Failure(kind, advice, sdk="google", sent=False)


@pytest.mark.real
@pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")
@pytest.mark.parametrize(
    ("fault", "kind", "wait", "sent"),
    [
        ("429 date", Kind.RATE_LIMIT, 10.0, False),
        ("429 milliseconds", Kind.RATE_LIMIT, 0.25, False),
        ("502 html", Kind.SERVER, None, None),
        ("mid-stream", Kind.UNAVAILABLE, None, True),
    ],
)
def test_over_aiohttp(fault: str, kind: Kind, wait: float | None, sent: bool | None) -> None:
    """With aiohttp installed the async client uses it, and its response is another one."""
    [told] = [each for each in FAULTS if each.name == fault]
    with Server(gemini) as server, pytest.raises(errors.APIError) as caught:
        asyncio.run(gemini.ask(server.url(told), told.how == "stream", {}))
    failure = describe(caught.value)

    assert type(caught.value.response).__module__.partition(".")[0] in ("aiohttp", "google")
    assert (failure.kind, failure.retry_after, failure.sent) == (kind, wait, sent)
