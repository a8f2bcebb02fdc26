"""The local gateway starts, stops and is interrupted; nothing of it is left."""

from __future__ import annotations

import _thread
import asyncio
import json
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import trio
import uvicorn

from resilience.testing.gateway import Drop, Gateway, Hang, Ok, Received, SlowStart
from resilience.testing.server import serve
from support.gateway_clients import SDKS, answers, post, text

pytestmark = pytest.mark.real


def test_it_is_ready_within_a_second() -> None:
    """From nothing, imports included, to the first answer takes less than a second."""
    started = time.monotonic()
    with Gateway() as gateway:
        assert time.monotonic() - started < 1
        assert post(gateway).status_code == 200


def stopped_within(gateway: Gateway, stop: Callable[[], object]) -> float:
    """How long a stop takes while two requests hang and one connection is idle."""
    with httpx.Client(base_url=gateway.base_url, timeout=10) as client:
        client.get("/models")
        failures: list[Exception] = []

        def ask(**more: Any) -> None:
            try:
                client.post("/chat/completions", json={"model": "m", **more})
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=ask), threading.Thread(target=ask, kwargs={"stream": 1})]
        for thread in threads:
            thread.start()
        while len(gateway.requests) < 2:
            time.sleep(0.001)
        started = time.monotonic()
        stop()
        took = time.monotonic() - started
        for thread in threads:
            thread.join(5)
    assert [type(failure) for failure in failures] == [httpx.RemoteProtocolError] * 2
    return took


def gateway_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "gateway" in thread.name]


@pytest.mark.parametrize("plan", [Hang(), Ok(delay=60), Hang(60)], ids=repr)
def test_it_stops_at_once_while_requests_hang(
    plan: Any, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A stop cuts what hangs, leaves no thread, prints and logs nothing."""
    caplog.set_level(logging.DEBUG)
    gateway = Gateway(plan)
    gateway.start()
    assert stopped_within(gateway, gateway.stop) < 0.5
    assert gateway_threads() == []
    assert capfd.readouterr() == ("", "")
    heard = {record.name.split(".")[0] for record in caplog.records}
    assert heard <= {"asyncio", "httpx", "httpcore"}
    assert max((record.levelno for record in caplog.records), default=0) < logging.WARNING


def test_a_stream_is_cut_by_a_stop() -> None:
    """A stream under way does not hold up the stop either."""
    gateway = Gateway(SlowStart(60))
    gateway.start()
    body = {"model": "m", "stream": True}
    with httpx.stream("POST", f"{gateway.url}/chat/completions", json=body) as answer:
        lines = answer.iter_lines()
        next(lines)
        started = time.monotonic()
        gateway.stop()
        assert time.monotonic() - started < 0.5
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)
    assert gateway_threads() == []


async def _used_in_async_code() -> None:
    async with Gateway(Hang()) as gateway, httpx.AsyncClient() as client:
        url = f"{gateway.url}/chat/completions"
        with pytest.raises(httpx.ReadTimeout):
            await client.post(url, json={"model": "m"}, timeout=0.05)
        assert len(gateway.requests) == 1


@pytest.mark.parametrize("world", ["asyncio", "trio"])
def test_it_is_an_async_context_manager(world: str) -> None:
    """`async with` works under asyncio and trio, and leaves no thread."""
    if world == "asyncio":
        asyncio.run(_used_in_async_code())
    else:
        trio.run(_used_in_async_code)
    assert gateway_threads() == []


def test_async_use_does_not_block_the_loop() -> None:
    """While the gateway starts and stops, other tasks go on."""

    async def main() -> float:
        gaps = [0.0]

        async def tick() -> None:
            while True:
                started = time.monotonic()
                await asyncio.sleep(0.001)
                gaps.append(time.monotonic() - started)

        ticking = asyncio.create_task(tick())
        for _ in range(5):
            async with Gateway():
                await asyncio.sleep(0.002)
        ticking.cancel()
        return max(gaps)

    assert asyncio.run(main()) < 0.2


def test_a_cancelled_start_leaves_nothing() -> None:
    """A task that is cancelled while entering does not leave a running gateway."""

    async def enter() -> None:
        async with Gateway():
            await asyncio.sleep(60)

    async def main() -> None:
        task = asyncio.create_task(enter())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    ended = time.monotonic() + 1
    while gateway_threads() and time.monotonic() < ended:
        time.sleep(0.005)
    assert gateway_threads() == []


def test_an_interrupted_start_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while it waits to be ready comes out, and the thread ends by itself."""

    async def interrupting(*args: Any) -> None:
        _thread.interrupt_main()
        await serve(*args)

    monkeypatch.setattr("resilience.testing.server.serve", interrupting)
    with pytest.raises(KeyboardInterrupt):
        Gateway().start()
    ended = time.monotonic() + 5
    while gateway_threads() and time.monotonic() < ended:
        time.sleep(0.005)
    assert gateway_threads() == []


def test_a_server_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own error comes out of the start, and no thread is left."""

    async def fail(self: uvicorn.Server, sockets: Any) -> None:
        raise OSError("no more descriptors")

    monkeypatch.setattr(uvicorn.Server, "serve", fail)
    with pytest.raises(OSError, match="no more descriptors"):
        Gateway().start()
    assert gateway_threads() == []


def test_a_handler_that_hangs_holds_up_no_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even one that does not notice that its client is gone is waited for a moment only."""
    deaf = threading.Event()

    async def hang(http: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            deaf.set()

    monkeypatch.setattr("resilience.testing.server._gone", hang)
    gateway = Gateway(Drop())
    gateway.start()
    with pytest.raises(httpx.RemoteProtocolError):
        post(gateway)
    started = time.monotonic()
    gateway.stop()
    assert time.monotonic() - started < 2
    assert deaf.is_set()
    assert gateway_threads() == []


def test_a_client_that_leaves_before_it_has_asked() -> None:
    """Half a request is no request: it is not remembered, and the next one is answered."""
    with Gateway() as gateway:
        url = httpx.URL(gateway.url)
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: here\r\nContent-Length: 99\r\n\r\n{"
        with socket.create_connection((url.host, url.port)) as client:
            client.sendall(head.encode())
            client.shutdown(socket.SHUT_WR)
            while client.recv(1024):
                pass
        assert post(gateway).status_code == 200
        assert len(gateway.requests) == 1


def test_start_and_stop_by_hand() -> None:
    """A stopped gateway may start again; two stops do no harm, two starts are refused."""
    gateway = Gateway(["internal_error", Ok()])
    with pytest.raises(RuntimeError, match="not started"):
        _ = gateway.base_url
    assert repr(gateway) == "<Gateway, not started>"
    gateway.stop()
    for _ in range(2):
        gateway.start()
        assert gateway.url == gateway.base_url
        assert gateway.url.startswith("http://127.0.0.1:")
        assert gateway.url.endswith("/v1")
        assert answers(gateway, "m", 1) == ["internal_error"]
        with pytest.raises(RuntimeError, match="runs already"):
            gateway.start()
        gateway.stop()
        gateway.stop()
    assert "stopped" in repr(gateway)
    assert len(gateway.requests) == 1


def test_two_gateways_live_side_by_side() -> None:
    """Each has a port, a plan and a memory of its own."""
    with Gateway(Ok("one")) as one, Gateway(Ok("two")) as two:
        assert text(SDKS["auriko"].ask(one)) == "one"
        assert text(SDKS["openai"].ask(two)) == "two"
        assert len(one.requests) == len(two.requests) == 1


@pytest.mark.parametrize("way", ["asyncio", "trio"])
def test_a_missing_anyio_is_named_where_it_is_needed(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`async with` needs it, and says which extra brings it; no thread is left."""
    monkeypatch.setitem(sys.modules, "anyio", None)

    async def enter() -> None:
        async with Gateway():
            pytest.fail("entered")

    with pytest.raises(ImportError, match=r"resilience-policies\[testing\]"):
        asyncio.run(enter()) if way == "asyncio" else trio.run(enter)
    ended = time.monotonic() + 5
    while gateway_threads() and time.monotonic() < ended:
        time.sleep(0.005)
    assert gateway_threads() == []


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_a_missing_extra_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without starlette or uvicorn, starting says which extra to install."""
    for name in [*sys.modules]:
        if name.split(".")[0] == missing or name == "resilience.testing.server":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    gateway = Gateway()
    with pytest.raises(ImportError, match=r"resilience-policies\[testing\]"):
        gateway.start()

    async def enter() -> None:
        async with gateway:
            pass

    with pytest.raises(ImportError, match=r"resilience-policies\[testing\]"):
        asyncio.run(enter())
    assert gateway_threads() == []


def test_importing_the_gateway_imports_no_server() -> None:
    """starlette, uvicorn and the SDKs are not imported before a gateway starts."""
    program = (
        "import sys, json, resilience.testing.gateway;"
        "print(json.dumps([m for m in ('starlette', 'uvicorn', 'anyio', 'httpx', 'auriko')"
        " if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert json.loads(done.stdout) == []


def test_a_received_request_is_a_value() -> None:
    """What is remembered cannot be changed, and the list is the caller's own."""
    with Gateway() as gateway:
        post(gateway)
        gateway.requests.clear()
        received: Received = gateway.requests[0]
    with pytest.raises(AttributeError):
        received.answer = "other"  # type: ignore[misc]
