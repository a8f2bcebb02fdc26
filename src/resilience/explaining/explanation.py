"""A pipeline's facts as a value, and that value as text, as Mermaid and as HTML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import MappingProxyType

from resilience._core.order import hazards
from resilience.failures import Failure
from resilience.policy import Policy

from . import drawing, text
from .bounds import Bounds, bounds
from .facts import Facts
from .layers import Layer, Layers, layers_of
from .reactions import ADVICE, reactions

__all__ = ["Explanation", "explain"]


class Explanation(Facts):
    """What a pipeline does. `print` it; `mermaid()` is a picture of it, and a notebook shows it.

    - `name`: the function's or the pipeline's, if it has one.
    - `policies`: for each, outermost first, its name and what it does.
    - `most_calls`: how often the function, or a model's own, is called for one call at most; a
      stream's restarts are counted. Infinite if nothing limits it. An attempt that another guarded
      function has rejected is none.
    - `longest`: seconds until the call has returned or raised, at most; infinite if nothing limits
      it. Functions of yours besides the guarded one (checks, keys, `Fallback(call=)`) and shared
      storages take their time on top. A stream is read after that. A caller whose call was shared
      (`SingleFlight`), and who has to make one after all, begins then.
    - `own_model`: the same two for a call that names a model which is not in the chain, around
      which a `per_model` function is taken to put no more than around the others; None without a
      chain.
    - `own_retries`: how often the function's client repeats each request by itself, as of
      `retries_of`; None if that is not known.
    - `failures`: for each `Kind` what is done when every attempt fails so, step by step, with the
      advice that such failures mostly have. `on(failure)` is for one failure.
    - `hazards`: what is wrong with the order of the policies, as `PolicyOrderWarning` says.
    - `assumed`: policies that do not say what they do (`Policy.effect`): each is taken to call what
      is inside it once.
    """

    __slots__ = ()

    def on(self, failure: Failure) -> tuple[str, ...]:
        """What is done when every attempt fails like this, such as `describe(error)`. TypeError for
        anything but a Failure."""
        if type(failure) is not Failure:
            raise TypeError(f"failure must be a Failure, got {failure!r}: describe(error) gives it")
        return reactions(self._layers, failure)

    def __str__(self) -> str:
        return text.page(self)

    def __repr__(self) -> str:
        names = ", ".join(name for name, _ in self.policies)
        return f"<Explanation of {self.name or 'a pipeline'}: {names or 'no policies'}>"

    def mermaid(self) -> str:
        """A flowchart in Mermaid's language, from the caller to the function."""
        return drawing.mermaid(self)

    def _repr_html_(self) -> str:
        return drawing.html(self)


def explain(
    policies: Sequence[Policy],
    flat: Sequence[Policy],
    name: str | None,
    own_retries: float | None = None,
) -> Explanation:
    """The explanation of policies, outermost first; `flat`: those of nested pipelines laid out."""
    layers = layers_of(policies)
    found = bounds(layers, stranger=False)
    restarts = 1 + max((layer.effect.restarts for layer in _every(layers)), default=0)
    return Explanation(
        name=name,
        policies=tuple(_lines(layers)),
        most_calls=found.calls * restarts,
        longest=found.seconds,
        own_model=_of_stranger(layers, found, restarts),
        own_retries=own_retries,
        failures=MappingProxyType(
            {kind: reactions(layers, Failure(kind, advice)) for kind, advice in ADVICE.items()}
        ),
        hazards=tuple(hazards(flat)),
        assumed=tuple(
            dict.fromkeys(layer.name for layer in _every(layers) if layer.effect.assumed)
        ),
        layers=layers,
    )


def _of_stranger(layers: Layers, known: Bounds, restarts: int) -> tuple[float, float] | None:
    if not any(layer.effect.stranger for layer in _every(layers)):
        return None
    found = bounds(layers, stranger=True)
    return found.calls * restarts, found.seconds


def _lines(layers: Layers) -> Iterator[tuple[str, str]]:
    """For each policy its name and what it does; around one model alone, with the model's."""
    for layer in layers:
        yield layer.name, layer.effect.line
        if len({around and around[0].policy for _, around in layer.turns}) == 1:
            model, around = layer.turns[0]
            yield from ((f"  each: {name}", line) for name, line in _lines(around))
            continue
        for model, around in layer.turns:
            yield from ((f"  {model}: {name}", line) for name, line in _lines(around))


def _every(layers: Layers) -> Iterator[Layer]:
    for layer in layers:
        yield layer
        for _, around in layer.turns:
            yield from _every(around)
