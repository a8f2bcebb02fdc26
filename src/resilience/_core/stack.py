"""Where in the user's code a warning belongs."""

from __future__ import annotations

import sys

__all__ = ["outside"]


def outside() -> int:
    """The stack level, for a warning made by the caller, of the first frame that is not ours."""
    level, frame = 1, sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith("resilience."):
        level, frame = level + 1, frame.f_back  # type: ignore[assignment]
    return level
