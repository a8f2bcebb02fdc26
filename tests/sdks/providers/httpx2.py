"""The same with httpx2, whose errors are no httpx errors."""

from __future__ import annotations

from functools import partial

from . import httpx
from .httpx import CUT, SHAPE, error, stream

__all__ = ["CUT", "PACKAGE", "SHAPE", "error", "fail", "fail_async", "stream"]

PACKAGE = "httpx2"
fail = partial(httpx.fail, package=PACKAGE)
fail_async = partial(httpx.fail_async, package=PACKAGE)
