"""A call as lines of text, with bars made of ASCII: it can be printed and logged anywhere."""

from __future__ import annotations

from .columns import Column, columns_of
from .facts import ANSWERED, FAILED, OPEN, Facts, Row, lasting
from .texts import cells, shorten

__all__ = ["draw"]

_BARS = {ANSWERED: "=", FAILED: "x", OPEN: ">"}
_WAIT = "."


def draw(facts: Facts, width: int) -> str:
    """Lines of at most `width` columns."""
    lines = [shorten(facts.headline, width), facts.summary]
    if not facts.rows:
        return "\n".join(lines)
    columns = columns_of(facts, width - 2 - width // 5, 1)
    room = width - 2 - sum(each.width + 1 for each in columns)
    titles = [_cell(each, each.title) for each in columns]
    lines += ["", " ".join([*titles, f" 0{lasting(facts.span):>{room - 1}}"])]
    for index, row in enumerate(facts.rows):
        texts = [_cell(each, each.texts[index]) for each in columns]
        lines.append(" ".join([*texts, f"|{_bar(facts, row, room)}|"]))
    return "\n".join(lines)


def _cell(column: Column, text: str) -> str:
    shown = shorten(text, column.width)
    blank = " " * (column.width - cells(shown))
    return shown + blank if column.gives_way else blank + shown


def _bar(facts: Facts, row: Row, room: int) -> str:
    """The wait and the attempt, each of a cell at least."""
    begin = min(int(facts.share(row.began) * room), room - 1)
    end = max(round(facts.share(row.ended) * room), begin + 1)
    bar = [" "] * room
    if row.wait and begin:
        first = min(int(facts.share(row.waited_from) * room), begin - 1)
        bar[first:begin] = _WAIT * (begin - first)
    bar[begin:end] = _BARS[row.state] * (end - begin)
    return "".join(bar)
