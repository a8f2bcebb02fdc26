"""S3's envelopes, and what boto3 makes of botocore's errors when it uploads or downloads a file."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from attrs import evolve

from . import server
from .faults import Fault, patience

__all__ = ["PACKAGE", "SHAPE", "Server", "error", "fail", "stream"]

PACKAGE = "boto3"
SHAPE = b"<html>Welcome to the hotel</html>"
_CODES = {
    "rate_limit": "SlowDown",
    "quota": "TooManyBuckets",
    "server": "InternalError",
    "unavailable": "ServiceUnavailable",
    "invalid": "InvalidArgument",
    "context_length": "EntityTooLarge",
    "auth": "InvalidAccessKeyId",
    "permission": "AccessDenied",
    "model": "NoSuchBucket",
    "request_timeout": "RequestTimeout",
    "conflict": "OperationAborted",
}


class Server(server.Server):
    """It speaks XML."""

    def fail(self, handler: Any, fault: Fault) -> None:
        if handler.command == "HEAD":
            handler.close_connection = True
            handler.send(200, {"etag": '"1"'}, b"", cut=True)
        elif fault.kind and fault.body is None:
            super().fail(handler, evolve(fault, body=error(fault.kind, fault.status)))
        else:
            super().fail(handler, fault)


def error(kind: str, status: int) -> bytes:
    code = _CODES.get(kind, "UnexpectedContent")
    told = f"<Code>{code}</Code><Message>It is {kind}.</Message><RequestId>req_1</RequestId>"
    return f'<?xml version="1.0" encoding="UTF-8"?><Error>{told}</Error>'.encode()


def stream() -> tuple[dict[str, str], bytes]:
    return {"content-type": "binary/octet-stream", "etag": '"1"'}, b""


CUT = True


@lru_cache
def _session() -> Any:
    """It reads S3's description but once."""
    import boto3

    return boto3.Session("none", "none", region_name="us-east-1")


def fail(url: str, *, streaming: bool) -> Any:
    """Upload a file, or download one; what that gives, if it does not raise."""
    from boto3.s3.transfer import TransferConfig
    from botocore.config import Config

    once = Config(
        retries={"total_max_attempts": 1},
        connect_timeout=patience(url),
        read_timeout=patience(url),
        s3={"addressing_style": "path"},
    )
    client: Any = _session().client("s3", endpoint_url=url, config=once)
    plain = TransferConfig(use_threads=False, num_download_attempts=1)
    try:
        if streaming:
            return client.download_fileobj("bucket", "key", BytesIO(), Config=plain)
        with TemporaryDirectory() as folder:
            path = Path(folder, "file")
            path.write_text("Hi")
            return client.upload_file(str(path), "bucket", "key", Config=plain)
    finally:
        client.close()
