"""psycopg2."""

from __future__ import annotations

from typing import Any

import psycopg2

from providers.server import closed_port

from .postgres import Postgres, dbapi_faults, serving

__all__ = ["FAULTS", "PACKAGE", "connect", "serving"]

PACKAGE = "psycopg2"


def connect(server: Postgres, **options: Any) -> Any:
    return psycopg2.connect(server.dsn, **{"connect_timeout": 20, **options})


FAULTS = dbapi_faults(connect, closed_port)
