"""The columns of texts beside the bars, where each character takes a cell: text and SVG."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define

from .facts import Facts
from .texts import cells

__all__ = ["Column", "columns_of"]


@define
class Column:
    """A title and a text for each attempt; `width` in cells."""

    title: str
    texts: Sequence[str]
    width: int = 0

    def __attrs_post_init__(self) -> None:
        self.width = max(map(cells, (self.title, *self.texts)))

    @property
    def gives_way(self) -> bool:
        """Whether its texts are names, written from the left and shortened; else numbers."""
        return self.title in ("model", "outcome")


def columns_of(facts: Facts, room: float, gap: float) -> list[Column]:
    """Those that have any text, with a gap after each, made to fit into `room` cells."""
    rows = facts.rows
    columns = [
        Column("#", [row.number for row in rows]),
        Column("model", [row.model for row in rows]),
        Column("outcome", [row.words for row in rows]),
        Column("start", [row.start for row in rows]),
        Column("wait", [row.wait for row in rows]),
        Column("time", [row.time for row in rows]),
    ]
    columns = [each for each in columns if any(each.texts)]
    names = [each for each in columns if each.gives_way]
    while sum(each.width + gap for each in columns) > room:
        max(names, key=lambda each: each.width).width -= 1
    return columns
