"""Go on with another model when one fails: the chain of models.

Retries, circuits (`CircuitBreaker(key="model")`) and attempt timeouts belong inside it, so that
each model has its own. Not for errors no model can help: `RECOVERABLE` leaves those out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, cast

from attrs import define, field, frozen

from resilience._core.arguments import Slot, slot_of
from resilience._core.fields import checked, suggesting, title, to_callable, to_seconds, to_text
from resilience._core.record import Record, current
from resilience.errors import is_refusal
from resilience.failures import Failure
from resilience.matching import RECOVERABLE, Match, to_match
from resilience.typing import Call, Runtime

from .timeout import Timeout

__all__ = ["Model", "ModelFallback"]


@frozen(init=False, repr=False)
class Model:
    """A model of a chain: its name, and what else changes in the call when it is its turn.

    `overrides` are arguments for this model; a dict is merged into the call's own dict of that
    name, leaf by leaf. `call` is another function to call, such as another client's `create`; it
    has the same colour (sync or async) as the guarded one.
    """

    name: str = checked(to_text)
    call: Callable[..., Any] | None = checked(to_callable, None, optional=True)
    overrides: Mapping[str, Any] = field(factory=dict)

    def __init__(
        self, name: str, /, *, call: Callable[..., Any] | None = None, **overrides: Any
    ) -> None:
        cast(Any, self).__attrs_init__(name, call, _merged({}, overrides))

    def __repr__(self) -> str:
        parts = [repr(self.name)]
        if self.call is not None:
            parts.append(f"call={title(self.call)}")
        parts += [f"{name}={_shown(name, value)}" for name, value in self.overrides.items()]
        return f"Model({', '.join(parts)})"


_PRIVATE = ("header", "key", "token", "secret", "auth", "password", "cookie", "query", "message")


def _to_around(name: str, value: Any) -> Any:
    if isinstance(value, type):
        raise TypeError(f"{name} must be a policy, seconds or a function, got {value!r}")
    if callable(getattr(value, "bind", None)) or callable(value):
        return value
    return Timeout(to_seconds(name, value))


@define(eq=False)
class _Turn:
    model: Model
    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@define(eq=False)
class _Turns:
    """Where one call stands in the chain; `fn` is the guarded function itself."""

    fn: Callable[..., Any]
    all: list[_Turn]
    at: int = 0


@suggesting
@frozen(eq=False, repr=False, init=False)
class ModelFallback:
    """Try the next model when one fails with an error that `on` matches.

    - `*models`: names or `Model` values, in order. A call that names its own model starts with it
      and goes on with the rest; one that does not starts with the first.
    - `on` (`RECOVERABLE`): which failures. A refusal (an open circuit) always moves on at once.
    - `argument` ("model"): the argument that carries the model's name.
    - `per_model` (None): what goes around each model's turn: seconds, a policy, or a function of
      the model's name that gives a policy (asked once for each, so that each has its own state).

    The last error that a model gave comes out; `history()` has all of them in order. Values only:
    safe from any thread.
    """

    role: ClassVar = "models"

    models: tuple[Model, ...]
    on: Match = checked(to_match, RECOVERABLE)
    argument: str = checked(to_text, "model")
    per_model: Any = checked(_to_around, None, optional=True)
    _own: dict[str, Any] = field(factory=dict, init=False)

    def __init__(
        self,
        *models: str | Model,
        on: Any = RECOVERABLE,
        argument: str = "model",
        per_model: Any = None,
    ) -> None:
        chain = tuple(self._model(model) for model in models)
        cast(Any, self).__attrs_init__(chain, on, argument, per_model)
        if not chain:
            raise ValueError("models must name at least one model, got none")
        seen: list[tuple[str, Any]] = []
        for model in chain:
            if (model.name, model.call) in seen:
                raise ValueError(f"models must be named once each, got {model.name!r} twice")
            seen.append((model.name, model.call))
            if self.argument in model.overrides:
                raise ValueError(
                    f"Model({model.name!r}) must not override {self.argument!r}: its name is that"
                )

    @staticmethod
    def _model(model: Any) -> Model:
        if model is None:
            raise ValueError("models must be names or Model(...), got None")
        if isinstance(model, str):
            return Model(model)
        if not isinstance(model, Model):
            raise TypeError(f"models must be names or Model(...), got {model!r}")
        return model

    def __repr__(self) -> str:
        parts = [repr(model.name if model == Model(model.name) else model) for model in self.models]
        if self.on is not RECOVERABLE:
            parts.append(f"on={self.on!r}")
        if self.argument != "model":
            parts.append(f"argument={self.argument!r}")
        if self.per_model is not None:
            parts.append(f"per_model={self.per_model!r}")
        return f"ModelFallback({', '.join(parts)})"

    @property
    def rests(self) -> bool:
        """A healthy call's first attempt needs only its arguments rewritten: see `first`."""
        return self.per_model is None and all(model.call is None for model in self.models)

    def fits(self, fn: Callable[..., Any]) -> None:
        """Raise TypeError for a function, or a `Model(call=)`, that does not take the arguments
        it would be given."""
        slot_of(fn, self.argument)
        for model in self.models:
            for name in (self.argument, *model.overrides):
                slot_of(model.call or fn, name)

    def first(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """For a function: what gives the model and the arguments of a call's first attempt."""
        slot = slot_of(fn, self.argument)
        chain = {model.name: model for model in reversed(self.models)}
        default = self.models[0]

        def rewritten(
            args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
            named = slot.given(args, kwargs)
            model = chain.get(named) if isinstance(named, str) and named else default
            if model is None:
                return named, args, kwargs
            return model.name, *self._rewritten(fn, slot, model, args, kwargs)

        return rewritten

    def bind(self, call: Call, runtime: Runtime) -> Call:
        calls: dict[str, Call] = {}

        def inward(model: Model) -> Call:
            if self.per_model is None:
                return call
            if model.name not in calls:
                calls[model.name] = self._around(model.name).bind(call, runtime)
            return calls[model.name]

        async def chained(*args: Any, **kwargs: Any) -> Any:
            record = current()
            with record.progress(self, lambda: self._turns(record, args, kwargs)) as turns:
                while True:
                    turn = turns.all[turns.at]
                    self._begin(record, turns)
                    try:
                        result = await inward(turn.model)(*turn.args, **turn.kwargs)
                    except Exception as error:
                        following = self._following(record, turns, error)
                        if following is None:
                            raise
                    else:
                        record.degraded = record.degraded or turns.at > 0
                        return result
                    finally:
                        record.alternatives = None
                        record.fn = turns.fn
                    record.turn()
                    turns.at = following

        return chained

    def _begin(self, record: Record, turns: _Turns) -> None:
        turn, rest = turns.all[turns.at], turns.all[turns.at + 1 :]
        record.model = turn.model.name
        record.substituted = turn.model.call is not None
        record.fn = turn.fn
        if rest:
            record.alternatives = lambda failure: any(
                _may_help(failure, turn, after) and not self._refused(record, after)
                for after in rest
            )

    def _refused(self, record: Record, turn: _Turn) -> bool:
        """Whether a circuit would turn this model away now."""
        if record.refuses is not None and record.refuses(turn.args, turn.kwargs):
            return True
        if self.per_model is None:
            return False
        refuses = getattr(self._around(turn.model.name), "refuses", None)
        return refuses is not None and bool(refuses(turn.args, turn.kwargs))

    def _following(self, record: Record, turns: _Turns, error: Exception) -> int | None:
        """Whose turn it is after this error; None to let the error out."""
        rest = range(turns.at + 1, len(turns.all))
        if is_refusal(error):
            return next(iter(rest), None)
        failure = record.failure(error)
        if not record.matches(self.on, failure):
            return None
        if not self.on.by_advice(failure):  # whoever names an error means it
            return next(iter(rest), None)
        turn = turns.all[turns.at]
        return next((at for at in rest if _may_help(failure, turn, turns.all[at])), None)

    def _turns(self, record: Record, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Turns:
        fn = record.fn
        slot = slot_of(fn, self.argument)
        start = self._start(slot.given(args, kwargs))
        order = [start, *(model for model in self.models if model is not start)]
        return _Turns(
            fn,
            [
                _Turn(
                    model,
                    model.call or record.fn,
                    *self._rewritten(record.fn, slot, model, args, kwargs),
                )
                for model in order
            ],
        )

    def _start(self, named: Any) -> Model:
        """The model a call begins with: its own, else the first of the chain."""
        if named is None or not isinstance(named, str) or not named:
            return self.models[0]
        for model in self.models:
            if model.name == named:
                return model
        return Model(named)

    def _rewritten(
        self,
        fn: Callable[..., Any],
        slot: Slot,
        model: Model,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args, kwargs = slot.replaced(args, kwargs, model.name)
        for name, value in model.overrides.items():
            place = slot_of(model.call or fn, name)
            if isinstance(value, Mapping):
                before = place.given(args, kwargs)
                value = _merged(before if isinstance(before, Mapping) else {}, value)
            args, kwargs = place.replaced(args, kwargs, value)
        return args, kwargs

    def _around(self, name: str) -> Any:
        if callable(getattr(self.per_model, "bind", None)):
            return self.per_model
        if name not in self._own:
            policy = self.per_model(name)
            if isinstance(policy, type) or not callable(getattr(policy, "bind", None)):
                raise TypeError(f"per_model must give a policy for {name!r}, got {policy!r}")
            self._own.setdefault(name, policy)
        return self._own[name]


def _may_help(failure: Failure, turn: _Turn, after: _Turn) -> bool:
    """Whether another model may do what this one did not: not where the limit is the account's own
    and the call would go to the same place."""
    return failure.elsewhere is not False or after.fn is not turn.fn


def _shown(name: str, value: Any) -> str:
    """An override for people; what may hold a key or a prompt is left out."""
    if any(word in name.lower() for word in _PRIVATE):
        return "..."
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k!r}: {_shown(str(k), v)}" for k, v in value.items()) + "}"
    return repr(value)


def _merged(own: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The call's own arguments with overrides put in, dicts leaf by leaf.

    Every dict on the way is a new one: neither side changes, whatever the callee does with it.
    """
    merged = dict(own)
    for name, value in overrides.items():
        if isinstance(value, Mapping):
            before = merged.get(name)
            value = _merged(before if isinstance(before, Mapping) else {}, value)
        merged[name] = value
    return merged
