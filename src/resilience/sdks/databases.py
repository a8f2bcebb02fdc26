"""Databases: psycopg, psycopg2, asyncpg and SQLAlchemy by SQLSTATE, sqlite3 by the name of its
code, pymongo by the server's code and labels, redis and valkey by class; see `databases.csv`.

An error that a server answered with has rolled the transaction back: whoever guards the whole of it
may repeat it. Where the connection was lost, nobody knows what became of a COMMIT.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any

from attrs import evolve

from resilience.failures import Advice, Failure, Kind
from resilience.sdks import package_of
from resilience.sdks.codes import load
from resilience.sdks.evidence import by_class_name, mapping, peek, text, word
from resilience.sdks.places import places
from resilience.sdks.values import number
from resilience.sdks.verdict import Code

__all__ = ["CODES", "read"]

_table = partial(load, file="databases")

CODES = {**_table("sqlstate"), **_table("sqlite")}
"""SQLSTATEs, of which two characters are those of a class, and SQLite's names."""

_MONGODB = _table("mongodb")
_SQL = _table("dbapi")
_PSYCOPG = {**_SQL, **_table("psycopg")}
_REDIS = _table("redis")
_CLASSES: Mapping[str, Mapping[str, Code]] = {
    "asyncpg": {**_SQL, **_table("asyncpg")},
    "psycopg": _PSYCOPG,
    "psycopg2": _PSYCOPG,
    "psycopg_pool": _PSYCOPG,
    "pymongo": _table("pymongo"),
    "redis": _REDIS,
    "sqlalchemy": {**_SQL, **_table("sqlalchemy")},
    "sqlite3": _SQL,
    "valkey": _REDIS,
}
"""What a class stands for where there is no code."""

_CODE: Mapping[str | None, str] = {
    **dict.fromkeys((None, "asyncpg", "psycopg", "psycopg_pool", "sqlalchemy"), "sqlstate"),
    "psycopg2": "pgcode",
    "sqlite3": "sqlite_errorname",
}
"""Where a driver keeps its code; SQLAlchemy may be over one that is not known."""
_BELOW: Mapping[str | None, str] = {"pymongo": "error", "sqlalchemy": "orig"}
"""Where SQLAlchemy and pymongo's bulks keep what they were told."""
_DEEPEST = 4

_RETRIED = (Advice.RETRY, Advice.WAIT)
_LOST = Code(Kind.CONNECTION, Advice.RETRY)
_OTHER = Code(Kind.UNKNOWN, Advice.STOP)
_CLOSED = ("_check_open", "_check_conn_validity")
"""Where asyncpg finds its connection closed."""
_CONNECTING = {
    "psycopg.connection": "connect",
    "psycopg.connection_async": "connect",
    "psycopg2": "connect",
    "redis.asyncio.connection": "get_connection",
    "redis.connection": "get_connection",
    "valkey.asyncio.connection": "get_connection",
    "valkey.connection": "get_connection",
}
"""Where a connection is made for a command; a client's own retries do not come through here."""
_UNSENT: Mapping[Kind, Mapping[str, str]] = {
    Kind.CONFLICT: {
        "redis.asyncio.client": "_execute_transaction",
        "redis.client": "_execute_transaction",
        "valkey.asyncio.client": "_execute_transaction",
        "valkey.client": "_execute_transaction",
    },
    Kind.CONNECTION: _CONNECTING,
    Kind.TIMEOUT: _CONNECTING,
    Kind.UNAVAILABLE: _CONNECTING,
}
"""Where errors come from if nothing was executed. Of the conflicts: EXEC was answered; where the
connection was lost instead, the same class is raised elsewhere."""
_RESENDING = frozenset(
    f"{package}.{module}"
    for package in ("redis", "redis.asyncio", "valkey", "valkey.asyncio")
    for module in ("cluster", "multidb.client")
)
"""Where a command may have been sent to another server before."""

_REPEATABLE = {"TransientTransactionError", "UnknownTransactionCommitResult", "RetryableWriteError"}
_UNWRITTEN = {"TransientTransactionError", "NoWritesPerformed"}
_OVERLOADED = {"SystemOverloadedError", "RetryableError"}
_LABELS = _REPEATABLE | _UNWRITTEN | _OVERLOADED


def read(error: Exception) -> Failure | None:
    """Read an error of a database's client by its code, its class, and what is said of it."""
    sdk = _home(_class(error))
    code: str | None = None
    meaning: Code | None = None
    labels: set[str] = set()
    invalidated = False
    innermost, below = error, error
    for _ in range(_DEEPEST):
        innermost, package = below, _home(_class(below))
        found = _code(below, package)
        # The innermost has the most to say.
        code, meaning = found or code, _meaning(below, package, found) or meaning
        if package == "pymongo":
            labels |= _labels(below)
        elif package == "sqlalchemy":
            invalidated = invalidated or peek(below, "connection_invalidated") is True
        below = peek(below, _BELOW.get(package, ""))
        if not issubclass(type(below), Exception):
            break
    if invalidated and (meaning is None or meaning.advice is Advice.STOP):
        meaning = _LOST
    meaning = _labelled(meaning, labels)
    if meaning is None:
        return None
    retried = meaning.advice in _RETRIED
    if retried and meaning.sent is None and _unsent(innermost, meaning.kind):
        meaning = _with_sent(meaning, False)
    wait = None
    if labels >= _OVERLOADED:
        wait = number(mapping(peek(innermost, "details")).get("baseBackoffMS"))
    return meaning.failure(
        error,
        None if sdk == "sqlite3" else sdk,
        code=code,
        retry_after=None if wait is None else wait / 1000,
    )


def _class(error: Exception) -> Any:
    return type(error)  # a class is hashable, which mypy does not see


@lru_cache(512)
def _home(cls: type) -> str | None:
    return package_of(cls)


@lru_cache(512)
def _by_class(cls: type) -> Code | None:
    return by_class_name(cls, _CLASSES.get(str(_home(cls)), {}))


@lru_cache(256)
def _with_sent(meaning: Code, sent: bool | None) -> Code:
    return evolve(meaning, sent=sent)


def _code(error: Exception, package: str | None) -> str | None:
    """What the server called it."""
    if package == "pymongo":
        return word(mapping(peek(error, "details")).get("code")) or word(peek(error, "code"))
    name = _CODE.get(package)
    code = None if name is None else text(peek(error, name))
    return None if code is None else code[:40]


def _meaning(error: Exception, package: str | None, code: str | None) -> Code | None:
    """What one error stands for by itself."""
    if code is None:
        if package == "asyncpg" and any(function in _CLOSED for _, function in places(error)):
            return _LOST
        return _by_class(_class(error))
    if package == "pymongo":
        return _MONGODB.get(code, _OTHER)
    # SQLite has finer ones than its own, such as SQLITE_BUSY_SNAPSHOT.
    coarse = "_".join(code.split("_")[:2]) if "_" in code else code[:2]
    return CODES.get(code) or CODES.get(coarse) or _OTHER


def _labels(error: Exception) -> set[str]:
    """What pymongo says of an error."""
    has = peek(error, "has_error_label")
    try:
        return {label for label in _LABELS if has(label) is True}
    except Exception:
        return set()


def _labelled(meaning: Code | None, labels: set[str]) -> Code | None:
    """What labels make of it: they are about the whole transaction."""
    if labels >= _OVERLOADED:
        return Code(Kind.OVERLOADED, Advice.WAIT, sent=False)
    if labels & _REPEATABLE:
        if meaning is None or meaning.advice is Advice.STOP:
            meaning = Code(Kind.CONFLICT, Advice.RETRY)
        meaning = _with_sent(meaning, None)  # it may be the answer to the driver's own retry
    if meaning is not None and labels & _UNWRITTEN:
        meaning = _with_sent(meaning, False)
    return meaning


def _unsent(error: Exception, kind: Kind) -> bool:
    """Whether an error of this kind was raised where nothing had been executed."""
    known = _UNSENT.get(kind, {})
    found = False
    for module, function in places(error):
        if module in _RESENDING:
            return False
        found = found or known.get(module) == function
    return found
