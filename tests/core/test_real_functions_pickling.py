"""Guarded functions in other processes: by their names, and from a notebook by value."""

from __future__ import annotations

import copy
import inspect
import multiprocessing
import pickle
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from resilience import CircuitBreaker, Pipeline, Retry, guarded, history
from support import notebook
from support.notebook import Bot

pytestmark = [pytest.mark.real, pytest.mark.steady]

# By name


@pytest.fixture(scope="module")
def spawned() -> Iterator[ProcessPoolExecutor]:
    """A process that was started anew, and has imported what it needs by itself."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.mark.parametrize(
    ("fn", "result"),
    [
        (notebook.bare, 7),
        (notebook.chat, (7, "a", 1, True)),
        (Bot("bot").ask, ("bot", 7)),
        (Bot.made, ("made", 7)),
    ],
    ids=["function", "pipeline", "method", "class-method"],
)
def test_a_spawned_process_finds_it_by_name(
    spawned: ProcessPoolExecutor, fn: Any, result: Any
) -> None:
    """Functions, methods with their objects, class methods: retried over there."""
    assert spawned.submit(fn, 7).result() == result


def test_an_error_comes_back_from_a_spawned_process(spawned: ProcessPoolExecutor) -> None:
    """With its history."""
    with pytest.raises(ConnectionError) as caught:
        spawned.submit(notebook.further_in, 1).result()
    assert [attempt.number for attempt in history(caught.value)] == [1, 2, 3]


def test_what_a_module_has_is_pickled_by_name() -> None:
    """By cloudpickle, too, where it can be imported: nothing of the policies is sent."""
    for dumps in (pickle.dumps, cloudpickle.dumps):
        assert pickle.loads(dumps(notebook.chat)) is notebook.chat
        assert b"Retry" not in dumps(notebook.chat)


def test_copies() -> None:
    """A function copies as itself; a bound method, deeply, with a copy of its object."""
    assert copy.copy(notebook.chat) is copy.deepcopy(notebook.chat) is notebook.chat
    bot = Bot("bot")
    assert copy.copy(bot.ask) == bot.ask
    ask = copy.deepcopy(bot.ask)
    assert ask.__self__ is not bot  # type: ignore[attr-defined]
    assert ask.__func__ is Bot.ask  # type: ignore[attr-defined]
    holder = copy.deepcopy({"ask": bot.ask, "bot": bot})
    assert holder["ask"].__self__ is holder["bot"]  # type: ignore[attr-defined]


def test_a_pipeline_copies_as_itself_and_pickles_as_its_options() -> None:
    """In one process there is one of it; in another its circuits begin anew."""
    breaker = CircuitBreaker(failures=1)
    pipeline = Pipeline(Retry(attempts=1), Pipeline(breaker, name="part"), name="whole")
    breaker.open()

    assert copy.copy(pipeline) is copy.deepcopy(pipeline) is pipeline
    other = pickle.loads(pickle.dumps(pipeline))
    assert repr(other) == repr(pipeline).replace("open", "closed")
    assert breaker.state == "open"


# By value


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a program has written of its own functions, which nobody can import."""
    folder = tmp_path_factory.mktemp("letters")
    done = subprocess.run(
        [sys.executable, "-W", "error", notebook.__file__, str(folder)],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (done.stdout, done.stderr) == ("open\n", "")
    return folder


RECEIVER = """
import asyncio, inspect, logging, pickle, sys

logging.disable(logging.WARNING)  # what fails here does so on purpose
with open(sys.argv[1], "rb") as letter:
    fn = pickle.load(letter)
assert not [name for name in sys.modules if "notebook" in name]

def call(fn, *args):
    try:
        result = fn(*args)
        return asyncio.run(result) if inspect.iscoroutine(result) else result
    except Exception as error:
        return type(error).__name__

"""


def received(letters: Path, name: str, code: str) -> list[str]:
    """What another process prints that has got a function, `fn`, and runs `code`."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RECEIVER + code, str(letters / name)],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("bare", "7"),
        ("chat", "(7, 'a', 1, True)"),
        ("later", "7"),
        ("method", "('bot', 7)"),
        ("class_method", "('made', 7)"),
        ("own_policy", "('tag', 7)"),
        ("with_functions", "-7"),
        ("local", "14"),
        ("lambda", "21"),
    ],
)
def test_a_function_of_main_arrives(letters: Path, name: str, result: str) -> None:
    """It is a guarded function there, which calls again what has failed."""
    code = (
        "from resilience import guarded\nprint(call(fn, 7))\nprint(guarded(fn).pipeline.policies)"
    )
    got, pipeline = received(letters, name, code)
    assert got == result
    assert "Retry(" in pipeline


def test_the_pipeline_arrives_as_its_options(letters: Path) -> None:
    """All of them, those of nested pipelines included."""
    code = "from resilience import guarded\nprint(guarded(fn).pipeline, inspect.signature(fn))"
    assert received(letters, "chat", code) == [
        f"{guarded(notebook.chat).pipeline} {inspect.signature(notebook.chat)}"
    ]


def test_what_was_learnt_stays_behind(letters: Path) -> None:
    """A circuit that is open here is closed there, and opens there by itself."""
    code = "print(call(fn, 0), call(fn, 1), call(fn, 0))"
    assert received(letters, "failed", code) == ["0 ConnectionError CircuitOpenError"]


def test_what_is_sent_together_shares_its_circuit(letters: Path) -> None:
    """Two functions under one pipeline have one pipeline there, too."""
    code = "one, two = fn\nprint(call(two, 7), call(one, 7), call(two, 7))"
    assert received(letters, "sharing", code) == ["7 ConnectionError CircuitOpenError"]


def test_a_function_known_to_call_guarded_ones_arrives(letters: Path) -> None:
    """Though its calls are not at rest any more; the inner one's attempts are not repeated."""
    code = "made = fn.__wrapped__.__globals__['calls']\nprint(call(fn, 0), call(fn, 1), len(made))"
    assert received(letters, "calls_another", code) == ["0 ConnectionError 4"]


def test_a_variant_arrives(letters: Path) -> None:
    """What `replacing` gives is a guarded function, too."""
    code = "from resilience import guarded\nprint(call(fn, 7), guarded(fn).pipeline.policies[0])"
    assert received(letters, "variant", code) == ["7 Retry(attempts=4, wait=Fixed(seconds=0))"]
