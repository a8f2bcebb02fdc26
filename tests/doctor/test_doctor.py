"""`resilience doctor`: the installation, and what needs attention in modules."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import pybreaker
import pytest

from resilience import CircuitBreaker, PolicyOrderWarning, cli, doctor
from resilience.doctor import Finding, examine, page
from resilience.shared import RedisCircuit
from support.commands import run, write

pytestmark = [pytest.mark.real, pytest.mark.steady]

HEAD = """
    import functools
    import httpx
    import openai
    from resilience import *
    OPTIONS = dict(api_key="sk-canary", base_url="http://127.0.0.1:9/secret-path")
"""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """What is wrong with these modules is warned of when they are imported, too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PolicyOrderWarning)
        yield


def module_of(code: str, name: str = "app", **names: Any) -> ModuleType:
    """A module with this code."""
    module = ModuleType(name)
    vars(module).update(names)
    exec(dedent(HEAD) + dedent(code), vars(module))
    return module


def troubles(*modules: ModuleType) -> list[tuple[str, str]]:
    return [(each.subject, each.words) for each in examine(modules) if each.trouble]


# The installation


def test_versions_are_shown(tmp_path: Path) -> None:
    """Python's, ours, and of all that we require, with the ranges of the metadata."""
    done = run(tmp_path, "doctor")
    assert (done.returncode, done.stderr) == (0, "")
    assert platform.python_version() in done.stdout
    for line in importlib.metadata.requires("resilience-policies") or ():
        name = line.partition(";")[0].rstrip().split(">")[0].split("<")[0].split("[")[0]
        if name != "resilience-policies":
            assert name in done.stdout
            assert importlib.metadata.version(name) in done.stdout
    for extra in ("testing", "redis", "demo"):
        assert f"Extra {extra}" in done.stdout
    assert "Nothing needs attention." in done.stdout


def test_a_version_out_of_range_needs_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """And so does a missing requirement; an extra that is not installed does not."""
    lines = ["attrs>=99", "no-such-package>=1", "no-such-extra>=2; extra == 'more'"]
    monkeypatch.setattr("resilience.doctor.packages.requires", lambda name: lines)
    found = {each.subject: each for each in examine()}
    assert found["attrs"].trouble
    assert "not in the range (>=99)" in found["attrs"].words
    assert found["no-such-package"].trouble
    assert not found["no-such-extra"].trouble
    assert found["no-such-extra"].words == "not installed (>=2)"


def test_a_source_tree_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the ranges are not known, and that is said."""

    def missing(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "metadata", missing)
    assert any("not installed" in each.words for each in examine())
    assert not any(each.trouble for each in examine())


# Modules


def test_a_module_in_order() -> None:
    """Each guarded function is named, and nothing needs attention."""
    module = module_of(
        """
        client = openai.OpenAI(**OPTIONS, max_retries=0)
        @resilient(Retry(), CircuitBreaker())
        def ask(): return client
        """
    )
    found = [each for each in examine([module]) if each.section == "Module app"]
    assert [each.subject for each in found] == ["ask", "clients"]
    assert not any(each.trouble for each in found)


@pytest.mark.fault(395)
def test_a_module_with_proxies() -> None:
    """They stand for nothing outside of a request, or before a program is set up, and raise
    whatever they are asked: they are passed over."""
    module = module_of(
        """
        class Proxy:
            __hash__ = None
            def __getattribute__(self, name): raise RuntimeError("outside of a request")
            def __eq__(self, other): raise RuntimeError("outside of a request")
        request = Proxy()
        client = openai.OpenAI(**OPTIONS)
        class Bot:
            session = request
            @resilient(Retry())
            def ask(self): return request, client
        bot = Bot()
        ask = bot.ask
        """
    )
    found = [each for each in examine([module]) if each.section == "Module app"]
    assert [each.subject for each in found if each.trouble] == ["client"]
    assert {"ask", "Bot.ask"} <= {each.subject for each in found}


def test_a_module_without_guarded_functions() -> None:
    """Says so; its client may retry as it likes, as nobody else does."""
    found = examine([module_of("client = openai.OpenAI(**OPTIONS)")])
    said = {each.subject: each for each in found if each.section == "Module app"}
    assert "none is guarded" in said["functions"].words
    assert "up to 2 times by itself" in said["client"].words
    assert not said["client"].trouble


@pytest.mark.fault(339)
@pytest.mark.parametrize(
    ("code", "subject"),
    [
        (
            """
            @resilient(CircuitBreaker(), Retry())
            def ask(): ...
            """,
            "ask",
        ),
        ("robust = Pipeline(CircuitBreaker(), Retry())", "robust"),
        (
            """
            class Bot:
                @resilient(CircuitBreaker(), Retry())
                def ask(self): ...
            """,
            "Bot.ask",
        ),
        (
            """
            class Bot:
                @classmethod
                @resilient(CircuitBreaker(), Retry())
                def ask(cls): ...
            """,
            "Bot.ask",
        ),
        (
            """
            class Bot:
                @property
                @resilient(CircuitBreaker(), Retry())
                def answer(self): ...
            """,
            "Bot.answer",
        ),
        (
            """
            def make():
                return Pipeline(CircuitBreaker(), Retry()).wrap_client(
                    openai.OpenAI(**OPTIONS, max_retries=0)
                )
            client = make()
            """,
            "client",
        ),
    ],
)
def test_an_order_that_defeats_a_policy_is_found(code: str, subject: str) -> None:
    """Wherever the pipeline guards something, or may."""
    ((found, words),) = troubles(module_of(code))
    assert found == subject
    assert "opens late" in words


@pytest.mark.fault(339)
@pytest.mark.parametrize(
    ("code", "subject"),
    [
        ("client = openai.OpenAI(**OPTIONS)\nask = Pipeline(Retry()).wrap(print)", "client"),
        ("ask = Pipeline(Retry()).wrap(openai.OpenAI(**OPTIONS).chat.completions.create)", "ask"),
        (
            """
            ask = Pipeline(Retry()).wrap(
                functools.partial(openai.OpenAI(**OPTIONS).chat.completions.create, model="a")
            )
            """,
            "ask",
        ),
        (
            """
            def make():
                inner = openai.OpenAI(**OPTIONS)
                if False:
                    empty = None
                @resilient(Retry())
                def ask():
                    return inner, empty
                return ask
            ask = make()
            """,
            "ask: inner",
        ),
        (
            """
            class Bot:
                def __init__(self):
                    self.client = openai.OpenAI(**OPTIONS)
                @resilient(Retry())
                def ask(self): ...
            bot = Bot()
            """,
            "bot.client",
        ),
        (
            """
            class Bot:
                def __init__(self):
                    self.client = openai.OpenAI(**OPTIONS)
                def ask(self): ...
            ask = Pipeline(Retry()).wrap(Bot().ask)
            """,
            "ask.client",
        ),
        (
            """
            @resilient(Retry())
            def ask(client=openai.OpenAI(**OPTIONS)): ...
            """,
            "ask",
        ),
        (
            """
            def call(function, client): ...
            ask = Pipeline(Retry()).wrap(functools.partial(call, client=openai.OpenAI(**OPTIONS)))
            """,
            "ask",
        ),
        (
            """
            other = openai.OpenAI(**OPTIONS).chat.completions.create
            ask = Pipeline(
                ModelFallback("a", Model("b", call=other)), Retry()
            ).wrap(lambda model: None)
            del other
            """,
            "ask: b",
        ),
    ],
)
def test_a_client_that_retries_is_found(code: str, subject: str) -> None:
    """In the module, in what a guarded function can reach, in a chain; with the figure."""
    ((found, words),) = troubles(module_of(code))
    assert found == subject
    assert "up to 2 times by itself" in words
    assert "up to 9 requests" in words


def test_what_another_module_has_is_found() -> None:
    """The variables of a function are those of the module that it is from."""
    other = module_of("client = openai.OpenAI(**OPTIONS)\ndef ask(): return client", "other")
    module = module_of("ask = Pipeline(Retry()).wrap(ask)", ask=other.ask)
    assert [subject for subject, _ in troubles(module)] == ["client"]


def test_a_client_is_named_once() -> None:
    """However many have it; an httpx client that only connects anew is no trouble by itself."""
    module = module_of(
        """
        client = openai.OpenAI(**OPTIONS)
        same = client
        http = httpx.Client()
        @resilient(Retry())
        def ask(): return client, http
        """
    )
    assert [subject for subject, _ in troubles(module)] == ["client"]


# Shared storages


@pytest.mark.fault(339)
def test_a_storage_that_cannot_be_reached() -> None:
    """By the class of the error; no address, no password."""
    ((name, words, trouble),) = storage_words(RedisCircuit("redis://:sk-canary@127.0.0.1:9/0"))
    assert (name, trouble) == ("RedisCircuit", True)
    assert "cannot be reached (ConnectionError)" in words


def test_a_storage_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is not waited for longer than a few seconds."""
    import threading

    done = threading.Event()

    class Hanging(pybreaker.CircuitMemoryStorage):
        @property
        def state(self) -> str:
            done.wait(30)
            return "closed"

    monkeypatch.setattr(doctor, "_PATIENCE", 0.05)
    try:
        ((_, words, trouble),) = storage_words(Hanging("closed"))
    finally:
        done.set()
    assert ("no reply" in words, trouble) == (True, True)


def test_pybreakers_storages() -> None:
    """One is asked for its state; of a function of the key nobody knows which to ask."""
    memory = pybreaker.CircuitMemoryStorage("closed")
    assert storage_words(memory)[0][1:] == ("can be reached", False)
    module = module_of(
        "breaker = Pipeline(CircuitBreaker(key='model', storage=make))", make=lambda key: memory
    )
    assert [each.words for each in examine([module]) if "key" in each.words]


def storage_words(storage: Any) -> list[tuple[str, str, bool]]:
    module = module_of("robust = Pipeline(breaker)", breaker=CircuitBreaker(storage=storage))
    return [
        (each.subject, each.words, each.trouble)
        for each in examine([module])
        if each.subject == type(storage).__name__
    ]


# The command


def test_the_command(tmp_path: Path) -> None:
    """Status 1 where something needs attention, with each of it marked; no key, no address."""
    write(
        tmp_path,
        "troubled",
        HEAD
        + """
    client = openai.OpenAI(**OPTIONS, default_headers={"X-Key": "sk-canary"})

    @resilient(Retry(attempts=4))
    def ask(): return client
    """,
    )
    write(tmp_path, "fine", "print('noise')")
    done = run(tmp_path, "doctor", "fine", "troubled.py")
    assert (done.returncode, done.stderr) == (1, "noise\n")
    marked = [line for line in done.stdout.splitlines() if line.startswith("!")]
    assert [line.split()[1] for line in marked] == ["client", "1"]
    assert "up to 12 requests" in " ".join(done.stdout.split())
    assert "canary" not in done.stdout
    assert "secret-path" not in done.stdout


@pytest.mark.fault(338)
def test_a_module_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2, and what is wrong."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert cli.main(["doctor", "nowhere"]) == 2
    assert "no module 'nowhere'" in capsys.readouterr().err


def test_the_page_is_aligned() -> None:
    """Sections, subjects in one column, long words wrapped under their first."""
    text = page([Finding("One", "a", "1"), Finding("Two", "long", "word " * 40, True)])
    lines = text.splitlines()
    assert lines[:4] == ["One", "  a     1", "", "Two"]
    assert lines[4].startswith("! long  word")
    assert lines[5].startswith("        word")
    assert all(len(line) <= 100 for line in lines)
    assert lines[-1] == "! 1 to look at"
