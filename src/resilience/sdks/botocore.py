"""botocore, and boto3 on top of it: the codes of AWS, those of Bedrock above all.

A prompt that is too long is a ValidationException like any other mistake: Bedrock tells the two
apart in the message only, and messages are not read.
"""

from __future__ import annotations

from collections.abc import Mapping

from resilience.failures import Advice, Failure, Kind
from resilience.sdks import package_of, requests
from resilience.sdks.causes import nearest
from resilience.sdks.evidence import Evidence, by_class_name, mapping, peek, text
from resilience.sdks.verdict import MISSHAPEN, Code, Dialect, Meaning, judge

__all__ = ["CODES", "read"]

_AUTH = Code(Kind.AUTH, Advice.STOP)
_LIMITED = Code(Kind.RATE_LIMIT, Advice.WAIT)
_DENIED = Code(Kind.PERMISSION, Advice.STOP)
_INVALID = Code(Kind.INVALID, Advice.STOP)
_DEPENDENCY = Code(Kind.INVALID, Advice.STOP, sent=None)
_SERVER = Code(Kind.SERVER, Advice.RETRY)
_UNAVAILABLE = Code(Kind.UNAVAILABLE, Advice.WAIT)
_LATE = Code(Kind.TIMEOUT, Advice.RETRY)


def _each(code: Code, names: str) -> dict[str, Code]:
    return dict.fromkeys(names.split(), code)


CODES: Mapping[str, Code] = {
    **_each(_AUTH, "ExpiredToken ExpiredTokenException IncompleteSignature InvalidAccessKeyId"),
    **_each(_AUTH, "InvalidClientTokenId InvalidSignatureException MissingAuthenticationToken"),
    **_each(_AUTH, "MissingAuthenticationTokenException RequestExpired RequestTimeTooSkewed"),
    **_each(_AUTH, "SignatureDoesNotMatch UnrecognizedClientException AuthFailure"),
    **_each(_DENIED, "AccessDenied AccessDeniedException UnauthorizedOperation OptInRequired"),
    **_each(_INVALID, "ValidationException ValidationError SerializationException"),
    "ConflictException": Code(Kind.CONFLICT, Advice.STOP),  # Bedrock sends it with a 400
    "ResourceNotFoundException": Code(Kind.NOT_FOUND, Advice.FALLBACK),  # Bedrock's: the model
    "ServiceQuotaExceededException": Code(Kind.QUOTA, Advice.STOP),
    # What botocore itself takes for throttling.
    **_each(_LIMITED, "Throttling ThrottlingException ThrottledException RequestThrottled"),
    **_each(_LIMITED, "RequestThrottledException TooManyRequestsException RequestLimitExceeded"),
    **_each(_LIMITED, "ProvisionedThroughputExceededException TransactionInProgressException"),
    **_each(_LIMITED, "BandwidthLimitExceeded LimitExceededException SlowDown"),
    **_each(_LIMITED, "PriorRequestNotComplete EC2ThrottledException"),
    **_each(_SERVER, "InternalError InternalFailure InternalServerError InternalServerException"),
    "BadGatewayException": _SERVER,  # of what an agent of Bedrock's depends on
    # The same, but it is the caller who has to put it right; what else he asked for may be done.
    **_each(_DEPENDENCY, "DependencyFailedException RuntimeClientError"),
    "RetryableConflictException": Code(Kind.CONFLICT, Advice.RETRY),
    # Of the model behind Bedrock, with a 424; the second only inside a stream.
    **_each(_SERVER, "ModelErrorException ModelStreamErrorException"),
    **_each(_UNAVAILABLE, "ServiceUnavailable ServiceUnavailableException"),
    "ModelNotReadyException": Code(Kind.UNAVAILABLE, Advice.WAIT),  # with a 429
    **_each(_LATE, "ModelTimeoutException RequestTimeout RequestTimeoutException"),
}
_DIALECT = Dialect(CODES)

_LOST = Meaning(Kind.CONNECTION, Advice.RETRY)
_CUT_SHORT = Meaning(Kind.CONNECTION, Advice.RETRY, sent=True)
_UNREACHED = Meaning(Kind.CONNECTION, Advice.RETRY, sent=False)
_UNSIGNED = Meaning(Kind.AUTH, Advice.STOP, sent=False)
_MISTAKE = Meaning(Kind.INVALID, Advice.STOP, sent=False)

_CLASSES: Mapping[str, Meaning] = {
    "BaseEndpointResolverError": _MISTAKE,
    "ChecksumError": MISSHAPEN,
    "ConnectTimeoutError": Meaning(Kind.TIMEOUT, Advice.RETRY, sent=False),
    "ConnectionClosedError": _LOST,
    "CredentialRetrievalError": _UNSIGNED,
    "DataNotFoundError": _MISTAKE,
    "EndpointConnectionError": _UNREACHED,
    "EndpointProviderError": _MISTAKE,
    "FlexibleChecksumError": MISSHAPEN,
    "IncompleteReadError": _CUT_SHORT,
    "LoginError": _UNSIGNED,
    "MissingParametersError": _MISTAKE,
    "NoAuthTokenError": _UNSIGNED,
    "NoCredentialsError": _UNSIGNED,
    "ParamValidationError": _MISTAKE,
    "ParserError": MISSHAPEN,  # of an event stream
    "PartialCredentialsError": _UNSIGNED,
    "ReadTimeoutError": Meaning(Kind.TIMEOUT, Advice.RETRY),
    "ResponseParserError": MISSHAPEN,
    "ResponseStreamingError": _CUT_SHORT,
    "SSOError": _UNSIGNED,
    "TokenRetrievalError": _UNSIGNED,
    "ValidationError": _MISTAKE,
}
_VAGUE: Mapping[str, Meaning] = {
    "SSLError": _UNREACHED,
    "ConnectionError": _LOST,
    "HTTPClientError": _LOST,
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
    told = mapping(response.get("Error"))
    metadata = mapping(response.get("ResponseMetadata"))
    status = metadata.get("HTTPStatusCode")
    headers = metadata.get("HTTPHeaders")
    evidence = Evidence(
        error,
        "botocore",
        status=status,
        code=_code(told.get("Code"), status),
        type=told.get("Type"),
        headers=headers,
        # Where the body was none of AWS's, botocore leaves it in the headers.
        request_id=metadata.get("RequestId") or mapping(headers).get("x-amzn-requestid"),
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
