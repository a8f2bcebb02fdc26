"""Limit what all calls together cost in a period: dollars an hour, or any other unit.

Inside `Retry`, so that each attempt is admitted by the most that it may cost. For requests and
tokens a minute, for which calls wait, there is `RateLimit`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, ClassVar

from attrs import Factory, field, frozen

from resilience._core.arguments import slot_to_read
from resilience._core.clock import moment
from resilience._core.clock import now as clock_now
from resilience._core.estimate import ANSWER_LIMITS, limit_in, said_in
from resilience._core.identity import Restarting
from resilience._core.instances import Instances
from resilience._core.keyed import Keyed, check_key, key_of, key_title, model_in
from resilience._core.locks import new_lock
from resilience._core.options import (
    Seconds,
    Value,
    call_repr,
    checked,
    count,
    plain,
    seconds,
    suggesting,
    to_key,
    to_number,
    to_plain_function,
    to_text,
    warn_option_failed,
)
from resilience.errors import BadResultError, SpendLimitExceededError
from resilience.policy import Call, Effect, Gate, Runtime, Verdict, token_count

__all__ = ["SpendLevel", "SpendLimit"]

_SLICES = 60
"""Parts of the period in which what was spent is kept."""
_CLOSE = 1e-9
_DEEPEST = 20
_ARGUMENT = 2
"""How deep an argument is among all of them; what is deeper may be a message."""


def _to_cost(name: str, value: Any) -> float:
    found = to_number(name, value, 0.0)
    if found == 0:
        raise ValueError(f"{name} must be more than 0, got {value!r}")
    return found


@frozen(eq=False, repr=False)
class SpendLevel(Value):
    """What was `spent` in the period that ends now, and what is `reserved` for attempts under way,
    of the `limit`."""

    spent: float
    reserved: float
    limit: float


@suggesting
@frozen(eq=False, repr=False)
class SpendLimit(Restarting, Gate):
    """Rejects an attempt that could bring what was spent in `per` seconds to more than `cost`.

    - `cost`: the most that all attempts of any `per` seconds may cost together, in whatever unit
      `price` has: dollars, cents, tokens.
    - `per`: seconds. What was spent counts for so long, and up to a sixtieth longer.
    - `price`: a function of the model's name (None if there is none), the prompt's tokens and the
      answer's tokens that gives what an attempt costs. An attempt that it raises for, as for a
      model that it does not know, is let through with nothing reserved, and the log says so.
    - `estimate` (None): a function of the call's arguments that gives the most that it may cost.
      By default `price` of as many tokens as the text in its arguments has bytes, and of the
      longest answer that it allows for: its `max_tokens` (or `max_completion_tokens`,
      `max_output_tokens`, `max_new_tokens`, or one of them in Google's `config`), else `answer`,
      times its `n`; also if the function raises.
    - `answer` (4096): tokens of the longest answer, for a call that does not limit it.
    - `key` (None): an argument's name, or a function of the call's arguments: a limit for each
      value. A call whose key cannot be computed is not limited, and the log says so. Of more than
      `keep` values (100,000) the one unused for longest is forgotten, with what it has spent.
    - `name` (None): for people.

    While an attempt is under way, the most that it may cost is reserved. Afterwards it costs the
    `price` of the tokens that its result says it took; where it does not say, or it has failed or
    was cancelled, what was reserved, as it may have been charged for. One that was surely not
    executed (`Failure.sent` is False, a status of 400 to 499 but 408, or a policy inside has
    rejected it) costs nothing. A stream is under way until its end.

    A rejected call gets `SpendLimitExceededError`, which has the figures; it has `retry_at` if
    enough will be free then. What was spent is known to this process alone, and only as long as it
    runs; the object may stand in several pipelines, which then share it. It pickles as its options.
    Safe from any thread and any event loop.
    """

    role: ClassVar[str | None] = "spend_limit"

    cost: float = checked(_to_cost)
    per: Seconds = seconds()
    price: Callable[[str | None, int, int], float] = checked(to_plain_function)
    estimate: Callable[..., float] | None = checked(to_plain_function, None, optional=True)
    answer: int = count(4096)
    key: str | Callable[..., Hashable] | None = checked(to_key, None, optional=True)
    name: str | None = checked(to_text, None, optional=True)
    keep: int = count(100_000)
    _ledgers: Keyed[_Ledger] = field(
        default=Factory(
            lambda self: Keyed(
                "SpendLimit", self.key, lambda key: _Ledger(plain(self.per)), _may_go, self.keep
            ),
            takes_self=True,
        ),
        init=False,
        repr=False,
    )

    def __attrs_post_init__(self) -> None:
        _limits.add(self)

    def __repr__(self) -> str:
        return call_repr(self, ("cost", "per"))

    def snapshot(self) -> SpendLevel:
        """How the limit stands now. TypeError with a key: see `snapshots()`."""
        if self.key is not None:
            raise TypeError("this limit is keyed: use snapshots(), which has each value's")
        return self.snapshots()[None]

    def snapshots(self) -> dict[Hashable, SpendLevel]:
        """The same for each value of the key; under None without a key."""
        now = clock_now()
        return {
            key: SpendLevel(*ledger.level(now), self.cost)
            for key, ledger in self._ledgers.all().items()
        }

    def check(self, fn: Callable[..., Any]) -> None:
        """Raise TypeError for a function without the argument that is the key."""
        check_key(self.key, fn)

    def effect(self) -> Effect:
        whose = "" if self.key is None else f" for each {key_title(self.key)}"
        return Effect(
            line=f"rejects calls that could bring what is spent in {plain(self.per):g} s to more "
            f"than {self.cost:g}{whose}"
        )

    def refuses(self, call: Call) -> bool:
        return self.free_in(call) > 0

    def free_in(self, call: Call) -> float:
        ledger = self._ledgers.found(call)
        return 0.0 if ledger is None else ledger.free_in(self._most(call), self.cost, clock_now())

    def _error(
        self, ledger: _Ledger, call: Call, most: float, wait: float, now: float
    ) -> SpendLimitExceededError:
        spent, reserved = ledger.level(now)
        key = key_of(self.key, call)
        known = math.isfinite(wait)
        return SpendLimitExceededError(
            wait if known else None,
            moment(wait) if known else None,
            name=self.name,
            key=key,
            model=model_in(self.key, key),
            limit=self.cost,
            per=plain(self.per),
            spent=spent + reserved,
            most=most,
        )

    def try_enter(self, call: Call, runtime: Runtime) -> Any:
        now = runtime.now()
        ledger = self._ledgers.of(call, now)
        if ledger is None:
            return _UNLIMITED
        reserved = _Reservation(self._most(call), call, runtime)
        if not ledger.reserve(reserved, self.cost, now):
            wait = ledger.free_in(reserved.most, self.cost, now)
            raise self._error(ledger, call, reserved.most, wait, now)
        return reserved

    def measure(self, permit: Any, call: Call, result: Any) -> None:
        if permit.ledger is not None:
            permit.used = token_count(result)

    def leave(self, permit: Any, call: Call, error: Verdict) -> None:
        if permit.ledger is None:
            return
        most = permit.most
        if not permit.made:
            permit.settle(0.0)
        elif isinstance(error, Exception):
            permit.settle(self._after(call, error, most))
        else:  # a stream that nobody has read to its end has not said it all
            used = permit.used() if error is None else None
            permit.settle(self._price(call, used, most))

    def _after(self, call: Call, error: Exception, most: float) -> float:
        """What a failed attempt has cost."""
        if type(error) is BadResultError:
            return self._price(call, token_count(error.result)(), most)
        failure = call.failure(error)
        status = failure.status or 0
        refused = failure.sent is False or (400 <= status < 500 and status != 408)
        return 0.0 if refused else most

    def _price(self, call: Call, used: tuple[int | None, int | None] | None, most: float) -> float:
        """What an attempt has cost by the tokens that it used, if its result says."""
        if used is None:
            return most
        prompt, said = used
        found = self._asked("price", self.price, _model(call), prompt or 0, said or 0)
        return most if found is None else found

    def _most(self, call: Call) -> float:
        """The most that an attempt may cost."""
        if self.estimate is not None:
            found = self._asked("estimate", self.estimate, *call.args, **call.kwargs)
            if found is not None:
                return found
        prompt = _bytes((call.args, call.kwargs))
        answer = _longest_answer(call, self.answer)
        return self._asked("price", self.price, _model(call), prompt, answer) or 0.0

    @staticmethod
    def _asked(option: str, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> float | None:
        """What the user's function returns; None if it raises, or returns no number, and the log
        says so."""
        try:
            return to_number(option, fn(*args, **kwargs), 0.0)
        except Exception as problem:
            warn_option_failed(f"SpendLimit({option}=)", problem)
            return None


class _Reservation:
    """What is reserved for an attempt. Its finalizer settles it if Ctrl-C has kept `leave` from
    it."""

    ledger: _Ledger | None = None
    """Where it is reserved; None once it is settled."""

    def __init__(self, most: float, call: Call, runtime: Runtime) -> None:
        self.most = most
        self.used: Any = None
        """What gives the tokens that its result says it took."""
        self._journal = call.journal
        self._branch = call.branch
        self._number = call.branch.number
        self._now = runtime.now

    @property
    def made(self) -> bool:
        """Whether the function was called, and not by another call for this one as well."""
        number = self._branch.number
        return number != self._number and not self._journal.adopted(number)

    def settle(self, spent: float) -> None:
        """Record what it has cost. Only the first call counts, from any thread."""
        ledger = self.ledger
        if ledger is not None:
            ledger.settle(self, spent, self._now())
            self.ledger = None

    def __del__(self) -> None:
        self.settle(self.most if self.made else 0.0)


class _Unlimited:
    """The permit of a call whose key cannot be computed."""

    ledger = None


_UNLIMITED = _Unlimited()


class _Ledger:
    """What is spent and what is reserved, for one value of the key."""

    __slots__ = ("_lock", "_reserved", "_slices", "_width", "per")

    def __init__(self, per: float) -> None:
        self.per = per
        self._width = per / _SLICES
        self._slices: deque[list[float]] = deque()  # of an end and an amount, the oldest first
        self._reserved: dict[int, float] = {}  # by the `id` of what it is reserved for
        self._lock = new_lock()

    def level(self, now: float) -> tuple[float, float]:
        """What was spent in the period that ends now, and what is reserved."""
        with self._lock:
            while self._slices and self._slices[0][0] + self.per <= now:
                self._slices.popleft()
            spent = math.fsum(amount for _, amount in self._slices)
            return spent, math.fsum(self._reserved.values())

    def free_in(self, most: float, limit: float, now: float) -> float:
        """Seconds until so much may be spent; infinite if nobody knows."""
        with self._lock:
            over = math.fsum((*self.level(now), most, -limit))
            if over <= limit * _CLOSE:
                return 0.0
            for end, amount in self._slices:
                over -= amount
                if over <= limit * _CLOSE:
                    return max(_CLOSE, end + self.per - now)
            return math.inf

    def reserve(self, reserved: _Reservation, limit: float, now: float) -> bool:
        """Reserve what an attempt may cost, if it is there."""
        with self._lock:
            if self.free_in(reserved.most, limit, now) > 0:
                return False
            reserved.ledger = self
            self._reserved[id(reserved)] = reserved.most
            return True

    def settle(self, reserved: _Reservation, spent: float, now: float) -> None:
        with self._lock:
            if spent > 0 and id(reserved) in self._reserved:
                if not self._slices or self._slices[-1][0] <= now:
                    self._slices.append([now + self._width, 0.0])
                self._slices[-1][1] += spent  # if Ctrl-C comes now, it is better counted twice
            self._reserved.pop(id(reserved), None)

    def after_fork(self) -> None:
        """No attempt is under way in the child."""
        self._reserved.clear()


def _may_go(ledger: _Ledger, now: float, crowded: bool) -> bool:
    return crowded or ledger.level(now) == (0.0, 0.0)


def _model(call: Call) -> str | None:
    """The model that is called."""
    named = call.model or _given(call, "model")
    return named if isinstance(named, str) else None


def _given(call: Call, name: str) -> Any:
    """The value of an argument, its default included; None if there is none."""
    return slot_to_read(call.fn, name).read(call.args, call.kwargs)


def _bytes(value: Any, depth: int = 0) -> int:
    """Of all the text in a value: no tokenizer makes more tokens of it."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "replace"))
    if isinstance(value, (bytes, bytearray)):
        return len(value)
    if depth < _DEEPEST and isinstance(value, Mapping):
        return sum(_bytes(each, depth + 1) for each in (*value, *value.values()))
    if depth < _DEEPEST and isinstance(value, Sequence):
        return sum(_bytes(each, depth + 1) for each in value)
    said = said_in(value) if depth > _ARGUMENT else None
    return 0 if said is None else _bytes(said, depth + 1)


def _longest_answer(call: Call, otherwise: int) -> int:
    """Tokens that a call allows for at most, or that are taken if it does not say."""
    given = next(filter(None, (_number(call, name) for name in ANSWER_LIMITS)), 0)
    most = given or limit_in(_given(call, "config")) or otherwise
    return most * (_number(call, "n") or 1)


def _number(call: Call, name: str) -> int:
    found = _given(call, name)
    return found if isinstance(found, int) and found > 0 else 0


def _after_fork(limit: SpendLimit) -> None:
    for ledger in limit._ledgers.all().values():
        ledger.after_fork()


_limits: Instances[SpendLimit] = Instances(_after_fork)
