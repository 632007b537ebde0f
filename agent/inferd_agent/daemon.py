"""The daemon: builds every part once, starts them in order, stops them in reverse.

Start: log, state folder, certificates, sockets, runtime, front ends, models. Sockets are bound before models load:
callers are told 503, or wait where systemd holds the socket; none is refused. Stop: take no more, finish what was
accepted, close. Only this module knows all the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import fcntl
import gc
import logging
import os
import signal
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import uvloop

from inferd_agent import logs, sockets, systemd
from inferd_agent.bridge import Bridge
from inferd_agent.config import Config, Loaded, diff
from inferd_agent.discovery import Advertiser, Survey, default_name, find_lan, instance_id
from inferd_agent.errors import ConfigError
from inferd_agent.files import make_private_folder
from inferd_agent.handover import Handover
from inferd_agent.identity import Identity
from inferd_agent.memory import Regions
from inferd_agent.metrics import Metrics
from inferd_agent.rest import RestApp
from inferd_agent.summary import status_line, summary
from inferd_agent.tls import TlsMaterial
from inferd_agent.watchdog import Watchdog
from inferd_runtime import Runtime, RuntimeOptions

if TYPE_CHECKING:
    from inferd_agent.grpc import GrpcFront

log = logging.getLogger(__name__)

FOLLOW_EVERY_S = 0.5
RENEW_EVERY_S = 3600.0
STATUS_EVERY_S = 10.0
LOAD_REPORT_S = 600.0
QUEUE_S = 30.0
LOAD_STATUS_EVERY_S = 1.0
STOP_SPARE_S = 10.0  # beside server.drain_s
COLLECTOR_THRESHOLDS = (50_000, 20, 50)


def serve(configuration: Callable[[], Loaded]) -> int:
    """Run until a signal ends it; the exit code. ConfigError where it cannot start."""
    loaded = configuration()
    logs.configure(loaded.config.log.level, loaded.config.log.format)
    faulthandler.enable()  # where it hung, when the watchdog ends it
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(Daemon(loaded, configuration).run())


class Daemon:
    """One running daemon. `configuration` is asked again on SIGHUP."""

    def __init__(
        self, loaded: Loaded, configuration: Callable[[], Loaded], *, notifier: systemd.Notifier | None = None
    ) -> None:
        self._loaded = loaded
        self._configuration = configuration
        self._notifier = notifier or systemd.Notifier()
        self._stop = asyncio.Event()
        self._is_up = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._advertiser: Advertiser | None = None
        self._grpc: GrpcFront | None = None

    async def run(self) -> int:
        """Start everything, wait for a signal, stop everything."""
        loop = asyncio.get_running_loop()
        config = self._loaded.config
        async with contextlib.AsyncExitStack() as stack:
            self._tls = self._open_state(config)
            bound = sockets.bind(
                [each for each in self._loaded.listeners if not each.grpc],
                mode=int(config.server.socket_mode, 8),
                group=config.server.socket_group,
                inherited=systemd.take_sockets(),
            )
            for each in bound:
                stack.callback(each.close)
                if (published := self._tls.publish(each.listener)) and not each.is_inherited:
                    stack.callback(published.unlink, missing_ok=True)
            self._bridge = Bridge(loop)
            stack.callback(self._bridge.close)
            self._runtime = Runtime(
                _options(config),
                deliver=self._bridge.deliver,
                defer=self._bridge.defer,
                callers=lambda: self._rest.callers(),
            )
            stack.callback(self._runtime.close)
            self._bridge.bind(self._runtime)
            self._watchdog = Watchdog(self._bridge, self._notifier)
            self._identity = self._open_identity(config)
            metrics = Metrics(self._runtime)
            self._regions = Regions(config.shared_memory)
            stack.callback(self._regions.close)
            self._handover = Handover(
                self._regions,
                self._identity,
                wait_s=config.server.header_timeout_s,
                max_connections=config.shared_memory.max_regions,
            )
            stack.push_async_callback(self._handover.close)
            memory = next((each.path for each in self._loaded.listeners if each.memory), "")
            self._rest = RestApp(config, self._bridge, self._identity, metrics, self._regions, memory_socket=memory)
            for each in bound:
                if not each.is_inherited:
                    await self._listen(each)
            bound += await self._listen_with_grpc(stack, metrics)
            self._runtime.start()
            self._advertise(bound, metrics.version)
            self._listen_to_signals(loop)
            self._run_beside(self._announce(bound))
            self._run_beside(self._follow_tokens())
            self._run_beside(self._renew_certificates())
            self._run_beside(self._tell_systemd())
            self._run_beside(self._watchdog.watch())
            await self._stop.wait()
            await self._shut_down(config.server.drain_s)
        return 0

    def _open_state(self, config: Config) -> TlsMaterial:
        """The state folder and the certificates in it."""
        state = Path(config.state.dir)
        try:
            make_private_folder(state)
            make_private_folder(Path(config.state.cache_dir))
            self._state_lock = (state / "lock").open("a")  # held as long as this daemon lives
            fcntl.flock(self._state_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"state.dir {state}: another daemon uses it; give this one its own with --state"
            ) from None
        except OSError as error:
            raise ConfigError(f"state.dir {state}: cannot be used: {error.strerror}") from error
        return TlsMaterial(state / "tls", names=config.tls.names, cert=config.tls.cert, key=config.tls.key)

    def _open_identity(self, config: Config) -> Identity:
        """The tokens of the state folder, and those that systemd hands over as a credential."""
        given = self._loaded.paths.credential("tokens.json")
        return Identity(
            Path(config.state.dir) / "tokens.json",
            config.auth.peers,
            own_uid=os.geteuid(),
            given_tokens=Path(given) if given else None,
        )

    def _advertise(self, bound: Sequence[sockets.Bound], version: str) -> None:
        """Tell the LAN, once everything listens."""
        config, lan = self._loaded.config, find_lan(bound)
        if not config.lan.enabled or lan is None:
            return
        survey = Survey(self._runtime, version, partial(self._tls.fingerprint_for, lan.listener))
        self._advertiser = Advertiser(
            lan,
            survey,
            name=default_name(config.lan.name),
            instance_id=instance_id(Path(config.state.dir) / "instance"),
            interfaces=config.lan.interfaces,
        )
        self._advertiser.start()

    async def _listen(self, bound: sockets.Bound) -> None:
        if bound.listener.memory:
            self._handover.listen(bound)
            return
        await self._rest.listen(bound, self._tls.context_for(bound.listener))

    async def _listen_with_grpc(self, stack: contextlib.AsyncExitStack, metrics: Metrics) -> tuple[sockets.Bound, ...]:
        """The listeners of gRPC, where there are any: its libraries are loaded for them alone."""
        listeners = [each for each in self._loaded.listeners if each.grpc]
        if not listeners:
            return ()
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it would tell of every failed handshake, unasked
        try:
            from inferd_agent.grpc import GrpcFront
        except ImportError as error:
            raise ConfigError(f"{listeners[0]}: gRPC is not installed ({error}): pip install 'inferd[grpc]'") from error
        self._grpc = GrpcFront(self._loaded.config, self._bridge, self._identity, metrics, self._regions)
        stack.push_async_callback(self._grpc.close)
        bound = []
        for listener in listeners:
            bound.append(await self._grpc.listen(listener, partial(self._tls.pem_for, listener)))
            if published := self._tls.publish(listener):
                stack.callback(published.unlink, missing_ok=True)
        return tuple(bound)

    def _listen_to_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._run_beside(self._reload()))

    def _run_beside(self, work: Coroutine[Any, Any, None]) -> None:
        """A task that lives beside the others; when it fails, the log says so and the daemon goes on."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a background task failed", exc_info=error)

    # Beside the requests

    async def _announce(self, bound: Sequence[sockets.Bound]) -> None:
        """Once the first models are up (or failed): the summary for people, READY for systemd.

        On sockets that systemd holds callers queue until then, so that a restart is not seen; not for ever, though.
        """
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        queueing = [each for each in bound if each.is_inherited]
        while True:
            is_loaded = await asyncio.to_thread(self._runtime.wait_loaded, LOAD_STATUS_EVERY_S)
            waited_s = loop.time() - began_s
            if is_loaded or waited_s > QUEUE_S:
                while queueing:
                    await self._listen(queueing.pop(0))
            if is_loaded or waited_s > LOAD_REPORT_S:
                break
            self._notifier.status(f"starting; {status_line(self._runtime.models())}")
        _spare_the_collector()
        lan = find_lan(bound) if self._advertiser is not None else None
        shown = self._tls.fingerprint_for(lan.listener) if lan is not None else ""
        text = summary(self._loaded, bound, self._runtime.models(), self._tls.ca_path, fingerprint=shown)
        click.echo(text, err=True)
        self._is_up = True
        self._notifier.ready(self._status())

    async def _follow_tokens(self) -> None:
        """Tokens that were made, rotated or revoked count at once, without a signal."""
        while True:
            await asyncio.sleep(FOLLOW_EVERY_S)
            await asyncio.to_thread(self._identity.follow)

    async def _renew_certificates(self) -> None:
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            try:
                if await asyncio.to_thread(self._tls.renew):
                    log.info("certificate renewed")
            except ConfigError as error:
                log.error("%s", error)

    async def _tell_systemd(self) -> None:
        """STATUS= now and then, once it serves."""
        while self._notifier.is_active:
            await asyncio.sleep(STATUS_EVERY_S)
            if self._is_up:
                self._notifier.status(self._status())

    def _status(self) -> str:
        models = status_line(self._runtime.models())
        return self._watchdog.trouble or f"{models}; {self._bridge.pending} requests under way"

    async def _reload(self) -> None:
        """SIGHUP: what may change while running changes; a bad configuration changes nothing."""
        self._notifier.reloading()
        try:
            new = await asyncio.to_thread(self._configuration)
            changes = diff(self._loaded.config, new.config)
            config = new.config
            await asyncio.to_thread(
                partial(self._tls.reload, names=config.tls.names, cert=config.tls.cert, key=config.tls.key)
            )
            await asyncio.to_thread(self._identity.reload, config.auth.peers)
            logs.configure(config.log.level, config.log.format)
        except ConfigError as error:
            log.error("not reloaded, the old configuration goes on: %s", error)
        else:
            if changes.restart:
                log.warning("changed, but taken only by a restart: %s", ", ".join(changes.restart))
            self._loaded = new
            log.info("reloaded; changed: %s", ", ".join(changes.live) or "nothing")
        if self._is_up:
            self._notifier.ready(self._status())

    async def _shut_down(self, drain_s: float) -> None:
        """Finish what was accepted, within the time for it."""
        self._notifier.stopping("finishing what was accepted", within_s=drain_s + STOP_SPARE_S)
        log.info("stopping; %d requests under way", self._bridge.pending)
        if self._advertiser is not None:
            await self._advertiser.close()
        await self._handover.stop_accepting()
        drains = [self._rest.drain(drain_s), *([self._grpc.drain(drain_s)] if self._grpc else [])]
        if not all(await asyncio.gather(*drains)):
            log.warning("%d requests were still under way after %g s", self._bridge.pending, drain_s)
        await asyncio.to_thread(self._runtime.drain, 1.0)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        log.info("stopped")


def _spare_the_collector() -> None:
    """Requests leave no cycles behind, so the collector has little to do: what start-up made is no longer walked, and
    it looks less often. Worth about a tenth of a small request."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)


def _options(config: Config) -> RuntimeOptions:
    """The runtime's part of the configuration."""
    runtime, planning = config.runtime, config.planning
    return RuntimeOptions(
        models=tuple(Path(path) for path in config.models.path),
        cache_dir=Path(config.state.cache_dir),
        watch=config.models.watch,
        load=config.models.load,
        max_jobs=runtime.max_jobs,
        max_queue_bytes=runtime.max_queue_bytes,
        cores=runtime.cores,
        core_floor=runtime.core_floor,
        governor=runtime.governor,
        headroom=runtime.headroom,
        max_temperature_c=runtime.max_temperature_c,
        battery_share=runtime.battery_share,
        inline=runtime.inline,
        engine=runtime.engine,
        planning=planning.mode,
        budget_s=planning.budget_s,
        objective=planning.objective,
    )
