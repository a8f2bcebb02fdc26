"""The report's bands: a run second by second, and under it each model's circuit.

What was answered stands above a line, what failed hangs below it: no colour is needed to see it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from resilience._drawing.facts import axis
from resilience._drawing.texts import escape

from .figures import Circuit, Figures, circuit_of, figures_of, seconds_of, span
from .record import Played, Run

__all__ = ["bands"]

# In pixels, but for the last two.
_EDGE = 6  # above and below what is drawn in a row
_MARK = 14  # of a call, or a model's answer
_REQUESTS = 76  # of the most requests in a column that were answered, and that failed
_STATE = 8  # of a circuit's state
_LINE = 14  # of text: a number closer to the 0 of its scale is left out
_GAP, _LEAST = 0.14, 0.02  # of a column; what has no width at all is not drawn


def bands(played: Played) -> Iterator[str]:
    """A section about how to read them, and one for each run."""
    yield _introduction(played)
    columns = [seconds_of(played, run) for run in played.runs]
    every = [second for seconds in columns for second in seconds]
    up = max(2, *(second.requests - second.wasted for second in every))
    down = max(2, *(second.wasted for second in every))
    for run, seconds in zip(played.runs, columns, strict=True):
        yield (
            f'<section class="run">\n<h2>{escape(run.name)}</h2>\n'
            f'<p class="soft">{escape(run.setup)}</p>\n'
            f"{_circuit_key() if run is played.guarded else ''}"
            f'<div class="chart">\n{_phase_names(played)}\n{_calls(played, run, seconds)}\n'
            f"{_requests(played, run, seconds, up, down)}\n"
            f"{_circuits(played) if run is played.guarded else ''}"
            f"{_axis(played)}\n</div>\n</section>"
        )


def _introduction(played: Played) -> str:
    bars = {
        "answered": '<rect class="answered" x="3" width="8" height="8"/>'
        '<path class="zero" d="M0 8H14"/>',
        "failed": '<rect class="failed" x="3" y="6" width="8" height="8"/>'
        '<path class="zero" d="M0 6H14"/>',
        "the gateway fails": '<rect class="trouble" width="14" height="14"/>',
    }
    names = " ".join(
        f"<span><b>{number}</b> {escape(phase.name)}</span>"
        for number, phase in enumerate(played.scenario.phases, 1)
    )
    return (
        "<section><h2>Second by second</h2>\n"
        f'<p class="soft">Each column is a second of the minute{_column(played)}. Calls are in the '
        "column in which they were made, requests in that in which they arrived. All three have "
        "the same scale.</p>\n"
        f'{_legend(bars)}\n<p class="names soft">{names}</p></section>'
    )


def _column(played: Played) -> str:
    every = played.scenario.every
    return "" if every == 1 else f", here {every:.3g} s"


def _legend(kinds: dict[str, str]) -> str:
    items = "".join(
        f'<li><svg viewBox="0 0 14 14" aria-hidden="true">{shape}</svg>{text}</li>'
        for text, shape in kinds.items()
    )
    return f'<ul class="key">{items}</ul>'


def _row(label: str, scale: str, plot: str, kind: str = "") -> str:
    return (
        f'<div class="label">{label}</div><div class="scale">{scale}</div>'
        f'<div class="plot {kind}">{plot}</div>'
    )


def _phase_names(played: Played) -> str:
    seconds = span(played) * played.scenario.every
    names = "".join(
        f'<span style="left: {start / seconds:.3%}"><b>{number}</b> {escape(phase.name)}</span>'
        for number, (start, phase) in enumerate(played.scenario.timed(), 1)
    )
    return _row("", "", names, "phases")


def _axis(played: Played) -> str:
    marks = "".join(
        f'<span class="{"first" if share == 0 else "last" if share > 0.9 else ""}"'
        f' style="left: {share:.3%}">{text}</span>'
        for share, text in axis(span(played) * played.scenario.every)
    )
    return _row("", "", marks, "axis")


def _calls(played: Played, run: Run, seconds: Sequence[Figures]) -> str:
    figures = figures_of(run)
    totals = f"{figures.answered} answered, {figures.failed} failed"
    zero = _EDGE + _MARK
    counts = [(one.answered, one.failed) for one in seconds]
    bars = "".join(_bars(played, "calls", counts, zero, _MARK))
    drawn = _svg(played, 2 * zero, f"calls: {totals}", bars, zero)
    return _row(f"calls <small>{totals}</small>", "", drawn, "rule")


def _requests(played: Played, run: Run, seconds: Sequence[Figures], up: int, down: int) -> str:
    figures = figures_of(run)
    unit = _REQUESTS / (up + down)
    zero, height = _EDGE + up * unit, _REQUESTS + 2 * _EDGE
    totals = f"{figures.requests} sent, {figures.wasted} failed"
    counts = [(one.requests - one.wasted, one.wasted) for one in seconds]
    bars = "".join(_bars(played, "requests", counts, zero, unit))
    scale = "".join(
        f'<span style="top: {top:.0f}px">{count}</span>'
        for top, count in ((_EDGE, up), (zero, 0), (height - _EDGE, down))
        if count == 0 or abs(top - zero) >= _LINE
    )
    drawn = _svg(played, height, f"requests: {totals}", bars, zero)
    return _row(f"requests <small>{totals}</small>", scale, drawn, "rule")


def _bars(
    played: Played, what: str, counts: Sequence[tuple[int, int]], zero: float, unit: float
) -> Iterator[str]:
    """A bar for each column that is not empty; `counts` are of what was answered, and failed."""
    for place, (answered, failed) in enumerate(counts):
        if answered or failed:
            at = place * played.scenario.every
            title = f"{at:.2f} s: {what} answered {answered}, failed {failed}"
            yield _bar(place, zero, answered * unit, failed * unit, title)


def _bar(place: int, zero: float, up: float, down: float, title: str) -> str:
    x, width = place + _GAP / 2, 1 - _GAP
    shapes = "".join(
        f'<rect class="{kind}" x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}"/>'
        for kind, y, height in (("answered", zero - up, up), ("failed", zero, down))
        if height
    )
    return f"<g><title>{title}</title>{shapes}</g>"


def _svg(played: Played, height: float, label: str, shapes: str, zero: float | None = None) -> str:
    """Shapes over the stretches in which the gateway fails; x is in columns, y in pixels."""
    columns = span(played)
    line = "" if zero is None else f'<path class="zero" d="M0 {zero:g}H{columns}"/>'
    return (
        f'<svg viewBox="0 0 {columns} {height:g}" height="{height:g}" preserveAspectRatio="none"'
        f' role="img" aria-label="{escape(label)}">{"".join(_script(played, height))}'
        f"{shapes}{line}</svg>"
    )


def _script(played: Played, height: float) -> Iterator[str]:
    every = played.scenario.every
    for start, phase in played.scenario.timed():
        if phase.trouble:
            lasts = phase.seconds if phase.lasts is None else phase.lasts
            yield (
                f'<rect class="trouble" x="{start / every:.2f}" width="{lasts / every:.2f}"'
                f' height="{height:g}"/>'
            )
        if start:
            yield f'<path class="line" d="M{start / every:.2f} 0V{height:g}"/>'


# Circuits


def _circuit_key() -> str:
    kinds = {
        "the model's answer": '<rect class="answered" x="3" width="8" height="14"/>',
        "circuit closed": '<path class="closed" d="M0 7H14"/>',
        "open": '<rect class="open" y="3" width="14" height="8"/>',
        "half open": '<rect class="half-open" x="3" y="1" width="8" height="12"/>',
    }
    return f"{_legend(kinds)}\n"


def _circuits(played: Played) -> str:
    models = played.scenario.limits.models
    circuits = [circuit_of(played, played.guarded, model) for model in models]
    return "".join(f"{_circuit(played, circuit)}\n" for circuit in circuits)


def _circuit(played: Played, circuit: Circuit) -> str:
    answers, opened = len(circuit.answers), circuit.opened
    totals = (
        f"{answers} answer{'' if answers == 1 else 's'}, "
        f"{opened} opening{'' if opened == 1 else 's'}"
    )
    zero = _EDGE + _MARK
    bars = "".join(_bar(place, zero, _MARK, 0, "answered") for place in circuit.answers)
    top = zero + _EDGE
    states = "".join(_states(played, circuit, top))
    drawn = _svg(played, top + _STATE + _EDGE, f"{circuit.model}: {totals}", bars + states)
    return _row(f"{escape(circuit.model)} <small>{totals}</small>", "", drawn, "rule")


def _states(played: Played, circuit: Circuit, top: float) -> Iterator[str]:
    every = played.scenario.every
    for each in sorted(circuit.stretches, key=lambda each: each.state == "half-open"):  # on top
        begin, end = each.begin / every, each.end / every
        if each.state == "closed":
            yield f'<path class="closed" d="M{begin:.2f} {top + _STATE / 2:g}H{end:.2f}"/>'
        else:
            kind, more = ("half-open", 2) if each.state == "half-open" else ("open", 0)
            width = max(end - begin, _LEAST)
            yield (
                f'<rect class="{kind}" x="{begin:.2f}" y="{top - more}" width="{width:.2f}"'
                f' height="{_STATE + 2 * more}"><title>{each.state}, {each.begin:.2f} to '
                f"{each.end:.2f} s</title></rect>"
            )
