"""The sixteen faults in a tenth of their time, through three SDKs, sync and async."""

from __future__ import annotations

from threading import Thread
from typing import Any

import pytest

from failover.exam import SDKS, Verdict, card, judged, sit
from failover.faults import ANSWERS, FALLBACK, FAULTS, PRIMARY, Fault, Reply, Seen

pytestmark = pytest.mark.real

SCALE = 0.1
LONG = 15
"""Its twenty calls are the same whatever the SDK."""
INTERRUPTED = {8, 9, 10, 14}
"""Where the caller has seen content before the stream breaks off."""


def verdicts_of(sdk: str, faults: list[Fault], scale: float) -> dict[tuple[str, int], Verdict]:
    """The verdicts by caller and fault. Those that take long, which is waiting, beside the
    others."""
    verdicts: dict[tuple[str, int], Verdict] = {}

    def run(caller: str, fault: Fault) -> None:
        verdicts[caller, fault.number] = sit(sdk, caller, fault, scale)

    cases = [(caller, fault) for fault in faults for caller in ("live", "whole")]
    long = [Thread(target=run, args=case) for case in cases if case[1].lasts]
    for thread in long:
        thread.start()
    for case in cases:
        if not case[1].lasts:
            run(*case)
    for thread in long:
        thread.join()
    return verdicts


def told(verdicts: dict[Any, Verdict]) -> str:
    """What is to be read where a test fails."""
    return "\n".join(f"{key}: {each.word} {each.why}" for key, each in sorted(verdicts.items()))


@pytest.mark.fault(300, 301, 302, 304, 305, 311)
@pytest.mark.parametrize("sdk", SDKS)
def test_the_exam(sdk: str) -> None:
    """Whole, all are passed; live, those are that can be rescued before content, and the others
    say that they were interrupted."""
    faults = [fault for fault in FAULTS if fault.number != LONG]
    verdicts = verdicts_of(sdk, faults, SCALE)

    assert {n for (c, n), v in verdicts.items() if c == "whole" and v.word != "pass"} == set(), (
        told(verdicts)
    )
    live = {number: v for (caller, number), v in verdicts.items() if caller == "live"}
    assert {number for number, v in live.items() if v.word == "safe"} == INTERRUPTED, told(verdicts)
    assert {v.word for v in live.values()} == {"safe", "pass"}, told(verdicts)
    assert all(live[number].interrupted for number in INTERRUPTED)
    assert live[9].replies[0].seconds < 10 * SCALE + 0.5


@pytest.mark.fault(311)
@pytest.mark.parametrize("sdk", ["openai", "openai-async"])
def test_the_outage_of_the_exam(sdk: str) -> None:
    """Each of twenty calls is answered, and the primary is found again, in a twentieth of the
    time."""
    fault = next(fault for fault in FAULTS if fault.number == LONG)
    verdicts = verdicts_of(sdk, [fault], SCALE / 2)

    assert {v.word for v in verdicts.values()} == {"pass"}, told(verdicts)


@pytest.mark.parametrize(("number", "word"), [(8, "safe"), (11, "pass"), (12, "safe")])
def test_the_exam_can_be_failed(number: int, word: str) -> None:
    """The bare SDK comes through with an error where another model would have answered."""
    fault = next(fault for fault in FAULTS if fault.number == number)
    verdict = sit("openai", "bare", fault, SCALE)

    assert verdict.word == word
    assert word in card("bare", {("openai", "bare", number): verdict})


@pytest.mark.parametrize(
    ("text", "seconds", "word"),
    [("primary-1", 1.0, "fail"), (ANSWERS[PRIMARY], 90.0, "fail"), (ANSWERS[PRIMARY], 1.0, "pass")],
)
def test_the_judge(text: str, seconds: float, word: str) -> None:
    """A truncated answer and one that took too long fail."""
    replies = [Reply(text, seconds, usage=60)]
    fault = next(fault for fault in FAULTS if fault.number == 8)
    after = Reply(ANSWERS[FALLBACK], 0.1)

    assert judged(fault, Seen(replies, [], 1.0), after)[0] == word
    assert judged(fault, Seen(replies, [], 1.0), Reply("", 0.1))[0] == "fail"
