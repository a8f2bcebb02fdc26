"""Write docs/codes.md: what each status, type and code is taken for, from the library's own tables.

python docs/project/codes.py [--check]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from resilience.sdks import FAMILIES
from resilience.sdks.verdict import STATUSES, TYPES, Meaning

PAGE = Path(__file__).parent.parent / "codes.md"
HEAD = """# What an error is taken for

Written by `python docs/project/codes.py` from the tables in `resilience.sdks`; do not edit.

The first of these that says something decides: the server's own word (`x-should-retry`), Auriko's
`X-Budget-Exceeded` (quota, stop), the code, Auriko's `X-Error-Retryable`, the type, the status.
Messages are never read. What the words mean is in [errors.md](errors.md).

A 4xx that is not listed is invalid, stop; a 5xx is server, stop (also Cloudflare's 520 to 524:
`on=TRANSIENT | status(520, 522, 524)` retries those). A request that got a 429 was not executed,
whatever its code. The types `api_error` and `server_error` mean what the status means if that is to
be retried, else server, retry; `invalid_request_error` means what the status means if that is a
complaint, else invalid, stop.
"""


def told(meaning: Meaning) -> str:
    """A row's right half."""
    limit = "" if meaning.retry_limit is None else f", at most {meaning.retry_limit} retry"
    sent = {None: "perhaps", True: "yes", False: "no"}[meaning.sent]
    return f"{meaning.kind.value} | {meaning.advice.value}{limit} | {sent}"


def table(title: str, column: str, rows: Mapping[Any, Meaning]) -> str:
    lines = [f"## {title}", "", f"| {column} | kind | advice | executed? |", "|---|---|---|---|"]
    lines += [f"| {name} | {told(meaning)} |" for name, meaning in rows.items()]
    return "\n".join(lines) + "\n"


def codes() -> Iterator[tuple[str, Mapping[str, Meaning]]]:
    """The tables of the families that have one."""
    for family in sorted(set(FAMILIES.values())):
        found = getattr(import_module(f"resilience.sdks.{family}"), "CODES", None)
        if found:
            yield family, found


def dialects() -> Iterator[tuple[str, str, Mapping[Any, Meaning]]]:
    """Where a family's statuses and types differ from everybody's."""
    for family in sorted(set(FAMILIES.values())):
        found = getattr(import_module(f"resilience.sdks.{family}"), "_DIALECT", None)
        if found is not None:
            pairs = ("status", found.statuses, STATUSES), ("type", found.types, TYPES)
            for column, rows, usual in pairs:
                own = {name: each for name, each in rows.items() if usual.get(name) != each}
                if own:
                    yield family, column, own


def page() -> str:
    parts = [HEAD, table("By status", "status", STATUSES), table("By type", "type", TYPES)]
    parts += [
        table(f"Otherwise by {column}: {family}", column, own) for family, column, own in dialects()
    ]
    parts += [table(f"Codes: {family}", "code", found) for family, found in codes()]
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
