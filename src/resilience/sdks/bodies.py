"""What a JSON body says, in whatever shape: codes belong to the format, not to who carried it.

| shape | format |
|---|---|
| `error.code`, `error.type` | openai: everybody's who is compatible, Anthropic's too |
| `error.code` is the status, the rest is in `error.metadata` and `availability` | openrouter |
| `error.status` and `error.details`, `error.errors[0].reason` | google |
| `errors[0].code`, `errors[0].extensions.code` | listed |
| `base_resp.status_code` | minimax |
| `__type` | aws |
| `code`, `error_code`, `type` and the like at the top, or in `detail`; the first of a list | flat |
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from resilience.failures import Advice, Failure, Kind
from resilience.sdks import google_rpc
from resilience.sdks.codes import table
from resilience.sdks.evidence import (
    Evidence,
    error_in,
    json_object,
    json_value,
    mapping,
    peek,
    text,
    unlisted,
    word,
)
from resilience.sdks.evidence import status as to_status
from resilience.sdks.headers import pick
from resilience.sdks.resets import reset_in
from resilience.sdks.values import number
from resilience.sdks.verdict import STATUSES, Code, Dialect, Meaning, judge

__all__ = ["SDK_STATUSES", "dialect", "read_body", "read_response", "settles"]

SDK_STATUSES: Mapping[int, Meaning] = {
    **STATUSES,
    409: Meaning(Kind.CONFLICT, Advice.RETRY),  # as they do themselves
}
"""Of the SDKs that Stainless generates, and others."""

_EVERYBODY = ("any", "auriko", "anthropic")
_FORMATS = {
    "openai": (*_EVERYBODY, "zhipu", "openai"),
    "unwrapped": ("flat", *_EVERYBODY, "zhipu", "openai"),
    "openrouter": (*_EVERYBODY, "openai", "openrouter"),
    "flat": (*_EVERYBODY, "openai", "flat", "rest"),
}
"""The tables of a shape, the last first; where it is not named here, the one of its name."""

_CODES = ("code", "error_code", "err_code", "errorCode")
_TYPES = ("type", "error_type", "errorType", "reason")
_USUAL = frozenset(
    {"error", "message", "type", "param", "code", "provider", "doc_url", "request_id"}
)
"""What OpenAI's, Anthropic's and Auriko's errors have, and nothing to look further for."""
_INNER = frozenset({"metadata", "availability", "innererror", "inner_error", "details"})
"""Where more may be said."""
_OUTER = frozenset({"__type", "base_resp", "errors", "detail"})
"""Where an error without an envelope may be."""
_LONG = 3600.0
"""Seconds. A limit that lasts longer is a quota."""


@lru_cache(16)
def dialect(shape: str) -> Dialect:
    """What words and statuses mean in a body of that shape."""
    return Dialect(table(*_FORMATS.get(shape, (shape,)), "status"))


def read_response(error: Exception, sdk: str | None, response: object, content: object) -> Failure:
    """The failure of a `response` with `status_code` and `headers`; `content` is its body, or
    anything else where that was not read."""
    status, headers = peek(response, "status_code"), peek(response, "headers")
    evidence = Evidence(error, sdk, status, headers=headers)
    return judge(evidence, read_body(evidence, json_value(content)))


def read_body(evidence: Evidence, body: object, unwrapped: bool = False) -> Dialect:
    """Take into `evidence` what a body says, in the places that its client left empty; the dialect
    to judge it in.

    `unwrapped`: it may be what was under `error`, as OpenAI's SDK has it.
    """
    usual = dialect("unwrapped" if unwrapped else "openai")
    evidence.body = body
    if settles(evidence.code, usual):  # as most do
        return usual
    outer: Any = body
    if type(body) is not dict:
        outer = mapping(unlisted(body))
    fields = outer.get("error")
    if type(fields) is not dict or not fields:
        fields = outer if unwrapped else {}
    if fields and _USUAL.issuperset(fields):
        if _USUAL.issuperset(outer):
            evidence.body = None
        _take_usual(evidence, fields)
        return usual
    return _unusual(evidence, outer, unwrapped and outer is body)


def settles(code: object, within: Dialect) -> bool:
    """Is it a code that leaves nothing to look for?"""
    known = within.codes.get(code) if type(code) is str else None
    return type(known) is Code and not known.by_status


def _unusual(evidence: Evidence, outer: Mapping[str, Any], unwrapped: bool) -> Dialect:
    fields, shape = mapping(outer.get("error")), "openai"
    if not fields and unwrapped and (googles := google_rpc.read_foreign(evidence, outer)):
        evidence.status = evidence.status or to_status(outer.get("code"))
        return googles
    if not fields:
        fields, shape = _unenveloped(outer)
        if shape == "flat" and unwrapped and outer.get("object") != "error":
            shape = "unwrapped"
    found = dialect(shape)
    (_take_usual if shape == "openai" else _take)(evidence, fields)
    alone = text(outer.get("error"))
    if evidence.code is None and alone in found.codes:  # as Slack's; most are sentences
        evidence.code = alone
    if not _INNER.isdisjoint(fields):
        _take_inner(evidence, fields, found)
        if shape != "flat" and (routed := _take_routing(evidence, fields)):
            return routed
    return google_rpc.read_foreign(evidence, fields) or found


def _unenveloped(outer: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """Where an error without an envelope is, and in which format."""
    if _OUTER.isdisjoint(outer):
        return outer, "flat"
    if "__type" in outer:
        return {"code": (text(outer["__type"]) or "").rpartition("#")[2]}, "aws"
    code = mapping(outer.get("base_resp")).get("status_code")
    if code:
        return {"code": code}, "minimax"
    first = mapping(unlisted(outer.get("errors")))
    if first:
        return {**mapping(first.get("extensions")), **first}, "listed"
    detail = mapping(outer.get("detail"))
    if detail:
        return {"code": detail.get("status"), **detail}, "flat"
    complaint = mapping(unlisted(outer.get("detail")))  # the first of a validator's
    if complaint:
        return {"code": complaint.get("type")}, "flat"
    return outer, "flat"


def _take_usual(evidence: Evidence, fields: Mapping[str, Any]) -> None:
    """Code and type, and a status that stands in the place of a code."""
    if evidence.type is None:
        evidence.type = fields.get("type")
    if evidence.provider is None:
        evidence.provider = fields.get("provider")
    code = fields.get("code") if evidence.code is None else evidence.code
    if code is not None:
        code = word(code)
        status = to_status(number(code))
        evidence.code = code if status is None else str(status)
        evidence.status = evidence.status or status  # an event in a stream has no other


def _take(evidence: Evidence, fields: Mapping[str, Any]) -> None:
    """The same, by all the names that they have."""
    for name in _CODES:
        if evidence.code is None and name in fields:
            evidence.code = word(fields[name])
    for name in _TYPES:
        if evidence.type is None and name in fields:
            evidence.type = word(fields[name])
    _take_usual(evidence, fields)
    if evidence.status is None:
        evidence.status = to_status(fields.get("raw_status_code", fields.get("status")))


def _take_inner(evidence: Evidence, fields: Mapping[str, Any], within: Dialect) -> None:
    """A finer code that is further in: Azure's, Anthropic's, what a provider told OpenRouter."""
    raw = error_in(json_object(mapping(fields.get("metadata")).get("raw")))
    inner = mapping(fields.get("innererror") or fields.get("inner_error"))
    finer = mapping(fields.get("details")).get("error_code")
    for each in (inner.get("code"), finer, raw.get("code")):
        if text(each) in within.codes:
            evidence.code = each


def _take_routing(evidence: Evidence, fields: Mapping[str, Any]) -> Dialect | None:
    """OpenRouter has its codes beside the code, and says in the body whether to try again; the
    dialect to judge it in, where it is one of these."""
    more, availability = mapping(fields.get("metadata")), mapping(fields.get("availability"))
    if not more and not availability:
        return None
    routed = dialect("openrouter")
    evidence.provider = evidence.provider or more.get("provider_name")
    for each in (availability.get("code"), more.get("limit_source"), more.get("error_type")):
        code = text(each)
        if code in routed.codes:
            evidence.code = code
            break
    retryable = availability.get("retryable")
    evidence.retry = retryable if isinstance(retryable, bool) else None
    evidence.wait = number(availability.get("retry_after"))
    if evidence.status == 403 and more.get("reasons"):
        evidence.code = "refusal"  # by its moderation
    if evidence.wait is None and evidence.status == 429 and (hints := pick(more.get("headers"))):
        evidence.wait = hints.wait or reset_in(hints, hints.now)
        if evidence.wait is not None and evidence.wait > _LONG:
            evidence.wait, evidence.statuses = None, _OUT_FOR_LONG
    return routed


_OUT_FOR_LONG = {429: Meaning(Kind.QUOTA, Advice.FALLBACK, sent=False)}
"""A free model's requests of the day are used up."""
