"""What phases promise, checked against the calls' outcomes and the gateway's own records."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from auriko.errors import AurikoAPIError, RateLimitError

from resilience import CircuitOpenError

from .phase import Promise, Seen, Verdict

__all__ = [
    "answered",
    "answered_by_first",
    "first_again",
    "knows_within",
    "not_retried",
    "own_error",
    "spared",
    "waited_as_asked",
]


def answered(seen: Seen) -> Verdict:
    count, asked = seen.served(), len(seen.calls)
    return Verdict(count == asked, "every call is answered", f"{count} of {asked}")


def answered_by_first(seen: Seen) -> Verdict:
    first, asked = seen.limits.models[0], len(seen.calls)
    count = seen.served(first)
    return Verdict(count == asked, f"{first} answers every call", f"{count} of {asked}")


def waited_as_asked(seen: Seen) -> Verdict:
    """Every 429 that the gateway gave was followed by a wait of at least its Retry-After."""
    waits = [
        (later.started - limited.started - (limited.duration or 0.0), limited.failure.retry_after)
        for call in seen.calls
        for limited, later in pairwise(call.outcome.attempts)
        if limited.failure is not None and limited.failure.retry_after is not None
    ]
    given = sum(request.answer == "rate_limit_exceeded" for request in seen.requests)
    held = 0 < given == len(waits) and all(waited >= asked for waited, asked in waits)
    waited, asked = min(waits, default=(0.0, 0.0))
    figures = f"{given} limited, shortest wait {waited:.2f} s of {asked:.2f} s"
    return Verdict(held, "no retry before Retry-After is over", figures)


def spared(seen: Seen) -> Verdict:
    """Circuits opened: failing models got at most half of what retrying alone would send."""
    end = seen.start + (seen.phase.lasts or seen.phase.seconds)
    calls = sum(call.asked.at < end for call in seen.calls)
    possible = calls * len(seen.phase.trouble) * seen.limits.attempts
    sent = sum(request.answer != "ok" for request in seen.requests)
    claim = "circuits halve the requests to what is down"
    return Verdict(0 < 2 * sent <= possible, claim, f"{sent} of {possible}")


def knows_within(seconds: float) -> Promise:
    def promise(seen: Seen) -> Verdict:
        slowest = max(call.outcome.elapsed for call in seen.calls)
        claim = f"every caller knows within {seconds:.2f} s"
        return Verdict(slowest <= seconds, claim, f"slowest {slowest:.2f} s")

    return promise


def own_error(seen: Seen) -> Verdict:
    """The SDK's exception; the rejection of a call that was not made has it for its cause."""
    errors = [call.outcome.error for call in seen.calls]
    causes = [e.__cause__ if isinstance(e, CircuitOpenError) else e for e in errors]
    held = all(isinstance(cause, AurikoAPIError) for cause in causes)
    kinds = Counter(type(error).__name__ for error in errors)
    figures = ", ".join(f"{count} {name}" for name, count in kinds.items())
    return Verdict(held, "the SDK's own error, or rejected because of it", figures)


def first_again(seen: Seen) -> Verdict:
    """At the latest when the circuits that the outage opened let a trial through."""
    first, wait = seen.limits.models[0], seen.limits.reset_after
    late = [call for call in seen.calls if call.asked.at >= seen.start + wait]
    by_first = sum(call.outcome.served_by == first for call in late)
    claim = f"{first} answers every call from {wait:.2f} s on"
    return Verdict(0 < len(late) == by_first, claim, f"{by_first} of {len(late)}")


def not_retried(seen: Seen) -> Verdict:
    """One attempt, one request, and the SDK's exception with its code."""
    once = [
        isinstance(call.outcome.error, RateLimitError)
        and call.outcome.error.code == "insufficient_quota"
        and len(call.outcome.attempts) == 1
        for call in seen.calls
    ]
    held = all(once) and len(seen.requests) == len(once)
    claim = "RateLimitError insufficient_quota at the first attempt"
    return Verdict(held, claim, f"{len(once)} calls, {len(seen.requests)} requests")
