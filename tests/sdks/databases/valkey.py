"""valkey-py, sync and async."""

from __future__ import annotations

import valkey
import valkey.asyncio
import valkey.sentinel

from .resp import resp_faults, serving

__all__ = ["FAULTS", "PACKAGE", "serving"]

PACKAGE = "valkey"
FAULTS = resp_faults(valkey)
