"""OpenAI's envelopes, fetched with the standard library."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from .faults import PROXY_PAGE, patience
from .openai import ASK, error, stream

__all__ = ["CUT", "PACKAGE", "SHAPE", "error", "fail", "stream"]

PACKAGE = "urllib"
SHAPE = PROXY_PAGE
CUT = True


def fail(url: str, *, streaming: bool) -> Any:
    """Make a call, and read its answer to the end; what it gives, if it does not raise."""
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"{url}/v1", json.dumps(ASK).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=patience(url)) as answer:
            return answer.read()
    except urllib.error.HTTPError as raised:
        raised.close()
        raise
