"""Policies in order, around any callable."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from types import MethodType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast, overload

from attrs import field, frozen

from resilience.events import Listener, subscription_of
from resilience.policy import Effect, Policy

from .call import Call
from .deadline import Deadline, UserDeadline, nearest
from .emitter import Emitter
from .functions import facts_of, refuse_unguardable
from .guard import Guard, closure, guard_of
from .identity import Identity
from .idle import BUSY_FOR_EVER, Idle
from .invoke import into_journal, invoke
from .listening import Subscription
from .options import suggesting, to_flag, to_text
from .order import warn_of_order
from .outcome import Outcome
from .runtime import Inner, Runtime

if TYPE_CHECKING:
    from resilience.explaining import Explanation

    from .blocks import Attempts

__all__ = ["Pipeline"]

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C")


@suggesting
@frozen(init=False, eq=False, repr=False)
class Pipeline(Identity, Policy):
    """Policies, outermost first, around any callable, sync or async.

    One object may guard many functions; they then share its circuits. It is a policy too, so
    pipelines nest. Safe from any thread and any event loop. It pickles as its options: what its
    policies have learnt (circuits and the like) begins anew in the other process.

    `asynchronous` settles whether results are awaited; None (the default) decides by what comes
    back. `name` is for people. `listeners` are functions that get each event, or pairs of one and
    the classes of events that it gets; see `resilience.events`.
    """

    policies: tuple[Policy, ...]
    asynchronous: bool | None
    name: str | None
    listeners: tuple[Any, ...]
    _subscriptions: tuple[Subscription, ...]
    _flat: tuple[Policy, ...]
    _emit: Emitter
    _idle: Any
    _hooked: tuple[Policy, ...]
    _attempts: float
    _chains: dict[Runtime, Inner] = field(factory=dict, init=False)

    def __init__(
        self,
        *policies: Policy,
        asynchronous: bool | None = None,
        name: str | None = None,
        listeners: Sequence[Listener | tuple[Any, ...]] = (),
    ) -> None:
        for policy in policies:
            _check_policy(policy)
        if asynchronous is not None:
            to_flag("asynchronous", asynchronous)
        if name is not None:
            to_text("name", name)
        given: Any = listeners
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise TypeError(f"listeners must be a list of functions, got {given!r}")
        own = tuple(listeners)
        subscriptions = tuple(map(_subscribed, own))
        for inner in policies:
            if isinstance(inner, Pipeline):  # what was said of a part holds for the whole
                subscriptions += inner._subscriptions
                asynchronous = inner.asynchronous if asynchronous is None else asynchronous
        flat = tuple(_flattened(policies))
        resting = asynchronous is not True and all(p.resting for p in flat)
        emitter = Emitter(name, subscriptions)
        for policy in flat:
            policy.attach(emitter)
        cast(Any, self).__attrs_init__(
            policies,
            asynchronous,
            name,
            own,
            subscriptions=subscriptions,
            flat=flat,
            emit=emitter,
            idle=Idle(flat, emitter) if resting else BUSY_FOR_EVER,
            hooked=tuple(filter(_has_hooks, flat)) if resting else (),
            attempts=max(map(_attempts, flat), default=1),
        )
        warn_of_order(flat)

    def __reduce__(self) -> Any:
        return functools.partial(Pipeline, **self._options()), self.policies

    def _options(self) -> dict[str, Any]:
        return {
            "asynchronous": self.asynchronous,
            "name": self.name,
            "listeners": self.listeners,
        }

    # Using it

    def call(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `fn` under the policies. An awaitable comes back if `fn` gives one."""
        return closure(self._guard(fn))(*args, **kwargs)  # type: ignore[no-any-return]

    @overload
    def outcome(  # type: ignore[overload-overlap]  # the first is the narrower one
        self, fn: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, Outcome[R]]: ...
    @overload
    def outcome(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Outcome[T]: ...
    def outcome(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call `fn` like `call`, but give an `Outcome`: an error is in it, not raised."""
        return self._guard(fn).run(args, kwargs, outcome=True)

    def wrap(self, fn: F) -> F:
        """`fn` under the policies: a function with the same signature, overloads and colour.

        What else can be done with it is `guarded(fn)`'s. A class method or static method may be
        given as it is. TypeError for what cannot be guarded.
        """
        if isinstance(fn, (classmethod, staticmethod)):
            return type(fn)(  # pyright: ignore[reportReturnType]  # of the type that was given
                self.wrap(fn.__func__)
            )
        refuse_unguardable(fn, decorating=True)
        self.check(fn)
        guard = Guard(self, fn)
        self._emit.guards(fn)
        made = functools.update_wrapper(closure(guard), fn)
        made.__resilience__ = guard  # type: ignore[attr-defined]  # a function takes attributes
        return made  # type: ignore[return-value]

    def __call__(self, fn: F, /) -> F:
        """The same as `wrap`; what makes a pipeline a decorator."""
        return self.wrap(fn)

    def wrap_client(self, client: C, /) -> C:
        """A client under the policies: a copy of it, of its own type, whose calling methods are
        guarded, in its resources, `with_raw_response` and `with_options(...)` copies, too.

        For clients of openai, auriko, anthropic, groq, mistralai, cohere and google-genai, sync and
        async; TypeError for anything else. What asks a model is guarded, not what only manages
        files and the like. The copy shares the client's connections and settings; the client
        itself stays as it is, and lives as long as the copy.
        """
        from resilience.sdks.clients import copy_of

        return copy_of(client, self.wrap)

    def attempts(self, /, **arguments: Any) -> Attempts:
        """A block of code instead of a function, for a `for` loop, or an `async for`:

            for attempt in pipeline.attempts():
                with attempt:
                    ...

        The block is admitted at `with`, its error or success is the verdict, and the wait before
        the next attempt is done in the loop. After the block's success the loop ends; its last
        error comes out. In an `async for`, `async with attempt:` may wait to be admitted; a plain
        `with` cannot, and is rejected instead. A `Fallback` has no value to give a block, and a
        `Timeout` cannot cut a sync one: TypeError (a Timeout with `pass_as` is allowed).

        `arguments` stand for those of a function, where policies go by them: with
        `CircuitBreaker(key="city")`, `attempts(city="Bergen")` takes that city's circuit. Without
        it, all blocks share the circuit of None, and the log says so, once for each pipeline.
        """
        from .blocks import Attempts  # imported where first needed

        return Attempts(self, arguments)

    def explain(self) -> Explanation:
        """The pipeline in plain words: what each policy does, the most calls it can lead to, the
        longest it can take, what it does with each kind of failure, and the hazards of its order.

            print(pipeline.explain())

        The figures are fields of what is returned. Nothing is called but `Policy.effect` and a
        chain's `per_model` function; what these raise comes out.
        """
        from resilience.explaining import explain

        return explain(self.policies, self._flat, self.name)

    def _repr_html_(self) -> str:
        return self.explain()._repr_html_()

    def __repr__(self) -> str:
        parts = [repr(policy) for policy in self.policies]
        if self.asynchronous is not None:
            parts.append(f"asynchronous={self.asynchronous}")
        if self.name is not None:
            parts.append(f"name={self.name!r}")
        return f"Pipeline({', '.join(parts)})"

    # Being a policy

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        """The chain of all policies around `inner`."""
        for policy in reversed(self.policies):
            inner = policy.bind(inner, runtime)
        return inner

    def check(self, fn: Callable[..., Any]) -> None:
        """Raise TypeError for a function that one of the policies cannot guard."""
        for policy in self._flat:
            policy.check(fn)

    def refuses(self, call: Call, *, inside: object = None) -> bool:
        """Whether one of the policies would reject such a call now: of those further in than one
        of them, if it is given."""
        for policy in reversed(self._flat):
            if policy is inside:
                return False
            if policy.refuses(call):
                return True
        return False

    def free_in(self, call: Call) -> float:
        """Seconds until all policies would let such a call begin."""
        return max((policy.free_in(call) for policy in self._flat), default=0.0)

    def effect(self) -> Effect:
        """That of its policies."""
        return Effect(line="calls what is inside it", parts=self.policies)

    # For guards

    def _chain(self, runtime: Runtime, disabled: bool, deadline: Deadline | None) -> Inner:
        """The policies around the innermost step, for one runtime, under what `deadline()` has set.
        In sync calls its result goes into the journal: to return it from the outermost coroutine
        would cost more."""
        chain = None if disabled else self._chains.get(runtime)
        if chain is None:
            chain = invoke(runtime) if disabled else self.bind(invoke(runtime), runtime)
            if not runtime.asynchronous:
                chain = into_journal(chain)
            if runtime.lasting and not disabled:
                self._chains[runtime] = chain
        if type(deadline) is not UserDeadline or disabled:
            return chain
        end = (nearest(deadline) or deadline).end
        return runtime.bounded(max(0.0, end - runtime.now()), chain)

    def _with(self, place: int, policy: Policy) -> Pipeline:
        """The same pipeline with another policy at a place, counted through nested pipelines."""
        parts: list[Policy] = []
        for part in self.policies:
            size = len(part._flat) if isinstance(part, Pipeline) else 1
            if 0 <= place < size:
                part = part._with(place, policy) if isinstance(part, Pipeline) else policy
            place -= size
            parts.append(part)
        return Pipeline(*parts, **self._options())

    def _guard(self, fn: Any) -> Guard:
        """For one call: nothing is copied from the function."""
        bound = type(fn) is MethodType
        guard = guard_of(fn.__func__ if bound else fn)
        if guard is not None and guard.pipeline is self:
            if not bound:
                return guard
            fn = MethodType(guard.fn, fn.__self__)  # the same policies once, not in themselves
        facts = facts_of(fn)
        if self not in facts.checked:
            refuse_unguardable(fn, decorating=False)
            self.check(fn)
            if not isinstance(fn, functools.partial):  # what is bound differs from one to another
                facts.checked.add(self)
        return Guard(self, fn)


def _subscribed(listener: Any) -> Subscription:
    """A listener, or a tuple of one and of the classes of events that it gets."""
    callback, *kinds = listener if isinstance(listener, tuple) else (listener,)
    return subscription_of("listeners", callback, tuple(kinds))


def _has_hooks(policy: Policy) -> bool:
    """Whether it has anything to do for a healthy call at rest."""
    kind = type(policy)
    return kind.rewrite_first is not Policy.rewrite_first or kind.at_rest is not Policy.at_rest


def _attempts(policy: Any) -> float:
    """How often a policy makes a call that goes on failing."""
    if policy.role != "retry":
        return 1
    return math.inf if policy.attempts is None else float(policy.attempts)


def _flattened(policies: Iterable[Policy]) -> Iterator[Policy]:
    for policy in policies:
        if isinstance(policy, Pipeline):
            yield from policy._flat
        else:
            yield policy


def _check_policy(policy: Any) -> None:
    if isinstance(policy, type):
        raise TypeError(
            f"policies must be policy objects, got the class {policy.__name__}: "
            f"write {policy.__name__}()"
        )
    if not isinstance(policy, Policy):
        raise TypeError(
            f"policies must be policy objects such as Retry(), derived from "
            f"resilience.policy.Policy, got {policy!r}"
        )
