"""Sixteen faults of a provider, and what a caller sees of them, counted on the wire.

    make failover      (or, in an environment: python tests/failover/exam.py [--scale S])

Two models behind the local gateway, of which the first is at fault; each call streams an answer of
sixty tokens. Verdicts: *pass*, the whole answer and all conduct clean; *partial*, answered, with an
advisory conduct missed; *safe*, not answered, but an error in bounded time; *fail*, anything else:
a hang, a truncated answer given as a whole one, a required conduct missed. After each fault a
healthy call through the same pipeline must go well.

Three callers: the bare SDK, with its own retries and a timeout of 30 s; this library, with the
README's pipeline around a function that returns the stream; and the same with
`Streaming(deliver="whole")`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import anthropic
import auriko
import openai
import pytest
from attrs import frozen

sys.path.insert(0, str(Path(__file__).parent.parent))

from failover.faults import ANSWERS, FALLBACK, FAULTS, PRIMARY, Fault, Reply, Seen
from resilience import (
    CircuitBreaker,
    Hold,
    ModelFallback,
    Pipeline,
    Retry,
    Streaming,
    StreamInterruptedError,
    Timeout,
)
from resilience.testing.gateway import Gateway, Ok
from resilience.waits import Exponential, RetryAfter

__all__ = ["CALLERS", "SDKS", "Caller", "Verdict", "card", "judged", "sit"]

AT_ONCE = 48
"""Faults under way; most of that is waiting."""
MESSAGES = [{"role": "user", "content": "Count."}]

# SDKs


def _chat(client: Any) -> Any:
    return client.chat.completions.create


def _messages(client: Any) -> Any:
    return client.messages.create


def _read_chat(items: Sequence[Any]) -> tuple[str, str | None, int | None]:
    text = "".join(each.choices[0].delta.content or "" for each in items if each.choices)
    usage = [each.usage.completion_tokens for each in items if each.usage]
    return text, items[-1].model if items else None, usage[-1] if usage else None


def _read_messages(items: Sequence[Any]) -> tuple[str, str | None, int | None]:
    text = "".join(each.delta.text for each in items if each.type == "content_block_delta")
    models = [each.message.model for each in items if each.type == "message_start"]
    usage = [each.usage.output_tokens for each in items if each.type == "message_delta"]
    return text, models[-1] if models else None, usage[-1] if usage else None


@frozen
class Sdk:
    """How to ask with an SDK, and how to read the items of its streams."""

    make: Callable[..., Any]
    method: Callable[[Any], Any]
    read: Callable[[Sequence[Any]], tuple[str, str | None, int | None]]
    asynchronous: bool = False
    more: Any = ()


SDKS = {
    "openai": Sdk(openai.OpenAI, _chat, _read_chat),
    "openai-async": Sdk(openai.AsyncOpenAI, _chat, _read_chat, True),
    "anthropic": Sdk(anthropic.Anthropic, _messages, _read_messages, more={"max_tokens": 99}),
    "anthropic-async": Sdk(
        anthropic.AsyncAnthropic, _messages, _read_messages, True, {"max_tokens": 99}
    ),
    "auriko": Sdk(auriko.Client, _chat, _read_chat),
    "auriko-async": Sdk(auriko.AsyncClient, _chat, _read_chat, True),
}


# Callers


def pipeline(scale: float, **streaming: Any) -> Pipeline:
    """The README's; what it leaves at its defaults is written out only to be scaled."""
    defaults: dict[str, Any] = {}
    reset: dict[str, Any] = {}
    if scale != 1:
        wait = RetryAfter(Exponential(0.5 * scale, max=30 * scale))
        defaults = {"wait": wait, "patience": 5 * scale}
        reset = {"reset_after": Exponential(5 * scale, factor=2, max=12 * scale)}
    return Pipeline(
        Timeout(60 * scale),
        ModelFallback(PRIMARY, FALLBACK),
        Retry(attempts=2, **defaults),
        CircuitBreaker(key="model", **reset),
        Hold(key="model"),
        Streaming(first=10 * scale, idle=10 * scale, **streaming),
        Timeout(15 * scale),
    )


@frozen
class Caller:
    """One way to call: what its client is made with, and what goes around the call."""

    options: Callable[[float], dict[str, Any]]
    policies: Callable[[float], Pipeline] | None = None


CALLERS = {
    "bare": Caller(lambda scale: {"timeout": 30.0 * scale}),
    "live": Caller(lambda scale: {"max_retries": 0}, pipeline),
    "whole": Caller(
        lambda scale: {"max_retries": 0}, lambda scale: pipeline(scale, deliver="whole")
    ),
}


class _Line:
    """A client, the guarded function over it, and the event loop that it runs in."""

    def __init__(self, sdk: Sdk, caller: Caller, base_url: str, scale: float) -> None:
        with pytest.MonkeyPatch.context() as patch:  # spares 20 ms of reading certificates
            patch.delenv("SSL_CERT_FILE", raising=False)
            patch.setenv("SSL_CERT_DIR", "/nowhere")
            self.client = sdk.make(api_key="any", base_url=base_url, **caller.options(scale))
        self.sdk = sdk
        method = sdk.method(self.client)
        more = dict(sdk.more)

        def ask(messages: Any, *, model: str = PRIMARY) -> Any:
            return method(model=model, messages=messages, stream=True, **more)

        async def aask(messages: Any, *, model: str = PRIMARY) -> Any:
            return await method(model=model, messages=messages, stream=True, **more)

        fn: Any = aask if sdk.asynchronous else ask
        self.fn = fn if caller.policies is None else caller.policies(scale).wrap(fn)
        self.loop = asyncio.new_event_loop() if sdk.asynchronous else None

    def call(self) -> Reply:
        """One question, and all of its answer."""
        items: list[Any] = []
        error: Exception | None = None
        began = time.monotonic()
        try:
            if self.loop is None:
                items.extend(self.fn(MESSAGES))
            else:
                self.loop.run_until_complete(self._acall(items))
        except Exception as found:
            error = found
        seconds = time.monotonic() - began
        return Reply(*self._read(items, seconds, error))

    def _read(self, items: list[Any], seconds: float, error: Exception | None) -> Any:
        text, model, usage = self.sdk.read(items)
        return text, seconds, error, model, usage

    async def _acall(self, items: list[Any]) -> None:
        async for item in await self.fn(MESSAGES):
            items.append(item)

    def close(self) -> None:
        if self.loop is None:
            self.client.close()
        else:
            self.loop.run_until_complete(self.client.close())
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()


# The exam


@frozen
class Verdict:
    """What came of one fault."""

    fault: Fault
    word: str
    why: str = ""
    replies: tuple[Reply, ...] = ()
    asked: int = 0

    @property
    def interrupted(self) -> bool:
        """Whether the caller was told that the stream broke off."""
        return type(self.replies[0].error) is StreamInterruptedError


def sit(sdk: str, caller: str, fault: Fault, scale: float = 1.0) -> Verdict:
    """Put one caller through one fault."""
    plan = {PRIMARY: fault.primary(scale), FALLBACK: fault.fallback}
    with Gateway(plan) as gateway:
        line = _Line(SDKS[sdk], CALLERS[caller], gateway.base_url, scale)
        replies: list[Reply] = []
        after: list[Reply] = []

        def run() -> None:
            gateway.reset()
            began = time.monotonic()
            for number in range(1, 100):
                replies.append(line.call())
                if number >= fault.calls and _over(fault, gateway):
                    break
                if time.monotonic() - began > 90 * scale:
                    break
                time.sleep(max(0.0, began + number * fault.every * scale - time.monotonic()))

        def run_again() -> None:
            gateway.change({model: Ok(text) for model, text in ANSWERS.items()})
            after.append(line.call())
            line.close()

        most = fault.limit * scale + fault.calls * fault.every * scale * 1.5
        if not _ends(run, most):
            return Verdict(fault, "fail", "it hangs", tuple(replies))
        seen = Seen(replies, gateway.requests_for(PRIMARY), scale)
        if not _ends(run_again, 60 * scale):
            return Verdict(fault, "fail", "a healthy call hangs", tuple(replies))
    word, why = judged(fault, seen, after[0])
    return Verdict(fault, word, why, tuple(replies), len(seen.asked))


def _over(fault: Fault, gateway: Gateway) -> bool:
    return fault.calls == 1 or gateway.requests_for(PRIMARY)[-1].answer == "ok"


def _ends(run: Callable[[], None], seconds: float) -> bool:
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()


def judged(fault: Fault, seen: Seen, after: Reply) -> tuple[str, str]:
    for name, holds in fault.required.items():
        if not holds(seen):
            return "fail", f"not so: {name}"
    for reply in seen.replies:
        if reply.error is None and not reply.whole:
            return "fail", f"{len(reply.text.split())} tokens given as the whole answer"
        if reply.seconds > fault.limit * seen.scale:
            return "fail", f"took {reply.seconds:.1f} s"
    if not after.whole:
        return "fail", f"then a healthy call: {after.error or after.text[:40]!r}"
    errors = [reply.error for reply in seen.replies if reply.error is not None]
    if fault.refusal is not None:
        told = bool(errors) and fault.refusal in str(errors[0])
        return ("pass", "") if told else ("partial", "the provider's reason is not told")
    if errors:
        return "safe", type(errors[0]).__name__
    missed = [name for name, holds in fault.advised.items() if not holds(seen)]
    return ("partial", f"not so: {', '.join(missed)}") if missed else ("pass", "")


# The card


def card(caller: str, verdicts: Mapping[tuple[str, str, int], Verdict]) -> str:
    """One caller's verdicts: a row for each fault, a column for each SDK; then what was not
    passed, and why."""
    sdks = [sdk for sdk in SDKS if any(each[:2] == (sdk, caller) for each in verdicts)]
    lines = [f"{caller:53s}" + "".join(f"{sdk:>16s}" for sdk in sdks)]
    why: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    for fault in FAULTS:
        row = {sdk: verdicts.get((sdk, caller, fault.number)) for sdk in sdks}
        words = [f"{'' if each is None else each.word:>16s}" for each in row.values()]
        lines.append(f"{fault.number:2d} {fault.name:50s}{''.join(words)}")
        for sdk, each in row.items():
            if each is not None and each.word == "pass":
                passed[sdk] += 1
            elif each is not None:
                why[f"{fault.number:2d} {each.word}: {each.why}"] += 1
    lines.append(f"{'passed':53s}" + "".join(f"{passed[sdk]:16d}" for sdk in sdks))
    return "\n".join([*lines, *(f"   {text} ({times})" for text, times in why.items())])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="of all times")
    parser.add_argument("--sdk", choices=SDKS, action="append", help="only these")
    parser.add_argument("--caller", choices=CALLERS, action="append", help="only these")
    parser.add_argument("--fault", type=int, action="append", help="only these")
    options = parser.parse_args()
    callers = options.caller or list(CALLERS)
    verdicts: dict[tuple[str, str, int], Verdict] = {}
    places = threading.Semaphore(AT_ONCE)

    def run(sdk: str, caller: str, fault: Fault) -> None:
        with places:
            verdicts[sdk, caller, fault.number] = sit(sdk, caller, fault, options.scale)

    threads: list[threading.Thread] = []
    for fault in sorted(FAULTS, key=lambda fault: -fault.lasts):
        for caller, sdk in product(callers, options.sdk or SDKS):
            if options.fault is None or fault.number in options.fault:
                threads.append(threading.Thread(target=run, args=(sdk, caller, fault)))
                threads[-1].start()
                time.sleep(0.02)  # each begins with some work
    for thread in threads:
        thread.join()
    for caller in callers:
        print(card(caller, verdicts), end="\n\n")
    wanted = {"bare": {"pass", "partial", "safe", "fail"}, "live": {"pass", "safe"}}
    fine = [each.word in wanted.get(key[1], {"pass"}) for key, each in verdicts.items()]
    return int(not all(fine))


if __name__ == "__main__":
    raise SystemExit(main())
