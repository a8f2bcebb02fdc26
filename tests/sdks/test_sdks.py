"""The errors of real SDKs, made by the SDKs themselves, and what they are taken for."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import auriko
import httpx
import httpx2
import openai
import pytest
from auriko import errors as auriko_errors
from auriko._openai_client import AurikoAsyncOpenAI
from auriko.errors._registry import CODE_TO_ERROR_TYPE, CODE_TO_STATUS
from auriko.errors.mapping import _map_error_from_envelope
from auriko.response_headers import ResponseHeaders
from openai.lib.streaming.chat import (
    AsyncChatCompletionStreamManager,
    ChatCompletionStreamManager,
)

from resilience.failures import Advice, Failure, Kind, describe
from resilience.sdks.auriko import CODES
from resilience.sdks.streams import is_manager

URL = "http://service.test/v1"
REQUEST = httpx2.Request("POST", URL)

# code, status, type, kind, advice: from the service's documentation and the SDK, not from the code
AURIKO = """
invalid_api_key 401 authentication_error auth stop
expired_api_key 401 authentication_error auth stop
insufficient_permissions 403 permission_error permission stop
feature_disabled 403 permission_error permission stop
mfa_required 403 permission_error permission stop
invalid_recovery_code 401 authentication_error auth stop
mfa_verification_failed 401 authentication_error auth stop
invalid_request 400 invalid_request_error invalid stop
missing_required_parameter 400 invalid_request_error invalid stop
invalid_parameter_value 400 invalid_request_error invalid stop
payload_too_large 413 invalid_request_error invalid stop
context_length_exceeded 400 invalid_request_error context_length fallback
content_filtered 400 invalid_request_error content_filter stop
idempotency_conflict 409 invalid_request_error conflict stop
idempotency_replay_unavailable 409 invalid_request_error conflict stop
field_immutable 400 invalid_request_error invalid stop
operation_not_allowed 400 invalid_request_error invalid stop
unknown_field 400 invalid_request_error invalid stop
state_precondition_failed 409 invalid_request_error conflict stop
duplicate_resource 409 invalid_request_error conflict stop
method_not_allowed 405 invalid_request_error invalid stop
payment_declined 400 invalid_request_error quota stop
payment_method_invalid 400 invalid_request_error quota stop
tools_not_supported 400 invalid_request_error unsupported fallback
json_mode_not_supported 400 invalid_request_error unsupported fallback
structured_output_not_supported 400 invalid_request_error unsupported fallback
tools_with_structured_output_not_supported 400 invalid_request_error unsupported fallback
vision_not_supported 400 invalid_request_error unsupported fallback
reasoning_not_supported 400 invalid_request_error unsupported fallback
thinking_disable_not_supported 400 invalid_request_error unsupported fallback
streaming_not_supported 400 invalid_request_error unsupported fallback
non_streaming_not_supported 400 invalid_request_error unsupported fallback
batch_only 400 invalid_request_error unsupported fallback
tier_opt_in_required 400 invalid_request_error unsupported fallback
tool_choice_required_not_supported 400 invalid_request_error unsupported fallback
cost_constraint_exceeded 400 invalid_request_error unsupported fallback
latency_constraint_exceeded 400 invalid_request_error unsupported fallback
throughput_constraint_not_met 400 invalid_request_error unsupported fallback
provider_not_in_allowlist 400 invalid_request_error unsupported fallback
provider_blocked 400 invalid_request_error unsupported fallback
required_params_not_supported 400 invalid_request_error unsupported fallback
byok_keys_required 400 invalid_request_error unsupported fallback
platform_keys_unavailable 400 invalid_request_error unsupported fallback
unsupported_modalities 400 invalid_request_error unsupported fallback
no_compatible_endpoint 400 invalid_request_error unsupported fallback
no_responses_endpoint 400 invalid_request_error unsupported fallback
input_requires_responses_endpoint 400 invalid_request_error unsupported fallback
response_api_only 400 invalid_request_error unsupported fallback
hosted_tool_not_supported 400 invalid_request_error unsupported fallback
no_tools_on_endpoint 400 invalid_request_error unsupported fallback
model_not_found 404 not_found_error not_found fallback
resource_not_found 404 not_found_error not_found stop
rate_limit_exceeded 429 rate_limit_error rate_limit wait
budget_exhausted 429 rate_limit_error quota stop
insufficient_quota 429 rate_limit_error quota stop
no_provider_available 503 api_error unavailable wait
upstream_error 502 api_error server retry
upstream_timeout 504 api_error timeout retry_once
client_disconnected 0 api_error cancelled stop
stream_duration_exceeded 0 api_error timeout stop
model_unavailable 503 api_error unavailable fallback
internal_error 500 api_error server retry_once
service_unavailable 503 api_error unavailable wait
api_connection_error 0 api_error connection retry
invalid_response 200 api_error server retry_once
missing_api_key 0 authentication_error auth stop
concurrent_requests_exceeded 429 rate_limit_error rate_limit wait
tokens_per_min_exceeded 429 rate_limit_error rate_limit wait
routing_failed 503 api_error unavailable fallback
unknown_parameter 400 invalid_request_error invalid stop
provider_auth_error 401 authentication_error auth stop
budget_exceeded 402 rate_limit_error quota stop
forbidden 403 permission_error permission stop
no_providers_available 503 api_error unavailable wait
"""
ROWS = [tuple(line.split()) for line in AURIKO.strip().splitlines()]
ROW_IDS = [row[0] for row in ROWS]

REFUSED_KINDS = {
    *["auth", "permission", "invalid", "not_found", "unsupported", "context_length"],
    *["rate_limit", "quota"],
}
REFUSED_CODES = {"no_provider_available", "no_providers_available", "routing_failed"}

OPENAI = openai.OpenAI(api_key="k", base_url=URL, max_retries=0)

Maker = Callable[..., Exception]


def envelope(
    code: object = None, type: object = None, provider: object = None
) -> dict[str, dict[str, object]]:
    return {"error": {"message": "m", "code": code, "type": type, "provider": provider}}


def from_auriko(status: int, body: object, headers: dict[str, str]) -> Exception:
    wrapped = ResponseHeaders(httpx.Headers(headers))
    return _map_error_from_envelope(status, body, response_headers=wrapped)


def from_openai(status: int, body: object, headers: dict[str, str]) -> openai.APIStatusError:
    response = httpx2.Response(status, json=body, headers=headers, request=REQUEST)
    return OPENAI._make_status_error_from_response(response)


def from_openai_mapped(status: int, body: object, headers: dict[str, str]) -> Exception:
    return auriko_errors.map_openai_error(from_openai(status, body, headers))


def from_bridge(status: int, body: object, headers: dict[str, str]) -> Exception:
    response = httpx2.Response(status, json=body, headers=headers, request=REQUEST)
    client = AurikoAsyncOpenAI(api_key="k")
    return client._make_status_error_from_response(response)


MAKERS: list[Maker] = [from_auriko, from_openai, from_openai_mapped, from_bridge]
makers = pytest.mark.parametrize("make", MAKERS)


def meaning(advice: str) -> tuple[Advice, int | None]:
    return (Advice.RETRY, 1) if advice == "retry_once" else (Advice(advice), None)


@makers
@pytest.mark.parametrize(("code", "status", "type", "kind", "advice"), ROWS, ids=ROW_IDS)
def test_every_code_of_auriko(
    make: Maker, code: str, status: str, type: str, kind: str, advice: str
) -> None:
    """A code means the same through Auriko's SDK, OpenAI's, and both bridges between them."""
    number = int(status) or 200
    error = make(number, envelope(code, type, "acme"), {"X-Request-Id": "r1"})

    failure = describe(error)

    expected, limit = meaning(advice)
    assert (failure.kind, failure.advice) == (Kind(kind), expected)
    assert failure.retry_limit == limit
    assert (failure.status, failure.code, failure.type) == (number, code, type)
    assert (failure.request_id, failure.provider) == ("r1", "acme")
    assert failure.sdk == ("openai" if make is from_openai else "auriko")
    assert failure.error is error
    refused = kind in REFUSED_KINDS or code in REFUSED_CODES
    assert failure.sent is (True if number == 200 else False if refused else None)


@pytest.mark.parametrize("code", CODE_TO_STATUS)
def test_codes_made_by_the_sdk_itself(code: str) -> None:
    """Auriko's own table of codes and ours tell the same status and type."""
    failure = describe(auriko_errors.map_error_from_code(code, "m"))

    assert failure.code == code
    assert (failure.status or 0) == CODE_TO_STATUS[code] == CODES[code].status
    assert failure.type == CODE_TO_ERROR_TYPE[code] == CODES[code].type
    assert failure.kind is CODES[code].kind


def test_the_table_is_complete_and_closed() -> None:
    """`CODES` has the documented codes, with their status and type, and no others."""
    told = {name: (str(each.status), each.type) for name, each in CODES.items()}

    assert told.pop("malformed_response") == ("None", "api_error")
    assert told == {row[0]: row[1:3] for row in ROWS}
    assert CODES["malformed_response"].by_status
    with pytest.raises(TypeError):
        CODES["new"] = CODES["internal_error"]  # type: ignore[index]


STATUSES = {
    **dict.fromkeys([400, 405, 406, 413, 422, 451], (Kind.INVALID, Advice.STOP)),
    401: (Kind.AUTH, Advice.STOP),
    402: (Kind.QUOTA, Advice.STOP),
    403: (Kind.PERMISSION, Advice.STOP),
    404: (Kind.NOT_FOUND, Advice.STOP),
    408: (Kind.TIMEOUT, Advice.RETRY),
    409: (Kind.CONFLICT, Advice.STOP),
    429: (Kind.RATE_LIMIT, Advice.WAIT),
    500: (Kind.SERVER, Advice.RETRY),
    410: (Kind.NOT_FOUND, Advice.STOP),
    501: (Kind.UNSUPPORTED, Advice.STOP),
    505: (Kind.SERVER, Advice.STOP),
    **dict.fromkeys([507, 520, 527, 599], (Kind.SERVER, Advice.RETRY)),
    **dict.fromkeys([521, 523, 530], (Kind.UNAVAILABLE, Advice.RETRY)),
    **dict.fromkeys([522, 524], (Kind.TIMEOUT, Advice.RETRY)),
    **dict.fromkeys([525, 526], (Kind.CONNECTION, Advice.RETRY)),
    502: (Kind.SERVER, Advice.RETRY),
    503: (Kind.UNAVAILABLE, Advice.WAIT),
    504: (Kind.TIMEOUT, Advice.RETRY),
    529: (Kind.OVERLOADED, Advice.WAIT),
    304: (Kind.UNKNOWN, Advice.STOP),
}


def from_httpx(status: int, body: object, headers: dict[str, str]) -> Exception:
    request = httpx.Request("POST", URL)
    response = httpx.Response(status, stream=httpx.ByteStream(b""), headers=headers)
    return httpx.HTTPStatusError("m", request=request, response=response)


def from_httpx2(status: int, body: object, headers: dict[str, str]) -> Exception:
    response = httpx2.Response(status, stream=httpx2.ByteStream(b""), headers=headers)
    return httpx2.HTTPStatusError("m", request=REQUEST, response=response)


@pytest.mark.fault(54)
@pytest.mark.parametrize("make", [*MAKERS, from_httpx, from_httpx2])
@pytest.mark.parametrize("body", ["<html>502</html>", {}, {"error": "x"}, {"error": {}}], ids=repr)
@pytest.mark.parametrize("status", STATUSES)
def test_by_status_alone(make: Maker, body: object, status: int) -> None:
    """A body that says nothing, as proxies send, leaves the status to decide."""
    failure = describe(make(status, body, {}))

    expected = STATUSES[status]
    if status == 409 and make is from_openai:  # as that SDK does itself
        expected = (Kind.CONFLICT, Advice.RETRY)
    if status in (404, 410, 501) and make is not from_openai and make in MAKERS:
        expected = (expected[0], Advice.FALLBACK)  # of Auriko's, it is the model
    assert (failure.kind, failure.advice) == expected
    assert failure.status == status
    assert failure.retry_limit is None
    assert failure.sent is (False if status == 429 else None)


@pytest.mark.fault(237)
@pytest.mark.parametrize("make", [from_auriko, from_openai])
@pytest.mark.parametrize(
    ("type", "status", "kind", "advice"),
    [
        ("rate_limit_error", 400, Kind.RATE_LIMIT, Advice.WAIT),
        ("rate_limit_error", 503, Kind.RATE_LIMIT, Advice.WAIT),
        ("authentication_error", 500, Kind.AUTH, Advice.STOP),
        ("permission_error", 429, Kind.PERMISSION, Advice.STOP),
        ("not_found_error", 400, Kind.NOT_FOUND, Advice.FALLBACK),
        ("invalid_request_error", 400, Kind.INVALID, Advice.STOP),
        ("invalid_request_error", 403, Kind.PERMISSION, Advice.STOP),
        ("invalid_request_error", 409, Kind.CONFLICT, Advice.STOP),
        ("invalid_request_error", 402, Kind.QUOTA, Advice.STOP),
        ("invalid_request_error", 429, Kind.RATE_LIMIT, Advice.WAIT),
        ("invalid_request_error", 500, Kind.SERVER, Advice.RETRY),
        ("api_error", 503, Kind.UNAVAILABLE, Advice.WAIT),
        ("api_error", 504, Kind.TIMEOUT, Advice.RETRY),
        ("api_error", 400, Kind.SERVER, Advice.RETRY),
        ("api_error", 401, Kind.AUTH, Advice.STOP),
        ("api_error", 429, Kind.RATE_LIMIT, Advice.WAIT),
        ("api_error", 505, Kind.SERVER, Advice.STOP),
    ],
)
def test_an_unknown_code_leaves_the_type(
    make: Maker, type: str, status: int, kind: Kind, advice: Advice
) -> None:
    """Where the code is new, the type decides before the status does, unless it is generic."""
    failure = describe(make(status, envelope("brand_new", type), {}))

    if status == 409 and make is from_openai:  # as that SDK does itself
        advice = Advice.RETRY
    assert (failure.kind, failure.advice, failure.code) == (kind, advice, "brand_new")


@pytest.mark.parametrize(
    ("type", "status", "kind", "advice"),
    [
        ("overloaded_error", 500, Kind.OVERLOADED, Advice.WAIT),
        ("insufficient_quota", 429, Kind.QUOTA, Advice.STOP),
        ("server_error", 503, Kind.UNAVAILABLE, Advice.WAIT),
        ("server_error", 400, Kind.SERVER, Advice.RETRY),
        ("no_such_type", 500, Kind.SERVER, Advice.RETRY),
    ],
)
def test_types_of_others(type: str, status: int, kind: Kind, advice: Advice) -> None:
    """Types that Auriko does not send, behind OpenAI's SDK and without a code."""
    failure = describe(from_openai(status, envelope(None, type), {}))

    assert (failure.kind, failure.advice, failure.type) == (kind, advice, type)


@pytest.mark.fault(55)
@pytest.mark.parametrize(
    ("code", "status", "kind", "advice"),
    [
        ("insufficient_quota", 429, Kind.QUOTA, Advice.STOP),
        ("context_length_exceeded", 400, Kind.CONTEXT_LENGTH, Advice.FALLBACK),
        ("model_not_found", 404, Kind.NOT_FOUND, Advice.FALLBACK),
        ("content_filter", 400, Kind.CONTENT_FILTER, Advice.STOP),
        ("content_policy_violation", 400, Kind.CONTENT_FILTER, Advice.STOP),
        ("invalid_api_key", 401, Kind.AUTH, Advice.STOP),
        ("rate_limit_exceeded", 429, Kind.RATE_LIMIT, Advice.WAIT),
        ("server_error", 500, Kind.SERVER, Advice.RETRY),
    ],
)
def test_codes_of_openai(code: str, status: int, kind: Kind, advice: Advice) -> None:
    """A spent quota and too long a prompt are not retried, whatever their status."""
    failure = describe(from_openai(status, envelope(code, "tokens"), {}))

    assert (failure.kind, failure.advice) == (kind, advice)
    assert failure.retry_limit is None


@pytest.mark.fault(49)
@pytest.mark.parametrize("make", [*MAKERS, from_httpx, from_httpx2])
def test_a_hint_counts_where_it_can(make: Maker) -> None:
    """A wait is kept for what is retried and for 413, 429 and 503; nowhere else."""
    headers = {"Retry-After": "7"}
    kept = {413: 7.0, 429: 7.0, 500: 7.0, 503: 7.0, 504: 7.0}

    for status in (304, 400, 404, 413, 422, 429, 500, 501, 503, 504):
        assert describe(make(status, {}, headers)).retry_after == kept.get(status), status


@pytest.mark.parametrize("make", [*MAKERS, from_httpx, from_httpx2])
def test_the_request_id(make: Maker) -> None:
    """The server's id of the request is at hand for whoever has to ask about it."""
    assert describe(make(500, {}, {"X-Request-ID": "r7"})).request_id == "r7"


@pytest.mark.fault(49)
def test_headers_of_a_begun_stream_are_not_about_its_error() -> None:
    """What status 200 promised, before the error, is no hint."""
    headers = {"Retry-After": "7", "x-should-retry": "false"}
    failure = describe(from_auriko(200, envelope("upstream_error", "api_error"), headers))

    assert failure.retry_after is None
    assert failure.advice is Advice.RETRY
    assert failure.sent is True


@pytest.mark.fault(50)
@pytest.mark.parametrize("make", [*MAKERS, from_httpx, from_httpx2])
def test_the_servers_own_word_wins(make: Maker) -> None:
    """`x-should-retry` overrides the status both ways, and does not touch the kind; what must not
    be repeated may do with another model."""
    yes, no = {"x-should-retry": "true"}, {"x-should-retry": "false"}

    for status, (kind, advice) in STATUSES.items():
        told, forbidden = describe(make(status, {}, yes)), describe(make(status, {}, no))
        bare = describe(make(status, {}, {})).advice
        assert told.kind is forbidden.kind is kind
        assert told.advice is (Advice.WAIT if advice is Advice.WAIT else Advice.RETRY)
        assert forbidden.advice is (Advice.STOP if bare is Advice.STOP else Advice.FALLBACK)
    waiting = describe(make(400, {}, {**yes, "retry-after-ms": "1500", "retry-after": "9"}))
    assert (waiting.advice, waiting.retry_after) == (Advice.WAIT, 1.5)


@pytest.mark.fault(50)
@pytest.mark.parametrize("make", MAKERS)
def test_the_servers_word_and_codes(make: Maker) -> None:
    """The word goes before the code; it forbids a retry, not another model."""
    yes, no = {"x-should-retry": "true"}, {"x-should-retry": "false"}

    def told(code: str, status: int, type: str, headers: dict[str, str]) -> Failure:
        return describe(make(status, envelope(code, type), headers))

    assert told("insufficient_quota", 429, "rate_limit_error", yes).advice is Advice.RETRY
    once = told("upstream_timeout", 504, "api_error", no)
    assert (once.advice, once.retry_limit) == (Advice.FALLBACK, None)
    long = told("context_length_exceeded", 400, "invalid_request_error", no)
    assert long.advice is Advice.FALLBACK


@pytest.mark.fault(51)
def test_responses_that_cannot_be_read() -> None:
    """An error without a response, or with a closed one, is described all the same."""
    error = from_openai(503, {}, {"retry-after": "7"})
    error.response.close()
    assert describe(error).retry_after == 7.0
    error.response = None  # type: ignore[assignment]
    assert describe(error) == Failure(Kind.UNAVAILABLE, Advice.WAIT, status=503, sdk="openai")
    assert describe(from_auriko(503, "", {})).kind is Kind.UNAVAILABLE
    assert describe(_map_error_from_envelope(503, None)).advice is Advice.WAIT


ALL_CLASSES: dict[str, tuple[int, str]] = {
    "BadRequestError": (400, "invalid_request_error"),
    "AuthenticationError": (401, "authentication_error"),
    "PermissionDeniedError": (403, "permission_error"),
    "NotFoundError": (404, "not_found_error"),
    "ConflictError": (409, "invalid_request_error"),
    "RateLimitError": (429, "rate_limit_error"),
    "InternalServerError": (500, "api_error"),
    "APIStatusError": (503, "api_error"),
}


@pytest.mark.parametrize(("name", "facts"), ALL_CLASSES.items())
def test_all_classes_of_auriko(name: str, facts: tuple[int, str]) -> None:
    """Each class that Auriko's SDK raises, subclasses of users included, is read."""
    status, type_ = facts
    error = from_auriko(status, envelope("brand_new", type_), {"Retry-After": "1"})
    assert type(error).__name__ == name

    mine = type("Mine", (type(error), ValueError), {})(
        "m", status_code=status, type=type_, code="brand_new"
    )

    for each in (error, mine):
        failure = describe(each)
        expected = STATUSES[status]
        assert (failure.kind, failure.advice) == (
            (expected[0], Advice.FALLBACK) if status == 404 else expected
        )
        assert failure.sdk == "auriko"


def answering(status: int, **content: Any) -> openai.OpenAI:
    transport = httpx2.MockTransport(lambda request: httpx2.Response(status, **content))
    http = httpx2.Client(transport=transport)
    return openai.OpenAI(api_key="k", base_url=URL, max_retries=0, http_client=http)


def test_an_error_inside_a_stream_of_openai() -> None:
    """An error event has no status; its code and type decide, and the request was executed."""
    for code, type_, kind, advice in (
        ("rate_limit_exceeded", None, Kind.RATE_LIMIT, Advice.WAIT),
        (None, "server_error", Kind.SERVER, Advice.RETRY),
        ("model_unavailable", "api_error", Kind.UNAVAILABLE, Advice.FALLBACK),
        (None, None, Kind.UNKNOWN, Advice.STOP),
    ):
        event = b"data: " + json.dumps(envelope(code, type_)).encode() + b"\n\n"
        client = answering(200, content=event, headers={"content-type": "text/event-stream"})
        stream = client.chat.completions.create(model="m", messages=[], stream=True)
        with pytest.raises(openai.APIError) as caught:
            list(stream)

        failure = describe(caught.value)
        assert type(caught.value) is openai.APIError
        assert (failure.kind, failure.advice) == (kind, advice)
        assert (failure.status, failure.sent) == (None, True)


def test_openai_through_its_client() -> None:
    """The whole way: an answer, the SDK's error, the failure."""
    body = envelope("rate_limit_exceeded", "rate_limit_error", "acme")
    client = answering(429, json=body, headers={"retry-after": "3", "x-request-id": "r9"})
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model="m", messages=[])

    assert describe(caught.value) == Failure(
        Kind.RATE_LIMIT,
        Advice.WAIT,
        status=429,
        code="rate_limit_exceeded",
        type="rate_limit_error",
        retry_after=3.0,
        request_id="r9",
        provider="acme",
        sdk="openai",
        sent=False,
    )


def test_a_body_that_openai_left_wrapped() -> None:
    """Code, type and provider are found in a body that still has its envelope."""
    error = openai.APIError("m", REQUEST, body=envelope("upstream_error", "api_error", "acme"))
    assert (error.code, error.type) == (None, None)

    failure = describe(error)
    assert (failure.code, failure.type, failure.provider) == ("upstream_error", "api_error", "acme")
    assert failure.kind is Kind.SERVER


def test_what_openai_raises_over_a_finished_answer() -> None:
    """A filtered answer is no reason to ask again."""
    failure = describe(openai.ContentFilterFinishReasonError())

    assert (failure.kind, failure.advice, failure.sent) == (Kind.CONTENT_FILTER, Advice.STOP, True)
    assert describe(openai.OpenAIError("no key")) == Failure(
        Kind.UNKNOWN, Advice.STOP, sdk="openai"
    )


def test_a_missing_key() -> None:
    """A key that is missing stops the call before anything is sent."""
    with pytest.raises(auriko.AuthenticationError) as caught:
        auriko.Client(api_key="")
    failure = describe(caught.value)

    assert (failure.kind, failure.advice, failure.sent) == (Kind.AUTH, Advice.STOP, False)
    assert failure.status is None


def test_stream_managers_are_recognised() -> None:
    """The lazy context managers of known SDKs are told from all else, by their classes."""
    for lazy in (
        ChatCompletionStreamManager,
        AsyncChatCompletionStreamManager,
        openai._response.ResponseContextManager,
        openai._response.AsyncResponseContextManager,
        type("Mine", (ChatCompletionStreamManager,), {}),
        type(answering(200).realtime.connect(model="m")),
    ):
        assert is_manager(object.__new__(lazy))
    assert type(answering(200).chat.completions.stream(model="m", messages=[])).__name__ in (
        "ChatCompletionStreamManager",
    )
    for other in (openai.Stream, openai.OpenAI, type("MyStreamManager", (), {}), dict, int):
        assert not is_manager(object() if other is int else other.__new__(other))


@pytest.mark.real
def test_no_client_library_is_imported() -> None:
    """Reading errors loads no SDK, and a client's family is loaded when its error is seen.

    The standard library's reader is there from the start, as a first failure may meet a fork.
    """
    program = """
import sys
from resilience.failures import describe
from resilience.sdks import reader_for
clients = {f"resilience.sdks.{family}" for family in ("auriko", "openai", "httpx")}
assert not clients & set(sys.modules)
describe(KeyError())
assert not clients & set(sys.modules)
for package in ("auriko", "openai", "httpx", "httpx2", "httpcore"):
    describe(type("Error", (Exception,), {"__module__": package})())
assert "resilience.sdks.openai" in sys.modules
print(sorted({"auriko", "openai", "httpx", "httpx2", "httpcore"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-bb", "-c", program],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.stdout, done.stderr) == ("[]\n", "")
