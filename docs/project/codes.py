"""Write docs/codes.md: what each status, code and type is taken for, from the library's own data.

python docs/project/codes.py [--check]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

from resilience.sdks import FAMILIES
from resilience.sdks.codes import Row, rows
from resilience.sdks.verdict import MODEL_CALLS, STATUSES, Meaning

PAGE = Path(__file__).parent.parent / "codes.md"
HEAD = """# What an error is taken for

Written by `python docs/project/codes.py` from `codes.csv` and `databases.csv` in
`src/resilience/sdks` and the tables of statuses; do not edit.

The first of these that says something decides: the server's own word (`x-should-retry`), Auriko's
`X-Budget-Exceeded` (quota, stop), the code, Auriko's `X-Error-Retryable`, the type, the status.
Messages are never read. What the words mean is in [errors.md](errors.md).

A code belongs to the format of the body, not to the client: it means the same with every SDK, httpx
and requests. A code may stand in `type`, and a type in `code`. Where two providers clash, a row
says with which status it holds, or for which host of the request ("or unknown": also for a host
without a public name, and for every call of a model).

A word *beside no status* is generic: it decides only if there is no status. A 413 with a rate
limit's code is too long a prompt for that limit: context_length, fallback. A code that ends with a
status (`upstream_503`) means that status where the response's own is 400, 500 or 502. A request
that got a 429 was not executed, whatever its code.
"""
OTHERS = """Any other 4xx is invalid, stop; any other 5xx is server, retry. A 403 with a
`Retry-After`, or with nothing left of its `x-ratelimit-remaining`, is rate_limit, wait.
"""
FORMATS = {
    "any": "Words that everybody uses",
    "auriko": "`error.code`, `error.type`: Auriko",
    "openai": "`error.code`, `error.type`: OpenAI and those that are compatible",
    "zhipu": "`error.code` of digits",
    "anthropic": "`error.type`, `error.details.error_code`: Anthropic",
    "openrouter": "`error.metadata`, `error.availability`: OpenRouter",
    "flat": "`code`, `error_code`, `type` without an envelope",
    "rest": "`code`, `[0].errorCode`, `error`, `detail.status` of services that are no models",
    "minimax": "`base_resp.status_code`: MiniMax",
    "listed": "`errors[0].code`",
    "google.rest": "`error.errors[0].reason`: Google's older APIs",
    "google": "`error.details[].reason`: Google",
    "grpc": "gRPC's status, and Google's `error.status`",
    "aws": "AWS, through botocore or in `__type`",
    "status": "Statuses of single providers",
}
DATABASES = {
    "sqlstate": "SQLSTATE, or its first two characters: PostgreSQL",
    "sqlite": "SQLite",
    "mongodb": "MongoDB",
    "dbapi": "Classes of DB-API, where there is no code",
    "asyncpg": "Classes of asyncpg",
    "psycopg": "Classes of psycopg and psycopg2, where there is no code",
    "sqlalchemy": "Classes of SQLAlchemy",
    "redis": "Classes of redis and valkey",
    "pymongo": "Classes of pymongo, where there is no code",
}
SENT = {None: "perhaps", True: "yes", False: "no", "": "perhaps", "yes": "yes", "no": "no"}


def lines(title: str, columns: str, body: list[str]) -> str:
    """A table under its title."""
    rule = "|---" * columns.count("|") + "|---|"
    return "\n".join([f"## {title}", "", f"| {columns} |", rule, *body]) + "\n"


def statuses(title: str, table: Mapping[int, Meaning]) -> str:
    body = [
        f"| {status} | {each.kind.value} | {each.advice.value} | {SENT[each.sent]} |"
        for status, each in sorted(table.items())
    ]
    return lines(title, "status | kind | advice | executed?", body)


def own_statuses() -> Iterator[tuple[str, Mapping[int, Meaning]]]:
    """Where an SDK takes statuses for something else, as it does itself."""
    for family in sorted({*FAMILIES.values(), "bodies"}):
        module: Any = import_module(f"resilience.sdks.{family}")
        found = getattr(module, "SDK_STATUSES", None) if family == "bodies" else None
        found = found or getattr(module, "_STATUSES", {})
        own = {status: each for status, each in found.items() if STATUSES.get(status) != each}
        if own:
            name = "OpenAI's, Groq's, Anthropic's SDK, LiteLLM" if family == "bodies" else family
            yield name, own


def told(row: Row) -> str:
    """A row of the data."""
    where = [f"with {row['when'].replace(' ', ', ')}"] if row["when"] else []
    if row["host"]:
        hosts = row["host"].removeprefix("~").replace(" ", ", ")
        where.append(hosts + (" or unknown" if row["host"].startswith("~") else ""))
    if row["by_status"]:
        where.append("beside no status")
    limit = f", at most {row['limit']} retry" if row["limit"] else ""
    cells = [
        f"`{row['word']}`" + (f" ({'; '.join(where)})" if where else ""),
        row["provider"],
        row["kind"].lower(),
        row["advice"].lower() + limit,
        SENT[row["sent"]],
        row["note"],
        row["source"],
    ]
    return f"| {' | '.join(cells)} |"


def databases() -> Iterator[str]:
    """The tables of `databases.csv`."""
    for whose, found in groupby(rows("databases"), key=lambda row: row["format"]):
        body = [
            f"| `{row['word']}` | {row['kind'].lower()} | {row['advice'].lower()} "
            f"| {SENT[row['sent']]} | {row['note']} |"
            for row in found
        ]
        yield lines(DATABASES[whose], "word | kind | advice | executed? | note", body)


def page() -> str:
    parts = [
        HEAD,
        statuses("By status", STATUSES),
        OTHERS,
        statuses("By status, if nothing else was said, of the call of a model", MODEL_CALLS),
    ]
    parts += [statuses(f"Otherwise by status: {name}", own) for name, own in own_statuses()]
    columns = "word | provider | kind | advice | executed? | note | source"
    for shape, found in groupby(rows(), key=lambda row: row["format"]):
        body = [told(row) for row in sorted(found, key=lambda row: row["provider"])]
        parts.append(lines(FORMATS[shape], columns, body))
    parts += databases()
    return "\n".join(parts)


def main(arguments: list[str]) -> int:
    if "--check" not in arguments:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    if PAGE.read_text(encoding="utf-8") == page():
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
