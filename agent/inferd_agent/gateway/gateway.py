"""The gateway: devices found on the LAN become files that Envoy follows, for as long as both live."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import uvloop

from inferd.errors import TLSError
from inferd.fleet.browse import AsyncBrowser
from inferd.fleet.trust import TrustStore
from inferd_agent import logs, systemd
from inferd_agent.gateway.bootstrap import whole
from inferd_agent.gateway.envoy import Envoy, find_envoy
from inferd_agent.gateway.files import Files
from inferd_agent.gateway.roster import Roster, asking
from inferd_agent.gateway.settings import Settings
from inferd_agent.gateway.upstream import Member

log = logging.getLogger(__name__)

# Without any news the trust file is looked at so often.
LOOK_EVERY_S = 2.0
# News come in swarms; a moment's wait makes one file of them.
SETTLE_S = 0.1


@dataclass(frozen=True, slots=True)
class Sources:
    """Where devices, trust and rights come from; `trust` None is the user's own file."""

    interfaces: Sequence[str] = ()
    trust: Path | None = None
    token: str | None = None


def serve(settings: Settings, sources: Sources, folder: Path, *, runs_envoy: bool, drain_s: float) -> int:
    """Run until a signal ends it; the exit code. Raises ConfigError where it cannot start."""
    logs.configure("info", "auto")
    files = Files(folder)
    envoy = Envoy(find_envoy(), files.bootstrap, drain_s=drain_s) if runs_envoy else None
    with contextlib.closing(files), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(Gateway(settings, sources, files, envoy).run())


def look_once(settings: Settings, sources: Sources, wait_s: float) -> dict[str, object]:
    """The whole configuration with the devices that were found within `wait_s`."""

    async def look() -> dict[str, object]:
        async with _following(sources) as (roster, changed):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    while True:
                        await roster.members()
                        await _news(changed)
            return whole(settings, await roster.members())

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(look())


class Gateway:
    """One running gateway; `envoy` None where somebody else runs it."""

    def __init__(
        self,
        settings: Settings,
        sources: Sources,
        files: Files,
        envoy: Envoy | None,
        *,
        notifier: systemd.Notifier | None = None,
    ) -> None:
        self._settings = settings
        self._sources = sources
        self._files = files
        self._envoy = envoy
        self._notifier = notifier or systemd.Notifier()
        self._members: tuple[Member, ...] = ()

    async def run(self) -> int:
        """0 after a signal, 1 when Envoy ended by itself."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with _following(self._sources) as (roster, changed):
            await asyncio.to_thread(self._files.prepare, self._settings)
            await asyncio.to_thread(self._files.update, ())
            follower = asyncio.create_task(self._follow(roster, changed))
            try:
                return await self._live(stop, follower)
            finally:
                follower.cancel()
                await asyncio.gather(follower, return_exceptions=True)

    async def _live(self, stop: asyncio.Event, follower: asyncio.Task[None]) -> int:
        ends: list[asyncio.Task[object]] = [asyncio.create_task(stop.wait()), follower]
        if self._envoy is not None:
            await self._envoy.start()
            ends.append(asyncio.create_task(self._envoy.wait()))
        click.echo(f"inferd gateway is up at {self._settings.listen}, Envoy follows {self._files.folder}", err=True)
        self._notifier.ready(self._status())
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            if follower.done():
                follower.result()
            log.error("Envoy has ended; so does the gateway")
        self._notifier.stopping("finishing what is under way")
        if self._envoy is not None:
            await self._envoy.stop()
        for task in ends:
            task.cancel()
        await asyncio.gather(*ends, return_exceptions=True)
        return 0 if stop.is_set() else 1

    async def _follow(self, roster: Roster, changed: asyncio.Event) -> None:
        while True:
            try:
                self._members = await roster.members()
                if await asyncio.to_thread(self._files.update, self._members):
                    log.info("%s", self._status())
                    self._notifier.status(self._status())
            except (OSError, TLSError) as error:
                log.error("what Envoy follows stays as it is: %s", error)
            await _news(changed)

    def _status(self) -> str:
        names = ", ".join(member.device.name for member in self._members[:20])
        count = len(self._members)
        return f"{count} {'device' if count == 1 else 'devices'}{f': {names}' if names else ''}"


@contextlib.asynccontextmanager
async def _following(sources: Sources) -> AsyncIterator[tuple[Roster, asyncio.Event]]:
    """A roster of what is on the LAN, and the event that something of it has changed."""
    changed = asyncio.Event()
    async with AsyncBrowser(interfaces=sources.interfaces, on_change=lambda _device, _name: changed.set()) as browser:
        roster = Roster(browser.devices, TrustStore(sources.trust), asking(sources.token), changed.set)
        try:
            yield roster, changed
        finally:
            await roster.close()


async def _news(changed: asyncio.Event) -> None:
    """Wait for a change, or for the time to look by ourselves."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LOOK_EVERY_S):
            await changed.wait()
    await asyncio.sleep(SETTLE_S)
    changed.clear()
