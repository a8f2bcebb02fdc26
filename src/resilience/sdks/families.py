"""Clients and frameworks that differ from one another by a few names: what is built around an SDK,
and what has a status and little more.

An error is what it was made from, where the framework has kept that; else what its attributes say;
else what its class stands for.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve

from resilience.failures import Advice, Failure, Kind, describe, describe_result
from resilience.sdks import FAMILIES, bodies, package_of, reader_for, stainless, verdict
from resilience.sdks.causes import came_through
from resilience.sdks.evidence import (
    Evidence,
    by_class_name,
    error_in,
    json_value,
    mapping,
    peek,
)
from resilience.sdks.evidence import status as to_status
from resilience.sdks.misread import tripped
from resilience.sdks.values import number
from resilience.sdks.verdict import MISSHAPEN, Code, Dialect, Meaning, judge

__all__ = ["read"]

_BY_THE_MODEL = Meaning(Kind.UNKNOWN, Advice.RETRY, retry_limit=1, sent=True)
"""The service answered, and the framework can do nothing with what the model made of it."""
_BROKE_OFF = Meaning(Kind.SERVER, Advice.RETRY, sent=True)
_CUT_OFF = Meaning(Kind.UNKNOWN, Advice.FALLBACK, sent=True)
"""By the limit on what a model may answer."""
_FILTERED = Meaning(Kind.CONTENT_FILTER, Advice.STOP, sent=True)
_NO_MODEL = Meaning(Kind.NOT_FOUND, Advice.FALLBACK)
_OVERLOADED = Meaning(Kind.OVERLOADED, Advice.WAIT)
_SERVER = Meaning(Kind.SERVER, Advice.RETRY)
_EXHAUSTED = Meaning(Kind.QUOTA, Advice.STOP)
_STOPPED = Meaning(Kind.CANCELLED, Advice.STOP)
_UNSIGNED = Meaning(Kind.AUTH, Advice.STOP)


def _each(meaning: Meaning, names: str) -> Mapping[str, Meaning]:
    return dict.fromkeys(names.split(), meaning)


_CLASSES: Mapping[str, Mapping[str, Meaning]] = {
    "agents": {
        "MCPToolCancellationError": _STOPPED,
        "ModelBehaviorError": _BY_THE_MODEL,
        "ModelRefusalError": _FILTERED,
        "ModelTimeoutError": verdict.TIMED_OUT,
        "UserError": verdict.MISUSED,
    },
    "azure": {
        **_each(MISSHAPEN, "DecodeError DeserializationError"),
        **_each(verdict.MISUSED, "ResponseNotReadError SerializationError StreamClosedError"),
        **_each(verdict.MISUSED, "StreamConsumedError TooManyRedirectsError"),
        "ClientAuthenticationError": _UNSIGNED,  # where no credentials are to be had
        "IncompleteReadError": verdict.CUT_SHORT,
        "ServiceRequestError": verdict.UNREACHED,
        "ServiceRequestTimeoutError": verdict.UNCONNECTED,
        "ServiceResponseError": verdict.LOST,
        "ServiceResponseTimeoutError": verdict.TIMED_OUT,
    },
    "boto3": _each(
        verdict.MISUSED,
        "DynamoDBNeedsConditionError DynamoDBNeedsKeyConditionError InvalidCrtTransferConfigError "
        "DynamoDBOperationNotSupportedError NoVersionFound ResourceLoadException "
        "ResourceNotExistsError UnknownAPIVersionError",
    ),
    "huggingface_hub": {
        **_each(_BROKE_OFF, "GenerationError IncompleteGenerationError UnknownError"),
        **_each(verdict.TIMED_OUT, "InferenceEndpointTimeoutError InferenceTimeoutError"),
        **_each(verdict.MISUSED, "HFValidationError HfUriError OfflineModeIsEnabled"),
        "LocalTokenNotFoundError": _UNSIGNED,
        "OverloadedError": _OVERLOADED,
        "ValidationError": verdict.INVALID,
    },
    "instructor": {
        **_each(_BY_THE_MODEL, "AsyncValidationError InstructorRetryException ValidationError"),
        **_each(verdict.MISUSED, "ClientError ConfigurationError ModeError MultimodalError"),
        "IncompleteOutputException": _CUT_OFF,
        "ProviderError": verdict.MISUSED,
        "ResponseParsingError": _BY_THE_MODEL,
        "TokenBudgetError": _EXHAUSTED,
    },
    "ollama": {"RequestError": verdict.MISUSED, "ResponseError": _BROKE_OFF},
    "pydantic_ai": {
        "ConcurrencyLimitExceeded": verdict.LIMITED,
        "ContentFilterError": _FILTERED,
        "ModelAuthenticationError": _UNSIGNED,
        "ModelConnectionError": verdict.LOST,
        "ModelContextWindowExceededError": Meaning(
            Kind.CONTEXT_LENGTH, Advice.FALLBACK, sent=False
        ),
        "ModelNotFoundError": _NO_MODEL,
        "ModelOverloadedError": _OVERLOADED,
        "ModelQuotaExceededError": _EXHAUSTED,
        "ModelRateLimitError": verdict.LIMITED,
        "ModelRequestRejectedError": verdict.INVALID,
        "ModelRequestTimeout": verdict.TIMED_OUT,
        "ModelServerError": _SERVER,
        "ModelTimeoutError": verdict.TIMED_OUT,
        "ModelUnavailableError": Meaning(Kind.UNAVAILABLE, Advice.WAIT),
        "OutputTokenLimitExceeded": _CUT_OFF,
        "RunCancelled": _STOPPED,
        "RunTimedOut": verdict.TIMED_OUT,
        "SuspendedResponseExpired": Meaning(Kind.NOT_FOUND, Advice.STOP),
        "UnexpectedModelBehavior": _BY_THE_MODEL,
        "UsageLimitExceeded": _EXHAUSTED,
        "UserError": verdict.MISUSED,
    },
    "replicate": {"ModelError": Meaning(Kind.SERVER, Advice.RETRY, retry_limit=1, sent=True)},
}
"""What a class means where nothing else tells."""

_RPC = Dialect(
    {
        "-32000": Code(Kind.CONNECTION, Advice.RETRY),  # closed
        "-32001": Code(Kind.TIMEOUT, Advice.RETRY),
        "-32002": Code(Kind.NOT_FOUND, Advice.STOP, note="a resource"),
        "-32020": Code(Kind.UNSUPPORTED, Advice.STOP),
        "-32021": Code(Kind.UNSUPPORTED, Advice.STOP),
        "-32022": Code(Kind.UNSUPPORTED, Advice.STOP),
        "-32600": Code(Kind.INVALID, Advice.STOP),
        "-32601": Code(Kind.UNSUPPORTED, Advice.STOP),
        "-32602": Code(Kind.INVALID, Advice.STOP),
        "-32603": Code(Kind.SERVER, Advice.RETRY),
        "-32700": Code(Kind.SERVER, Advice.RETRY, retry_limit=1, sent=True),  # no JSON, either way
    }
)
"""JSON-RPC's codes and MCP's."""

_STAINLESS = ("cerebras", "together")
_MODELS_ONLY = ("ollama", "pydantic_ai", "replicate")
"""Those whose errors show no URL that tells: a 404 is about the model."""
_SURER = (Kind.CONTEXT_LENGTH, Kind.OVERLOADED, Kind.QUOTA, Kind.SERVER)
"""What a class says better than a 400; Ollama has one class for all."""
_TRANSPORTS = (None, "aiohttp", "httpx", "httpx2", "requests", "urllib3")
_WRAPPED = ("__cause__", "inner_exception", "last_exception")
_UNSENT = ("connect", "pool")


def read(error: Exception) -> Failure | None:
    """Read an error of any of these by what is under it, by its attributes, and by its class."""
    cls = type(error)
    sdk = package_of(cls)
    if sdk in _STAINLESS:
        return _stainless(error, sdk)
    meaning = by_class_name(cls, _CLASSES.get(str(sdk), {}))
    found = _beneath(error, sdk) or _by_attributes(error, sdk)
    if meaning is not None:
        found = _with_its_class(found, meaning, error, sdk)
    return _of_another_base(error) if found is None else found


def _stainless(error: Exception, sdk: str) -> Failure:
    failure = stainless.read(error, sdk, {})
    begun = peek(peek(error, "response"), "status_code") == 200  # an event in a stream has its own
    return evolve(failure, sent=True) if begun else failure


def _with_its_class(
    found: Failure | None, meaning: Meaning, error: Exception, sdk: str | None
) -> Failure:
    """A class says more than no evidence, and than a status that stands for anything."""
    if found is None or found.kind is Kind.UNKNOWN:
        if meaning is _BY_THE_MODEL:
            found = tripped(error) or describe_result(peek(error, "last_completion"))
            if found is not None:
                return evolve(found, error=error)
        unsent = False if peek(error, "phase") in _UNSENT else meaning.sent
        return evolve(meaning, sent=unsent).failure(error, sdk)
    if found.kind is Kind.INVALID and meaning.kind in _SURER and sdk != "ollama":
        return evolve(found, kind=meaning.kind, advice=meaning.advice, sent=meaning.sent)
    return found


def _beneath(error: Exception, sdk: str | None) -> Failure | None:
    """What an error was made from: said so, kept, or caught by the client itself."""
    wrapped = next(filter(_is_error, (peek(error, name) for name in _WRAPPED)), None)
    if wrapped is None and to_status(peek(error, "status_code")) is None:
        wrapped = _caught(error, sdk)
    if wrapped is None:
        return None
    failure = describe(wrapped)
    return evolve(failure, sdk=sdk if failure.sdk in _TRANSPORTS else failure.sdk, error=error)


def _caught(error: Exception, sdk: str | None) -> Exception | None:
    caught = peek(error, "__context__")
    return caught if _is_error(caught) and came_through(caught, sdk) else None


def _is_error(thing: object) -> bool:
    return issubclass(type(thing), Exception)


def _of_another_base(error: Exception) -> Failure | None:
    """What it is besides: an SDK's own, or Python's."""
    known = (base for base in type(error).__mro__ if _is_read_elsewhere(base))
    return reader_for(next(known))(error)


def _is_read_elsewhere(base: type) -> bool:
    package = base.__module__.partition(".")[0]
    return package == "builtins" or FAMILIES.get(package, "families") != "families"


def _by_attributes(error: Exception, sdk: str | None) -> Failure | None:
    """What its attributes tell: a status, code and type, headers, a body."""
    if sdk == "mcp":
        code = peek(peek(error, "error"), "code")
        # Some servers have HTTP's numbers there.
        return None if code is None else judge(Evidence(error, sdk, code, str(code)), _RPC)
    response, arguments = peek(error, "response"), peek(error, "args")
    if response is None:
        response = peek(_caught(error, sdk), "response")
    body, headers = peek(error, "body"), peek(error, "headers")
    if body is None:
        body = json_value(peek(response, "_content"))
    if body is None and type(arguments) is tuple and arguments:
        body = mapping(arguments[0]) or None  # Hugging Face's, of an event in a stream
    statuses = (peek(error, "status_code"), peek(error, "status"), peek(response, "status_code"))
    if headers is None:
        headers = peek(response, "headers")
    evidence = Evidence(
        error,
        sdk,
        next(filter(None, map(to_status, statuses)), None),
        peek(error, "provider_error_code"),
        peek(error, "provider_error_type"),
        headers,
        provider=error_in(body).get("provider"),
        wait=number(peek(error, "retry_after")),
        model_call=sdk in _MODELS_ONLY,
    )
    dialect = bodies.read_body(evidence, body, unwrapped=True)
    if evidence.status is None and evidence.code is None and evidence.type is None:
        return None
    streaming = evidence.status is None or peek(error, "in_stream") is True
    return judge(evidence, dialect, streaming)
