"""The real daemon for tests: a child process on real sockets in a folder of its own, always ended by its own id."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inferd import Client
from inferd.errors import Unauthenticated

INFERD = str(Path(sys.executable).with_name("inferd"))


def until(condition: Callable[[], object], timeout_s: float = 45) -> None:
    """Wait for something that another process does, looking again every 20 ms; the test fails when it does not come."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "did not come true in time"
        time.sleep(0.02)


class Daemon:
    """`inferd serve` on a Unix socket in `folder`, and on whatever else `listen` names."""

    def __init__(
        self,
        folder: Path,
        *,
        models: Path | None = None,
        listen: tuple[str, ...] = (),
        args: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
        tls: bool = True,
        preexec_fn: Any = None,
        prefix: tuple[str, ...] = (),
    ) -> None:
        self.folder = folder
        self.models = models or folder / "models"
        self.models.mkdir(parents=True, exist_ok=True)
        self.state = folder / "state"
        self.socket = folder / "s.sock"
        self.url = f"unix:{self.socket}" + ("" if tls else "?tls=off")
        self.ca = Path(f"{self.socket}.ca.pem")
        self.log_path = folder / "log"
        self._listen = (self.url, *listen)
        self._args = args
        # Measuring whenever the machine is calm would come in the way of tests that count on a plan, or on time.
        self._env = {**os.environ, "INFERD_PLANNING_MODE": "off", **(env or {})}
        self._preexec_fn = preexec_fn
        self._prefix = prefix  # a command that runs the daemon elsewhere, under the same process id
        self._told = 0
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Daemon:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, *, wait: bool = True) -> Daemon:
        """Start the daemon and wait until it serves."""
        listen = [part for url in self._listen for part in ("--listen", url)]
        serve = [INFERD, "serve", "--models", str(self.models), "--state", str(self.state)]
        command = [*self._prefix, *serve, *listen, *self._args]
        self._told = len(self.log())
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._env, preexec_fn=self._preexec_fn
            )
        if wait:
            try:
                self.wait_ready()
            except BaseException:
                self.kill()
                raise
        return self

    def wait_ready(self, timeout_s: float = 200) -> None:
        """Wait for the summary, which comes when every model is up or has failed; raises with the log when it died."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            assert self.process is not None
            assert self.process.poll() is None, self.log()
            if "inferd is up" in self.log()[self._told :]:
                return
            time.sleep(0.05)
        raise AssertionError("not ready in time:\n" + self.log())

    def stop(self, timeout_s: float = 45) -> int:
        """SIGTERM, then wait; SIGKILL only when that does not help, which fails the test."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(30)
            raise AssertionError("the daemon did not stop on SIGTERM:\n" + self.log()) from None
        self.process = None
        return code

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(30)
        self.process = None

    def client(self, url: str | None = None, **options: Any) -> Client:
        """An SDK client; by default on the Unix socket, where peer credentials make it an administrator."""
        return Client(url or self.url, ca=self.ca if self.ca.exists() else None, **options)

    def token(self, name: str = "app", scopes: str = "infer,read", *args: str) -> str:
        """Make a token with the command line, as an administrator would, and wait until the daemon knows it."""
        done = self.cli("token", "create", name, "--scopes", scopes, "--state", str(self.state), "--json", *args)
        assert done.returncode == 0, done.stderr
        token = str(json.loads(done.stdout)["token"])
        until(lambda: self.knows(token))
        return token

    def knows(self, token: str) -> bool:
        """Whether the token is somebody to the daemon."""
        with self.client(token=token) as client:
            try:
                client.server_metadata()
            except Unauthenticated:
                return False
        return True

    def cli(self, *args: str, timeout_s: float = 60, **env: str) -> subprocess.CompletedProcess[str]:
        """Run an inferd command in this daemon's environment."""
        return subprocess.run(
            [INFERD, *args], capture_output=True, text=True, timeout=timeout_s, env={**self._env, **env}, check=False
        )

    def log(self) -> str:
        """Everything the daemon printed."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def rss_bytes(self) -> int:
        """Resident memory of the daemon."""
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    def open_files(self) -> int:
        """File descriptors that the daemon holds."""
        assert self.process is not None
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))
