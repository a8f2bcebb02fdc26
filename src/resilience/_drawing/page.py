"""A call as a page of HTML: the same waterfall, which goes by the width of its window.

On a narrow one each attempt has its texts in two lines, and its bar under them.
"""

from __future__ import annotations

from collections.abc import Iterator
from string import Template

from .facts import ANSWERED, FAILED, OPEN, Facts, Row, axis
from .texts import escape, shorten
from .theme import MONOSPACED, document

__all__ = ["draw"]

_NAME = 60  # cells of a name
_SHAPES = {ANSWERED: "answered", FAILED: "failed", OPEN: "open"}
_COLUMNS = {
    "number": "auto",
    "model": "minmax(9ch, max-content)",
    "outcome": "minmax(9ch, max-content)",
    "start": "auto",
    "wait": "auto",
    "time": "auto",
}

_STYLE = Template("""\
body {padding: 28px 32px}
main {max-width: 1400px; margin: 0 auto}
h1 {margin: 0; font-size: 18px; font-weight: 600; overflow-wrap: anywhere}
.below {display: flex; flex-wrap: wrap; justify-content: space-between; gap: 4px 24px;
  margin: 2px 0 22px; color: var(--soft)}
.below p, .below ul {margin: 0; padding: 0; list-style: none}
.below ul {display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 13px}
.below li {display: flex; align-items: center; gap: 6px}
.below i {width: 14px; height: 10px; border-radius: 2px}
table {display: grid; grid-template-columns: $columns; font: 12px/1.5 $monospaced}
thead, tbody, tr {display: contents}
th, td {padding: 4px 18px 4px 0; text-align: left; overflow-wrap: anywhere}
th {font-weight: normal; border-bottom: 1px solid var(--edge)}
th, .number, .start, .wait {color: var(--soft)}
.number, .start, .wait, .time {text-align: right; white-space: nowrap}
.failed .outcome {color: var(--bad)}
.label {display: none}
.bars {position: relative; min-height: 26px; padding: 0}
td.bars {background: linear-gradient(to right, var(--grid) 1px, transparent 1px) 0 0 / $step 100%}
th span {position: absolute; top: 4px; white-space: nowrap; transform: translateX(-50%)}
th span.first {transform: none}
th span.last {transform: translateX(-100%)}
td i {position: absolute; top: 7px; height: 12px; min-width: 2px; border-radius: 2px}
i.answered {background: var(--answered)}
i.failed {background: var(--failed)}
i.open {border: 1.5px solid var(--answered)}
.below i.waiting, td i.waiting {height: 2px; border-radius: 0; background: var(--wait)}
td i.waiting {top: 12px; min-width: 0}
@media (max-width: 760px) {
  body {padding: 20px 16px}
  table, thead tr, thead .bars {display: block}
  thead th {display: none}
  tbody tr {display: grid; grid-template: $areas / auto 1fr auto auto; column-gap: 12px;
    padding-top: 8px; border-bottom: 1px solid var(--grid)}
  td {padding: 0}
  .label {display: inline}
  $placed
  .bars {min-height: 24px}
}
""")


def draw(facts: Facts) -> str:
    """The whole page, of ASCII characters alone."""
    columns = [name for name in _COLUMNS if any(_text(row, name) for row in facts.rows)]
    body = (
        f"<h1>{escape(facts.headline)}</h1>\n"
        f'<div class="below"><p>{escape(facts.summary)}</p>{_legend(facts)}</div>\n'
        f"{_table(facts, columns) if facts.rows else ''}"
    )
    return document(facts.headline, _style(facts, columns), body)


def _style(facts: Facts, columns: list[str]) -> str:
    marks = list(axis(facts.span))
    first, second = ("model", "outcome wait") if "model" in columns else ("outcome", "wait wait")
    areas = f"'number {first} {first} time' '. {second} start' 'bars bars bars bars'"
    return _STYLE.substitute(
        monospaced=MONOSPACED,
        columns=" ".join([*map(_COLUMNS.__getitem__, columns), "minmax(240px, 1fr)"]),
        step=f"{marks[1][0] * 100:.4f}%" if len(marks) > 1 else "100%",
        areas=areas,
        placed=" ".join(f".{name} {{grid-area: {name}}}" for name in (*columns, "bars")),
    )


def _text(row: Row, column: str) -> str:
    text: str = getattr(row, "words" if column == "outcome" else column)
    return text


def _legend(facts: Facts) -> str:
    kinds = [
        f'<li><i class="{_SHAPES.get(kind, "waiting")}"></i>{kind}</li>' for kind in facts.legend
    ]
    return f"<ul>{''.join(kinds)}</ul>" if kinds else ""


def _table(facts: Facts, columns: list[str]) -> str:
    """A table laid out as a grid, which takes its roles from it: they are given by name."""
    titles = "".join(
        f'<th role="columnheader" class="{name}">{"#" if name == "number" else name}</th>'
        for name in columns
    )
    rows = "\n".join(_row(facts, row, columns) for row in facts.rows)
    return (
        f'<table role="table">\n<thead role="rowgroup"><tr role="row">{titles}'
        f'<th role="columnheader" class="bars">{"".join(_axis(facts))}</th></tr></thead>\n'
        f'<tbody role="rowgroup">\n{rows}\n</tbody>\n</table>'
    )


def _axis(facts: Facts) -> Iterator[str]:
    for share, label in axis(facts.span):
        side = "first" if share == 0 else "last" if share > 0.9 else ""
        yield f'<span class="{side}" style="left: {share:.2%}">{label}</span>'


def _row(facts: Facts, row: Row, columns: list[str]) -> str:
    cells = "".join(_cell(row, name) for name in columns)
    bars = "".join(_bars(facts, row))
    return (
        f'<tr role="row" class="{_SHAPES[row.state]}">{cells}'
        f'<td role="cell" class="bars">{bars}</td></tr>'
    )


def _cell(row: Row, name: str) -> str:
    text = _text(row, name)
    shown = shorten(text, _NAME)
    whole = "" if shown == text else f' title="{escape(text)}"'
    label = {"start": "at ", "wait": "waited "}.get(name) if text else None
    before = f'<span class="label">{label}</span>' if label else ""
    return f'<td role="cell" class="{name}"{whole}>{before}<bdi>{escape(shown)}</bdi></td>'


def _bars(facts: Facts, row: Row) -> Iterator[str]:
    begin, end = facts.share(row.began), facts.share(row.ended)
    if row.wait:
        first = facts.share(row.waited_from)
        yield f'<i class="waiting" style="left: {first:.3%}; width: {begin - first:.3%}"></i>'
    yield (
        f'<i class="{_SHAPES[row.state]}" '
        f'style="left: min({begin:.3%}, 100% - 2px); width: {end - begin:.3%}"></i>'
    )
