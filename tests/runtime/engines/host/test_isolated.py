"""A session whose process dies: who is refused, who is not, and how it comes back."""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from inferd_runtime.engines import Array, SessionOptions
from inferd_runtime.engines.host import HostProcess, IsolatedSession, isolated_engine
from inferd_runtime.engines.host.isolated import Pauses
from inferd_runtime.errors import EngineFault, EngineRefused, HostDied, ModelNotReady
from inferd_runtime.job import Job
from inferd_runtime.scheduling import lane
from inferd_runtime.spec import ModelSpec
from tests.runtime.engines.host.faulty import Fault, FaultyEngine, faulty_host
from tests.runtime.scheduling.sessions import DoublingSession, Receiver, assert_right, make_lane
from tests.runtime.scheduling.sessions import job as doubling_job

OPTIONS = SessionOptions(streams=2)


class Hosts:
    """Starts hosts, and hands them to the test."""

    def __init__(self) -> None:
        self.started: queue.SimpleQueue[HostProcess] = queue.SimpleQueue()

    def __call__(self) -> HostProcess:
        host = faulty_host()
        self.started.put(host)
        return host

    def kill_next(self, session: IsolatedSession, *, when_ready: bool) -> None:
        """kill -9 the host started next: as soon as there is a process, or once it answers."""
        host = self.started.get(timeout=40)
        while not host.pid and not host.wait(0.002):
            pass
        if when_ready:
            until_ready(session)
        os.kill(host.pid, signal.SIGKILL)


@pytest.fixture
def hosts() -> Hosts:
    return Hosts()


@pytest.fixture
def open_isolated(hosts: Hosts) -> Iterator[Callable[..., IsolatedSession]]:
    """Opens sessions that are closed after the test, with short pauses if nothing else is said."""
    opened: list[IsolatedSession] = []

    def open_one(path: Path = Path("model"), pause_s: float = 0.001) -> IsolatedSession:
        opened.append(IsolatedSession(hosts, path, OPTIONS, first_pause_s=pause_s, longest_pause_s=10 * pause_s))
        return opened[-1]

    yield open_one
    for session in opened:
        session.close()


def run(session: IsolatedSession, first: float) -> Array:
    return session.run([np.full((1, 2), first, np.float32)], [0])[0]


def until_ready(session: IsolatedSession) -> None:
    """Ask again, as a patient caller does, until there is an answer."""
    pause = threading.Event()
    for _ in range(4000):
        try:
            run(session, 1)
            return
        except ModelNotReady:
            pause.wait(0.01)
    raise AssertionError("it never came back")


def test_a_crash_refuses_its_run_and_is_mended(
    open_isolated: Callable[..., IsolatedSession], caplog: pytest.LogCaptureFixture
) -> None:
    """The run that met the crash learns of it and when to come back; soon after runs are served again."""
    session = open_isolated()
    assert (session.inputs[0].name, session.outputs[0].name, session.batch_symbols) == ("x", "y", ("N", "N"))
    with pytest.raises(ModelNotReady, match=r"crashed with SIGSEGV.*it is being started again") as caught:
        run(session, Fault.SEGFAULT)
    assert caught.value.retry_after_s
    until_ready(session)
    assert run(session, 7)[0, 0] == 7
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["model"]
    with pytest.raises(EngineFault, match="the engine says so"):
        run(session, Fault.REPORT)


def test_a_death_is_noticed_without_a_caller(open_isolated: Callable[..., IsolatedSession], hosts: Hosts) -> None:
    """An idle session that loses its process has another one before anybody asks."""
    session = open_isolated()
    hosts.kill_next(session, when_ready=False)
    assert hosts.started.get(timeout=40)
    until_ready(session)


def test_while_it_is_down_runs_are_refused_at_once(open_isolated: Callable[..., IsolatedSession]) -> None:
    """Nobody waits for the pause; everybody hears how long it is, and `close` ends it."""
    session = open_isolated(pause_s=1e6)
    for _ in range(3):
        with pytest.raises(ModelNotReady, match="exit code 3") as caught:
            run(session, Fault.EXIT)
        assert 1e5 < (caught.value.retry_after_s or 0) < 1e7
    session.close()
    session.close()


@pytest.mark.parametrize(("name", "words"), [("crashing", "SIGSEGV"), ("refused", "this file is not for me")])
def test_what_cannot_be_opened_is_a_refusal(
    open_isolated: Callable[..., IsolatedSession], hosts: Hosts, name: str, words: str
) -> None:
    """A first opening that fails is the engine's refusal, so that another one is tried, and leaves no process."""
    with pytest.raises(EngineRefused, match=words):
        open_isolated(Path(name))
    assert hosts.started.get().wait(0)


def test_a_file_that_became_another_model_is_not_served(
    open_isolated: Callable[..., IsolatedSession], hosts: Hosts, tmp_path: Path
) -> None:
    """After a restart the session is what it was, or none."""
    path = tmp_path / "model"
    path.write_text("a")
    session = open_isolated(path)
    path.write_text("b")
    hosts.kill_next(session, when_ready=False)
    assert hosts.started.get(timeout=40).wait(40)
    assert hosts.started.get(timeout=40)
    with pytest.raises(ModelNotReady, match="model has other inputs or outputs now"):
        run(session, 1)
    path.write_text("a")
    until_ready(session)


def test_a_start_that_fails_is_tried_again(hosts: Hosts) -> None:
    """When a process cannot even be prepared (no descriptors, say), the next try may do it."""
    starts = iter([hosts, fail, fail, hosts])
    session = IsolatedSession(lambda: next(starts)(), Path("model"), OPTIONS, first_pause_s=0.001)
    hosts.kill_next(session, when_ready=False)
    until_ready(session)
    session.close()
    with pytest.raises(EngineRefused, match="no descriptors"):
        IsolatedSession(fail, Path("model"), OPTIONS)


def fail() -> HostProcess:
    raise HostDied("no descriptors", kind="gone")


def test_pauses_double_until_a_life_was_long() -> None:
    """A model that crashes again and again costs little, and one that did well comes back at once."""
    pauses = Pauses(0.1, 0.5)
    assert [pauses.after(0.2) for _ in range(5)] == [0.1, 0.2, 0.4, 0.5, 0.5]
    assert [pauses.after(lived) for lived in (0.6, 0.1)] == [0.1, 0.2]


def test_an_isolated_engine_is_the_engine_but_for_its_sessions() -> None:
    """Name, version, devices and formats are the engine's own; a session has a process with a place per stream."""
    asked: list[tuple[str, int]] = []

    def start(name: str, places: int) -> HostProcess:
        asked.append((name, places))
        return faulty_host(name, places)

    engine = isolated_engine(FaultyEngine(), start)  # type: ignore[arg-type]
    assert (engine.name, engine.version, engine.devices(), engine.reads(Path("x"))) == ("faulty", "1", ("cpu",), True)
    session = engine.open(Path("model"), OPTIONS)
    assert session.run([np.ones((1, 1), np.float32)], [0])[0] == 1
    session.close()
    assert asked == [("faulty", 2)]


def test_fifty_kills_harm_no_other_model(open_isolated: Callable[..., IsolatedSession], hosts: Hosts) -> None:
    """An isolated model is killed 50 times under load, at any moment of its life: each of its requests is answered
    once, right or with "not ready", and the model beside it answers all of its own."""
    session, mine, others = open_isolated(), Receiver(), Receiver()
    victim = make_lane(session, mine, spec=ModelSpec(session.inputs, session.outputs, 8), streams=2)  # type: ignore[arg-type]
    bystander = make_lane(DoublingSession(), others)
    is_over = threading.Event()
    asked = []

    def load() -> None:
        while not is_over.is_set():
            number = float(len(asked) % 100)
            job = Job("victim", {"x": np.full((1, 2), number, np.float32)})
            asked.append(job)
            victim.submit(job)
            bystander.submit(doubling_job(number))
            mine.wait(len(asked))
            others.wait(len(asked))
            if job.error is not None:
                is_over.wait(0.005)  # a polite caller

    caller = threading.Thread(target=load)
    caller.start()
    try:
        for number in range(50):
            hosts.kill_next(session, when_ready=number % 10 == 0)
        until_ready(session)
    finally:
        is_over.set()
        caller.join()
        last = Job("victim", {"x": np.full((1, 2), 5, np.float32)})
        victim.submit(last)
        mine.wait(len(asked) + 1)
        victim.close()
        bystander.close()
    for job in asked:
        if job.error is None:
            assert job.result is not None
            np.testing.assert_array_equal(job.result["y"], job.inputs["x"])
        else:
            assert type(job.error) is ModelNotReady
    assert last.error is None
    for job in others.jobs:
        assert_right(job)


def test_a_lane_does_not_wait_for_a_child_that_hangs(
    open_isolated: Callable[..., IsolatedSession], hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who unloads a model ends the child of its session, whatever runs there; that run's caller is told."""
    monkeypatch.setattr(lane, "ENDED_WAIT_S", 0.01)
    os.mkfifo(tmp_path / "model")
    begun = os.open(tmp_path / "model", os.O_RDWR)
    session, receiver = open_isolated(tmp_path / "model"), Receiver()
    spec = ModelSpec(session.inputs, session.outputs, 8)
    one = make_lane(session, receiver, spec=spec, ends_runs=True)  # type: ignore[arg-type]
    one.submit(Job("model", {"x": np.full((1, 2), Fault.HANG, np.float32)}))
    assert os.read(begun, 1) == b"!"
    one.close()
    os.close(begun)
    (told,) = receiver.wait(1)
    assert isinstance(told.error, ModelNotReady)
    assert "started again" not in str(told.error)
    assert hosts.started.get().wait(0)
