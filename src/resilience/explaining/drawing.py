"""An explanation as Mermaid and as HTML."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape

from resilience._core.schedule import number

from .facts import Facts
from .layers import Layer, Layers
from .text import sentences, title, warnings

__all__ = ["html", "mermaid"]

_CELL = "border:1px solid rgba(128,128,128,.4);padding:.3em .6em;text-align:left;vertical-align:top"


def mermaid(facts: Facts) -> str:
    """A flowchart, from the caller to the function."""
    return "\n".join(["flowchart TD", *_flow(facts)])


def _flow(facts: Facts) -> Iterator[str]:
    yield '    caller(["the caller"])'
    yield f'    function[["{_quoted(facts.name or "the function")}"]]'
    names: list[str] = []
    for place, layer in enumerate(facts._layers):
        names.append(f"p{place}")
        yield _node(names[-1], layer)
    inward = [*names, "function"]
    yield f"    caller --> {inward[0]}"
    for layer, name, target in zip(facts._layers, names, inward[1:], strict=True):
        if not layer.turns:
            yield _edge(name, target, _times(layer))
        for turn, (model, around) in enumerate(layer.turns):
            yield from _turn(f"{name}t{turn}", name, target, model, around)


def _turn(prefix: str, chain: str, target: str, model: str, around: Layers) -> Iterator[str]:
    """A model's turn: from its chain, through what is around it alone, inward."""
    nodes = [f"{prefix}p{place}" for place in range(len(around))]
    for node, layer in zip(nodes, around, strict=True):
        yield _node(node, layer)
    path = [*nodes, target]
    yield _edge(chain, path[0], model)
    for layer, node, following in zip(around, nodes, path[1:], strict=True):
        yield _edge(node, following, _times(layer))


def _times(layer: Layer) -> str:
    calls = layer.effect.calls
    if calls <= 1:
        return ""
    return "without end" if math.isinf(calls) else f"up to {number(calls)} times"


def _node(name: str, layer: Layer) -> str:
    return f'    {name}["{_quoted(layer.name)}: {_quoted(layer.effect.line)}"]'


def _edge(start: str, end: str, label: str) -> str:
    return f"    {start} -->{f'|{chr(34)}{_quoted(label)}{chr(34)}|' if label else ''} {end}"


def _quoted(text: str) -> str:
    """Text for a quoted label: no character of it means anything to Mermaid or to HTML."""
    plain = " ".join(text.split())
    return "".join(
        each if each.isalnum() or each in " .,:;()=+-/'_" else f"#{ord(each)};" for each in plain
    )


def html(facts: Facts) -> str:
    """A fragment for a notebook: self-contained, without script, in the colours around it."""
    policies = "".join(_row(name, line, head=True) for name, line in facts.policies)
    figures = "".join(f"<p>{escape(each)}</p>" for each in sentences(facts))
    trouble = "".join(f"<p><strong>{escape(each)}</strong></p>" for each in warnings(facts))
    failures = "".join(_row(kinds, steps) for kinds, steps in facts.grouped())
    return (
        f'<div style="max-width:60em"><p><strong>{escape(title(facts))}</strong>, outermost first'
        f"</p>{_table(policies)}{figures}{trouble}"
        f"<p>When every attempt fails with the same kind of failure, it is:</p>{_table(failures)}"
        f"</div>"
    )


def _table(rows: str) -> str:
    return f'<table style="border-collapse:collapse;color:inherit"><tbody>{rows}</tbody></table>'


def _row(left: str, right: str, *, head: bool = False) -> str:
    tag = "th" if head else "td"
    return (
        f'<tr><{tag} style="{_CELL}">{escape(left)}</{tag}>'
        f'<td style="{_CELL}">{escape(right)}</td></tr>'
    )
