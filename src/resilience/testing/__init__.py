"""For tests of code that uses this library: virtual time, scripts, an off switch, a gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .disabling import disabled
from .scripting import Script, script
from .virtual import VirtualTime, virtual_time

if TYPE_CHECKING:
    from .gateway import Gateway

__all__ = ["Gateway", "Script", "VirtualTime", "disabled", "script", "virtual_time"]


def __getattr__(name: str) -> Any:
    if name == "Gateway":  # needs starlette and uvicorn, which the extra `testing` brings
        from .gateway import Gateway

        return Gateway
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
