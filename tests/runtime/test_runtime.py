"""The façade over real engines and real folders: serving, reloading, draining, closing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inferd_runtime import (
    Closed,
    InvalidRequest,
    Job,
    Machine,
    ModelNotFound,
    ModelNotReady,
    Runtime,
    RuntimeOptions,
    State,
    probe,
)
from inferd_runtime.job import Array
from inferd_runtime.scheduling.policy import Policy
from tests import onnx_models
from tests.runtime.scheduling.sessions import Receiver, eventually

WAIT_S = 30.0
Serve = Callable[..., tuple[Runtime, Receiver]]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A repository with one small model, `mlp`."""
    root = tmp_path / "models"
    onnx_models.mlp(root / "mlp" / "1" / "model.onnx")
    return root


@pytest.fixture
def serve(tmp_path: Path, models: Path) -> Iterator[Serve]:
    """Starts runtimes on `models` in ONNX Runtime, and closes them."""
    started: list[Runtime] = []

    def start(defer: Callable[[Callable[[], None]], object] | None = None, **more: object) -> tuple[Runtime, Receiver]:
        receiver = Receiver()
        words: dict[str, object] = {"engine": "onnxruntime", "watch": False, **more}
        options = RuntimeOptions((models,), tmp_path / "cache", **{"planning": "off", **words})  # type: ignore[arg-type]
        runtime = Runtime(options, deliver=receiver, defer=defer, settle_s=0.0)
        started.append(runtime)
        runtime.start()
        assert runtime.wait_loaded(WAIT_S)
        return runtime, receiver

    yield start
    for runtime in started:
        runtime.close()


def digits(rows: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(rows, 64)).astype(np.float32)


def ask(seed: int = 0, rows: int = 1) -> Job:
    return Job("mlp", {"x": digits(rows, seed)})


def assert_right(job: Job) -> None:
    assert job.result is not None, job.error
    np.testing.assert_allclose(
        job.result["probabilities"], onnx_models.mlp_reference(job.inputs["x"]), rtol=1e-4, atol=1e-6
    )


def test_a_model_file_in_a_folder_is_served(serve: Serve) -> None:
    """A file dropped in a folder answers requests, describes itself and is counted."""
    runtime, receiver = serve()
    assert runtime.is_ready()
    runtime.submit(ask(rows=3))
    assert_right(receiver.wait(1)[0])
    assert runtime.versions("mlp") == (1,)
    description = runtime.describe("mlp")
    assert description.state is State.READY
    assert description.plan is not None
    assert description.plan.engine == "onnxruntime"
    assert [one.name for one in runtime.models()] == ["mlp"]
    assert runtime.drain(WAIT_S)
    (seen,) = runtime.stats()
    assert (seen.name, seen.version, seen.inference_count, seen.success_count) == ("mlp", 1, 3, 1)


def test_requests_for_what_is_not_there(serve: Serve) -> None:
    """Unknown models, versions and names are told apart and accept nothing."""
    runtime, receiver = serve()
    with pytest.raises(ModelNotFound):
        runtime.submit(Job("nope", {}))
    with pytest.raises(ModelNotFound):
        runtime.submit(Job("mlp", {}, version=7))
    with pytest.raises(InvalidRequest, match="input 'x' is missing"):
        runtime.submit(Job("mlp", {}))
    for name, version in (("nope", None), ("mlp", 7)):
        with pytest.raises(ModelNotFound):
            runtime.stats(name, version)
    assert receiver.jobs == []


def test_every_kind_of_batch_dimension(serve: Serve, models: Path) -> None:
    """Free, fixed and missing batch dimensions and scalars all give the right answers."""
    onnx_models.fixed_batch(models / "fixed" / "1" / "model.onnx")
    onnx_models.no_batch(models / "none" / "1" / "model.onnx")
    onnx_models.scalar(models / "scalar" / "1" / "model.onnx")
    runtime, receiver = serve()
    fixed = np.arange(12, dtype=np.float32).reshape(4, 3)
    jobs = [
        Job("fixed", {"x": fixed}),
        Job("none", {"x": fixed[:, 0].copy()}),
        Job("scalar", {"x": np.array(21, np.float32)}),
    ]
    for job in jobs:
        runtime.submit(job)
    receiver.wait(3)
    expected = {"fixed": ("y", fixed * 2), "none": ("total", fixed[:, 0].sum()), "scalar": ("y", 42)}
    for job in jobs:
        name, values = expected[job.model]
        assert job.result is not None, job.error
        np.testing.assert_array_equal(job.result[name], values)


def test_a_bad_request_fails_alone_in_a_real_engine(serve: Serve, models: Path) -> None:
    """An index out of range fails its own request; batch mates get their answers."""
    onnx_models.faulting(models / "table" / "1" / "model.onnx")
    due: list[Callable[[], None]] = []
    (models / "table" / "model.toml").write_text('inline = "on"\n')
    runtime, receiver = serve(defer=due.append)
    jobs = [Job("table", {"index": np.array([[i]], np.int64)}) for i in (1, 99, 2)]
    for job in jobs:
        runtime.submit(job)
    due.pop()()
    assert receiver.jobs == jobs
    assert jobs[1].error is not None
    assert [jobs[i].result is not None and float(jobs[i].result["y"][0, 0]) for i in (0, 2)] == [10.0, 20.0]


async def test_micro_models_run_on_the_event_loop(serve: Serve, models: Path) -> None:
    """With `call_soon` given, a tiny model answers a loop's requests on the loop, without blocking calls."""
    loop = asyncio.get_running_loop()
    (models / "mlp" / "model.toml").write_text('inline = "on"\nbatch = 16\n')  # however long its warm-up took here
    runtime, receiver = await asyncio.to_thread(serve, defer=loop.call_soon)
    jobs = [ask(seed) for seed in range(40)]
    for job in jobs:
        runtime.submit(job)
    assert await asyncio.to_thread(runtime.drain, WAIT_S)
    assert len(receiver.jobs) == 40
    for job in jobs:
        assert_right(job)
    assert len(receiver.calls) == 3
    await asyncio.to_thread(runtime.close)


async def test_workers_behind_an_event_loop(serve: Serve) -> None:
    """Submitting to worker threads from a loop makes no blocking call either."""
    loop = asyncio.get_running_loop()
    runtime, receiver = await asyncio.to_thread(serve, defer=loop.call_soon, inline="off")
    for seed in range(40):
        runtime.submit(ask(seed))
    for job in await asyncio.to_thread(receiver.wait, 40):
        assert_right(job)
    await asyncio.to_thread(runtime.close)


def test_reloading_under_load_loses_nothing(serve: Serve) -> None:
    """While a model is loaded again and again every request is accepted and answered, and the counters go on."""
    runtime, receiver = serve()
    stop = threading.Event()
    count = 0

    def submit() -> None:
        nonlocal count
        while not stop.is_set() or count < 100:
            runtime.submit(ask(count))
            count += 1
            receiver.wait(count - 8)

    caller = threading.Thread(target=submit)
    caller.start()
    for _ in range(3):
        runtime.load("mlp")
    stop.set()
    caller.join(WAIT_S)
    for job in receiver.wait(count):
        assert_right(job)
    assert runtime.drain(WAIT_S)
    assert runtime.stats("mlp", 1)[0].success_count == count >= 100


def test_unload_and_load(serve: Serve) -> None:
    """An unloaded model refuses with its state and keeps the daemon ready; loaded again it serves."""
    runtime, receiver = serve()
    runtime.unload("mlp")
    with pytest.raises(ModelNotReady):
        runtime.submit(ask())
    assert runtime.is_ready()
    assert runtime.versions("mlp") == ()
    runtime.load("mlp")
    runtime.submit(ask())
    assert_right(receiver.wait(1)[0])


def test_nothing_is_loaded_unasked(serve: Serve) -> None:
    """With load = "none" models are known and wait to be asked for."""
    runtime, receiver = serve(load="none")
    assert runtime.is_ready()
    with pytest.raises(ModelNotReady):
        runtime.submit(ask())
    runtime.load("mlp")
    runtime.submit(ask())
    assert_right(receiver.wait(1)[0])


def test_drain_answers_all_and_refuses_more(serve: Serve, models: Path) -> None:
    """On shutdown every accepted request is answered, new ones are refused, and the daemon is no longer ready."""
    onnx_models.slow(models / "slow" / "1" / "model.onnx", layers=16, width=128)
    before = set(threading.enumerate())
    runtime, receiver = serve()
    jobs = [Job("slow", {"x": np.full((1, 128), i, np.float32)}) for i in range(30)]
    for job in jobs:
        runtime.submit(job)
    assert runtime.drain(WAIT_S)
    assert len(receiver.jobs) == 30
    assert all(job.error is None for job in jobs)
    with pytest.raises(Closed):
        runtime.submit(ask())
    with pytest.raises(Closed):
        runtime.load("mlp")
    assert not runtime.is_ready()
    runtime.close()
    runtime.close()
    ours = ("slow:", "mlp:", "governor")
    eventually(lambda: not [t for t in set(threading.enumerate()) - before if t.name.startswith(ours)])


def test_closing_at_once_still_settles_everything(serve: Serve, models: Path) -> None:
    """Without a drain the waiting get Closed; nobody is forgotten."""
    onnx_models.slow(models / "slow" / "1" / "model.onnx", layers=16, width=128)
    runtime, receiver = serve()
    for i in range(60):
        runtime.submit(Job("slow", {"x": np.full((1, 128), i, np.float32)}))
    runtime.close()
    assert len(receiver.wait(60)) == 60
    assert all(job.error is None or isinstance(job.error, Closed) for job in receiver.jobs)


def test_a_lane_that_closes_under_a_request(serve: Serve) -> None:
    """A request that meets a closing lane goes to its successor, or learns that there is none."""
    runtime, receiver = serve()
    stale = runtime._get("mlp", None)
    runtime.load("mlp")
    fresh = runtime._get("mlp", None)
    assert fresh is not stale
    answers = [stale, fresh, stale, stale]
    runtime._get = lambda name, version=None: answers.pop(0)
    runtime.submit(ask())
    assert_right(receiver.wait(1)[0])
    with pytest.raises(ModelNotReady, match="unloaded or replaced"):
        runtime.submit(ask())


def test_counters_of_models_that_are_gone_are_dropped(serve: Serve, models: Path) -> None:
    """A model that left the folder leaves the statistics too."""
    onnx_models.identity(models / "brief" / "1" / "model.onnx")
    runtime, _ = serve()
    assert [one.name for one in runtime.stats()] == ["brief", "mlp"]
    runtime.unload("brief")
    (models / "brief" / "1" / "model.onnx").unlink()
    (models / "brief" / "1").rmdir()
    (models / "brief").rmdir()
    runtime.load("mlp")
    assert [one.name for one in runtime.stats()] == ["mlp"]


def test_figures_tell_the_whole_state(serve: Serve) -> None:
    """Budget, queues and load are there to be scraped."""
    runtime, receiver = serve(core_floor=1, max_queue_bytes=1000)
    with pytest.raises(InvalidRequest, match="at most 1000"):
        runtime.submit(ask(rows=4))
    runtime.submit(ask())
    receiver.wait(1)
    assert runtime.drain(WAIT_S)
    eventually(lambda: runtime.figures().host_busy_cores is not None)  # the governor's first look
    figures = runtime.figures()
    assert 1 == figures.core_floor <= figures.core_size <= figures.core_ceiling
    assert (figures.queued_jobs, figures.running_jobs, figures.held_bytes) == (0, 0, 0)
    assert figures.max_held_bytes == 1000
    assert figures.own_busy_cores is not None
    assert figures.others_busy_cores is not None


def make(machine: Machine, tmp_path: Path, **more: object) -> Runtime:
    options = RuntimeOptions((tmp_path,), tmp_path, **more)  # type: ignore[arg-type]
    return Runtime(options, deliver=lambda jobs: None, machine=machine)


def sized(cores: int, physical: int, budget: float) -> Machine:
    machine = probe()
    core = machine.cores[0]
    return replace(
        machine,
        cores=tuple(replace(core, id=i, is_sibling=i >= physical) for i in range(cores)),
        allowed_cores=tuple(range(cores)),
        core_budget=budget,
    )


@pytest.mark.parametrize(
    ("cores", "physical", "budget", "asked", "ceiling"),
    [(16, 8, 16.0, 0, 8), (16, 8, 16.0, 12, 12), (16, 8, 1.5, 0, 1), (4, 4, 4.0, 99, 4), (1, 1, 0.3, 0, 1)],
)
def test_the_ceiling_is_what_the_machine_allows(
    tmp_path: Path, cores: int, physical: int, budget: float, asked: int, ceiling: int
) -> None:
    """Physical cores within the quota, unless the administrator asks for something else that is allowed."""
    figures = make(sized(cores, physical, budget), tmp_path, cores=asked, core_floor=2).figures()
    assert (figures.core_ceiling, figures.core_size) == (ceiling, ceiling)
    assert figures.core_floor == min(2, ceiling)


def test_the_governor_is_told_every_option(tmp_path: Path) -> None:
    """What the administrator says of the governor is what it follows."""
    words = {"headroom": 0.5, "max_temperature_c": 70.0, "battery_share": 0.25}
    machine = sized(16, 8, 16.0)
    fair = make(machine, tmp_path, governor="fair", core_floor=2, cores=4, **words)._policy
    assert fair == Policy(2, 4, "fair", counts_siblings=False, **words)
    assert make(machine, tmp_path, cores=12)._policy == Policy(1, 12, counts_siblings=True, battery_share=0.5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"governor": "wild"}, "governor is one of polite, fair, fixed, not 'wild'"),
        ({"inline": "on"}, "inline is one of"),
        ({"engine": "abacus"}, "engine is one of"),
        ({"load": "some"}, "load is one of"),
        ({"max_jobs": 0}, "max_jobs is at least 1"),
        ({"cores": -1}, "cores is at least 0"),
        ({"headroom": -0.5}, "headroom is at least 0"),
        ({"max_temperature_c": float("nan")}, "max_temperature_c is at least 0"),
        ({"battery_share": 1.5}, "battery_share is more than 0 and at most 1"),
    ],
)
def test_options_that_cannot_be_are_refused(words: dict[str, object], message: str) -> None:
    """A bad value names itself and what is allowed."""
    with pytest.raises(ValueError, match=message):
        RuntimeOptions((), Path(), **words)  # type: ignore[arg-type]


def test_no_model_no_engine(tmp_path: Path) -> None:
    """A runtime that serves nothing has imported no engine and stays small."""
    code = f"""
import sys
from pathlib import Path
from inferd_runtime import Runtime, RuntimeOptions
here = Path({str(tmp_path)!r})
runtime = Runtime(RuntimeOptions((here,), here / "cache"), deliver=print)
runtime.start()
assert runtime.wait_loaded(20) and runtime.is_ready()
print([name for name in ("onnxruntime", "openvino", "onnx") if name in sys.modules])
import psutil
print(psutil.Process().memory_info().rss)
runtime.close()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=40)
    engines, rss = done.stdout.splitlines() or ("", "0")
    assert engines == "[]", done.stderr
    assert 0 < int(rss) < 70 << 20


def test_public_names_are_all_there() -> None:
    """Every public name can be had, and `probe` is the function although a room has its name."""
    import inferd_runtime.probe.load

    for name in dir(inferd_runtime):
        assert getattr(inferd_runtime, name) is not None
    assert inferd_runtime.probe is probe
    assert callable(probe)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = inferd_runtime.nonsense  # type: ignore[attr-defined]
