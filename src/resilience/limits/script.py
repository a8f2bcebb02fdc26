"""The script that runs in the server, and how it is run."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

__all__ = ["FOREIGN", "evaluate", "micro"]

FOREIGN = "foreign"
"""The reply where somebody else's data lie under the key."""

SCRIPT = files("resilience.limits").joinpath("script.lua").read_text("utf-8")
_DIGEST = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
_LONGEST = 30 * 86400.0


async def evaluate(client: Any, key: str, arguments: Sequence[Any]) -> list[str]:
    """Run the script on what lies under `key`, by a sync client or an asyncio one."""
    keys = (2, key, f"{key}:p")
    try:
        raw = client.evalsha(_DIGEST, *keys, *arguments)
        if inspect.isawaitable(raw):
            raw = await raw
    except Exception as error:
        if type(error).__name__ != "NoScriptError":  # redis-py itself need not be imported for it
            raise
        raw = client.eval(SCRIPT, *keys, *arguments)
        if inspect.isawaitable(raw):
            raw = await raw
    if not isinstance(raw, (list, tuple)) or not raw:
        raise ValueError("the server's reply is not that of our script")
    return [part.decode() if isinstance(part, bytes) else str(part) for part in raw]


def micro(seconds: float) -> str:
    """Microseconds, for the script."""
    return f"{min(max(-_LONGEST, seconds), _LONGEST) * 1e6:.3f}"
