"""An explanation as text, as Mermaid, in a notebook; and of a guarded function."""

from __future__ import annotations

import html
import os
import pickle
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import openai
import pytest
from tenacity import stop_after_delay

from resilience import (
    BadResult,
    CircuitBreaker,
    Fallback,
    IdempotencyKey,
    Model,
    ModelFallback,
    Pipeline,
    Retry,
    SingleFlight,
    Streaming,
    Timeout,
    guarded,
    resilient,
)
from resilience.circuit.trip import FailureRate
from resilience.explaining import Explanation
from resilience.matching import no_choices
from resilience.policy import Policy
from resilience.waits import Decorrelated, Exponential, Fixed, FullJitter, Linear, RetryAfter
from support.browser import Browser, found

SECRET = "sk-canary"
MARKUP = '<b onclick="x">&"]-->%%{init}'


def standard() -> Pipeline:
    return Pipeline(
        Fallback({"secret": SECRET}),
        Timeout(60),
        SingleFlight(),
        IdempotencyKey(argument=None),
        ModelFallback("gpt-4o", Model("gpt-4o-mini", extra_headers={"Authorization": SECRET})),
        Retry(attempts=2),
        CircuitBreaker(key="model"),
        BadResult(no_choices),
        Streaming(first=10, idle=5, total=50, deliver="whole", on_interrupted="restart"),
        Timeout(15),
    )


def odd() -> Pipeline:
    """Everything that has a name has markup for one."""

    def named(failure: object) -> bool:
        return True

    named.__qualname__ = MARKUP
    chain = ModelFallback(MARKUP, "b", per_model=Retry(on=named, wait=Fixed(0)))
    return Pipeline(Fallback(call=lambda *_: None), chain, CircuitBreaker(key=named), name=MARKUP)


# Text


def test_what_has_no_limit_says_so() -> None:
    """Of a model of the call's own, too: calls and time each in their own words."""
    text = " ".join(str(Pipeline(ModelFallback("a", "b"), Retry()).explain()).split())
    assert "which is not in the chain: at most 9 calls, no limit of time." in text


def test_the_text_is_worth_reading() -> None:
    """A line for each policy, the figures, and each kind of failure once, in lines of 100."""
    explained = standard().explain()
    text = str(explained)
    assert all(len(line) <= 100 for line in text.splitlines())
    first = text.partition("\n\n")[0]
    for name, line in explained.policies:
        assert name in first
        assert line.split()[0] in first
    assert (
        "at most 16 in all" in text
    )  # 2 models, 2 attempts each, and three restarts of the stream
    assert "at most 60 s" in text
    together = " ".join(text.split())
    for kind in explained.failures:
        assert kind.value.replace("_", " ") in together


@pytest.mark.fault(337)
@pytest.mark.parametrize("make", [standard, odd])
def test_nothing_secret_is_in_it(make: object) -> None:
    """No value, no override, no header, in whatever form."""
    explained = make().explain()  # type: ignore[operator]
    forms = str(explained), repr(explained), explained.mermaid(), explained._repr_html_()
    assert not any(SECRET in form for form in forms)


def test_no_limit_is_said() -> None:
    """And which policy would give one."""
    text = str(Pipeline(Retry(attempts=None)).explain())
    assert "Calls: no limit" in text
    assert "Time: no limit" in text
    assert "Timeout" in text


def test_hazards_and_assumptions_are_in_every_form() -> None:
    """What is wrong with the order, as the warning says."""
    with pytest.warns(UserWarning, match="opens late"):
        pipeline = Pipeline(CircuitBreaker(), Retry())
    explained = pipeline.explain()
    assert len(explained.hazards) == 1
    assert explained.hazards[0] in " ".join(str(explained).split())
    assert html.escape(explained.hazards[0]) in explained._repr_html_()


def seconds_of_ones_own(state: Any) -> float:
    return 1.0


@pytest.mark.parametrize(
    ("wait", "words"),
    [
        (Fixed(2), "2 s each time"),
        (Linear(1, 1, 9), "1 s, 2 s, 3 s ... up to 4 s"),
        (Linear(1, 1, 2), "1 s, 2 s, then 2 s each time"),
        (Exponential(1, 2, jitter=0), "1 s, 2 s, 4 s ... up to 8 s"),
        (Exponential(1, 2, jitter=0.5), "0.5 to 1.5 s, 1 to 3 s"),
        (FullJitter(1, 2), "0 to 1 s, 0 to 2 s"),
        (Decorrelated(1, 20), "1 to 20 s each time"),
        (RetryAfter(Fixed(2), spread=0), "2 s each time; or what the server asks (no retry if"),
        (RetryAfter(too_long="clamp"), "asks and up to 25 % more (60 s if that is more than 60 s)"),
        (seconds_of_ones_own, "as long as seconds_of_ones_own says"),
        (lambda state: 1.0, "as long as function says"),
        (Fixed(1) + Fixed(2), "as long as wait_combine says"),
    ],
)
def test_the_wait_schedule(wait: object, words: str) -> None:
    """The waits that come first, and how far they grow; what a server asks goes first."""
    (_, line), *_ = Pipeline(Retry(attempts=5, wait=wait)).explain().policies  # type: ignore[arg-type]
    assert words in line


@pytest.mark.parametrize(
    ("attempts", "wait", "words"),
    [
        (2, Fixed(2), "2 s"),
        (3, Fixed(2), "2 s each time"),
        (3, Linear(1, 1, 9), "1 s, 2 s"),
        (4, Linear(1, 1, 9), "1 s, 2 s, 3 s"),
        (9, Linear(1, 1, 3), "1 s, 2 s, then 3 s each time"),
        (None, Linear(2, 0, 9), "2 s each time"),
        (None, Exponential(1, 2, max=9, jitter=0), "1 s, 2 s, 4 s ... up to 9 s"),
        (None, Exponential(0, 2, max=9, jitter=0), "0 s each time"),
        (None, FullJitter(3, 1, max=9), "0 to 3 s each time"),
    ],
)
def test_the_wait_schedule_of_so_many_attempts(attempts: int | None, wait: Any, words: str) -> None:
    """Three waits are shown, and the last one where there are more."""
    (_, line), *_ = Pipeline(Retry(attempts=attempts, wait=wait)).explain().policies
    assert line.partition("; waits ")[2] == words


def is_late(state: object) -> bool:
    return True


@pytest.mark.parametrize(
    ("retry", "words"),
    [
        (Retry(attempts=1), "one attempt"),
        (Retry(attempts=None), "attempts without end"),
        (Retry(stop=lambda state: True), "attempts until <lambda>;"),
        (Retry(stop=is_late), "attempts until is_late;"),
        (Retry(stop=stop_after_delay(9)), "attempts until stop_after_delay;"),
        (Retry(within=9), "no wait that would end 9 s after"),
    ],
)
def test_how_often(retry: Retry, words: str) -> None:
    """The attempts, or what ends them."""
    (_, line), *_ = Pipeline(retry).explain().policies
    assert words in line


GOES_ON = (
    "goes on at once from one whose circuit is open, that does not answer in time, or asks for a "
    "wait beyond Retry's patience"
)


@pytest.mark.parametrize(
    ("policy", "line"),
    [
        (Fallback(0), "returns the fallback value in place of an error"),
        (Fallback(call=is_late), "returns what is_late gives in place of an error"),
        (Timeout(2.5), "ends what is inside it after 2.5 s"),
        (Timeout(is_late), "ends what is inside it after what is_late says"),
        (Timeout(5, pass_as="t"), "gives the function what is left of 5 s, as t="),
        (IdempotencyKey(argument=None), "has one key for all attempts of a call"),
        (IdempotencyKey("X-Key"), "has one key for all attempts of a call, in the header X-Key"),
        (
            BadResult(no_choices, is_late),
            "makes a failure of a result that no_choices or is_late finds bad; "
            "the last one is returned",
        ),
        (
            BadResult(is_late, finally_="raise"),
            "makes a failure of a result that is_late finds bad; "
            "the last one is raised in a BadResultError",
        ),
        (Retry(attempts=1), "one attempt"),
        (Retry(attempts=2, wait=1), "up to 2 attempts; waits 1 s"),
        (
            Retry(wait=1, within=9),
            "up to 3 attempts; waits 1 s each time; no wait that would end 9 s after it began",
        ),
        (Retry(attempts=None, wait=1), "attempts without end; waits 1 s each time"),
        (Streaming(), "guards a stream to its end"),
        (
            Streaming(first=10, idle=2.5, total=50),
            "bounds a stream: 10 s for the first content, 2.5 s for each next one, "
            "50 s for all of it",
        ),
        (
            Streaming(idle=5, deliver="whole"),
            "bounds a stream: 5 s for each next one; holds it back until it is complete",
        ),
        (
            Streaming(on_interrupted="restart"),
            "guards a stream to its end; up to 3 more calls of all this if it breaks off",
        ),
        (
            CircuitBreaker(reset_after=9),
            "one circuit: after 5 failures in a row rejects calls for 9 s each time, "
            "then lets 1 through to try",
        ),
        (
            CircuitBreaker(trip=FailureRate(0.5), key="model", reset_after=9, trials=2),
            "a circuit for each model: after FailureRate(0.5) rejects calls for 9 s each time, "
            "then lets 2 through to try",
        ),
        (ModelFallback("a"), "calls a"),
        (ModelFallback("a", "b", rounds=1), f"tries a, then b; {GOES_ON}"),
        (
            ModelFallback("a", "b"),
            f"tries a, then b; {GOES_ON}; comes back once to one that was left for a wait",
        ),
        (
            ModelFallback("a", "b", "c", rounds=4),
            f"tries a, then b, then c; {GOES_ON}; comes back up to 3 times to one that was left "
            "for a wait",
        ),
    ],
)
def test_the_line_of_a_policy(policy: Policy, line: str) -> None:
    """What it does, with the options that it was given."""
    assert Pipeline(policy).explain().policies == ((type(policy).__name__, line),)


# A function


def test_a_guarded_function_is_explained() -> None:
    """By its name; a bound method too; the same as its pipeline."""

    class Bot:
        @resilient(Retry(attempts=2))
        def ask(self, question: str) -> str:
            return question

    explained = guarded(Bot().ask).explain()
    assert explained.name is not None
    assert explained.name.endswith("Bot.ask")
    assert (explained.most_calls, explained.own_retries) == (2, None)
    assert "Requests" not in str(explained)


def test_a_clients_own_retries_are_reckoned_with() -> None:
    """Attempts times its tries are the requests; none where it makes none."""
    for own, said in ((2, True), (0, False)):
        with openai.OpenAI(api_key=SECRET, max_retries=own) as client:
            create = Pipeline(Retry(attempts=3)).wrap(client.chat.completions.create)
            explained = guarded(create).explain()
        assert explained.own_retries == own
        assert ("at most 9 requests" in str(explained)) is said


def test_an_explanation_is_a_value() -> None:
    """Printed in short by `repr`; its facts cannot be changed; nothing of the pipeline changes."""
    pipeline = Pipeline(Retry(), name="ask")
    explained = pipeline.explain()
    assert type(explained) is Explanation
    assert repr(explained) == "<Explanation of ask: Retry>"
    assert repr(Pipeline().explain()) == "<Explanation of a pipeline: no policies>"
    with pytest.raises(AttributeError):
        explained.most_calls = 5  # type: ignore[misc]
    with pytest.raises(TypeError):
        explained.failures[next(iter(explained.failures))] = ()  # type: ignore[index]
    assert pickle.loads(pickle.dumps(pipeline)).explain().most_calls == 3


# Pictures


def test_a_flowchart_leads_to_the_function() -> None:
    """From the caller through every policy; a model's own policies are on its way alone."""
    chain = ModelFallback("a", "b", per_model=lambda name: Retry(attempts=2 + (name == "b")))
    lines = Pipeline(Timeout(9), chain, Timeout(2), name="ask").explain().mermaid().splitlines()
    assert lines[0] == "flowchart TD"
    edges = [line.strip() for line in lines if "-->" in line]
    assert edges == [
        "caller --> p0",
        "p0 --> p1",
        'p1 -->|"a"| p1t0p0',
        'p1t0p0 -->|"up to 2 times"| p2',
        'p1 -->|"b"| p1t1p0',
        'p1t1p0 -->|"up to 3 times"| p2',
        "p2 --> function",
    ]
    assert Pipeline().explain().mermaid().splitlines()[-1].strip() == "caller --> function"
    assert '|"without end"|' in Pipeline(Retry(attempts=None)).explain().mermaid()


@pytest.mark.fault(337)
def test_names_with_markup_are_text_in_a_flowchart() -> None:
    """Labels are quoted, and what could end one is written by its number."""
    for line in odd().explain().mermaid().splitlines()[1:]:
        assert re.fullmatch(
            r'    (\w+(\(\["[^"<>&\[\]{}%]*"\]\)|\[\["[^"<>&\[\]{}%]*"\]\]|\["[^"<>&\[\]{}%]*"\])'
            r'|\w+ -->(\|"[^"<>&\[\]{}%]*"\|)? \w+)',
            line,
        )


class Tags(HTMLParser):
    """The tags and texts of a fragment, which must close what they open."""

    def __init__(self, fragment: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(fragment)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.fault(337)
@pytest.mark.parametrize("make", [standard, odd])
def test_html_is_text_in_a_table(make: object) -> None:
    """Whatever names have in them; no script, nothing from elsewhere."""
    fragment = make()._repr_html_()  # type: ignore[operator]
    found = Tags(fragment)
    assert found.tags == {"div", "p", "strong", "table", "tbody", "tr", "th", "td"}
    assert not re.search(r"https?:|src=|url\(|onclick=\"", fragment)
    if make is odd:
        assert MARKUP in found.text


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if found() is None and not os.environ.get("CI"):
        pytest.skip("no Chromium here: sh tests/support/chromium.sh installs it")
    with Browser() as browser:
        yield browser


@pytest.mark.real
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [420, 1000])
def test_a_notebook_shows_it_readably(browser: Browser, scheme: str, width: int) -> None:
    """No text is cut, overlaps another or is pale, in the colours that the notebook has."""
    colours = "background:#111;color:#ddd" if scheme == "dark" else "background:#fff;color:#222"
    fragment = standard()._repr_html_()
    page = browser.render(
        f"<!doctype html><body style='{colours};font-family:sans-serif'>{fragment}", width=width
    )
    assert page.problems() == []
