"""A call as an SVG: a waterfall of its attempts and waits, of one width, for notebooks and pages.

An SVG does not wrap its texts, so all are in a monospaced font: it is known beforehand how much
room they take. It has a ground of its own, as what it lies on may be light or dark.
"""

from __future__ import annotations

from collections.abc import Iterator

from .columns import columns_of
from .facts import ANSWERED, FAILED, OPEN, Facts, Row, axis
from .texts import cells, escape, fits_cells, shorten
from .theme import DARK, LIGHT, MONOSPACED

__all__ = ["draw"]

_CELL = 7.4  # pixels of a character of 12 pixels
_WIDTH, _EDGE, _GAP = 880.0, 20.0, 18.0
_INSIDE = _WIDTH - 2 * _EDGE
_TITLES, _TOP, _LINE, _BAR = 94.0, 104.0, 26.0, 12.0
_LEAST = 240.0  # of the bars
_SHAPES = {ANSWERED: "answered", FAILED: "failed", OPEN: "open"}
_OWN = ".resilience-call"


def draw(facts: Facts) -> str:
    """The whole SVG, of ASCII characters alone."""
    height = _TOP + len(facts.rows) * _LINE + 12 if facts.rows else 76.0
    headline = shorten(facts.headline, int(_INSIDE / _CELL * 12 / 15))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="{_OWN[1:]}" role="img" '
        f'width="{_WIDTH:g}" height="{height:g}" viewBox="0 0 {_WIDTH:g} {height:g}">',
        f"<title>{escape(f'{facts.headline}; {facts.summary}')}</title>",
        f"<style>{_style()}</style>",
        f'<rect class="ground" x=".5" y=".5" width="{_WIDTH - 1:g}" height="{height - 1:g}" '
        f'rx="8"/>',
        _text(_EDGE, 34, headline, "head", size=15),
        _text(_EDGE, 56, facts.summary, "soft"),
        *_legend(facts),
        *(_table(facts, height) if facts.rows else ()),
        "</svg>",
    ]
    return "\n".join(parts)


def _style() -> str:
    light, dark = "\n".join(_colours(LIGHT)), "\n".join(_colours(DARK))
    return f"""
{_OWN} text {{font: 12px {MONOSPACED}; white-space: pre}}
{_OWN} text.head {{font-size: 15px; font-weight: 600}}
{_OWN} .end {{text-anchor: end}}
{_OWN} .middle {{text-anchor: middle}}
{light}
@media (prefers-color-scheme: dark) {{
{dark}
}}
"""


def _colours(palette: dict[str, str]) -> Iterator[str]:
    """Rules for this picture alone: a notebook may put it into its own page as it is."""
    for name in ("text", "soft", "bad", "answered", "failed", "wait"):
        yield f"{_OWN} .{name} {{fill: {palette[name]}}}"
    yield f"{_OWN} .head {{fill: {palette['text']}}}"
    yield f"{_OWN} .ground {{fill: {palette['ground']}; stroke: {palette['edge']}}}"
    for name in ("grid", "edge"):
        yield f"{_OWN} .{name} {{stroke: {palette[name]}}}"
    yield f"{_OWN} .open {{fill: none; stroke: {palette['answered']}; stroke-width: 1.5}}"


def _table(facts: Facts, height: float) -> Iterator[str]:
    """The columns of texts, and the axis with the bars right of them."""
    columns = columns_of(facts, (_INSIDE - _LEAST) / _CELL, _GAP / _CELL)
    x = _EDGE
    for column in columns:
        right = x + column.width * _CELL
        at, anchor = (x, "") if column.gives_way else (right, " end")
        yield _text(at, _TITLES, column.title, f"soft{anchor}")
        for index, row in enumerate(facts.rows):
            kind = "soft" if column.title in ("#", "start", "wait") else "text"
            if column.title == "outcome" and row.state == FAILED:
                kind = "bad"
            text = column.texts[index]
            yield _text(at, _middle(index) + 4, text, kind + anchor, most=column.width)
        x = right + _GAP
    room = _WIDTH - _EDGE - x
    yield f'<path class="edge" d="M{_EDGE:g} {_TOP:g}H{_WIDTH - _EDGE:g}"/>'
    for share, label in axis(facts.span):
        place = x + share * room
        anchor = "" if share == 0 else " end" if share > 0.9 else " middle"
        yield _text(place, _TITLES, label, f"soft{anchor}")
        yield f'<path class="grid" d="M{place:.2f} {_TOP:g}V{height - 12:g}"/>'
    for index, row in enumerate(facts.rows):
        yield from _bars(facts, row, x, room, _middle(index))


def _middle(index: int) -> float:
    return _TOP + (index + 0.5) * _LINE


def _bars(facts: Facts, row: Row, x: float, room: float, y: float) -> Iterator[str]:
    """A thin bar for the wait, and one for the attempt; of two pixels at least."""
    begin = x + min(facts.share(row.began) * room, room - 2)
    if row.wait:
        first = x + facts.share(row.waited_from) * room
        yield _rect(first, y - 1, begin - first, 2, "wait")
    width = max(x + facts.share(row.ended) * room - begin, 2)
    yield _rect(begin, y - _BAR / 2, width, _BAR, _SHAPES[row.state])


def _legend(facts: Facts) -> Iterator[str]:
    """At the right of the summary, from its end."""
    x = _WIDTH - _EDGE
    for kind in reversed(facts.legend):
        x -= cells(kind) * _CELL
        yield _text(x, 56, kind, "soft")
        thin = kind not in _SHAPES
        yield _rect(x - 20, 51 if thin else 46, 14, 2 if thin else 10, _SHAPES.get(kind, "wait"))
        x -= 40


def _rect(x: float, y: float, width: float, height: float, kind: str) -> str:
    corner = ' rx="2"' if width >= 6 and height >= 6 else ""
    return (
        f'<rect class="{kind}" x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:g}"'
        f"{corner}/>"
    )


def _text(x: float, y: float, text: str, kind: str, *, most: int = 0, size: int = 12) -> str:
    """A text; if it is shortened to `most` cells, the whole of it where a pointer rests on it."""
    shown = shorten(text, most) if most else text
    whole = "" if shown == text else f"<title>{escape(text)}</title>"
    fixed = ""
    if not fits_cells(shown):  # it is made as wide as it was taken to be
        width = cells(shown) * _CELL * size / 12
        fixed = f' textLength="{width:.1f}" lengthAdjust="spacingAndGlyphs"'
    return f'<text class="{kind}" x="{x:.2f}" y="{y:g}"{fixed}>{escape(shown)}{whole}</text>'
