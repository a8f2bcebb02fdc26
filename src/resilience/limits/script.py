"""The script that runs in the server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from resilience.circuit.redis.script import Script

__all__ = ["FOREIGN", "evaluate", "micro"]

FOREIGN = "foreign"
"""The reply where somebody else's data lie under the key."""

SCRIPT = Script.of("resilience.limits")
_LONGEST = 30 * 86400.0


async def evaluate(client: Any, key: str, arguments: Sequence[Any]) -> list[str]:
    """Ask the limit under `key`."""
    return await SCRIPT.run(client, (key, f"{key}:p"), arguments)


def micro(seconds: float) -> str:
    """Microseconds, for the script."""
    return f"{min(max(-_LONGEST, seconds), _LONGEST) * 1e6:.3f}"
