"""The watchdog's food: given while inferences go through, withheld when an engine hangs or breaks."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inferd_agent.bridge import Bridge
from inferd_agent.systemd import Notifier
from inferd_agent.watchdog import Watchdog
from inferd_runtime import EngineFault, Job, Runtime, RuntimeOptions, open_engines
from tests import onnx_models

ANSWER_S = 20.0
ONE_ROW = {"x": np.ones((1, 64), np.float32)}


class _Session:
    """A real session behind a gate, which breaks when it is told to."""

    def __init__(self, inner: Any, engine: _Engine) -> None:
        self._inner, self._engine = inner, engine
        self.inputs, self.outputs, self.batch_symbols = inner.inputs, inner.outputs, inner.batch_symbols
        self.close = inner.close

    def run(self, inputs: Sequence[Any], outputs: Sequence[int]) -> list[Any]:
        assert self._engine.gate.wait(ANSWER_S)
        if self._engine.fault:
            raise EngineFault(self._engine.fault)
        return list(self._inner.run(inputs, outputs))


class _Engine:
    """ONNX Runtime whose sessions a test can stop and break."""

    def __init__(self) -> None:
        self._inner = open_engines()[0]["onnxruntime"]
        self.gate = threading.Event()
        self.gate.set()
        self.fault = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def open(self, *args: Any, **options: Any) -> Any:
        return _Session(self._inner.open(*args, **options), self)


class Watched:
    """A runtime with its watchdog, and a manager that counts the feeds."""

    def __init__(self, runtime: Runtime, bridge: Bridge, engine: _Engine, manager: socket.socket) -> None:
        self.runtime, self.bridge, self.engine = runtime, bridge, engine
        self._manager = manager
        self.dog = Watchdog(bridge, Notifier({"NOTIFY_SOCKET": manager.getsockname()}))

    async def is_fed(self, answer_s: float = ANSWER_S) -> bool:
        await self.dog.feed(answer_s)
        with contextlib.suppress(BlockingIOError):
            return self._manager.recv(4096) == b"WATCHDOG=1"
        return False

    def count(self, name: str) -> int:
        return sum(each.success_count for each in self.runtime.stats(name))


@pytest.fixture
async def watched(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Watched]:
    """Models `a` and `b`, on worker threads, so that a hang is not the event loop's."""
    for name in getattr(request, "param", ("a", "b")):
        onnx_models.mlp(tmp_path / "models" / name / "1" / "model.onnx")
    (tmp_path / "models").mkdir(exist_ok=True)
    bridge, engine = Bridge(asyncio.get_running_loop()), await asyncio.to_thread(_Engine)
    options = RuntimeOptions(
        (tmp_path / "models",), tmp_path / "cache", watch=False, planning="off", inline="off", engine="onnxruntime"
    )
    make = partial(Runtime, options, deliver=bridge.deliver, engines={"onnxruntime": engine}, settle_s=0.0)
    runtime = await asyncio.to_thread(make)
    bridge.bind(runtime)
    await asyncio.to_thread(runtime.start)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        try:
            assert await asyncio.to_thread(runtime.wait_loaded, ANSWER_S)
            yield Watched(runtime, bridge, engine, manager)
        finally:
            engine.gate.set()
            bridge.close()
            await asyncio.to_thread(runtime.close)


async def test_without_traffic_each_model_is_asked_in_turn(watched: Watched) -> None:
    """No caller: the daemon runs an inference of its own, on one model after the other."""
    counts = []
    for _ in range(4):
        assert await watched.is_fed()
        counts.append((watched.count("a"), watched.count("b")))
    assert counts == [(1, 0), (1, 1), (2, 1), (2, 2)]


async def test_answers_to_callers_are_proof_enough(watched: Watched) -> None:
    """A model that answered somebody since the last look is not asked."""
    assert await watched.is_fed()
    assert await watched.is_fed()
    await watched.bridge.infer(Job("a", ONE_ROW))
    assert await watched.is_fed()
    assert (watched.count("a"), watched.count("b")) == (2, 1)


@pytest.mark.parametrize("watched", [()], indirect=True)
async def test_with_no_model_a_turning_loop_is_enough(watched: Watched) -> None:
    """An empty repository is no reason for a restart."""
    assert await watched.is_fed()


async def test_a_hanging_engine_stops_the_feeding_until_it_answers(watched: Watched) -> None:
    """The model that hangs is asked again, whatever the others do, and the trouble names it."""
    assert await watched.is_fed()
    watched.engine.gate.clear()
    for _ in range(2):
        assert not await watched.is_fed(answer_s=0.05)
        assert watched.dog.trouble.startswith("b version 1 does not answer")
    watched.engine.gate.set()
    assert await watched.is_fed()
    assert watched.dog.trouble == ""


async def test_an_engine_that_breaks_is_not_fed_for(watched: Watched) -> None:
    """What it could do before and fails now is a fault, a restart's business; what it never could is a wrong guess."""
    watched.engine.fault = "lost the device"
    assert await watched.is_fed()  # `a` never took a guess of ours
    watched.engine.fault = ""
    assert await watched.is_fed()
    assert await watched.is_fed()
    watched.engine.fault = "lost the device"
    assert not await watched.is_fed()
    assert "fails at what it could do before" in watched.dog.trouble


async def test_its_questions_leave_a_calm_machine_calm(watched: Watched) -> None:
    """Plans are measured while nobody calls: the watchdog's own inferences do not count as calls."""
    before = watched.runtime._count_accepted()
    assert await watched.is_fed()
    assert watched.runtime._count_accepted() == before
    await watched.bridge.infer(Job("a", ONE_ROW))
    assert watched.runtime._count_accepted() == before + 1


async def test_where_nobody_wants_feeding_nothing_is_watched(watched: Watched) -> None:
    """Outside a unit with WatchdogSec= it returns at once."""
    async with asyncio.timeout(ANSWER_S):
        await watched.dog.watch()
