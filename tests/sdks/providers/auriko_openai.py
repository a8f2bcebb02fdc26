"""Auriko's envelopes, and OpenAI's SDK."""

from __future__ import annotations

from .auriko import SHAPE, error, stream
from .openai import PACKAGE, fail, fail_async

__all__ = ["PACKAGE", "SHAPE", "error", "fail", "fail_async", "stream"]
