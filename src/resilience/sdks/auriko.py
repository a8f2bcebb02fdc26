"""Auriko's SDK, and `CODES`: every error code of its gateway, with what to do about it.

The codes are those of the SDK's registry (1.2), those that the SDK makes up itself, and those
that only the service's documentation names, older pages included.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from attrs import evolve

from resilience.failures import Advice, Failure, Kind
from resilience.sdks.evidence import Evidence, by_class_name, peek
from resilience.sdks.transport import transport
from resilience.sdks.verdict import Code, Dialect, judge

__all__ = ["CODES", "Code", "read"]


def _each(code: Code, names: str) -> dict[str, Code]:
    return dict.fromkeys(names.split(), code)


def _invalid(kind: Kind, advice: Advice, status: int, note: str = "") -> Code:
    return Code(kind, advice, status=status, type="invalid_request_error", note=note)


def _api(
    kind: Kind, advice: Advice, status: int | None, note: str = "", *, limit: int | None = None
) -> Code:
    return Code(kind, advice, status=status, type="api_error", note=note, retry_limit=limit)


_INVALID = _invalid(Kind.INVALID, Advice.STOP, 400)
_LACKS = _invalid(Kind.UNSUPPORTED, Advice.FALLBACK, 400, "the model or its endpoint lacks it")
_ROUTING = _invalid(Kind.UNSUPPORTED, Advice.FALLBACK, 400, "routing leaves this model nobody")
_CONFLICT = _invalid(Kind.CONFLICT, Advice.STOP, 409)
_PAYMENT = _invalid(Kind.QUOTA, Advice.STOP, 400)
_AUTH = Code(Kind.AUTH, Advice.STOP, status=401, type="authentication_error")
_FORBIDDEN = Code(Kind.PERMISSION, Advice.STOP, status=403, type="permission_error")
_LIMITED = Code(Kind.RATE_LIMIT, Advice.WAIT, status=429, type="rate_limit_error")
_SPENT = Code(Kind.QUOTA, Advice.STOP, status=429, type="rate_limit_error")
_NOT_FOUND = Code(Kind.NOT_FOUND, Advice.STOP, status=404, type="not_found_error")
_UNAVAILABLE = _api(Kind.UNAVAILABLE, Advice.WAIT, 503)
_UNROUTED = evolve(_UNAVAILABLE, sent=False, note="no provider was asked")

CODES: Mapping[str, Code] = MappingProxyType(
    {
        # The account's: its keys, rights, money.
        **_each(_AUTH, "invalid_api_key expired_api_key"),
        **_each(_AUTH, "invalid_recovery_code mfa_verification_failed"),
        "missing_api_key": evolve(_AUTH, status=0, note="raised by the SDK, before any request"),
        "provider_auth_error": evolve(_AUTH, note="the caller's own key for a provider"),
        **_each(_FORBIDDEN, "insufficient_permissions feature_disabled mfa_required forbidden"),
        **_each(_PAYMENT, "payment_declined payment_method_invalid"),
        **_each(_SPENT, "budget_exhausted insufficient_quota"),
        "budget_exceeded": evolve(_SPENT, status=402, note="older name of budget_exhausted"),
        # The caller's: a request that is wrong wherever it goes.
        **_each(_INVALID, "invalid_request missing_required_parameter invalid_parameter_value"),
        **_each(_INVALID, "unknown_field unknown_parameter field_immutable operation_not_allowed"),
        "method_not_allowed": evolve(_INVALID, status=405),
        "payload_too_large": evolve(_INVALID, status=413),
        "content_filtered": _invalid(Kind.CONTENT_FILTER, Advice.STOP, 400),
        **_each(_CONFLICT, "idempotency_conflict idempotency_replay_unavailable"),
        **_each(_CONFLICT, "state_precondition_failed duplicate_resource"),
        "resource_not_found": _NOT_FOUND,
        # The model's: another one may do.
        "model_not_found": evolve(_NOT_FOUND, advice=Advice.FALLBACK),
        "context_length_exceeded": _invalid(Kind.CONTEXT_LENGTH, Advice.FALLBACK, 400),
        **_each(_LACKS, "tools_not_supported tools_with_structured_output_not_supported"),
        **_each(_LACKS, "tool_choice_required_not_supported hosted_tool_not_supported"),
        **_each(_LACKS, "json_mode_not_supported structured_output_not_supported"),
        **_each(_LACKS, "vision_not_supported unsupported_modalities"),
        **_each(_LACKS, "reasoning_not_supported thinking_disable_not_supported"),
        **_each(_LACKS, "streaming_not_supported non_streaming_not_supported batch_only"),
        **_each(_LACKS, "tier_opt_in_required no_compatible_endpoint no_responses_endpoint"),
        **_each(_LACKS, "input_requires_responses_endpoint response_api_only"),
        **_each(_LACKS, "no_tools_on_endpoint"),
        **_each(_ROUTING, "cost_constraint_exceeded latency_constraint_exceeded"),
        **_each(_ROUTING, "throughput_constraint_not_met required_params_not_supported"),
        **_each(_ROUTING, "provider_not_in_allowlist provider_blocked"),
        **_each(_ROUTING, "byok_keys_required platform_keys_unavailable"),
        "model_unavailable": _api(Kind.UNAVAILABLE, Advice.FALLBACK, 503),
        "routing_failed": evolve(_UNROUTED, advice=Advice.FALLBACK),
        # The service's: it may pass.
        **_each(_LIMITED, "rate_limit_exceeded"),
        **_each(_LIMITED, "concurrent_requests_exceeded tokens_per_min_exceeded"),
        **_each(_UNROUTED, "no_provider_available no_providers_available"),
        "service_unavailable": _UNAVAILABLE,
        "upstream_error": _api(Kind.SERVER, Advice.RETRY, 502),
        "upstream_timeout": _api(Kind.TIMEOUT, Advice.RETRY, 504, "time is spent", limit=1),
        "internal_error": _api(Kind.SERVER, Advice.RETRY, 500, limit=1),
        "stream_duration_exceeded": _api(Kind.TIMEOUT, Advice.STOP, 0, "only mid-stream"),
        "client_disconnected": _api(Kind.CANCELLED, Advice.STOP, 0, "our own side went away"),
        # Made by the SDK.
        "api_connection_error": _api(Kind.CONNECTION, Advice.RETRY, 0, "no answer"),
        "invalid_response": _api(Kind.SERVER, Advice.RETRY, 200, "no JSON", limit=1),
        "malformed_response": Code(
            Kind.UNKNOWN,
            Advice.STOP,
            type="api_error",
            by_status=True,
            note="no envelope, as from a proxy; any status",
        ),
    }
)

_DIALECT = Dialect(CODES)


def read(error: Exception) -> Failure:
    """Read an `AurikoAPIError`, one that its OpenAI-compatible client raised included."""
    status = peek(error, "status_code")
    if not status and by_class_name(type(error), {"APIConnectionError": True}):
        meaning = transport(peek(error, "__cause__")) or CODES["api_connection_error"]
        return meaning.failure(error, "auriko", code="api_connection_error", type="api_error")
    headers = peek(error, "response_headers")
    raw = peek(headers, "_raw")  # httpx's own inside Auriko's wrapper: faster to read
    evidence = Evidence(
        error,
        "auriko",
        status,
        peek(error, "code"),
        peek(error, "type"),
        headers if raw is None else raw,
        peek(error, "request_id"),
        peek(error, "provider"),
    )
    return judge(evidence, _DIALECT)
