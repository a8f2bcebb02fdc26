"""redis-py, sync and async."""

from __future__ import annotations

import redis
import redis.asyncio
import redis.sentinel

from .resp import resp_faults, serving

__all__ = ["FAULTS", "PACKAGE", "serving"]

PACKAGE = "redis"
FAULTS = resp_faults(redis)
