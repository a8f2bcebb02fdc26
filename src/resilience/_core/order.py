"""Orders of policies that do not do what they look like, with the reason.

Policies are known here by their `role` and a few of their options, not by their classes.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from .stack import outside

__all__ = ["PolicyOrderWarning", "hazards", "missing_keys", "warn_of_order"]


class PolicyOrderWarning(UserWarning):
    """A pipeline's order of policies defeats one of them; the message says which and why."""


def warn_of_order(policies: Sequence[object]) -> None:
    """Warn once for each hazard, at the line that builds the pipeline."""
    for hazard in hazards(policies):
        warnings.warn(hazard, PolicyOrderWarning, stacklevel=outside())


def hazards(policies: Sequence[Any]) -> Iterator[str]:
    """What is wrong with an order, outermost policy first."""
    order = _Order(policies)
    for rule in _RULES:
        found = rule(order)
        if found is not None:
            yield found


def missing_keys(policies: Sequence[Any], arguments: Mapping[str, object]) -> Iterator[str]:
    """Which policies cannot find their key among the arguments of a block of code."""
    known = set(arguments)
    for policy in policies:
        if policy.role == "models":
            known.add(policy.argument)
        elif (shared := _KEYED.get(policy.role)) is None:
            continue
        elif isinstance(policy.key, str) and policy.key not in known:
            yield (
                f"{policy!r} cannot find its key in attempts(), so all blocks share one {shared}; "
                f"write attempts({policy.key}=...)"
            )


_KEYED = {
    "breaker": "circuit",
    "bulkhead": "limit",
    "hold": "hold",
    "rate_limit": "limit",
    "retry_budget": "budget",
    "spend_limit": "limit",
}
"""Roles of policies with a `key`, and what there is one of for each value."""


class _Order:
    """The policies of a pipeline, outermost first, and the places of those of each role."""

    def __init__(self, policies: Sequence[Any]) -> None:
        self.policies = policies
        self.retries = self._of("retry")
        self.breakers = self._of("breaker")
        self.bulkheads = self._of("bulkhead")
        self.limits = self._of("rate_limit")
        self.holds = self._of("hold")
        self.budgets = self._of("retry_budget")
        self.spending = self._of("spend_limit")
        self.chains = self._of("models")
        self.timeouts = self._of("timeout")
        self.streamings = self._of("streaming")
        self.fallbacks = self._of("fallback")
        self.flights = self._of("single_flight")
        self.keys = self._of("idempotency")
        self.checks = self._of("bad_result")

    def _of(self, role: str) -> list[int]:
        return [place for place, policy in enumerate(self.policies) if policy.role == role]

    def seconds(self, *, outside: int = -1, inside: int = -1) -> list[Any]:
        """Of the Timeouts outside one place, or inside one: floats, or functions of the call."""
        return [
            self.policies[place].seconds
            for place in self.timeouts
            if (place < outside if inside < 0 else place > inside)
        ]


_Rule: TypeAlias = Callable[[_Order], "str | None"]


def _any_outside(outer: list[int], inner: list[int]) -> bool:
    """Whether one of these places is outside one of those."""
    return bool(outer and inner) and min(outer) < max(inner)


def _two_retries(order: _Order) -> str | None:
    if len(order.retries) < 2:
        return None
    from .meeting import may_meet  # which few pipelines need

    conditions = [order.policies[place].on for place in order.retries]
    if not any(may_meet(one, other) for one, other in itertools.combinations(conditions, 2)):
        return None
    return (
        "two Retry policies in one pipeline whose `on` may match the same failure: what the inner "
        "one gives up on, the outer one does not retry (unless retry_exhausted=True); keep one, or "
        "make their `on` disjoint"
    )


def _breaker_outside_retry(order: _Order) -> str | None:
    if not order.retries or not _any_outside(order.breakers, order.retries[:1]):
        return None
    return (
        "CircuitBreaker outside Retry: it counts only calls whose retries have failed, and opens "
        "late; put it inside Retry"
    )


def _budget_inside(order: _Order) -> str | None:
    if not _any_outside([*order.retries, *order.chains], order.budgets):
        return None
    return (
        "RetryBudget inside Retry or ModelFallback: it does not see their extra calls; put it "
        "outside"
    )


def _spending_outside_retry(order: _Order) -> str | None:
    if not _any_outside(order.spending, [*order.retries, *order.chains]):
        return None
    return (
        "SpendLimit outside Retry or ModelFallback: it reserves what one attempt may cost, and "
        "they make several; put it inside"
    )


def _bulkhead_outside_retry(order: _Order) -> str | None:
    if not _any_outside(order.bulkheads, order.retries):
        return None
    return (
        "Bulkhead outside Retry: a call keeps its permit while it waits to retry; put it inside "
        "Retry"
    )


def _limit_outside_retry(order: _Order) -> str | None:
    if not _any_outside(order.limits, order.retries):
        return None
    return (
        "RateLimit outside Retry: it counts a call once, however often it is retried, and goes "
        "beyond the limit; put it inside Retry"
    )


def _hold_outside_retry(order: _Order) -> str | None:
    if not _any_outside(order.holds, order.retries):
        return None
    return (
        "Hold outside Retry: it hears of a Retry-After only when all retries have failed; put it "
        "inside Retry"
    )


def _hung_calls_not_counted(order: _Order) -> str | None:
    for breaker in order.breakers:
        if order.seconds(outside=breaker) and not order.seconds(inside=breaker):
            return (
                "CircuitBreaker with a Timeout outside it and none inside: a call cut from outside "
                "is no verdict, so hung calls are never counted; put a Timeout inside it"
            )
    return None


def _retry_outside_chain(order: _Order) -> str | None:
    if not _any_outside(order.retries[:1], order.chains[:1]):
        return None
    return (
        "Retry outside ModelFallback: every retry runs through the whole chain of models again; "
        "put it inside ModelFallback"
    )


def _timeout_around_attempts(order: _Order) -> str | None:
    if not order.chains or not order.retries:
        return None
    chain, retry = order.chains[0], order.retries[-1]
    if order.seconds(outside=chain) or not any(chain < each < retry for each in order.timeouts):
        return None
    return (
        "attempt Timeout outside Retry with no total Timeout: it bounds all attempts at one model "
        "together, and nothing bounds the call; put it inside Retry and a total Timeout outermost"
    )


def _streaming_outside_retry(order: _Order) -> str | None:
    if not _any_outside(order.streamings, order.retries):
        return None
    return (
        "Streaming outside Retry: its time for the first content covers all attempts; put it "
        "inside Retry"
    )


def _fallback_inside(order: _Order) -> str | None:
    if not _any_outside([*order.retries, *order.chains, *order.breakers], order.fallbacks):
        return None
    return (
        "Fallback inside Retry, ModelFallback or CircuitBreaker: its value hides the failure from "
        "them; put it outside"
    )


def _flight_inside_breaker(order: _Order) -> str | None:
    if not _any_outside(order.breakers, order.flights):
        return None
    return (
        "SingleFlight inside CircuitBreaker: a failure that several callers share is counted once "
        "for each of them; put it outside"
    )


def _flight_inside_retry(order: _Order) -> str | None:
    if not _any_outside(order.retries, order.flights):
        return None
    return (
        "SingleFlight inside Retry: when a shared call fails, everybody who shares it retries "
        "after a wait of their own, and those retries are not shared; put it outside"
    )


def _flight_inside_key(order: _Order) -> str | None:
    plain = [place for place in order.flights if order.policies[place].key is None]
    if not _any_outside(order.keys, plain):
        return None
    return (
        "SingleFlight inside IdempotencyKey: no call equals another, as each has a header of its "
        "own; put it outside, or give it a key"
    )


def _check_outside(order: _Order) -> str | None:
    if not _any_outside(order.checks, [*order.retries, *order.breakers, *order.chains]):
        return None
    return (
        "BadResult outside policies that see bad results: it reads as if they did not, as it is "
        "the attempt's result that is checked; put it innermost"
    )


def _no_time_for_second_model(order: _Order) -> str | None:
    if not order.chains or not order.retries or order.retries[-1] < order.chains[0]:
        return None
    attempts = order.policies[order.retries[-1]].attempts
    totals = order.seconds(outside=order.chains[0])
    tries = order.seconds(inside=order.retries[-1])
    if attempts is None or not totals or not tries or not _all_known(totals + tries):
        return None
    total, each = min(totals), min(tries)
    if attempts * each < total:
        return None
    return (
        f"{attempts} attempts of {each:g} s use up the total Timeout of {total:g} s before the "
        f"second model's turn; shorten the attempts' Timeout or lengthen the total"
    )


def _timeout_never_fires(order: _Order) -> str | None:
    policies = [order.policies[place] for place in order.timeouts]
    for outer, inner in itertools.combinations(policies, 2):
        if not _all_known([outer.seconds, inner.seconds]) or inner.seconds < outer.seconds:
            continue
        if outer.pass_as is not None and inner.pass_as is None:
            continue  # the outer one is only passed on: the inner one sees to it
        return (
            f"a Timeout of {inner.seconds:g} s inside one of {outer.seconds:g} s: the inner one "
            f"never fires; make the outer one longer, or leave the inner one out"
        )
    return None


def _wait_never_fits(order: _Order) -> str | None:
    for place in order.retries:
        from resilience.waits import shortest  # which whoever retries has imported

        retry, totals = order.policies[place], order.seconds(outside=place)
        wait, known = shortest(retry.wait), [each for each in totals if _all_known([each])]
        if retry.attempts != 1 and known and wait >= min(known):
            return (
                f"Retry waits {wait:g} s or more, and a Timeout of {min(known):g} s is outside it: "
                f"no wait fits, so it never retries; wait less, or lengthen the Timeout"
            )
    return None


def _all_known(seconds: list[Any]) -> bool:
    """Whether no Timeout among them is a function of the call."""
    return all(isinstance(each, float) for each in seconds)


_RULES: tuple[_Rule, ...] = (
    _two_retries,
    _breaker_outside_retry,
    _bulkhead_outside_retry,
    _limit_outside_retry,
    _hold_outside_retry,
    _budget_inside,
    _spending_outside_retry,
    _hung_calls_not_counted,
    _retry_outside_chain,
    _timeout_around_attempts,
    _streaming_outside_retry,
    _fallback_inside,
    _flight_inside_breaker,
    _flight_inside_retry,
    _flight_inside_key,
    _check_outside,
    _no_time_for_second_model,
    _timeout_never_fires,
    _wait_never_fits,
)
"""Each says what is wrong, or None."""
