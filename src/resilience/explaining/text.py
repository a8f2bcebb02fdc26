"""An explanation as plain text, and the sentences that all its forms have."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from itertools import zip_longest

from resilience._core.schedule import number

from .facts import Facts

__all__ = ["page", "sentences", "title", "warnings"]

_WIDTH = 100
_LEFT = 30


def page(facts: Facts) -> str:
    """All of it, in lines of up to 100 characters."""
    return "\n".join(_lines(facts))


def _lines(facts: Facts) -> Iterator[str]:
    yield f"{title(facts)}, outermost first:"
    left = min(_LEFT, max((len(name) for name, _ in facts.policies), default=0))
    for name, line in facts.policies:
        yield from _row(name, line, left)
    yield ""
    for sentence in (*sentences(facts), *warnings(facts)):
        yield from textwrap.wrap(sentence, _WIDTH, subsequent_indent="  ")
    yield ""
    yield "When every attempt fails with the same kind of failure, it is:"
    for kinds, steps in facts.grouped():
        yield from _row(kinds, steps, _LEFT)


def _row(left: str, right: str, width: int) -> Iterator[str]:
    """Two columns, each as many lines as it needs."""
    columns = textwrap.wrap(left, width), textwrap.wrap(right, _WIDTH - width - 4)
    for one, other in zip_longest(*columns, fillvalue=""):
        yield f"  {one:{width}}  {other}".rstrip()


def title(facts: Facts) -> str:
    """What is explained."""
    return facts.name or "The pipeline"


def sentences(facts: Facts) -> Iterator[str]:
    """The figures, each with what it means."""
    yield f"Calls: {_calls(facts)}."
    yield f"Time: {_time(facts)}."
    if facts.own_model is not None:
        calls, seconds = facts.own_model
        yield (
            f"A call that names a model which is not in the chain: {_most(calls, 'calls')}, "
            f"{_most(seconds, 's')}."
        )
    if facts.own_retries:
        requests = facts.most_calls * (1 + facts.own_retries)
        yield (
            f"Requests: {_most(requests, 'requests')}, as the client retries by itself, too; "
            f"own_retries(client) switches that off."
        )


def warnings(facts: Facts) -> Iterator[str]:
    """What to look at."""
    for name in facts.assumed:
        yield (
            f"Assumed: {name} calls what is inside it once and changes no failure; it has no "
            f"effect() that says more."
        )
    for hazard in facts.hazards:
        yield f"Hazard: {hazard}."


def _calls(facts: Facts) -> str:
    if math.isinf(facts.most_calls):
        return "no limit, as a Retry without attempts= has none"
    fewer = any(layer.rejects or math.isfinite(layer.effect.limit) for layer in facts._layers)
    end = ", fewer where a circuit opens or time runs out" if fewer and facts.most_calls > 1 else ""
    if any(layer.effect.restarts for layer in facts._layers):
        end = f", a stream's restarts included{end}"
    return f"{_most(facts.most_calls, 'in all')}{end}"


def _time(facts: Facts) -> str:
    if math.isinf(facts.longest):
        return (
            "no limit; Timeout(seconds) outermost would set one for the call, innermost for each "
            "attempt"
        )
    return _most(facts.longest, "s")


def _most(value: float, unit: str) -> str:
    if math.isinf(value):
        return f"no limit of {'time' if unit == 's' else unit}"
    return f"at most {number(value)} {unit}"
