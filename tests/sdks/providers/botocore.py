"""Amazon Bedrock's envelopes, and botocore's client for it."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

from .faults import patience

__all__ = ["ASK", "PACKAGE", "SHAPE", "error", "event", "fail", "headers", "options", "stream"]

PACKAGE = "botocore"
_ERRORS = {
    "rate_limit": "ThrottlingException",
    "quota": "ServiceQuotaExceededException",
    "server": "InternalServerException",
    "unavailable": "ServiceUnavailableException",
    "invalid": "ValidationException",
    "context_length": "ValidationException",
    "content_filter": "ValidationException",
    "auth": "UnrecognizedClientException",
    "permission": "AccessDeniedException",
    "model": "ResourceNotFoundException",
    "request_timeout": "ModelTimeoutException",
    "conflict": "ConflictException",
}
"""The others come from in front of the service, without a code."""
SHAPE = {"hello": "world"}
ASK: dict[str, Any] = {
    "modelId": "anthropic.claude-3-haiku",
    "messages": [{"role": "user", "content": [{"text": "Hi"}]}],
}


def error(kind: str, status: int) -> object:
    return {"message": f"It is {kind}."}


def headers(kind: str) -> dict[str, str]:
    code = _ERRORS.get(kind)
    place = "http://internal.amazon.com/coral/com.amazon.bedrock/"
    return {} if code is None else {"x-amzn-errortype": f"{code}:{place}"}


def stream() -> tuple[dict[str, str], bytes]:
    told = [
        event("event", "messageStart", {"role": "assistant"}),
        event("event", "contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hel"}}),
        event("exception", "modelStreamErrorException", {"message": "It is the model."}),
    ]
    return {"content-type": "application/vnd.amazon.eventstream"}, b"".join(told)


def event(message: str, name: str, payload: object) -> bytes:
    """One message in AWS's framing: lengths, headers and payload, each part with a checksum."""
    named = {
        ":message-type": message,
        f":{message}-type": name,
        ":content-type": "application/json",
    }
    head = b"".join(
        struct.pack("!B", len(key)) + key.encode() + struct.pack("!BH", 7, len(value)) + value
        for key, value in ((key, value.encode()) for key, value in named.items())
    )
    body = json.dumps(payload).encode()
    prelude = struct.pack("!II", 16 + len(head) + len(body), len(head))
    told = prelude + struct.pack("!I", zlib.crc32(prelude)) + head + body
    return told + struct.pack("!I", zlib.crc32(told))


def options(url: str, config: Any) -> dict[str, Any]:
    """A client's options, with a configuration of that class."""
    return {
        "service_name": "bedrock-runtime",
        "region_name": "us-east-1",
        "endpoint_url": url,
        "aws_access_key_id": "none",
        "aws_secret_access_key": "none",
        "config": config(
            retries={"total_max_attempts": 1},
            connect_timeout=patience(url),
            read_timeout=patience(url),
        ),
    }


def fail(url: str, *, streaming: bool) -> Any:
    """Make a call, and read its stream to the end; what it gives, if it does not raise."""
    from botocore.config import Config
    from botocore.session import get_session

    client: Any = get_session().create_client(**options(url, Config))
    try:
        if streaming:
            return list(client.converse_stream(**ASK)["stream"])
        return client.converse(**ASK)
    finally:
        client.close()
