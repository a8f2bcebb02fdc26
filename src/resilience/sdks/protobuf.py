"""As much of protobuf's wire format as it takes to find a RetryInfo in a google.rpc.Status."""

from __future__ import annotations

from collections.abc import Iterator

from resilience.sdks.values import number

__all__ = ["retry_delay"]

_LONGEST = 1 << 16
"""Bytes. gRPC's metadata has 8 KiB by default."""

_DETAILS = 3
_TYPE_URL, _VALUE = 1, 2
_RETRY_DELAY = 1
_SECONDS, _NANOS = 1, 2


def retry_delay(status: object) -> float | None:
    """Seconds that a serialized `google.rpc.Status` asks to wait; None for anything else."""
    if type(status) is not bytes or len(status) > _LONGEST:
        return None
    try:
        for name, detail in _fields(status):
            if name != _DETAILS or not isinstance(detail, bytes):
                continue
            packed = dict(_fields(detail))
            url, value = packed.get(_TYPE_URL), packed.get(_VALUE)
            if isinstance(url, bytes) and url.endswith(b"/google.rpc.RetryInfo"):
                return _duration(dict(_fields(value)).get(_RETRY_DELAY))
    except (IndexError, TypeError, ValueError):
        pass  # it is no such message
    return None


def _duration(message: int | bytes | None) -> float | None:
    fields = dict(_fields(message))
    seconds, nanos = fields.get(_SECONDS, 0), fields.get(_NANOS, 0)
    if isinstance(seconds, bytes) or isinstance(nanos, bytes) or nanos >= 1_000_000_000:
        return None
    # A negative number is one of two to the power of 63 and more here, so it fits nowhere.
    return number(seconds + nanos / 1e9)


def _fields(message: int | bytes | None) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field; an error of several kinds if it is no message."""
    if not isinstance(message, bytes):
        raise TypeError(message)
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        size = {1: 8, 5: 4}.get(kind)
        if size is None:
            if kind != 2:
                raise ValueError(kind)
            size, at = _varint(message, at)
        if size > len(message) - at:
            raise ValueError(size)
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError(at)
