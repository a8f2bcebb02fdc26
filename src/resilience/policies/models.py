"""Go on with another model when one fails: the chain of models.

Retries, circuits (`CircuitBreaker(key="model")`) and attempt timeouts belong inside it, so that
each model has its own. Not for errors no model can help: `RECOVERABLE` leaves those out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, cast

from attrs import evolve, field, frozen

from resilience._core.arguments import slot_of, used_up
from resilience._core.control_flow import control_flow_in
from resilience._core.options import (
    Seconds,
    checked,
    count,
    flag,
    seconds,
    suggesting,
    title,
    to_callable,
    to_seconds,
    to_text,
    unquoted,
)
from resilience.errors import RejectedError
from resilience.events import Event, ModelLeft, ModelSkipped
from resilience.failures import Advice, Failure, Kind
from resilience.matching import RECOVERABLE, Match, On, kind, to_match
from resilience.policy import Arguments, Call, Effect, Inner, Policy, Runtime, record_served
from resilience.waits import LONGEST

__all__ = ["Model", "ModelFallback"]

_OF_ACCOUNT = (Kind.QUOTA, Kind.AUTH, Kind.PERMISSION)


@frozen(init=False, repr=False)
class Model:
    """A model of a chain: its name, and what else it changes in the call.

    `overrides` are arguments for this model; a dict is merged into the call's own dict of that
    name, leaf by leaf. `call` is another function to call, such as another client's `create`; it
    has the same colour (sync or async) as the guarded one. `account` names whose account it is
    called with: by default the guarded function's, or one of its own with `call`. For `Streaming`,
    `first` is this model's own seconds to the first content (some think for long), and
    `prefill=False` says that it refuses a request that continues an answer.
    """

    name: str = checked(to_text)
    call: Callable[..., Any] | None = checked(to_callable, None, optional=True)
    account: str | None = checked(to_text, None, optional=True)
    first: Seconds | None = seconds(None, optional=True)
    prefill: bool = flag(True)
    overrides: Mapping[str, Any] = field(factory=dict)

    def __init__(
        self,
        name: str,
        /,
        *,
        call: Callable[..., Any] | None = None,
        account: str | None = None,
        first: Seconds | None = None,
        prefill: bool = True,
        **overrides: Any,
    ) -> None:
        cast(Any, self).__attrs_init__(name, call, account, first, prefill, _merged({}, overrides))

    def __repr__(self) -> str:
        parts = [repr(self.name)]
        if self.call is not None:
            parts.append(f"call={title(self.call)}")
        if self.account is not None:
            parts.append(f"account={self.account!r}")
        if self.first is not None:
            parts.append(f"first={self.first!r}")
        if not self.prefill:
            parts.append("prefill=False")
        parts += [f"{name}={_shown(name, value)}" for name, value in self.overrides.items()]
        return f"Model({', '.join(parts)})"


_new = tuple.__new__


class _Place(NamedTuple):
    """Whose turn it is in a chain's run; turns of one place are one to a `Retry`."""

    run: _Chain
    at: int

    @property
    def model(self) -> Model:
        return self.run.order[self.at]

    @property
    def arguments(self) -> Arguments:
        """Those of the call, with the model's name, and without what else it changes."""
        run = self.run
        return run.slot.replaced(run.call.args, run.call.kwargs, self.model.name)


_PRIVATE = ("header", "key", "token", "secret", "auth", "password", "cookie", "query", "message")


def _to_per_model(name: str, value: Any) -> Any:
    if isinstance(value, type):
        raise TypeError(f"{name} must be a policy, seconds or a function, got {value!r}")
    if isinstance(value, Policy) or callable(value):
        return value
    from .timeout import Timeout  # imported where first needed

    return Timeout(to_seconds(name, value))


@suggesting
@frozen(eq=False, repr=False, init=False)
class ModelFallback(Policy):
    """Try the next model when one fails with an error that `on` matches.

    - `*models`: names or `Model` values, in order. A call that names its own model starts with it
      and goes on with the rest; one that does not starts with the first.
    - `on` (`RECOVERABLE`): which failures. A rejection (an open circuit) always moves on at once.
      Trouble with the account (quota, key, permission) moves on to models of another account only.
    - `argument` ("model"): the argument that carries the model's name.
    - `per_model` (None): what goes around each model's turn: seconds, a policy, or a function of
      the model's name that gives a policy (called once for each, so that each has its own state).
    - `rounds` (2): how many turns a model gets at most. When all models have been tried, the chain
      waits for the one that is available first, of those that a `Retry` inside has left because
      they asked for a wait, did not answer in time or had their circuit open. That has to fit into
      the deadline and into that Retry's `attempts`, `within` and longest wait.
    - `raise_first` (False): raise the first model's error instead of the last one's.

    The last model's error is raised; `history()` has all of them in order. A stream that breaks off
    and is restarted begins with the next model. Values only: safe from any thread.
    """

    role: ClassVar[str | None] = "models"

    models: tuple[Model, ...]
    on: Match = checked(to_match, RECOVERABLE)
    argument: str = checked(to_text, "model")
    per_model: Any = checked(_to_per_model, None, optional=True)
    rounds: int = count(2)
    raise_first: bool = flag(False)
    resting: bool = field(init=False)
    _own: dict[str, Policy] = field(factory=dict, init=False)

    def __init__(
        self,
        *models: str | Model,
        on: On = RECOVERABLE,
        argument: str = "model",
        per_model: Seconds | Policy | Callable[[str], Policy] | None = None,
        rounds: int = 2,
        raise_first: bool = False,
    ) -> None:
        chain = tuple(self._model(model) for model in models)
        cast(Any, self).__attrs_init__(chain, on, argument, per_model, rounds, raise_first)
        # A healthy call's first attempt needs only its arguments rewritten.
        object.__setattr__(
            self, "resting", self.per_model is None and all(model.call is None for model in chain)
        )
        if not chain:
            raise ValueError("models must name at least one model, got none")
        seen: list[tuple[Any, ...]] = []
        for model in chain:
            if (model.name, model.call, model.account) in seen:
                raise ValueError(f"models must be named once each, got {model.name!r} twice")
            seen.append((model.name, model.call, model.account))
            if self.argument in model.overrides:
                raise ValueError(
                    f"Model({model.name!r}) must not override {self.argument!r}, which is its name"
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
        if self.on != RECOVERABLE:
            parts.append(f"on={self.on!r}")
        if self.argument != "model":
            parts.append(f"argument={self.argument!r}")
        if self.per_model is not None:
            parts.append(f"per_model={self.per_model!r}")
        if self.rounds != 2:
            parts.append(f"rounds={self.rounds}")
        if self.raise_first:
            parts.append("raise_first=True")
        return f"ModelFallback({', '.join(parts)})"

    def check(self, fn: Callable[..., Any]) -> None:
        """Raise TypeError for a function, or a `Model(call=)`, that does not take the arguments
        it would be given."""
        slot_of(fn, self.argument)
        for model in self.models:
            for name in (self.argument, *model.overrides):
                slot_of(model.call or fn, name)

    def rewrite_first(self, fn: Callable[..., Any]) -> Callable[..., Arguments] | None:
        slot = slot_of(fn, self.argument)
        chain = {model.name: model for model in reversed(self.models)}
        default = self.models[0]
        argument, given = slot.name, slot.given
        plain = {name for name, model in chain.items() if not model.overrides}
        first = default.name
        by_name = slot.position is None and first in plain

        def rewritten(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
            if by_name and argument not in kwargs:
                record_served(first)
                more = kwargs.copy()
                more[argument] = first
                return args, more
            named = given(args, kwargs)
            if type(named) is str and named in plain:
                record_served(named)
                return args, kwargs
            model = chain.get(named) if isinstance(named, str) and named else default
            if model is None:
                record_served(named)
                return args, kwargs
            record_served(model.name)
            return _overridden(model, fn, *slot.replaced(args, kwargs, model.name))

        return rewritten

    def effect(self) -> Effect:
        names = [model.name for model in self.models]
        around = None if self.per_model is None else self._policy
        line = (
            f"tries {', then '.join(names)}; goes on at once from one whose circuit is open, that "
            f"does not answer in time, or asks for a wait beyond Retry's patience"
        )
        if self.rounds > 1:
            times = "once" if self.rounds == 2 else f"up to {self.rounds - 1} times"
            line += f"; comes back {times} to one that was left for a wait"
        return Effect(
            line=line if len(names) > 1 else f"calls {names[0]}",
            reactions=self._reactions() if len(names) > 1 else (),
            turns=tuple((name, None if around is None else around(name)) for name in names),
            rounds=self.rounds,
            stranger=True,
        )

    def _reactions(self) -> tuple[tuple[Match, str], ...]:
        """Which failures move on, in words."""
        from resilience._core.certainty import surely

        following = "the next model"
        moved = [(kind(Kind.REJECTED), following), (self.on, following)]
        elsewhere = [k for k in _OF_ACCOUNT if surely(self.on, Failure(k, Advice.FALLBACK))]
        if elsewhere and len({_account(model) for model in self.models}) > 1:
            moved.append((kind(*elsewhere) & Advice.STOP, f"{following} of another account"))
        return tuple(moved)

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        own: dict[str | None, Inner] = {}

        def around(turn: Call) -> Inner:
            if turn.model not in own:
                own[turn.model] = self._policy(str(turn.model)).bind(inner, runtime)
            return own[turn.model]

        async def model_fallback(call: Call) -> Any:
            chain = _Chain(self, call, runtime)
            while True:
                turn = chain.turn(chain.at)
                try:
                    result = await (inner if self.per_model is None else around(turn))(turn)
                except Exception as error:
                    pause = chain.moves_on(error)
                    if pause is None:
                        record_served(None)
                        if self.raise_first:
                            chain.raise_first(error)
                        raise
                else:
                    call.journal.answered_by(
                        turn.model, degraded=chain.order[chain.at] is not chain.start
                    )
                    return result
                if pause > 0:
                    await runtime.sleep(pause, chain.turn(chain.at))

        return model_fallback

    def _free_in(self, turn: Call) -> float:
        """Seconds until no policy would reject the call for a model."""
        own = None if self.per_model is None else self._policy(str(turn.model))
        if own is not None and own.refuses(turn):
            return own.free_in(turn)
        return turn.free_in() if turn.refuses(self) else 0.0

    def _named(self, named: str) -> Model:
        """The model that a call names itself, to begin with."""
        for model in self.models:
            if model.name == named:
                return model
        return Model(named)

    def _policy(self, name: str) -> Policy:
        """What goes around a model's turn."""
        if isinstance(self.per_model, Policy):
            return self.per_model
        if name not in self._own:
            policy = self.per_model(name)
            if not isinstance(policy, Policy):
                raise TypeError(f"per_model must give a policy for {name!r}, got {policy!r}")
            self._own.setdefault(name, policy)
        return self._own[name]


class _Left(NamedTuple):
    """How often a model's turn came; from when to when it may come again; whether the model was
    silent."""

    turns: int
    until: float
    latest: float
    silent: bool


class _Chain:
    """The models of one call, in their order; the call as it is for each; whose turn it is."""

    __slots__ = (
        "at",
        "call",
        "left",
        "order",
        "policy",
        "runtime",
        "shut",
        "since",
        "slot",
        "start",
    )

    def __init__(self, policy: ModelFallback, call: Call, runtime: Runtime) -> None:
        self.policy = policy
        self.call = call
        self.runtime = runtime
        self.at = 0
        self.since = call.branch.number
        self.left: dict[int, _Left] = {}
        self.shut: frozenset[object] = frozenset()
        slot = self.slot = call.slot(policy.argument)
        order = self.order = policy.models
        start = self.start = order[0]
        named = slot.given(call.args, call.kwargs)
        if isinstance(named, str) and named and named != start.name:
            start = self.start = policy._named(named)
            self.order = (start, *(model for model in order if model is not start))
        guard = call.journal.guard
        if guard.continues:  # some refuse a request that continues an answer
            self.order = tuple(model for model in self.order if model.prefill) or self.order
        elif guard.restarts:  # its stream has just broken off
            models = policy.models
            after = next((at for at, model in enumerate(models, 1) if model is start), 0)
            self.order = (*models[after:], *models[: max(0, after - 1)], start)

    def turn(self, at: int) -> Call:
        """The call for a model."""
        call, model = self.call, self.order[at]
        turn = call.until(call.deadline)
        turn.model = model.name
        turn.place = _new(_Place, (self, at))
        turn.args, turn.kwargs = self.slot.replaced(call.args, call.kwargs, model.name)
        if model.overrides:
            turn.args, turn.kwargs = _overridden(model, call.fn, turn.args, turn.kwargs)
        if model.call is not None:
            turn.fn = model.call
        if len(self.order) > 1:
            turn.alternatives = self._free_in
        return turn

    def moves_on(self, error: Exception) -> float | None:
        """After an error: the seconds until another model's turn, which is `at` then; None to let
        the error out."""
        call, policy = self.call, self.policy
        failure = call.failure(error)
        rejected = failure.kind is Kind.REJECTED
        if not rejected:
            if policy.raise_first:
                call.journal.remember(self, lambda: error)
            if not call.matches(policy.on, failure, policy) and not self._matches_elsewhere(
                failure
            ):
                return None
        self._leave(error, failure)
        found = min(self._offers(failure), default=None)
        if found is None:
            return None
        *_, to = found
        budgeted = call.budgets is not None or call.journal.outer is not None
        if rejected:
            self._skipped(error)
            self._emit(ModelSkipped, to, error=error)
        elif (used := used_up(call.args, call.kwargs)) is not None:
            call.journal.remark(f"no other model: {used} can be read only once")
            return None
        elif budgeted and not self.turn(to).afford():
            call.journal.reason = "the retry budget is spent"
            call.journal.remark("no other model: the retry budget is spent")
            return None
        else:
            self._emit(ModelLeft, to, failure=failure)
        *_, pause, self.at = found
        return pause

    def _emit(self, kind: type[Event], to: int, **facts: Any) -> None:
        self.call.emit(kind, model=self.order[self.at].name, to=self.order[to].name, **facts)

    def raise_first(self, error: Exception) -> None:
        """Raise the first model's error, unless that is `error` itself."""
        first = self.call.journal.remember(self, lambda: error)
        if first is not error and not control_flow_in(error):
            if isinstance(error, RejectedError):
                self._skipped(error)
            try:
                raise first
            finally:
                del first

    def _skipped(self, error: Exception) -> None:
        self.call.journal.remark(f"{self.order[self.at].name} was skipped: {error}")

    def _matches_elsewhere(self, failure: Failure) -> bool:
        """Whether a failure that the account has would match for another account."""
        if failure.advice is not Advice.STOP or failure.kind not in _OF_ACCOUNT:
            return False
        # The account is in trouble: no model of it will do, and for others it is a FALLBACK.
        self.shut |= {_account(self.order[self.at])}
        return self.call.matches(
            self.policy.on, evolve(failure, advice=Advice.FALLBACK), self.policy
        )

    def _leave(self, error: Exception, failure: Failure) -> None:
        """Record how a model's turn has ended."""
        before, until, latest = self.left.get(self.at), math.inf, math.inf
        for report in self.call.reported(self.since - (failure.kind is Kind.REJECTED), error):
            if report.wait is not None:
                until, latest = self.runtime.now() + report.wait, report.latest
        turns = 1 if before is None else before.turns + 1
        self.left[self.at] = _Left(turns, until, latest, failure.kind is Kind.TIMEOUT)
        self.since = self.call.branch.number

    def _offers(self, failure: Failure) -> Iterator[tuple[bool, bool, float, int]]:
        """Other models that may do what this one did not, the best one first when they are sorted:
        whether it was tried before, whether it was silent then, seconds until it may be tried.

        There is no going round for a call of which no attempt was made.
        """
        now = self.runtime.now()
        any_helps = failure.elsewhere is not False and not self.shut
        for each, model in enumerate(self.order):
            if not (any_helps or self._may_help(failure, model)):
                continue
            left = self.left.get(each)
            if left is None:
                if each != self.at:
                    yield False, False, 0.0, each
            elif left.until < math.inf and left.turns < self.policy.rounds:
                circuit = self.policy._free_in(self.turn(each))
                pause = max(left.until - now, circuit)
                room = min(self.call.room(now), left.latest - now)
                fits = circuit <= LONGEST and pause < room
                if fits and self.call.journal.attempts:
                    yield True, left.silent, pause, each

    def _free_in(self, failure: Failure) -> float:
        """Seconds until another model may be called; infinite where none will do, or the chain
        does not move on from this failure."""
        if failure.kind is not Kind.REJECTED and not self.call.matches(
            self.policy.on, failure, self.policy
        ):
            return math.inf
        return min(
            (
                pause if again else self.policy._free_in(self.turn(each))
                for again, silent, pause, each in self._offers(failure)
                if each != self.at and not silent
            ),
            default=math.inf,
        )

    def _may_help(self, failure: Failure, model: Model) -> bool:
        """Whether a model may do what the last one did not: not where the account is in trouble or
        the limit is the account's own, and it has the same account."""
        account = _account(model)
        if account in self.shut:
            return False
        if failure.elsewhere is not False or account != _account(self.order[self.at]):
            return True
        return not self.policy.on.by_advice(failure)  # whoever names an error means it


def _account(model: Model) -> object:
    return model.account if model.account is not None else model.call


def _overridden(
    model: Model, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Arguments:
    """A call's arguments with a model's overrides put in."""
    for name, value in model.overrides.items():
        slot = slot_of(model.call or fn, name)
        if isinstance(value, Mapping):
            before = slot.given(args, kwargs)
            value = _merged(before if isinstance(before, Mapping) else {}, value)
        args, kwargs = slot.replaced(args, kwargs, value)
    return args, kwargs


def _shown(name: str, value: Any) -> str:
    """An override for people; what may hold a key or a prompt is left out."""
    if any(word in name.lower() for word in _PRIVATE):
        return "..."
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k!r}: {_shown(str(k), v)}" for k, v in value.items()) + "}"
    return unquoted(value)


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
