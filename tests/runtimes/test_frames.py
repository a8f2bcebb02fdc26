"""The frames of all threads, looked at without a garbage collection on the way."""

from __future__ import annotations

import gc
import linecache
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from resilience._runtimes.frames import frames_by_thread

pytestmark = [pytest.mark.real, pytest.mark.steady]


@contextmanager
def waiting(threads: int) -> Iterator[list[int]]:
    """Threads that wait, whose frames nobody has asked for yet."""
    begun, over = threading.Barrier(threads + 1), threading.Event()

    def wait() -> None:
        begun.wait()
        over.wait()

    made = [threading.Thread(target=wait) for _ in range(threads)]
    for each in made:
        each.start()
    begun.wait()
    yield [each.ident for each in made if each.ident is not None]
    over.set()
    for each in made:
        each.join()


def test_each_thread_is_found() -> None:
    with waiting(3) as threads:
        frames = frames_by_thread()
        assert {*threads, threading.get_ident()} <= set(frames)
        assert frames[threading.get_ident()].f_back is sys._getframe()


@pytest.mark.fault(402)
def test_no_garbage_is_collected_meanwhile() -> None:
    """Where `sys._current_frames()` itself does that, a finalizer can stop the interpreter."""
    lines: list[str] = []

    def note(phase: str, _: object) -> None:
        caller = sys._getframe(1)
        lines.append(linecache.getline(caller.f_code.co_filename, caller.f_lineno))

    before = gc.get_threshold()
    with waiting(20):
        gc.callbacks.append(note)
        gc.set_threshold(1)
        try:
            frames_by_thread()
        finally:
            gc.set_threshold(*before)
            gc.callbacks.remove(note)
    assert lines
    assert not [line for line in lines if "_current_frames()" in line]


def test_whoever_collects_no_garbage_goes_on_so() -> None:
    gc.disable()
    try:
        frames_by_thread()
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.fault(402)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_process_forked_meanwhile_collects_garbage() -> None:
    """And can ask."""
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            frames_by_thread()

    asking = [threading.Thread(target=ask) for _ in range(2)]
    for each in asking:
        each.start()
    codes = []
    for _ in range(20):
        child = os.fork()
        if child == 0:
            frames_by_thread()
            os._exit(0 if gc.isenabled() else 3)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    over.set()
    for each in asking:
        each.join()
    assert codes == [0] * 20
