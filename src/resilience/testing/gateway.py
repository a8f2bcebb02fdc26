"""A local gateway that speaks Auriko's wire format and fails as planned, for tests and demos.

    with Gateway({"gpt-4o": ["service_unavailable", Ok()], "*": Ok()}) as gateway:
        client = auriko.Client(api_key="any", base_url=gateway.base_url)

It speaks Auriko's (and OpenAI's) chat completions and responses, and Anthropic's messages, each at
its path: every client of these takes the same `base_url`.

The real SDKs talk to it over a loopback socket, so what a program meets in such a test is what it
meets in production. Not for load tests, and not to be shown to a network. It needs the extra
`resilience-policies[testing]`.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from resilience._core.options import to_text

from .plan import (
    Answer,
    CutStream,
    Drop,
    Error,
    ErrorInStream,
    GarbledStream,
    Hang,
    Limited,
    Malformed,
    Ok,
    Plan,
    ProxyError,
    SlowStart,
    StalledStream,
    Timetable,
    UnfinishedStream,
    read_plans,
)
from .responder import Received, Responder

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "Answer",
    "CutStream",
    "Drop",
    "Error",
    "ErrorInStream",
    "GarbledStream",
    "Gateway",
    "Hang",
    "Limited",
    "Malformed",
    "Ok",
    "Plan",
    "ProxyError",
    "Received",
    "SlowStart",
    "StalledStream",
    "Timetable",
    "UnfinishedStream",
]

_MISSING = (
    "resilience.testing.Gateway needs starlette and uvicorn: "
    "pip install 'resilience-policies[testing]'"
)


class Gateway:
    """A server on 127.0.0.1, on a free port, in a daemon thread; `with` and `async with` both work.

    `plan` is one plan for every model, or a mapping of model names to plans with "*" for any
    other model (without "*", other models get `model_not_found`). A plan is an answer (always
    this one), an error code, a list of them (one per request of that model, the last one
    repeated; each model counts for itself under "*" too), a `Timetable` or `Limited`. With
    `api_key`, requests that do not carry it get `invalid_api_key`.

    Safe from any thread. Starting takes under a second, stopping a few milliseconds, even while
    requests hang. ImportError where the extra is not installed; TypeError or ValueError naming
    the place for a bad plan.
    """

    def __init__(
        self, plan: Plan | Mapping[str, Plan] | None = None, *, api_key: str | None = None
    ) -> None:
        if api_key is not None:
            to_text("Gateway.api_key", api_key)
        self._responder = Responder(read_plans(Ok() if plan is None else plan), api_key)
        self._thread: _Thread | None = None

    def __repr__(self) -> str:
        if self._thread is None:
            return "<Gateway, not started>"
        state = "" if self._thread.is_alive() else ", stopped"
        return f"<Gateway at {self._thread.url}{state}>"

    # Where it is.

    @property
    def base_url(self) -> str:
        """What SDKs want as `base_url`, "http://127.0.0.1:PORT/v1"; RuntimeError before a start.

        It stays readable after a stop, as an address that refuses connections.
        """
        if self._thread is None:
            raise RuntimeError("the gateway has no address yet: it was not started")
        return self._thread.url

    @property
    def url(self) -> str:
        """The same as `base_url`."""
        return self.base_url

    # What it has seen.

    @property
    def requests(self) -> list[Received]:
        """Every request since the start (or the last reset), in order of arrival: a copy."""
        return self._responder.received

    def requests_for(self, model: str) -> list[Received]:
        """The requests that asked for this model."""
        return [received for received in self._responder.received if received.model == model]

    @property
    def hits(self) -> Counter[str]:
        """How many requests each model had; 0 for a model nobody asked for."""
        models = (received.model for received in self._responder.received)
        return Counter(model for model in models if model is not None)

    @property
    def connections(self) -> int:
        """How many connections of clients are open; 0 when it does not run."""
        return 0 if self._thread is None else self._thread.connections()

    def change(self, plan: Plan | Mapping[str, Plan]) -> None:
        """Answer by another plan from now on; requests stay remembered, and the clock goes on.

        Requests under way end as they were planned. TypeError or ValueError as at construction.
        """
        self._responder.change(read_plans(plan))

    def reset(self) -> None:
        """Forget all requests; every plan, the numbering and the clock begin anew."""
        self._responder.reset()

    # Its life.

    def start(self) -> None:
        """Start and return when connections are accepted; RuntimeError if it runs already."""
        thread = self._made()
        try:
            thread.start()  # inside: Ctrl-C may come while this waits, too
            thread.ready.wait()
        except BaseException:
            thread.halt()
            raise
        self._opened(thread)

    def stop(self) -> None:
        """Close every connection, hanging ones too, and end the thread. Twice does no harm."""
        if self._thread is not None:
            self._thread.halt()
            self._thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        thread = self._made()
        try:
            thread.start()
            await _until(thread.ready.is_set)
        except BaseException:
            thread.halt()
            raise
        self._opened(thread)
        return self

    async def __aexit__(self, *error: object) -> None:
        thread = self._thread
        assert thread is not None
        thread.halt()
        await _until(lambda: not thread.is_alive())

    def _made(self) -> _Thread:
        if self._thread is not None and self._thread.is_alive():
            raise RuntimeError(f"the gateway runs already, at {self._thread.url}")
        self._thread = _Thread(self._responder)
        return self._thread

    def _opened(self, thread: _Thread) -> None:
        if thread.failure is not None:
            thread.join()
            raise thread.failure
        self._responder.reset()


class _Thread(threading.Thread):
    """One run of a gateway: its socket, its event loop and the way to end it."""

    def __init__(self, responder: Responder) -> None:
        super().__init__(name="resilience-gateway", daemon=True)
        self.ready = threading.Event()
        self.failure: BaseException | None = None
        self._responder = responder
        self._lock = threading.Lock()
        self._halted = False
        self._end: Callable[[], object] | None = None
        self.connections: Callable[[], int] = int
        # With the protocol named, asyncio turns Nagle's algorithm off: without, a kept-alive
        # connection waits 40 ms for every answer.
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(512)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def run(self) -> None:
        try:
            try:
                from .server import serve
            except ModuleNotFoundError as missing:
                raise ImportError(_MISSING) from missing
            asyncio.run(serve(self._responder, self._listener, self._opened))
        except BaseException as failure:  # whatever it is, it belongs to who called start()
            self.failure = failure
        finally:
            self._listener.close()
            self.ready.set()

    def halt(self) -> None:
        """Ask the thread to end, whatever it is at; safe from any thread, at any time."""
        with self._lock:
            self._halted = True
            if self._end is not None:
                try:
                    self._end()
                except RuntimeError:  # the loop is closed: it has ended
                    pass

    def _opened(
        self, loop: asyncio.AbstractEventLoop, stop: asyncio.Event, connections: Callable[[], int]
    ) -> None:
        self.connections = connections
        with self._lock:
            self._end = lambda: loop.call_soon_threadsafe(stop.set)
            if self._halted:
                stop.set()
        self.ready.set()


async def _until(done: Callable[[], bool]) -> None:
    """Wait without blocking the event loop, asyncio's or trio's; never long, so not cut short."""
    try:
        from anyio import CancelScope, sleep
    except ModuleNotFoundError as missing:
        raise ImportError(_MISSING) from missing
    with CancelScope(shield=True):
        while not done():
            await sleep(0.002)
