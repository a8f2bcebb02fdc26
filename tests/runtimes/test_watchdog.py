"""The watchdog of sync streams: it ends the stream's own reads, and nothing else."""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from resilience import (
    Pipeline,
    Retry,
    Streaming,
    StreamInterruptedError,
    Timeout,
    register_stream,
    resilient,
)
from resilience._runtimes import watchdog

pytestmark = [pytest.mark.real]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def reads(first: bytes, source: socket.socket) -> Iterator[bytes]:
    yield first
    yield source.recv(9)


def alive(pair: tuple[socket.socket, socket.socket]) -> bool:
    one, other = pair
    one.sendall(b"x")
    return other.recv(1) == b"x"


def test_a_read_that_takes_too_long_is_ended(pair: Any) -> None:
    """By the socket in the frames of the thread that reads."""
    stream = Pipeline(Streaming(idle=0.1)).call(reads, b"first", pair[0])
    began = time.monotonic()
    with pytest.raises(StreamInterruptedError):
        assert list(stream) != [b"first", b""]
    assert time.monotonic() - began < 2


@pytest.mark.fault(320)
def test_a_wait_that_ends_while_its_socket_is_looked_for(pair: Any) -> None:
    """Another one may have the socket by then: it is left alone."""

    class Response:
        """One whose connection goes back to its pool just now."""

        def __init__(self) -> None:
            self.extensions = {"network_stream": self}

        def get_extra_info(self, name: str) -> socket.socket:
            watch.end(True)
            return pair[0]

    watch = watchdog.Watch(9.0, math.inf, 0.0)
    watch.stream = SimpleNamespace(response=Response())
    watch.look(time.monotonic() + 10)
    watch.stop()

    assert watch.fired is None
    assert alive(pair)


@pytest.mark.fault(27)
def test_the_consumers_sockets_are_none_of_ours(pair: Any) -> None:
    """A generator that waits for something else is not stopped, and nothing is shut down."""

    @resilient(Streaming(first=5, idle=0.05))
    def answer() -> Iterator[str]:
        yield "a"
        time.sleep(0.2)
        yield "b"

    def serve(connection: socket.socket) -> list[str]:
        return list(answer())

    assert serve(pair[0]) == ["a", "b"]
    assert alive(pair)


def test_a_watch_ends_with_what_it_watches(pair: Any) -> None:
    """A stream that an inner call guards is watched by that one only; the thread is free."""

    @resilient(Retry())
    def inner() -> Iterator[str]:
        yield "a"
        yield "b"

    def give() -> Any:
        return inner()

    stream = Pipeline(Streaming(first=0.05), Timeout(5)).call(give)
    waited = pair[0]
    waited.settimeout(0.3)
    with pytest.raises(TimeoutError):
        waited.recv(1)
    assert alive(pair)
    assert list(stream) == ["a", "b"]


def test_a_watch_ends_with_ctrl_c(pair: Any) -> None:
    """While a stream is opened: nothing that this thread waits for later is shut down."""

    def give() -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Pipeline(Streaming(first=0.05)).call(give)
    pair[0].settimeout(0.3)
    with pytest.raises(TimeoutError):
        pair[0].recv(1)
    assert alive(pair)


def test_a_stream_that_raises_when_it_is_looked_at(pair: Any) -> None:
    """It is looked at again, and the others are watched as before."""

    @register_stream
    class Odd:
        @property
        def response(self) -> Any:
            raise RuntimeError

        def __iter__(self) -> Iterator[str]:
            yield "a"
            time.sleep(0.2)
            yield "b"

    assert list(Pipeline(Streaming(first=5, idle=0.05, complete=False)).call(Odd)) == ["a", "b"]

    with pytest.raises(StreamInterruptedError):
        list(Pipeline(Streaming(idle=0.05)).call(reads, b"first", pair[0]))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_of_fork_has_a_watchdog_of_its_own(pair: Any) -> None:
    """The parent's thread is not there."""
    list(Pipeline(Streaming(idle=5)).call(lambda: iter_of("a")))
    child = os.fork()
    if child == 0:
        try:
            list(Pipeline(Streaming(idle=0.1)).call(reads, b"first", pair[0]))
        except StreamInterruptedError:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def iter_of(*items: str) -> Iterator[str]:
    yield from items


def test_a_limit_of_ages_does_no_harm(pair: Any) -> None:
    """Others are ended in time."""
    watch = watchdog.Watch(1e10, float("inf"), 0.0)
    with pytest.raises(StreamInterruptedError):
        list(Pipeline(Streaming(idle=0.1)).call(reads, b"first", pair[0]))
    watch.stop()


def test_a_thread_that_cannot_be_started_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, pair: Any
) -> None:
    """The call says so; the next one has its watchdog."""
    monkeypatch.setattr(watchdog, "_watchdog", watchdog._Watchdog())

    def refuse(self: Any) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as here:
        here.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="thread"):
            Pipeline(Streaming(first=5)).call(lambda: iter_of("a"))
    with pytest.raises(StreamInterruptedError):
        list(Pipeline(Streaming(idle=0.1)).call(reads, b"first", pair[0]))


def test_what_is_over_leaves_the_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many short calls with a long limit."""
    dog = watchdog._Watchdog()
    monkeypatch.setattr(watchdog, "_watchdog", dog)
    fn = Pipeline(Streaming(first=3600)).wrap(lambda: "done")
    for _ in range(5000):
        fn()
    assert len(dog._heap) <= 2500


def test_a_stream_is_looked_at_when_its_next_limit_is() -> None:
    """Content makes no work for the watchdog, unless it has to look earlier than it would."""
    watch = watchdog.Watch(60.0, math.inf, 0.0)
    first = watch.queued
    watch.limit_to(60.0)
    assert watch.queued == first
    watch.limit_to(1.0)
    assert watch.queued < first
    watch.stop()
