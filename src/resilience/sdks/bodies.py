"""Status errors of plain HTTP clients: whoever answered, as far as the body was read already.

`{"error": {"code": ..., "type": ...}}` is what OpenAI, Auriko, Anthropic and everyone compatible
send, so the codes of the first two are believed from there. Google's has a status and details.
"""

from __future__ import annotations

from resilience.failures import Failure
from resilience.sdks.evidence import Evidence, json_object, mapping, peek
from resilience.sdks.google_rpc import overheard
from resilience.sdks.headers import pick
from resilience.sdks.openai import CODES
from resilience.sdks.verdict import Dialect, judge

__all__ = ["answered"]

_DIALECT = Dialect(CODES)


def answered(error: Exception, sdk: str, response: object, content: object) -> Failure:
    """The failure of a `response` with `status_code` and `headers`; `content` is its body, or
    anything else where that was not read."""
    headers = peek(response, "headers")
    said = pick(headers)
    told = mapping(json_object(content).get("error"))
    evidence = Evidence(
        error,
        sdk,
        status=peek(response, "status_code"),
        code=told.get("code"),
        type=told.get("type"),
        headers=headers,
        request_id=said.get("x-request-id") or said.get("request-id"),
        provider=told.get("provider"),
    )
    return judge(evidence, overheard(evidence, told) or _DIALECT)
