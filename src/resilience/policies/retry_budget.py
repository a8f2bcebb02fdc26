"""Keep extra calls (retries, calls of other models) within a share of the calls asked for.

In an outage every call is retried, and the retries themselves can keep a service down; a budget
bounds what they add. Outermost, or outside `ModelFallback` and `Retry`: it counts what is inside
it, guarded functions that the function calls included.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, ClassVar

from attrs import Factory, field, frozen

from resilience._core.clock import now as clock_now
from resilience._core.identity import Restarting
from resilience._core.idles import Idles
from resilience._core.instances import Instances
from resilience._core.keyed import Keyed, check_key, key_title
from resilience._core.locks import new_lock
from resilience._core.options import (
    Seconds,
    Value,
    call_repr,
    checked,
    count,
    number,
    plain,
    seconds,
    suggesting,
    title,
    to_key,
    to_number,
    to_one_of,
    to_plain_function,
    to_text,
    warn_option_failed,
)
from resilience._core.results import PLAIN, completion_of
from resilience.events import BudgetSpent
from resilience.policy import Call, Effect, Idle, Inner, Policy, Runtime, Verdict

__all__ = ["BudgetLevel", "RetryBudget"]

_SAVED = 10.0
"""Seconds of the reserve that are there from the start."""
_CLOSE = 1e-9
"""Ten times 0.1 is a bit less than 1."""


def _to_burst(name: str, value: Any) -> float:
    found = to_number(name, value, 0.0)
    if found == 0:
        raise ValueError(f"{name} must be more than 0, got {value!r}")
    return found


def _to_price(value: Any) -> Any:
    return None if value is None else to_plain_function("cost", value)


@frozen(eq=False, repr=False)
class BudgetLevel(Value):
    """How a budget stands: `left` of at most `burst`; `spent` on extra calls that were made so far
    or are about to be, and how many were `refused`."""

    left: float
    burst: float
    spent: float
    refused: int


@suggesting
@frozen(eq=False, repr=False)
class RetryBudget(Restarting, Policy):
    """Allows for extra calls, those beyond the one that the caller asked for, up to a share of all
    calls. When it is spent, the error of the last attempt comes out at once, as itself, with a note
    that says so.

    - `ratio` (0.1): how many extra calls each call allows for.
    - `reserve` (1, or 0 with `cost`): extra calls a second that are allowed for in any case, so
      that a program that makes few calls may retry.
    - `burst` (100): how many are saved up at most, and may be made at once.
    - `of` ("calls"): what allows for extra calls: each call, or with "successes" each one that went
      well. With "calls", what is there from the start is the `reserve` of 10 seconds; with
      "successes" it is `burst`, as in the SDKs of AWS (500 tokens, of which a retry costs 5 and a
      success returns 1, are `RetryBudget(0.2, of="successes", burst=100, reserve=0)`) and in gRPC.
    - `cost` (None): a function of the call's arguments that gives what it costs in money, tokens or
      whatever. Then all of this is a share of that, and `burst` has to be given, in the same unit.
      A call that it raises for, or gives no number for, costs nothing, and the log says so.
    - `key` (None): an argument's name, or a function of the call's arguments: one budget for each
      value. A call whose key cannot be computed has none, and the log says so. A budget unused for
      `forget_after` seconds (600) begins anew, and so does the one unused for longest when there
      are more than `keep` (100,000).
    - `name` (None): for people.

    It covers the policies inside it, and the guarded functions that are called inside its calls, in
    the same thread or task or one that has its context. The object may stand in any number of
    pipelines, which then share it; a call inside another one counts as part of that. An extra call
    that is not made after all (cancelled, interrupted or rejected before it) is given back.

    While the budget is full, calls are not counted, and may be at rest. It pickles as its options,
    and is full or empty anew in the other process. Safe from any thread and any event loop.
    """

    role: ClassVar[str | None] = "retry_budget"

    cost: Callable[..., float] | None = field(default=None, converter=_to_price, kw_only=True)
    ratio: float = number(0.1, most=1.0)
    reserve: float = checked(
        partial(to_number, least=0.0),
        Factory(lambda self: 1.0 if self.cost is None else 0.0, takes_self=True),
        metadata={"shown": 1.0},
    )
    burst: float | None = checked(
        _to_burst,
        Factory(lambda self: 100.0 if self.cost is None else None, takes_self=True),
        optional=True,
        metadata={"shown": 100.0},
    )
    of: str = checked(to_one_of("calls", "successes"), "calls")
    key: str | Callable[..., Hashable] | None = checked(to_key, None, optional=True)
    name: str | None = checked(to_text, None, optional=True)
    keep: int = count(100_000)
    forget_after: Seconds = seconds(600.0)
    _buckets: _Buckets = field(
        default=Factory(lambda self: _Buckets(self), takes_self=True), init=False, repr=False
    )
    resting = True

    def __attrs_post_init__(self) -> None:
        if self.ratio == self.reserve == 0:
            raise ValueError("ratio must be more than 0 if reserve is 0, got 0.0")
        budgets.add(self)

    def __repr__(self) -> str:
        return call_repr(self)

    def snapshot(self) -> BudgetLevel:
        """How the budget stands now. TypeError with a key: see `snapshots()`."""
        if self.key is not None:
            raise TypeError("this budget is keyed: use snapshots(), which has each value's")
        return self.snapshots()[None]

    def snapshots(self) -> dict[Hashable, BudgetLevel]:
        """The same for each value of the key that calls were counted for; under None without a
        key."""
        return self._buckets.levels(clock_now())

    def watch(self, idle: Idle) -> None:
        self._buckets.idles.add(idle)

    def busy(self) -> bool:
        return self._buckets.busy()

    def check(self, fn: Callable[..., Any]) -> None:
        """Raise TypeError for a function without the argument that is the key."""
        check_key(self.key, fn)

    def effect(self) -> Effect:
        cost = "" if self.cost is None else f" by {title(self.cost)}"
        calls = "calls" if self.of == "calls" else "calls that went well"
        line = f"allows for extra calls: {self.ratio:.3g} for each of the {calls}{cost}"
        if self.reserve:
            line += f", and {self.reserve:g} a second"
        return Effect(line=line if self.key is None else f"{line}, for each {key_title(self.key)}")

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        buckets, by_calls = self._buckets, self.of == "calls"

        async def retry_budget(call: Call) -> Any:
            bucket = buckets.keyed.of(call, runtime.now())
            if bucket is None or _is_counted(call, bucket):
                return await inner(call)
            budget = _Budget(self, bucket, call, runtime)
            if by_calls:
                budget.earn(None)
            result = await inner(call.replace(budgets=(*(call.budgets or ()), budget)))
            if not by_calls:
                pending = None if type(result) in PLAIN else completion_of(result)
                if pending is None:
                    budget.earn(None)
                else:
                    pending.then(budget.earn)
            return result

        return retry_budget

    def _price(self, call: Call) -> float:
        """What a call costs."""
        if self.cost is None:
            return 1.0
        try:
            return to_number("cost", self.cost(*call.args, **call.kwargs), 0.0)
        except Exception as problem:
            warn_option_failed("RetryBudget(cost=)", problem)
            return 0.0


class _Bucket:
    """What is left of the budget for one value of the key."""

    __slots__ = ("at", "left", "refused", "spent")

    def __init__(self, left: float) -> None:
        self.left = left
        self.at: float | None = None
        """When `left` was set."""
        self.spent = 0.0
        self.refused = 0


class _Budget:
    """The budget as it stands around one call: what `Call.budgets` has."""

    __slots__ = ("bucket", "call", "policy", "runtime")

    def __init__(self, policy: RetryBudget, bucket: _Bucket, call: Call, runtime: Runtime) -> None:
        self.policy = policy
        self.bucket = bucket
        self.call = call
        self.runtime = runtime

    def __call__(self, call: Call) -> Callable[[], object] | None:
        """Take one more attempt in a call: what gives it back; None if the budget is spent."""
        own = call.journal is self.call.journal
        price = self.policy._price(call if own else self.call)  # which knows its function's
        buckets = self.policy._buckets
        if buckets.take(self.bucket, price, self.runtime.now()):
            return partial(buckets.give_back, self.bucket, price)
        call.emit(BudgetSpent, budget=self.policy.name, model=call.model)
        return None

    def earn(self, verdict: Verdict) -> None:
        """Add what the call allows for, unless it has failed."""
        if verdict is None:
            earned = self.policy.ratio * self.policy._price(self.call)
            self.policy._buckets.add(self.bucket, earned, self.runtime.now())


def _is_counted(call: Call, bucket: _Bucket) -> bool:
    """Whether a pipeline further out has counted it."""
    return any(isinstance(each, _Budget) and each.bucket is bucket for each in call.all_budgets())


class _Buckets:
    """Those of one budget, and which of them are not full: while there is one, calls are counted,
    and not at rest."""

    __slots__ = (
        "__weakref__",
        "_burst",
        "_forget_after",
        "_lock",
        "_not_full",
        "_reserve",
        "idles",
        "keyed",
    )

    def __init__(self, budget: RetryBudget) -> None:
        if budget.burst is None:
            raise ValueError("burst must be given with cost, in the same unit, got None")
        if budget.cost is None and budget.burst < 1:
            raise ValueError(f"burst must be 1 or more, got {budget.burst!r}")
        burst = self._burst = budget.burst
        self._reserve = budget.reserve
        self._forget_after = plain(budget.forget_after)
        start = burst if budget.of == "successes" else min(burst, _SAVED * budget.reserve)
        self._lock = new_lock()
        self.idles = Idles()
        self.keyed = Keyed(
            "RetryBudget", budget.key, lambda key: _Bucket(start), self._forget, budget.keep
        )
        # The first call is not at rest in any case: so it is seen whether it makes others.
        self._not_full = OrderedDict.fromkeys(self.keyed.all().values())

    def busy(self) -> bool:
        return bool(self._not_full)

    def take(self, bucket: _Bucket, price: float, now: float) -> bool:
        with self._lock:
            left = self._left(bucket, now)
            enough = left >= price - _CLOSE
            if enough:
                left = max(0.0, left - price)
                bucket.spent += price
            else:
                bucket.refused += 1
            changed = self._set(bucket, left, now)
        if changed:
            self.idles.update()
        return enough

    def add(self, bucket: _Bucket, earned: float, now: float) -> None:
        with self._lock:
            changed = self._set(bucket, self._left(bucket, now) + earned, now)
            # One that is called no more must not keep the others from rest.
            other = next(iter(self._not_full), bucket)
            if other is not bucket:
                self._not_full.move_to_end(other)
                if self._left(other, now) >= self._burst or self._unused(other, now):
                    del self._not_full[other]
                    changed = True
        if changed:
            self.idles.update()

    def give_back(self, bucket: _Bucket, price: float) -> None:
        with self._lock:
            bucket.spent -= price
            changed = self._set(bucket, bucket.left + price, bucket.at)
        if changed:
            self.idles.update()

    def levels(self, now: float) -> dict[Hashable, BudgetLevel]:
        with self._lock:
            return {
                key: BudgetLevel(self._left(each, now), self._burst, each.spent, each.refused)
                for key, each in self.keyed.all().items()
            }

    def _left(self, bucket: _Bucket, now: float) -> float:
        """What is left now, with what the reserve has added since."""
        passed = max(0.0, now - bucket.at) if bucket.at is not None else 0.0
        return min(self._burst, bucket.left + passed * self._reserve)

    def _set(self, bucket: _Bucket, left: float, now: float | None) -> bool:
        """Set what is left now: whether the bucket has become full, or is no longer full."""
        bucket.at = now
        bucket.left = min(self._burst, left)
        before = bucket in self._not_full
        if bucket.left < self._burst - _CLOSE:
            self._not_full[bucket] = None
            return not before
        self._not_full.pop(bucket, None)
        return before

    def _unused(self, bucket: _Bucket, now: float) -> bool:
        return bucket.at is not None and now - bucket.at >= self._forget_after

    def _forget(self, bucket: _Bucket, now: float, crowded: bool) -> bool:
        """Whether one may be forgotten, which it is then."""
        if not crowded and not self._unused(bucket, now):
            return False
        with self._lock:
            self._not_full.pop(bucket, None)
        return True


budgets: Instances[RetryBudget] = Instances()
