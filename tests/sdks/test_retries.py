"""Who retries: what each client repeats by itself, counted on the wire, and what we say of it."""

from __future__ import annotations

import contextlib
import functools
import gc
import math
import socket
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import httpx
import httpx2
import openai
import pytest
import requests
from attrs import evolve
from requests.adapters import HTTPAdapter
from urllib3.util import Retry as Urllib3Retry

import resilience
from resilience import (
    CircuitBreaker,
    Pipeline,
    Retry,
    RetryMultiplicationWarning,
    own_retries,
    resilient,
    retries_of,
)
from resilience.sdks.retries import check_retries
from support.client_cases import CASES, Case
from support.refusing import Refusing, refusing

pytestmark = [pytest.mark.real, pytest.mark.steady]
__all__ = ["refusing"]

ROBUST = Pipeline(Retry(attempts=2, wait=0))
CHAT: Any = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Auriko's SDK waits half a second at least."""
    monkeypatch.setattr("auriko._base_client._INITIAL_RETRY_DELAY", 0.0)


def counted(refusing: Refusing, call: Callable[[], object]) -> int:
    """How many requests a call makes that fails, or whose answer is a 503."""
    refusing.requests.clear()
    with contextlib.suppress(Exception):
        call()
    return len(refusing.requests)


@contextlib.contextmanager
def warned(figure: str | None) -> Iterator[None]:
    """The block gives one warning with this figure in it, or none."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", RetryMultiplicationWarning)
        yield
    said = [str(each.message) for each in found]
    assert len(said) == (figure is not None)
    assert all(str(figure) in each for each in said)


def mistral(url: str, **options: Any) -> Any:
    from mistralai.client import Mistral
    from mistralai.client.utils import BackoffStrategy, RetryConfig

    # 60 ms of retrying: the third attempt begins within it, none later.
    backoff = BackoffStrategy(1, 2, 1.5, 60, jitter_ms=0)
    return Mistral(
        api_key="any", server_url=url, retry_config=RetryConfig("backoff", backoff, True)
    )


def bedrock(url: str, **retries: Any) -> Any:
    config = import_module("botocore.config").Config(retries=retries)
    session: Any = import_module("botocore.session").get_session()
    return session.create_client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=url,
        aws_access_key_id="any",
        aws_secret_access_key="any",
        config=config,
    )


def session(url: str, **options: Any) -> Any:
    made = requests.Session()
    made.mount("http://", HTTPAdapter(max_retries=Urllib3Retry(2, status_forcelist=[503])))
    return made


CONVERSE: Any = {"modelId": "m", "messages": [{"role": "user", "content": [{"text": "Hi"}]}]}
BEDROCK = Case(bedrock, {"converse": CONVERSE})
FIRST = {
    name: evolve(case, ways=dict([next(iter(case.ways.items()))])) for name, case in CASES.items()
}


def way(name: str, path: str) -> Case:
    case = CASES[name]
    return evolve(case, ways={path: case.ways[path]})


# A client with its own retries at their default or as given, and how many those are.
OWN = [
    *(pytest.param(FIRST[name], None, own, id=name) for name, own in {
        "openai": 2,
        "openai-async": 2,
        "auriko": 2,
        "auriko-async": 2,
        "anthropic": 2,
        "anthropic-async": 2,
        "groq": 2,
        "groq-async": 2,
        "cohere": 2,
        "cohere-async": 2,
        "mistral": 0,
        "mistral-async": 0,
        "google": 0,
        "google-async": 0,
    }.items()),
    pytest.param(FIRST["openai"], 1, 1, id="openai-1"),
    pytest.param(FIRST["google"], 2, 2, id="google-2"),
    pytest.param(FIRST["google-async"], 2, 2, id="google-async-2"),
    *(
        pytest.param(way("google", path), 2, 2, id="interactions-2")
        for path in CASES["google"].ways
        if path == "interactions.create"
    ),
    pytest.param(way("openai", "chat.completions.with_raw_response.create"), None, 2, id="raw"),
    pytest.param(
        way("openai-async", "chat.completions.with_raw_response.create"), None, 2, id="raw-async"
    ),
    pytest.param(way("openai", "responses.create"), None, 2, id="responses"),
    pytest.param(way("cohere", "embed"), None, 2, id="cohere-embed"),
    pytest.param(evolve(BEDROCK, make=bedrock), None, 2, id="botocore"),
    pytest.param(
        evolve(BEDROCK, make=lambda url, max_retries: bedrock(url, total_max_attempts=2)),
        None,
        1,
        id="botocore-2-attempts",
    ),
    pytest.param(
        evolve(BEDROCK, make=lambda url, max_retries: bedrock(url, mode="legacy", max_attempts=1)),
        None,
        1,
        id="botocore-legacy",
    ),
]  # fmt: skip


def client_of(case: Case, refusing: Refusing, own: int | None) -> Any:
    return (
        case.make(refusing.url)
        if case.make is bedrock
        else case.make(refusing.url, max_retries=own)
    )


@pytest.mark.fault(295)
@pytest.mark.parametrize(("case", "given", "own"), OWN)
def test_what_goes_over_the_wire(
    case: Case, given: int | None, own: int, refusing: Refusing
) -> None:
    """Its own retries alone, multiplied by ours with one warning that has the figure, and ours
    alone once it has none."""
    client = client_of(case, refusing, given)
    path = next(iter(case.ways))
    method = functools.reduce(getattr, path.split("."), client)

    assert retries_of(method) == own
    assert counted(refusing, lambda: case.ask(client)) == 1 + own
    with warned(f"2 x {1 + own} = {2 + 2 * own}" if own else None):
        assert counted(refusing, lambda: case.ask(client, wrap=ROBUST.wrap)) == 2 + 2 * own
    with warned(None):
        assert counted(refusing, lambda: case.ask(client, wrap=ROBUST.wrap)) == 2 + 2 * own

    assert own_retries(client) is client
    assert retries_of(client) == retries_of(method) == 0
    with warned(None):
        assert counted(refusing, lambda: case.ask(client, wrap=ROBUST.wrap)) == 2


@pytest.mark.skipif("interactions.create" not in CASES["google"].ways, reason="of version 3")
def test_google_interactions_retry_by_default(refusing: Refusing) -> None:
    """Four times, though the client's models do not; switched off before or after their first
    use."""
    case = way("google", "interactions.create")
    used, unused = (case.make(refusing.url, max_retries=None) for _ in range(2))
    assert retries_of(used) == 0
    assert retries_of(used.interactions.create) == 4
    for client in map(own_retries, (used, unused)):
        asking = functools.partial(case.ask, client, wrap=ROBUST.wrap)
        with warned(None):
            assert counted(refusing, asking) == 2


def test_mistral_retries_for_a_time(refusing: Refusing) -> None:
    """A `RetryConfig` has no number of attempts."""
    client = mistral(refusing.url)
    call = functools.partial(client.chat.complete, **CHAT)
    assert retries_of(client) == retries_of(call) == math.inf
    assert counted(refusing, call) > 1
    assert retries_of(functools.partial(call, retries=None)) == 0
    assert counted(refusing, functools.partial(call, retries=None)) == 1
    with warned("2 x any number of"):
        counted(refusing, ROBUST.wrap(call))
    shared = client.sdk_configuration.retry_config
    own_retries(client)
    assert retries_of(client) == 0
    assert shared.strategy == "backoff"  # it may be another client's as well
    assert counted(refusing, ROBUST.wrap(call)) == 2


def test_requests_retries_as_its_adapter_says(refusing: Refusing) -> None:
    """For the URL that is asked; by default it does not retry."""
    assert retries_of(requests.Session()) == 0
    client = session(refusing.url)
    assert retries_of(client) == retries_of(client.get_adapter(refusing.url)) == 2
    assert retries_of(functools.partial(client.get, "https://other.test")) == 0
    assert retries_of(functools.partial(client.request, "GET", refusing.url)) == 2
    with warned("2 x 3 = 6"):
        assert counted(refusing, lambda: ROBUST.call(client.get, refusing.url)) == 6
    own_retries(client)
    assert retries_of(client) == 0
    assert client.get(refusing.url).status_code == 503


@pytest.mark.parametrize(
    ("retry", "most"),
    [
        (Urllib3Retry(False), 0),
        (Urllib3Retry(None, connect=3, read=1), 3),
        (Urllib3Retry(total=None), 0),
    ],
)
def test_the_forms_of_an_adapters_retries(retry: Urllib3Retry, most: int) -> None:
    assert retries_of(HTTPAdapter(max_retries=retry)) == most


def test_an_adapter_of_the_users_own() -> None:
    """That has no such number does not retry, as far as anybody knows."""

    class Own(requests.adapters.BaseAdapter):
        def close(self) -> None:
            """Has nothing open."""

    client = requests.Session()
    client.mount("https://own.test", Own())
    assert retries_of(own_retries(client)) == 0


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_httpx_retries_connecting(library: Any) -> None:
    """As its transports say: counted where connections break during TLS."""
    taken: list[None] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    taken.append(None)
                    connection.close()

        threading.Thread(target=hang_up, daemon=True).start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        transport = library.HTTPTransport(retries=1, verify=False)
        with library.Client(transport=transport) as client:
            assert retries_of(client) == retries_of(transport) == retries_of(client.get) == 1
            with warned("2 x 2 = 4"), pytest.raises(library.ConnectError):
                ROBUST.call(client.get, url)
            assert len(taken) == 4
            own_retries(client)
            assert retries_of(client) == 0
            with pytest.raises(library.ConnectError):
                ROBUST.call(client.get, url)
            assert len(taken) == 6
        listener.shutdown(socket.SHUT_RDWR)
    assert retries_of(library.AsyncClient()) == 0
    assert retries_of(library.AsyncClient(transport=library.AsyncHTTPTransport(retries=3))) == 3


# What is seen, and what is not


@pytest.fixture
def client(refusing: Refusing) -> Any:
    """With two retries of its own."""
    return openai.OpenAI(api_key="any", base_url=refusing.url)


def test_where_a_client_is_found(client: Any) -> None:
    """In its methods, through partials, what is guarded, and wrappers that say what they wrap."""
    create = client.chat.completions.create
    for found in (
        client,
        client.chat.completions,
        create,
        functools.partial(functools.partial(create, model="m"), messages=[]),
        functools.wraps(create)(lambda **options: create(**options)),
        ROBUST.wrap(create),
        client.with_options(timeout=1),
    ):
        assert retries_of(found) == 2
    for other in (len, lambda: create(**CHAT), openai.OpenAI, openai.Timeout(1), object(), None):
        assert retries_of(other) is None
    assert retries_of(client.with_options(max_retries=0)) == 0


def test_wrappers_without_an_end(client: Any) -> None:
    """A function that wraps itself."""

    def round_and_round() -> None:
        """Is never called."""

    round_and_round.__wrapped__ = round_and_round  # type: ignore[attr-defined]
    assert retries_of(round_and_round) is None


def test_a_resource_with_retries_of_its_own(refusing: Refusing) -> None:
    """They are switched off without the rest of the client."""
    client = mistral(refusing.url)
    assert own_retries(client.chat) is client.chat
    assert retries_of(client.chat.complete) == 0
    if (case := CASES["google"]).ways.get("interactions.create"):
        google = case.make(refusing.url, max_retries=3)
        own_retries(google.interactions)
        assert retries_of(google.interactions.create) == 0
        assert retries_of(google) == 3


def test_a_function_that_calls_it_inside(client: Any, refusing: Refusing) -> None:
    """Nothing can be seen there."""

    def ask() -> object:
        return client.chat.completions.create(**CHAT)

    with warned(None):
        assert counted(refusing, resilient(Retry(attempts=2, wait=0))(ask)) == 6


@pytest.mark.parametrize(
    "pipeline",
    [
        Pipeline(CircuitBreaker()),
        Pipeline(Retry(attempts=1)),
        Pipeline(Retry(on=ValueError, attempts=1), CircuitBreaker()),
    ],
)
def test_only_where_we_retry(pipeline: Pipeline, client: Any) -> None:
    with warned(None), pytest.raises(openai.InternalServerError):
        pipeline.call(client.chat.completions.create, **CHAT)


def test_retries_of_a_part_count(client: Any) -> None:
    """A nested pipeline's, and one without an end."""
    with warned("2 x 3 = 6"), pytest.raises(openai.InternalServerError):
        Pipeline(CircuitBreaker(), ROBUST).call(client.chat.completions.create, **CHAT)
    other = client.with_options(timeout=9)
    endless = Pipeline(Retry(attempts=None, within=0.01, wait=0.1))
    with warned("any number of x 3"), pytest.raises(openai.InternalServerError):
        endless.call(other.chat.completions.create, **CHAT)


def test_with_options_is_a_client_of_its_own(client: Any, refusing: Refusing) -> None:
    once = client.with_options(max_retries=0).chat.completions.create
    with warned(None):
        assert counted(refusing, lambda: ROBUST.call(once, **CHAT)) == 2
    twice = client.with_options(max_retries=1).chat.completions.create
    with warned("2 x 2 = 4"):
        assert counted(refusing, lambda: ROBUST.call(twice, **CHAT)) == 4


@pytest.mark.parametrize("use", ["wrap", "call", "outcome", "guarded", "listening"])
def test_at_the_first_call_not_before(use: str, client: Any) -> None:
    """Not where it is wrapped: until then the client may be changed."""
    create = client.chat.completions.create
    listening = Pipeline(Retry(attempts=2, wait=0), listeners=[lambda event: None])
    with warned(None):
        wrapped = (listening if use == "listening" else ROBUST).wrap(create)
    calls: dict[str, Callable[[], object]] = {
        "wrap": lambda: wrapped(**CHAT),
        "listening": lambda: wrapped(**CHAT),
        "call": lambda: ROBUST.call(create, **CHAT),
        "outcome": lambda: ROBUST.outcome(create, **CHAT),
        "guarded": lambda: resilience.guarded(wrapped).outcome(**CHAT),
    }
    with warned("2 x 3 = 6"), contextlib.suppress(openai.InternalServerError):
        calls[use]()
    with warned(None), contextlib.suppress(openai.InternalServerError):
        calls[use]()
        client.embeddings.create  # noqa: B018
        ROBUST.call(client.embeddings.create, model="m", input="Hi")


def test_the_warning_is_at_the_users_line(client: Any) -> None:
    with pytest.warns(RetryMultiplicationWarning) as found, pytest.raises(openai.APIError):
        ROBUST.call(client.chat.completions.create, **CHAT)
    assert found[0].filename == __file__


def test_as_an_error_it_comes_out_before_anything_is_sent(client: Any, refusing: Refusing) -> None:
    """With warnings as errors; the second call goes through."""
    breaker = CircuitBreaker()
    create = Pipeline(Retry(attempts=2, wait=0), breaker).wrap(client.chat.completions.create)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RetryMultiplicationWarning):
            create(**CHAT)
        assert refusing.requests == []
        with pytest.raises(openai.InternalServerError):
            create(**CHAT)
    assert len(refusing.requests) == 6


def test_what_a_call_says_of_its_own(refusing: Refusing) -> None:
    """Options of the call, given or bound, and streams, which cohere never retries."""
    cohere = CASES["cohere"].make(refusing.url, max_retries=None)
    off: Any = {"request_options": {"max_retries": 0}}
    assert retries_of(functools.partial(cohere.chat, **off)) == 0
    assert retries_of(cohere.chat_stream) == 0
    with warned(None):
        assert counted(refusing, lambda: ROBUST.call(cohere.chat, **CHAT, **off)) == 2
    with warned("2 x 3 = 6"):
        assert counted(refusing, lambda: ROBUST.call(cohere.chat, **CHAT)) == 6

    google = CASES["google"].make(refusing.url, max_retries=None)
    twice: Any = {
        "http_options": {"retry_options": {"attempts": 2, "initial_delay": 0.001, "jitter": 0.001}}
    }
    call = functools.partial(google.models.generate_content, model="m", contents="Hi", config=twice)
    assert retries_of(google.chats.create(model="m").send_message) == 0
    assert retries_of(call) == 1
    with warned("2 x 2 = 4"):
        assert counted(refusing, ROBUST.wrap(call)) == 4


def test_a_client_that_cannot_be_read(client: Any, refusing: Refusing) -> None:
    """Of another version, say: nothing is known, and nothing breaks."""
    client.max_retries = None
    assert retries_of(client) is None
    with warned(None), pytest.raises(TypeError, match="max_retries"):
        ROBUST.call(client.chat.completions.create, **CHAT)


def test_a_client_that_is_not_hashable(refusing: Refusing) -> None:
    """As of a class of the user's that compares by value."""

    class Session(requests.Session):
        def __eq__(self, other: object) -> bool:
            return True

    client = Session()
    client.mount("http://", HTTPAdapter(max_retries=1))
    with warned("2 x 2 = 4"):
        for _ in range(2):
            assert ROBUST.call(client.get, refusing.url).status_code == 503
            assert ROBUST.wrap(client.get)(refusing.url).status_code == 503


@pytest.mark.parametrize("other", [object(), len, openai.OpenAI, lambda: None])
def test_own_retries_takes_what_it_knows(other: Any) -> None:
    with pytest.raises(TypeError, match="own_retries"):
        own_retries(other)


# What it costs


@pytest.mark.fault(295)
def test_no_client_is_kept_alive(refusing: Refusing) -> None:
    """Nor what is remembered of it."""
    client = openai.OpenAI(api_key="any", base_url=refusing.url)
    with warned("2 x 3 = 6"), contextlib.suppress(openai.InternalServerError):
        ROBUST.call(client.chat.completions.create, **CHAT)
    own_retries(client)
    gone = weakref.ref(client)
    del client
    gc.collect()
    assert gone() is None


def test_it_is_found_out_once(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """For each guarded function, and for each client that is called without one."""
    asked: list[Any] = []

    def check(*args: Any) -> None:
        asked.append(args)
        with warned("2 x 3 = 6"):
            check_retries(*args)

    monkeypatch.setattr("resilience._core.guard.check_retries", check)
    create = client.chat.completions.create
    wrapped = ROBUST.wrap(create)
    for _ in range(3):
        with contextlib.suppress(openai.InternalServerError):
            wrapped(**CHAT)
    for _ in range(3):
        with contextlib.suppress(openai.InternalServerError):
            ROBUST.call(create, **CHAT)
    assert len(asked) == 1


def test_the_first_call_leaves_the_others_at_rest(client: Any) -> None:
    """A guarded function that has been called once runs directly."""
    wrapped = ROBUST.wrap(client.chat.completions.create)
    guard: Any = wrapped.__resilience__
    assert guard.idle.period is None
    with warned("2 x 3 = 6"), contextlib.suppress(openai.InternalServerError):
        wrapped(**CHAT)
    assert guard.idle is ROBUST._idle
