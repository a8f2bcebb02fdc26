"""botocore, and boto3 on top of it: the codes of AWS, those of Bedrock above all.

A prompt that is too long is a ValidationException like any other mistake: Bedrock tells the two
apart in the message only, and messages are not read.
"""

from __future__ import annotations

from collections.abc import Mapping

from resilience.failures import Failure
from resilience.sdks import package_of, requests, verdict
from resilience.sdks.causes import nearest
from resilience.sdks.codes import load
from resilience.sdks.evidence import Evidence, by_class_name, mapping, peek, text
from resilience.sdks.verdict import MISSHAPEN, Code, Dialect, Meaning, judge

__all__ = ["CODES", "read"]

CODES: Mapping[str, Code] = load("aws")
_DIALECT = Dialect(CODES)

_MODEL_CALLS = frozenset(
    {"Converse", "ConverseStream", "InvokeModel", "InvokeModelWithResponseStream"}
)
"""Operations."""

_CLASSES: Mapping[str, Meaning] = {
    "BaseEndpointResolverError": verdict.MISUSED,
    "ChecksumError": MISSHAPEN,
    "ConnectTimeoutError": verdict.UNCONNECTED,
    "ConnectionClosedError": verdict.LOST,
    "CredentialRetrievalError": verdict.UNSIGNED,
    "DataNotFoundError": verdict.MISUSED,
    "EndpointConnectionError": verdict.UNREACHED,
    "EndpointProviderError": verdict.MISUSED,
    "FlexibleChecksumError": MISSHAPEN,
    "IncompleteReadError": verdict.CUT_SHORT,
    "LoginError": verdict.UNSIGNED,
    "MissingParametersError": verdict.MISUSED,
    "NoAuthTokenError": verdict.UNSIGNED,
    "NoCredentialsError": verdict.UNSIGNED,
    "ParamValidationError": verdict.MISUSED,
    "ParserError": MISSHAPEN,  # of an event stream
    "PartialCredentialsError": verdict.UNSIGNED,
    "ReadTimeoutError": verdict.TIMED_OUT,
    "ResponseParserError": MISSHAPEN,
    "ResponseStreamingError": verdict.CUT_SHORT,
    "SSOError": verdict.UNSIGNED,
    "TokenRetrievalError": verdict.UNSIGNED,
    "ValidationError": verdict.MISUSED,
}
_VAGUE: Mapping[str, Meaning] = {
    "SSLError": verdict.UNREACHED,
    "ConnectionError": verdict.LOST,
    "HTTPClientError": verdict.LOST,
}
"""Those that wrap anything: asked last, after what they wrap."""


def read(error: Exception) -> Failure | None:
    """Read a `ClientError` by its code, an error inside a stream included, or a `BotoCoreError`."""
    if by_class_name(type(error), {"ClientError": True}):
        return _answered(error)
    meaning = nearest(error, _known, _below) or by_class_name(type(error), _VAGUE)
    return None if meaning is None else meaning.failure(error, "botocore")


def _answered(error: Exception) -> Failure:
    response = mapping(peek(error, "response"))
    fields = mapping(response.get("Error"))
    metadata = mapping(response.get("ResponseMetadata"))
    status = metadata.get("HTTPStatusCode")
    headers = metadata.get("HTTPHeaders")
    evidence = Evidence(
        error,
        "botocore",
        status=status,
        code=_code(fields.get("Code"), status),
        type=fields.get("Type"),
        headers=headers,
        # Where the body was none of AWS's, botocore leaves it in the headers.
        request_id=metadata.get("RequestId") or mapping(headers).get("x-amzn-requestid"),
        model_call=text(peek(error, "operation_name")) in _MODEL_CALLS,
    )
    streaming = by_class_name(type(error), {"EventStreamError": True}) is not None
    return judge(evidence, _DIALECT, streaming)


def _code(value: object, status: object) -> str | None:
    code = text(value)
    if code is None or code == str(status):  # botocore's own, where the server sent none
        return None
    # Inside a stream it is the name of a member: throttlingException.
    return code[0].upper() + code[1:]


def _known(error: Exception) -> Meaning | None:
    if package_of(type(error)) == "botocore":
        return by_class_name(type(error), _CLASSES)
    return requests.known(error)


def _below(error: Exception) -> object:
    wrapped = mapping(peek(error, "kwargs")).get("error")
    return requests.below(error) if wrapped is None else wrapped
