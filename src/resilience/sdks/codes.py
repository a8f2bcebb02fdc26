"""What servers' words stand for, by the format that carries them: the rows of `codes.csv`, and of
`databases.csv`, which has fewer columns.

Columns of the file: `format`, the shape of the body (see `bodies`); `provider`; `word`, a code or a
type; `when`, the statuses that it holds with; `host`, whose word it is, by the end of the request's
host (after `~` also where the host is no public name, or the request is a model call); `kind`,
`advice`, `limit` (retries), `sent`; `by_status`, a word that says nothing beside a status;
`status` and `type`, what it usually comes with; `source`; `note`. Of the rows of one word those go
first that hold only sometimes.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from resilience.failures import Advice, Kind
from resilience.sdks.verdict import Code

__all__ = ["Row", "Rows", "load", "rows", "table"]

Row: TypeAlias = "dict[str, str]"
Rows: TypeAlias = "Code | tuple[Code, ...]"
"""A word's one meaning, or those that hold with some statuses or hosts only, in order."""

_SENT = {"": None, "yes": True, "no": False}


@lru_cache(2)
def rows(file: str = "codes") -> tuple[Row, ...]:
    """The rows of a file, in order."""
    with Path(__file__).with_name(f"{file}.csv").open(newline="", encoding="utf-8") as lines:
        return tuple(csv.DictReader(lines))


def table(*formats: str, file: str = "codes") -> Mapping[str, Rows]:
    """The words of these formats; where two have one, the later goes first."""
    found: dict[str, list[Code]] = {}
    for each in reversed(formats):
        own = [(row["word"], _code(row)) for row in rows(file) if row["format"] == each]
        for word, code in sorted(own, key=lambda pair: not _is_special(pair[1])):
            found.setdefault(word, []).append(code)
    return {word: _settled(each) for word, each in found.items()}


def load(name: str, file: str = "codes") -> Mapping[str, Code]:
    """The words of one format that mean the same everywhere, to be read only."""
    pairs = table(name, file=file).items()
    return MappingProxyType({word: code for word, code in pairs if isinstance(code, Code)})


def _is_special(code: Code) -> bool:
    return bool(code.when or code.hosts)


def _settled(codes: list[Code]) -> Rows:
    return tuple(codes) if _is_special(codes[0]) else codes[0]


def _code(row: Row) -> Code:
    limit, status, hosts = row.get("limit"), row.get("status"), row.get("host", "")
    return Code(
        Kind[row["kind"]],
        Advice[row["advice"]],
        retry_limit=int(limit) if limit else None,
        status=int(status) if status else None,
        type=row.get("type", ""),
        by_status=row.get("by_status") == "yes",
        note=row["note"],
        sent=_SENT[row["sent"]],
        when=frozenset(map(int, row.get("when", "").split())),
        hosts=tuple(hosts.removeprefix("~").split()),
        anywhere=hosts.startswith("~"),
    )
