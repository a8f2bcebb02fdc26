"""The demo's report: one page of HTML, without a script, for narrow and wide windows."""

from __future__ import annotations

import math
from collections.abc import Sequence

from resilience._drawing.texts import escape
from resilience._drawing.theme import document
from resilience.testing.gateway import Answer, Error, Hang

from .bands import bands
from .figures import Figures, figures_of
from .phase import Phase
from .record import Played
from .style import STYLE

__all__ = ["page"]

_SPACE = "\N{NO-BREAK SPACE}"


def page(played: Played) -> str:
    """The whole page, of ASCII characters alone."""
    figures = [figures_of(run) for run in played.runs]
    body = "\n".join(
        (
            f"<h1>{escape(_headline(figures))}</h1>",
            f'<p class="soft">{escape(_summary(played))}</p>',
            _table(played, figures),
            *bands(played),
            _phases(played),
        )
    )
    return document("A bad minute, three times", STYLE, body)


# What happened, in all


def _headline(figures: Sequence[Figures]) -> str:
    bare, retries, guarded = (one.answered for one in figures)
    return (
        f"Of {figures[0].calls} calls in the bad minute, {bare} were answered with the bare "
        f"client, {retries} with the SDK's own retries and {guarded} with resilience."
    )


def _summary(played: Played) -> str:
    scenario = played.scenario
    down = sum(
        phase.lasts is None and set(phase.trouble) == set(scenario.limits.models)
        for _, phase in scenario.asks()
    )
    pace = 1 / scenario.every
    fast = f", {pace:.3g} times as fast, with all waits and limits as much shorter"
    return (
        "Three clients made the same calls side by side, each to a local gateway of its own that "
        f"followed the same script{'' if pace == 1 else fast}. {down} of the calls were made while "
        f"no model answered. The clients are those of {played.sdk}. Calls and circuits are counted "
        "from recorded events, requests from the gateways' own records."
    )


def _table(played: Played, figures: Sequence[Figures]) -> str:
    names = "".join(f'<th scope="col">{escape(run.name)}</th>' for run in played.runs)
    rows = (
        ("calls answered", "answered", [str(one.answered) for one in figures]),
        ("calls failed", "", [str(one.failed) for one in figures]),
        ("requests on the wire", "", [str(one.requests) for one in figures]),
        ("requests wasted", "", [str(one.wasted) for one in figures]),
        ("median wait", "", [f"{one.p50:.2f} s" for one in figures]),
        ("95th percentile", "", [f"{one.p95:.2f} s" for one in figures]),
        ("longest wait", "", [f"{one.longest:.2f} s" for one in figures]),
    )
    body = "\n".join(
        f'<tr class="{kind}"><th scope="row">{title}</th>'
        f"{''.join(f'<td>{text}</td>' for text in texts)}</tr>"
        for title, kind, texts in rows
    )
    return (
        f'<table class="figures">\n<thead><tr><th></th>{names}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table>\n"
        '<p class="soft">Wasted requests are those that failed. A wait is the caller\'s: until the '
        "answer or the error.</p>"
    )


# Phase by phase


def _phases(played: Played) -> str:
    names = [escape(run.name) for run in played.runs]
    head = "".join(
        f'<th role="columnheader" class="run{" first" if place == 0 else ""}{again}">{name}</th>'
        for again in ("", " again")
        for place, name in enumerate(names)
    )
    rows = "\n".join(
        _phase(played, number, start, phase)
        for number, (start, phase) in enumerate(played.scenario.timed(), 1)
    )
    return (
        '<section>\n<h2>Phase by phase</h2>\n<table class="minute" role="table">\n'
        '<thead role="rowgroup"><tr><th></th><th></th><th colspan="3">calls answered</th>'
        '<th colspan="3">requests on the wire</th></tr>\n<tr role="row"><th></th>'
        f'<th role="columnheader" class="asked">calls</th>{head}</tr></thead>\n'
        f'<tbody role="rowgroup">\n{rows}\n</tbody>\n</table>\n</section>'
    )


def _phase(played: Played, number: int, start: float, phase: Phase) -> str:
    """A row; `what` and `asked` show the same count, on narrow and on wide windows."""
    end = start + phase.seconds
    last = number == len(played.scenario.phases)  # has what comes after it, too
    figures = [figures_of(run, start, math.inf if last else end) for run in played.runs]
    calls = figures[0].calls
    return (
        f'<tr role="row"><th role="rowheader">{number} {escape(phase.name)}, '
        f"{start:.3g} to {end:.3g} s<small>{escape(_doing(phase))}</small></th>"
        f'<td role="cell" class="asked">{calls}</td>'
        f'<td role="cell" class="what">answered of {calls}</td>'
        f"{_cells([one.answered for one in figures])}"
        '<td role="cell" class="what">requests</td>'
        f"{_cells([one.requests for one in figures])}</tr>"
    )


def _cells(counts: Sequence[int]) -> str:
    return "".join(
        f'<td role="cell" class="{"first" if place == 0 else "next"}">{count}</td>'
        for place, count in enumerate(counts)
    )


def _doing(phase: Phase) -> str:
    """What the gateway does in a phase."""
    if not phase.trouble:
        return "every model answers"
    groups: dict[str, list[str]] = {}
    for model, answer in phase.trouble.items():
        groups.setdefault(_answer(answer), []).append(model)
    what = "; ".join(f"{', '.join(models)}: {words}" for words, models in groups.items())
    return what if phase.lasts is None else f"{what}, for {phase.lasts:.3g}{_SPACE}s"


def _answer(answer: Answer) -> str:
    if isinstance(answer, Hang):
        return "no answer at all"
    if not isinstance(answer, Error):
        return answer.name
    asks = f", Retry-After {answer.retry_after:.3g}{_SPACE}s" if answer.retry_after else ""
    return f"{answer.http_status} {answer.code}{asks}"
