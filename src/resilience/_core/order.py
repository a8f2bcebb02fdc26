"""Orders of policies that do not do what they look like, with the reason.

Policies are known here by their `role` and a few of their options, not by their classes.
"""

from __future__ import annotations

import itertools
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from .stack import outside

__all__ = ["PolicyOrderWarning", "hazards", "warn_of_order"]


class PolicyOrderWarning(UserWarning):
    """A pipeline's order of policies defeats one of them; the message says which and why."""


def warn_of_order(policies: Sequence[object]) -> None:
    """Warn once for each hazard, at the line that builds the pipeline."""
    for hazard in hazards(policies):
        warnings.warn(hazard, PolicyOrderWarning, stacklevel=outside())


def hazards(policies: Sequence[Any]) -> Iterator[str]:
    """What is wrong with an order, outermost policy first."""
    at: defaultdict[str | None, list[int]] = defaultdict(list)
    for place, policy in enumerate(policies):
        at[policy.role].append(place)
    retries, breakers, models, limits = at["retry"], at["breaker"], at["models"], at["timeout"]

    if len(retries) > 1 and _may_meet([policies[place].on for place in retries]):
        yield (
            "two Retry policies in one pipeline whose `on` may match the same failure: what the "
            "inner one gives up on, the outer one does not retry (unless retry_exhausted=True); "
            "keep one, or make their `on` disjoint"
        )
    if retries and any(breaker < retries[0] for breaker in breakers):
        yield (
            "CircuitBreaker outside Retry: it counts only calls whose retries have failed, and "
            "opens late; put it inside Retry"
        )
    for breaker in breakers:
        if any(limit < breaker for limit in limits) and not any(
            limit > breaker for limit in limits
        ):
            yield (
                "CircuitBreaker with a Timeout outside it and none inside: a call cut from outside "
                "is no verdict, so hung calls are never counted; put a Timeout inside it"
            )
            break
    if models and retries and retries[0] < models[0]:
        yield (
            "Retry outside ModelFallback: every retry runs through the whole chain of models "
            "again; put it inside ModelFallback"
        )
    if models and retries:
        between = [limit for limit in limits if models[0] < limit < retries[-1]]
        if between and not any(limit < models[0] for limit in limits):
            yield (
                "attempt Timeout outside Retry with no total Timeout: it bounds all attempts at "
                "one model together, and nothing bounds the call; put it inside Retry and a total "
                "Timeout outermost"
            )
    if retries and any(streaming < retries[-1] for streaming in at["streaming"]):
        yield (
            "Streaming outside Retry: its time for the first content covers all attempts; put it "
            "inside Retry"
        )
    around = [*retries, *models, *breakers]
    if around and any(place > min(around) for place in at["fallback"]):
        yield (
            "Fallback inside Retry, ModelFallback or CircuitBreaker: its value hides the failure "
            "from them; put it outside"
        )
    flights = at["single_flight"]
    if any(breaker < flight for flight in flights for breaker in breakers):
        yield (
            "SingleFlight inside CircuitBreaker: a failure that several callers share is counted "
            "once for each of them; put it outside"
        )
    if any(
        key < flight and policies[flight].key is None
        for flight in flights
        for key in at["idempotency"]
    ):
        yield (
            "SingleFlight inside IdempotencyKey: no call equals another, as each has a header of "
            "its own; put it outside, or give it a key"
        )
    if any(check < each for check in at["bad_result"] for each in (*retries, *breakers, *models)):
        yield (
            "BadResult outside policies that see bad results: it reads as if they did not, as it "
            "is the attempt's result that is checked; put it innermost"
        )
    yield from _too_slow(policies, models, retries, limits)


def _too_slow(
    policies: Sequence[Any], models: list[int], retries: list[int], limits: list[int]
) -> Iterator[str]:
    if not models or not retries or retries[-1] < models[0]:
        return
    totals = [policies[i].seconds for i in limits if i < models[0]]
    tries = [policies[i].seconds for i in limits if i > retries[-1]]
    attempts = policies[retries[-1]].attempts
    known = [t for t in (*totals, *tries) if isinstance(t, float)]
    if not totals or not tries or attempts is None or len(known) != len(totals) + len(tries):
        return
    total, each = min(totals), min(tries)
    if attempts * each >= total:
        yield (
            f"{attempts} attempts of {each:g} s use up the total Timeout of {total:g} s before the "
            f"second model's turn; shorten the attempts' Timeout or lengthen the total"
        )


def _may_meet(conditions: list[Any]) -> bool:
    from .meeting import may_meet  # which few pipelines need

    return any(may_meet(one, other) for one, other in itertools.combinations(conditions, 2))
