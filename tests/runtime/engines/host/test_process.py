"""Engine hosts: real processes that crash, hang, eat memory and are killed, and what their parent says of it."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from inferd_runtime.engines import Array, SessionOptions
from inferd_runtime.engines.host import HostedSession, HostProcess
from inferd_runtime.engines.host.region import KEPT_BYTES
from inferd_runtime.engines.ort import OrtEngine
from inferd_runtime.errors import EngineFault, EngineRefused, HostDied, InvalidRequest
from tests import onnx_models
from tests.runtime.engines.host.faulty import Fault, faulty_host

MODEL = Path("model")
OPTIONS = SessionOptions()
LONG_S = 40.0
FDS = Path("/proc/self/fd")


@pytest.fixture
def host() -> Iterator[HostProcess]:
    with faulty_host() as host:
        yield host


@pytest.fixture(scope="module")
def steady() -> Iterator[HostedSession]:
    """A session for tests that leave their host alive. The thread that made the host is over."""
    with ThreadPoolExecutor(1) as maker:
        host = maker.submit(faulty_host).result()
    with host:
        yield host.open(MODEL, OPTIONS)


@pytest.fixture(scope="module")
def ort() -> Iterator[HostProcess]:
    """The real thing."""
    with HostProcess("onnxruntime") as host:
        yield host


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """A model that says when it hangs."""
    os.mkfifo(tmp_path / "model")
    return tmp_path / "model"


def rows(first: float, *, count: int = 1) -> Array:
    """Rows of a number that the faulty engine returns, or acts upon."""
    return np.full((count, 3), first, np.float32)


def run(session: HostedSession, first: float) -> Array:
    return session.run([rows(first)], [0])[0]


def wait_hanging(fifo: Path) -> None:
    """Until a run of this model hangs."""
    with fifo.open("rb", buffering=0) as pipe:
        assert pipe.read(1)


def wait_gone(pid: int) -> None:
    """Until no process has this number, or the one that had it is a zombie."""
    with contextlib.suppress(ProcessLookupError):
        watched = os.pidfd_open(pid)
        try:
            poll = select.poll()
            poll.register(watched, select.POLLIN)
            assert poll.poll(LONG_S * 1000), f"process {pid} lives on"
        finally:
            os.close(watched)


# What goes in and comes out


def test_a_hosted_session_is_like_the_engines_own(ort: HostProcess, tmp_path: Path) -> None:
    """Same specs, same symbols, same figures, and `outputs` picks and orders."""
    path = onnx_models.two_inputs(tmp_path / "m.onnx")
    own, hosted = OrtEngine().open(path, OPTIONS), ort.open(path, OPTIONS)
    assert (hosted.inputs, hosted.outputs, hosted.batch_symbols) == (own.inputs, own.outputs, own.batch_symbols)
    assert hosted.compile_ms > 0
    inputs = [np.random.default_rng(seed).normal(size=(3, 4)).astype(np.float32) for seed in (1, 2)]
    for wanted in ([0, 1], [1], [1, 0]):
        for got, expected in zip(hosted.run(inputs, wanted), own.run(inputs, wanted), strict=True):
            np.testing.assert_array_equal(got, expected)
    hosted.close()


@pytest.mark.parametrize("datatype", sorted(onnx_models.DATATYPES))
def test_every_datatype_passes_through(ort: HostProcess, datatype: str, tmp_path: Path) -> None:
    """The very values come back, in arrays that are the caller's alone."""
    if datatype == "BYTES":
        session = ort.open(onnx_models.string_identity(tmp_path / "m.onnx", ("N", 2)), OPTIONS)
        x = np.array([[b"", b"a"], ["äö".encode(), b"long " * 1000]], object)
    else:
        session = ort.open(onnx_models.identity(tmp_path / "m.onnx", datatype), OPTIONS)
        x = (np.arange(8) % 2).reshape(2, 4).astype(onnx_models.DATATYPES[datatype])
    (got,) = session.run([x], [0])
    assert (got.dtype, got.shape, got.tolist()) == (x.dtype, x.shape, x.tolist())
    session.run([x[::-1]], [0])
    assert got.tolist() == x.tolist()
    assert got.flags.writeable
    session.close()


def test_nan_and_infinity_pass_through(steady: HostedSession) -> None:
    """Values are nobody's business here."""
    x = np.array([[np.nan, np.inf, -np.inf]], np.float32)
    np.testing.assert_array_equal(steady.run([x], [0])[0], x)


def test_no_rows_pass_through(steady: HostedSession) -> None:
    """An output may be empty."""
    assert steady.run([rows(1)], []) == []
    assert steady.run([np.zeros((1, 0, 3), np.float32)[0]], [0])[0].shape == (0, 3)


def test_callers_share_the_places(steady: HostedSession) -> None:
    """More callers than places all get their own answers."""
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda number: run(steady, number)[0, 0], range(100)))
    assert got == list(range(100))


# What an engine says


def test_an_engines_errors_come_through(steady: HostedSession) -> None:
    """A fault stays a fault, a bad value the caller's, a surprise is told in a word; the child lives on."""
    for fault, error, words in (
        (Fault.REPORT, EngineFault, "the engine says so"),
        (Fault.INVALID, InvalidRequest, "the values are at fault"),
        (Fault.SURPRISE, EngineFault, "RuntimeError: nobody foresaw this"),
    ):
        with pytest.raises(error, match=words) as caught:
            run(steady, fault)
        assert not isinstance(caught.value, HostDied)
    with pytest.raises(InvalidRequest, match="expected FP32, got FP64"):
        steady.run([rows(1).astype(np.float64)], [0])
    assert run(steady, 1)[0, 0] == 1


def test_a_refusal_comes_through(ort: HostProcess, host: HostProcess, tmp_path: Path) -> None:
    """A file that cannot be opened is the engine's own reason, and the next one opens."""
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(EngineRefused, match="ONNX Runtime"):
        ort.open(tmp_path / "bad.onnx", OPTIONS)
    with pytest.raises(EngineRefused, match="this file is not for me"):
        host.open(Path("refused"), OPTIONS)
    assert run(host.open(Path(os.fsdecode(b"n\xe4me")), OPTIONS), 1)[0, 0] == 1


# How a child ends


@pytest.mark.parametrize(
    ("fault", "words"),
    [(Fault.SEGFAULT, r"crashed with SIGSEGV \(Segmentation fault\)"), (Fault.ABORT, "crashed with SIGABRT")],
)
def test_a_crash_is_told(host: HostProcess, fault: Fault, words: str) -> None:
    """The caller under whom it happened learns how, and so does everybody after."""
    session = host.open(MODEL, OPTIONS)
    for _ in range(2):
        with pytest.raises(HostDied, match=words) as caught:
            session.measure([rows(fault)], seconds=0.01, callers=2)
        assert caught.value.kind == "crashed"
    with pytest.raises(HostDied, match=words):
        host.open(MODEL, OPTIONS)
    session.close()
    assert host.memory_bytes() == host.pid == 0


def test_a_crash_on_opening_is_told(host: HostProcess) -> None:
    """A compiler that crashes is a result too."""
    with pytest.raises(HostDied, match="SIGSEGV"):
        host.open(Path("crashing"), OPTIONS)


def test_a_hang_ends_at_the_deadline(host: HostProcess) -> None:
    """A child that gives no answer in time is killed, even one that lets no thread of its interpreter run."""
    session = host.open(MODEL, OPTIONS, run_timeout_s=0.05)
    with pytest.raises(HostDied, match=r"no answer within 0\.05 s and was killed") as caught:
        run(session, Fault.HANG)
    assert caught.value.kind == "hung"


def test_endless_memory_ends_at_the_limit() -> None:
    """A child that takes more than it may is killed."""
    with faulty_host(memory_limit_bytes=192 << 20) as host:
        session = host.open(MODEL, OPTIONS)
        with pytest.raises(HostDied, match="took more than 192 MiB of memory") as caught:
            run(session, Fault.EAT)
    assert caught.value.kind == "memory"


def test_one_that_was_killed_is_told_from_one_that_crashed(host: HostProcess, fifo: Path) -> None:
    """kill -9 from outside wakes whoever waits: those with a run, and the one that waits for a place."""
    session = host.open(fifo, OPTIONS)
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(run, session, Fault.HANG) for _ in range(3)]
        wait_hanging(fifo)
        os.kill(host.pid, signal.SIGKILL)
        for failed in runs:
            error = failed.exception(LONG_S)
            assert isinstance(error, HostDied)
            assert error.kind == "gone"
            assert "killed with SIGKILL" in str(error)


def test_closing_wakes_callers(host: HostProcess) -> None:
    """A host may be closed at any time, twice, and before it did anything."""
    session = host.open(MODEL, OPTIONS)
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(run, session, Fault.HANG)
        host.close()
        assert isinstance(hanging.exception(LONG_S), HostDied)
    host.close()
    unused = faulty_host()
    unused.close()
    with pytest.raises(HostDied, match="was closed") as caught:
        unused.open(MODEL, OPTIONS)
    assert caught.value.kind == "gone"


def test_an_answer_that_nobody_took_is_nobodys(host: HostProcess, fifo: Path) -> None:
    """A caller torn out of a call takes the child with it: the next caller would get its answer."""

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    def interrupt_when_hanging() -> None:
        wait_hanging(fifo)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    session = host.open(fifo, OPTIONS)
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(interrupt_when_hanging)
            with pytest.raises(KeyboardInterrupt):
                run(session, Fault.HANG)
    finally:
        signal.signal(signal.SIGUSR1, before)
    with pytest.raises(HostDied, match="in the middle of a call"):
        run(session, 1)


def test_what_cannot_be_started_is_told() -> None:
    """No program, or one that ends at once, is a death like others; the product knows nothing of the faulty engine."""
    with HostProcess("none", program=("/does/not/exist",)) as host, pytest.raises(HostDied, match="could not be start"):
        host.open(MODEL, OPTIONS)
    with HostProcess("faulty") as host, pytest.raises(HostDied, match="exit code 1"):
        host.open(MODEL, OPTIONS)


def test_without_descriptors_there_is_no_host() -> None:
    """A daemon at its limit of open files is told so, and loses none to the attempt."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = len(list(FDS.iterdir()))
    highest = max(int(fd.name) for fd in FDS.iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 8, limits[1]))
    try:
        with pytest.raises(HostDied, match="Too many open files"):
            faulty_host(places=highest)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(list(FDS.iterdir())) <= before


@pytest.mark.parametrize("said", [r"\xff\xff\xff\xff", r"\5\0\0\0hello", r"\2\0\0\0\xff\xff"])
def test_nonsense_is_a_crash(said: str) -> None:
    """A child whose memory is spoilt may answer anything."""
    program = f"import json, os, sys, threading; b = json.loads(sys.argv[1]); os.write(b['places'][0][1], b'{said}')"
    program += "; threading.Event().wait()"
    host = HostProcess("mad", places=1, program=(sys.executable, "-c", program))
    with host, pytest.raises(HostDied, match="answered with nonsense") as caught:
        host.open(MODEL, OPTIONS)
    assert caught.value.kind == "crashed"


# What a child is


def test_a_child_is_set_apart() -> None:
    """It goes first when memory ends, is niced and bound as told, heeds no SIGINT, leaves no core, and has no
    descriptor but its own."""
    core = min(os.sched_getaffinity(0))
    with Path(__file__).open("rb") as mine, faulty_host(nice=3, cores=[core]) as host:
        os.set_inheritable(mine.fileno(), True)
        run(host.open(MODEL, OPTIONS), 1)
        proc = Path(f"/proc/{host.pid}")
        assert (proc / "oom_score_adj").read_text().strip() == "1000"
        assert os.getpriority(os.PRIO_PROCESS, host.pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 3)
        assert os.sched_getaffinity(host.pid) == {core}
        assert os.getpgid(host.pid) == host.pid
        limits = [line.split() for line in (proc / "limits").read_text().splitlines() if "core file" in line]
        assert limits[0][4:6] == ["0", "0"]
        ignored = next(line for line in (proc / "status").read_text().splitlines() if line.startswith("SigIgn"))
        assert int(ignored.split()[1], 16) & 1 << signal.SIGINT - 1
        opened = [str(link.readlink()) for link in (proc / "fd").iterdir()]
        assert sum("inferd-tensors" in name for name in opened) == 2 * 2  # a mapping has a descriptor of its own
        assert sum(name.startswith("pipe:") for name in opened) <= 2 * 2 + 1  # stderr may be one
        assert str(Path(__file__)) not in opened


def test_a_host_leaves_nothing_behind() -> None:
    """No descriptor, no thread and no process remain of a host that was closed, nor of one that died."""
    open_before, threads_before = len(list(FDS.iterdir())), set(threading.enumerate())
    for fault in (None, Fault.EXIT):
        host = faulty_host()
        session = host.open(MODEL, OPTIONS)
        if fault:
            with pytest.raises(HostDied):
                run(session, fault)
        host.close()
        del host, session
    assert len(list(FDS.iterdir())) <= open_before
    assert set(threading.enumerate()) <= threads_before


def test_memory_counts_children_and_goes_with_them(host: HostProcess) -> None:
    """What a child starts counts as its own, and ends with it."""
    session = host.open(MODEL, OPTIONS)
    run(session, 1)
    before = host.memory_bytes()
    assert before > 1 << 20
    run(session, Fault.FORK)
    assert host.memory_bytes() > before + (60 << 20)
    listed = [path.read_text() for path in Path(f"/proc/{host.pid}/task").glob("*/children")]
    (child,) = map(int, "".join(listed).split())
    host.close()
    wait_gone(child)


def test_a_child_outlives_the_thread_that_made_it(steady: HostedSession) -> None:
    """The kernel's tie between parent and child holds for a thread, and must not be felt."""
    assert run(steady, 1)[0, 0] == 1


PARENT = """
import pathlib, sys, numpy
from inferd_runtime.engines import SessionOptions
from tests.runtime.engines.host.faulty import Fault, faulty_host
host = faulty_host()
session = host.open(pathlib.Path(sys.argv[1]), SessionOptions())
print(host.pid, flush=True)
session.run([numpy.full((1, 1), Fault.HANG, numpy.float32)], [0])
"""


def test_a_child_dies_with_its_parent(fifo: Path) -> None:
    """kill -9 of the daemon ends its hosts, even one that hangs."""
    command = [sys.executable, "-c", PARENT, str(fifo)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[4], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        wait_hanging(fifo)
        parent.kill()
    wait_gone(child)


# Figures


def test_measuring_happens_in_the_child(ort: HostProcess, tmp_path: Path) -> None:
    """Figures are of the engine's own runs, by as many callers as asked; a run that fails says why."""
    session = ort.open(onnx_models.mlp(tmp_path / "m.onnx"), OPTIONS)
    x = np.zeros((4, 64), np.float32)
    for callers in (1, 3):
        measured = session.measure([x], seconds=0.01, callers=callers)
        assert measured.runs >= callers
        assert 0 < measured.p50_us <= measured.p95_us
        assert measured.runs_per_s > 0
    with pytest.raises(EngineFault, match="ONNX Runtime"):
        session.measure([np.zeros((4, 63), np.float32)], seconds=0.01)
    session.close()


def test_a_large_run_gives_its_memory_back(steady: HostedSession) -> None:
    """Shared memory that one big request took is the system's again after it."""
    x = np.zeros((40 << 20) // 4, np.float32)[None]
    assert steady.run([x], [0])[0].nbytes == x.nbytes
    shared = [path.stat() for path in FDS.iterdir() if path.is_file() and "inferd-tensors" in str(path.readlink())]
    held_bytes = {stat.st_ino: stat.st_blocks * 512 for stat in shared}
    assert max(held_bytes.values()) == KEPT_BYTES
    assert run(steady, 7)[0, 0] == 7
