"""What the local gateway answers: one small value per kind of answer, and plans made of them.

A plan is one answer (always this one), a list of answers (one per request of that model, the
last one repeated), a `Timetable` or a rate limit (`Limited`); a plain string is short for an
`Error` of that code. All of them are frozen values: one plan may serve many gateways and threads.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import ClassVar, TypeAlias, cast

from attrs import Factory, frozen

from resilience._core.options import Seconds, checked, count, flag, seconds, suggesting, to_number
from resilience.sdks.auriko import CODES

from .checks import (
    check_code_of_error,
    to_code,
    to_header,
    to_headers,
    to_retry_after,
    to_status,
    to_string,
    to_wait,
)

__all__ = [
    "Answer",
    "CutStream",
    "Drop",
    "Error",
    "ErrorInStream",
    "GarbledStream",
    "Hang",
    "Limited",
    "Malformed",
    "Ok",
    "Plan",
    "ProxyError",
    "SlowStart",
    "StalledStream",
    "Timetable",
    "UnfinishedStream",
]


@suggesting
@frozen
class Ok:
    """A successful answer, `delay` seconds late; the default text names the model.

    With `prefill=False`, a request that ends in an assistant's message gets `invalid_request`, as
    from models that do not continue an answer.
    """

    name: ClassVar[str] = "ok"
    text: str | None = checked(to_string, None, optional=True)
    delay: Seconds = seconds(0.0, positive=False)
    prefill: bool = flag(True)


@suggesting
@frozen
class Error:
    """Auriko's error envelope for `code`, with that code's status and type.

    `retry_after` is a number of seconds or a raw `Retry-After` header (such as an HTTP-date),
    `retry_after_ms` sends a `retry-after-ms` header. `headers` are added last and win; `status`
    replaces the code's own, and allows for a code that is not Auriko's. With a `provider`, the
    error is that upstream provider's. Anthropic's messages have its envelope, and its type for the
    status.
    """

    code: str = checked(to_string)
    retry_after: Seconds | str | None = checked(to_retry_after, None, optional=True)
    retry_after_ms: float | None = checked(partial(to_number, least=0), None, optional=True)
    headers: Mapping[str, str] = checked(to_headers, Factory(dict[str, str]), hash=False)
    param: str | None = checked(to_string, None, optional=True)
    provider: str | None = checked(to_header, None, optional=True)
    status: int | None = checked(to_status(), None, optional=True)
    delay: Seconds = seconds(0.0, positive=False)

    def __attrs_post_init__(self) -> None:
        check_code_of_error("code", self.code, foreign=self.status is not None)

    @property
    def name(self) -> str:
        return self.code

    @property
    def http_status(self) -> int:
        """The status that goes out."""
        return self.status or CODES[self.code].status or 500


@suggesting
@frozen
class Hang:
    """Takes the request and never answers, until the client leaves or the gateway stops.

    With `seconds`, the connection is closed unanswered after that long.
    """

    name: ClassVar[str] = "hang"
    seconds: Seconds | None = seconds(None, positive=False, optional=True)


@suggesting
@frozen
class Drop:
    """Closes the connection before a single byte of an answer; with `reset`, by a TCP reset."""

    name: ClassVar[str] = "drop"
    reset: bool = flag(False)


@suggesting
@frozen
class ProxyError:
    """An HTML page, as from a proxy in front of the service; `status` 200 or an error's."""

    name: ClassVar[str] = "proxy_error"
    status: int = checked(to_status(200), 502)


@suggesting
@frozen
class Malformed:
    """JSON that is neither an answer nor the error envelope; `status` 200 or an error's."""

    name: ClassVar[str] = "malformed"
    status: int = checked(to_status(200), 500)


@suggesting
@frozen
class SlowStart:
    """The first content comes `seconds` late.

    A stream's headers, role chunk and keep-alive comments come at once and meanwhile, so a
    client's read timeout does not fire; with `pings=False` nothing comes meanwhile. A plain answer
    is just late.
    """

    name: ClassVar[str] = "slow_start"
    seconds: Seconds = seconds(positive=False)
    text: str | None = checked(to_string, None, optional=True)
    pings: bool = flag(True)


@suggesting
@frozen
class CutStream:
    """The connection breaks after so many content chunks; a plain answer breaks half-way.

    With `reset`, by a TCP reset.
    """

    name: ClassVar[str] = "cut_stream"
    after: int = count(1, least=0)
    reset: bool = flag(False)
    text: str | None = checked(to_string, None, optional=True)


@suggesting
@frozen
class StalledStream:
    """Nothing more comes after so many content chunks, until the client leaves.

    With `seconds`, the connection is closed after that long. With `pings`, what keeps a connection
    alive comes meanwhile: comments, or Anthropic's `ping`. A plain answer stalls half-way.
    """

    name: ClassVar[str] = "stalled_stream"
    after: int = count(1, least=0)
    seconds: Seconds | None = seconds(None, positive=False, optional=True)
    pings: bool = flag(False)
    text: str | None = checked(to_string, None, optional=True)


@suggesting
@frozen
class UnfinishedStream:
    """A stream that HTTP ends well, all of it or so many content chunks, but that does not say so.

    `reason`: whether its finish reason comes (with usage, where the format has that), and
    `terminator`: whether what ends a stream does, `[DONE]` or `message_stop`. For the Responses
    format `response.completed` is both. A plain answer is whole.
    """

    name: ClassVar[str] = "unfinished_stream"
    after: int | None = count(None, least=0, optional=True)
    reason: bool = flag(False)
    terminator: bool = flag(False)
    text: str | None = checked(to_string, None, optional=True)


@suggesting
@frozen
class GarbledStream:
    """One event that is no JSON comes after so many content chunks; the rest is well.

    A plain answer is cut in half, under a length that is right.
    """

    name: ClassVar[str] = "garbled_stream"
    after: int = count(1, least=0)
    text: str | None = checked(to_string, None, optional=True)


@suggesting
@frozen
class ErrorInStream:
    """An error event after so many content chunks.

    A plain request gets the error as its answer, or a closed connection where the code has no
    HTTP status (`client_disconnected`, `stream_duration_exceeded`).
    """

    name: ClassVar[str] = "error_in_stream"
    code: str = checked(to_code)
    after: int = count(1, least=0)


Answer: TypeAlias = (
    Ok
    | Error
    | Hang
    | Drop
    | ProxyError
    | Malformed
    | SlowStart
    | CutStream
    | StalledStream
    | UnfinishedStream
    | GarbledStream
    | ErrorInStream
)


def _answer(name: str, value: object) -> Answer:
    if isinstance(value, str):
        return Error(value)
    if isinstance(value, Answer):
        return value
    raise TypeError(f"{name} must be an answer such as Ok() or an error code, got {value!r}")


@frozen(init=False)
class Timetable:
    """Answers by the clock: `Timetable((0, Ok()), (2.0, "service_unavailable"), (5.0, Ok()))`.

    Times are seconds since the gateway started (or was reset), rising from 0; each answer holds
    until the next one's time.
    """

    entries: tuple[tuple[float, Answer], ...]

    def __init__(self, *entries: tuple[Seconds, Answer | str]) -> None:
        object.__setattr__(self, "entries", tuple(map(self._entry, range(len(entries)), entries)))
        times = [start for start, _ in self.entries]
        if not times or times[0] != 0:
            first = times[0] if times else "none"
            raise ValueError(f"Timetable.entries must begin at 0 seconds, got {first}")
        if any(later <= sooner for sooner, later in pairwise(times)):
            raise ValueError(f"Timetable.entries must have rising times, got {times!r}")

    @staticmethod
    def _entry(index: int, entry: object) -> tuple[float, Answer]:
        name = f"Timetable.entries[{index}]"
        pair = cast("tuple[object, ...]", entry)
        if not isinstance(entry, tuple) or len(pair) != 2:
            raise TypeError(f"{name} must be a pair (seconds, answer), got {entry!r}")
        return to_wait(f"{name}[0]", pair[0]), _answer(f"{name}[1]", pair[1])

    def at(self, seconds: float) -> Answer:
        """The answer that holds `seconds` after the start."""
        place = bisect_right([start for start, _ in self.entries], seconds)
        return self.entries[max(place, 1) - 1][1]


@suggesting
@frozen
class Limited:
    """Answers by `answer` as long as no more than `requests` come in `per` seconds: by a bucket
    that fills again evenly, as those of most services do.

    Beyond that it is `rate_limit_exceeded`, with the seconds until there is room again as
    `Retry-After`. Each model counts for itself.
    """

    requests: int = count()
    per: Seconds = seconds(1.0)
    answer: Answer = checked(_answer, Ok())


Plan: TypeAlias = "Answer | str | Sequence[Answer | str] | Timetable | Limited"
Steps: TypeAlias = "tuple[Answer, ...] | Timetable | Limited"


def read_plan(name: str, plan: object) -> Steps:
    """Check one model's plan; TypeError or ValueError name the place and what is wrong there."""
    if isinstance(plan, (Timetable, Limited)):
        return plan
    if isinstance(plan, Sequence) and not isinstance(plan, (str, bytes)):
        steps = cast("Sequence[object]", plan)
        if not steps:
            raise ValueError(f"{name} must hold at least one answer, got {plan!r}")
        return tuple(_answer(f"{name}[{index}]", step) for index, step in enumerate(steps))
    return (_answer(name, plan),)


def read_plans(plan: object) -> dict[str, Steps]:
    """Check a gateway's plan and give one per model, "*" being any other model's."""
    if not isinstance(plan, Mapping):
        return {"*": read_plan("Gateway.plan", plan)}
    plans = cast("Mapping[object, object]", plan)
    if not plans:
        raise ValueError(f"Gateway.plan must name at least one model (or '*'), got {plan!r}")
    for model in plans:
        if not isinstance(model, str):
            raise TypeError(f"Gateway.plan must have model names for its keys, got {model!r}")
    return {
        cast("str", model): read_plan(f"Gateway.plan[{model!r}]", steps)
        for model, steps in plans.items()
    }
