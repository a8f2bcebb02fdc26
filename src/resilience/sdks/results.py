"""Results that are errors: responses that a client returned though their status is 400 or more,
error bodies that came with a 200, answers without choices."""

from __future__ import annotations

from typing import Any, cast

from attrs import evolve

from resilience.checks import error_body, no_choices
from resilience.failures import Advice, Failure, Kind
from resilience.sdks import package_of
from resilience.sdks.bodies import read_body
from resilience.sdks.evidence import Evidence, error_in, json_value, mapping, peek, text
from resilience.sdks.evidence import status as to_status
from resilience.sdks.verdict import judge

__all__ = ["read"]

_RESPONSES = {
    "aiohttp": "ClientResponse",
    "http": "HTTPResponse",  # the standard library's, which has no name as an SDK
    "httpx": "Response",
    "httpx2": "Response",
    "requests": "Response",
    "urllib3": "BaseHTTPResponse",
}
"""Top-level package of a client -> the class of its responses."""

_NAMES = ("code", "type", "status", "metadata", "provider", "availability")
"""What an SDK's model of an error may have."""

_NO_ANSWER = Failure(Kind.SERVER, Advice.RETRY, retry_limit=1, sent=True)


def read(result: object) -> Failure | None:
    """What a result means that is an error; None for any other."""
    for base in type(result).__mro__:
        package = base.__module__.partition(".")[0]
        if _RESPONSES.get(package) == base.__name__:
            return _answered(result, None if package == "http" else package)
    sdk = package_of(type(result))
    if error_body(result):
        body = result if type(result) is dict else {"error": _fields(peek(result, "error"))}
        return _judged(Evidence(cast(Any, None), sdk, model_call=sdk is not None), body)
    if no_choices(result) and (sdk is not None or _has_choices(result)):
        return evolve(_NO_ANSWER, sdk=sdk)
    return None


def _answered(response: object, sdk: str | None) -> Failure | None:
    code = peek(response, "status_code")
    status = to_status(peek(response, "status") if code is None else code)
    content = peek(response, "_content" if code is not None else "_body")
    evidence = Evidence(cast(Any, response), sdk)  # it shows its request, as an error does
    if status is None or status < 400:
        if type(content) is not bytes or b'"error"' not in content:
            return None
        body = json_value(content)
        return _judged(evidence, body) if error_body(body) else None
    evidence.status, evidence.headers = status, peek(response, "headers")
    return _judged(evidence, json_value(content))


def _judged(evidence: Evidence, body: object) -> Failure:
    evidence.provider = error_in(body).get("provider")
    failure = evolve(judge(evidence, read_body(evidence, body)), error=None)
    if failure.kind is Kind.UNKNOWN and failure.advice is Advice.STOP:
        return evolve(failure, advice=Advice.RETRY)
    return failure


def _fields(error: object) -> object:
    if text(error) is not None or mapping(error):
        return error
    return {name: value for name in _NAMES if (value := peek(error, name)) is not None}


def _has_choices(result: object) -> bool:
    if type(result) is dict:
        return "choices" in result or "candidates" in result
    return hasattr(result, "choices") or hasattr(result, "candidates")
