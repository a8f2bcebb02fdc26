"""LangChain's model of Amazon Bedrock."""

from __future__ import annotations

from typing import Any

from .botocore import ASK, SHAPE, error, headers, options, stream

__all__ = ["PACKAGE", "SHAPE", "error", "fail", "headers", "stream"]

PACKAGE = "langchain_aws"


def fail(url: str, *, streaming: bool) -> Any:
    """Make a call, and read its stream to the end; what it gives, if it does not raise."""
    from botocore.config import Config
    from botocore.session import get_session
    from langchain_aws import ChatBedrockConverse

    client: Any = get_session().create_client(**options(url, Config))
    try:
        made: Any = {"client": client, "bedrock_client": client, "model": ASK["modelId"]}
        model = ChatBedrockConverse(**made)
        return list(model.stream("Hi")) if streaming else model.invoke("Hi")
    finally:
        client.close()
