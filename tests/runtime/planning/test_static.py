"""The static rule on real engines and real models, and on machines that are only told of."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inferd_runtime.engines import Session, SessionOptions
from inferd_runtime.engines.discover import open_engines
from inferd_runtime.engines.host import IsolatedSession
from inferd_runtime.errors import EngineFault, EngineRefused, InvalidModel, LoadFailed
from inferd_runtime.planning import Ground, Planned, Wishes, plan_version, static
from inferd_runtime.planning.warm import Array, Warmth, warm
from inferd_runtime.spec import ModelSpec
from inferd_runtime.tensor import TensorSpec
from tests import onnx_models

FP32 = np.dtype(np.float32)


@pytest.fixture(scope="module")
def ground() -> Ground:
    """Both engines, four cores."""
    engines, missing = open_engines()
    return Ground(engines, 4, missing)


def plan(ground: Ground, path: Path, **wishes: object) -> Planned:
    """The plan for one file; its session is closed."""
    planned = plan_version(ground, {"": path}, Wishes(**wishes))  # type: ignore[arg-type]
    planned.session.close()
    return planned


class FakeSession:
    """A session that does what a test says."""

    def __init__(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], fault: str = "") -> None:
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.batch_symbols = ("",) * (len(self.inputs) + len(self.outputs))
        self.fault = fault
        self.most_rows = 1000
        self.shapes: list[tuple[int, ...]] = []
        self.is_closed = False

    def run(self, inputs: Sequence[Array], outputs: Sequence[int]) -> list[Array]:
        assert not self.is_closed
        self.shapes.append(inputs[0].shape)
        if self.fault:
            raise EngineFault(self.fault)
        if len(inputs[0]) > self.most_rows:
            raise EngineFault("no room for so many rows")
        return [np.zeros((len(inputs[0]), 1), FP32) for _ in outputs]

    def close(self) -> None:
        self.is_closed = True


class FakeEngine:
    """An engine on told devices; opens what it is given, or refuses."""

    version = "1.0"

    def __init__(self, name: str, devices: tuple[str, ...], opens: FakeSession | str) -> None:
        self.name = name
        self._devices = devices
        self._opens = opens
        self.later: FakeSession | None = None  # what the second opening and all after it give
        self.asked: list[SessionOptions] = []

    def devices(self) -> tuple[str, ...]:
        return self._devices

    def reads(self, path: Path) -> bool:
        return path.suffix == ".onnx"

    def open(self, path: Path, options: SessionOptions) -> Session:
        self.asked.append(options)
        if isinstance(self._opens, str):
            raise EngineRefused(self._opens)
        return self.later if self.later is not None and len(self.asked) > 1 else self._opens


def floats(*shape: int) -> TensorSpec:
    """A float tensor."""
    return TensorSpec("x", FP32, shape)


def told(cores: int = 4, **engines: FakeEngine) -> Ground:
    """A ground of fake engines."""
    return Ground({engine.name: engine for engine in engines.values()}, cores)


def test_openvino_serves_what_it_compiles(ground: Ground, tmp_path: Path) -> None:
    """On a CPU the first choice is OpenVINO, warm, with its reason in words."""
    planned = plan(ground, onnx_models.mlp(tmp_path / "m.onnx"), inline="off")
    assert (planned.plan.engine, planned.plan.device, planned.plan.vetoes) == ("openvino", "cpu", ())
    assert (planned.plan.streams, planned.plan.threads, planned.plan.batch) == (4, 1, 2)
    assert planned.spec.max_batch == 64
    assert planned.plan.run_us > 0
    assert "OpenVINO compiles this model" in planned.plan.reason


def test_onnxruntime_serves_what_openvino_refuses(ground: Ground, tmp_path: Path) -> None:
    """A refusal becomes a veto with the engine's own words, and the next engine serves."""
    planned = plan(ground, onnx_models.qoperator(tmp_path / "m.onnx"))
    assert planned.plan.engine == "onnxruntime"
    assert planned.plan.vetoes[0].candidate == "openvino cpu"
    assert "QGemm" in planned.plan.vetoes[0].reason


def test_garbage_fails_with_every_reason(ground: Ground, tmp_path: Path) -> None:
    """Where no engine takes the file, the error names each with its reason."""
    path = tmp_path / "m.onnx"
    path.write_bytes(b"garbage")
    with pytest.raises(LoadFailed, match=r"openvino cpu: .*onnxruntime cpu: "):
        plan(ground, path)


def test_int8_comes_before_the_plain_file(ground: Ground, tmp_path: Path) -> None:
    """Of several variants int8 is taken, unless the settings ask for another; the plain file comes next."""
    plain = onnx_models.mlp(tmp_path / "model.onnx")
    int8 = onnx_models.qdq_per_tensor(tmp_path / "model.int8.onnx")
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"garbage")
    for variants, wish, chosen in (
        ({"": plain, "int8": int8}, None, "int8"),
        ({"": plain, "int8": int8}, "", ""),
        ({"": plain, "int8": bad}, None, ""),
        ({"fp16": plain}, None, "fp16"),
    ):
        planned = plan_version(ground, variants, Wishes(variant=wish))
        planned.session.close()
        assert planned.plan.variant == chosen
    with pytest.raises(InvalidModel, match="'int4' is asked for, but there is only '', 'int8'"):
        plan_version(ground, {"": plain, "int8": int8}, Wishes(variant="int4"))


def test_settings_overrule_the_rule(ground: Ground, tmp_path: Path) -> None:
    """Engine, streams, threads, batch and inline are what the settings say."""
    path = onnx_models.mlp(tmp_path / "m.onnx")
    wished = plan(ground, path, engine="onnxruntime", streams=1, threads=2, max_batch=8, batch=12, inline="on").plan
    assert (wished.engine, wished.streams, wished.threads, wished.batch, wished.inline) == (
        "onnxruntime",
        1,
        2,
        8,
        True,
    )
    assert "as the settings ask" in wished.reason
    assert plan(replace(ground, engine="onnxruntime"), path).plan.engine == "onnxruntime"
    assert plan(replace(ground, engine="onnxruntime"), path, engine="openvino").plan.engine == "openvino"


@pytest.mark.parametrize(
    ("cores", "wishes", "share"),
    [
        (1, {}, (1, 1)), (2, {}, (2, 1)), (4, {}, (4, 1)), (9, {}, (4, 2)), (8, {"threads": 4}, (2, 4)),
        (2, {"threads": 4}, (1, 4)), (8, {"streams": 2}, (2, 4)), (1, {"streams": 3}, (3, 1)),
    ],
)  # fmt: skip
def test_streams_and_threads(tmp_path: Path, cores: int, wishes: dict[str, int], share: tuple[int, int]) -> None:
    """Up to four streams share the cores; what the settings ask for stands, and the engine is opened so."""
    engine = FakeEngine("openvino", ("cpu",), FakeSession([floats(-1, 2)], [floats(-1, 1)]))
    planned = plan(told(cores, ov=engine), tmp_path / "m.onnx", inline="off", **wishes)
    assert (planned.plan.streams, planned.plan.threads) == share
    assert (engine.asked[0].streams, engine.asked[0].threads) == share


@pytest.mark.parametrize(
    ("engine", "many_us", "wishes", "rows"),
    [
        ("onnxruntime", 1600.0, {}, 1), ("onnxruntime", 400.0, {}, 16), ("onnxruntime", 1600.0, {"batch": 8}, 8),
        ("onnxruntime", 0.0, {}, 16), ("openvino", 400.0, {}, 2), ("openvino", 400.0, {"batch": 8}, 8),
    ],
)  # fmt: skip
def test_rows_are_gathered_where_that_gains(engine: str, many_us: float, wishes: dict[str, int], rows: int) -> None:
    """16 rows that take as long together as one by one (100 us each) are not gathered; OpenVINO gets two at most; what
    the settings ask for stands."""
    session = FakeSession([floats(-1, 2)], [floats(-1, 1)])
    warmth = Warmth(run_us=100.0, many_us=many_us, is_batch=True)
    opened = static._Opened(static._Candidate("", engine, "cpu", ""), session, warmth, ModelSpec((), (), 64), "", 2, 1)
    batch, why = static._useful_batch(opened, Wishes(**wishes), is_inline=False)
    assert batch == rows
    assert ("side by side" in why) == (rows == 1)


def test_precision_and_device_reach_the_engine(tmp_path: Path) -> None:
    """What the settings ask for is what the engine is opened with."""
    engine = FakeEngine("openvino", ("cpu", "npu"), FakeSession([floats(-1, 2)], [floats(-1, 1)]))
    planned = plan(told(2, ov=engine), tmp_path / "m.onnx", precision="bf16", device="npu")
    assert (engine.asked[0].precision, engine.asked[0].device) == ("bf16", "npu")
    assert (planned.plan.precision, planned.plan.device) == ("bf16", "npu")


def test_an_inline_model_gets_one_stream_of_one_thread(tmp_path: Path) -> None:
    """It runs once at a time, so it is opened again without threads of its own, and the first session is closed."""
    first, second = (FakeSession([floats(-1, 2)], [floats(-1, 1)]) for _ in range(2))
    engine = FakeEngine("openvino", ("cpu",), first)
    engine.later = second
    planned = plan_version(told(4, ov=engine), {"": tmp_path / "m.onnx"}, Wishes(inline="on"))
    assert planned.plan.inline
    assert [(asked.streams, asked.threads) for asked in engine.asked] == [(4, 1), (1, 1)]
    assert (planned.plan.streams, planned.plan.threads) == (1, 1)
    assert (planned.session, first.is_closed, second.is_closed) == (second, True, False)


def test_a_micro_model_goes_to_the_engine_with_the_shorter_run(ground: Ground, tmp_path: Path) -> None:
    """Both engines are timed; the other is a veto with both figures. An engine that is asked for is not compared."""
    path = onnx_models.mlp(tmp_path / "m.onnx")
    chosen = plan(ground, path, inline="on").plan
    [veto] = chosen.vetoes
    assert {chosen.engine, veto.candidate.split()[0]} == {"onnxruntime", "openvino"}
    assert re.fullmatch(r"a run of one row took \d+ us, \d+ us on (onnxruntime|openvino) cpu", veto.reason)
    assert plan(ground, path, inline="on", engine="openvino").plan.vetoes == ()


@pytest.mark.parametrize(
    ("run_us", "many_us", "is_inline"), [(249.0, 1999.0, True), (250.0, 1999.0, False), (249.0, 2000.0, False)]
)
def test_inline_is_for_what_takes_no_time(ground: Ground, run_us: float, many_us: float, is_inline: bool) -> None:
    """One row and a full batch must both be over soon, for everybody else waits meanwhile."""
    session = FakeSession([floats(-1, 2)], [floats(-1, 1)])
    warmth = Warmth(run_us=run_us, many_us=many_us, is_batch=True)
    opened = static._Opened(static._Candidate("", "ov", "cpu", ""), session, warmth, ModelSpec((), (), 64), "", 1, 1)
    assert static._inline(ground, opened, Wishes())[0] == is_inline


def test_inline_is_for_fast_models_of_known_size(ground: Ground, tmp_path: Path) -> None:
    """A micro-model runs on the submitting thread; a slow one, one of free sizes, or one forbidden to, does not."""
    micro = onnx_models.identity(tmp_path / "micro.onnx")
    assert plan(ground, micro, streams=1, threads=1).plan.inline
    assert not plan(ground, micro, inline="off").plan.inline
    assert not plan(replace(ground, inline="off"), micro, inline="on").plan.inline
    slow = plan(ground, onnx_models.slow(tmp_path / "slow.onnx", layers=64)).plan
    assert not slow.inline
    assert "250 or more" in slow.reason
    free = plan(ground, onnx_models.dynamic_width(tmp_path / "free.onnx")).plan
    assert not free.inline
    assert "sizes are free" in free.reason


def test_max_batch(ground: Ground, tmp_path: Path) -> None:
    """Free first dimensions are a batch, unless the file or the settings say otherwise."""
    batched = onnx_models.two_inputs(tmp_path / "batched.onnx")
    assert plan(ground, batched).spec.max_batch == 64
    assert plan(ground, batched, max_batch=4).spec.max_batch == 4
    alone = plan(ground, batched, max_batch=0)
    assert (alone.spec.max_batch, alone.plan.batch) == (0, 0)
    assert "max_batch = 0" in alone.plan.reason
    for build in (onnx_models.fixed_batch, onnx_models.no_batch, onnx_models.scalar):
        assert plan(ground, build(tmp_path / f"{build.__name__}.onnx")).spec.max_batch == 0
    with pytest.raises(InvalidModel, match="max_batch = 4 is asked for, but 'x' has shape"):
        plan(ground, tmp_path / "fixed_batch.onnx", max_batch=4)


def test_two_free_dimensions_of_different_names_are_no_batch(ground: Ground, tmp_path: Path) -> None:
    """Where the file names the first dimensions differently, rows cannot be gathered."""
    path = onnx_models.two_inputs(tmp_path / "m.onnx", symbols=("N", "M"))
    planned = plan(ground, path, engine="onnxruntime")
    assert planned.spec.max_batch == 0
    assert "different names (M, N)" in planned.plan.reason


def test_independent_inputs_are_no_batch(tmp_path: Path) -> None:
    """Where an engine lost the names, inputs that may differ in rows are found out by trying."""
    session = FakeSession([floats(-1, 2), floats(-1, 2)], [floats(-1, 1)])
    planned = plan(told(ov=FakeEngine("openvino", ("cpu",), session)), tmp_path / "m.onnx")
    assert planned.spec.max_batch == 0
    assert "may differ in their first dimensions" in planned.plan.reason


def test_rows_that_do_not_come_out_are_no_batch(tmp_path: Path) -> None:
    """A free first dimension that does not follow the rows that went in is found out by trying."""
    session = FakeSession([floats(-1, 2)], [floats(-1, 1)])
    session.run = lambda inputs, outputs: [np.zeros((1, 1), FP32)]  # type: ignore[method-assign]
    planned = plan(told(ov=FakeEngine("openvino", ("cpu",), session)), tmp_path / "m.onnx")
    assert planned.spec.max_batch == 0
    assert "2 rows in gave output 'x' of shape [1, 1]" in planned.plan.reason


def test_a_gpu_that_may_be_used_comes_first(tmp_path: Path) -> None:
    """CUDA is taken where a build and a device have it, with a reason where the device may not be opened."""
    session = FakeSession([floats(-1, 2)], [floats(-1, 1)])
    cuda = FakeEngine("onnxruntime", ("cpu", "cuda:0"), session)
    cpu = FakeEngine("openvino", ("cpu",), session)
    ground = replace(told(ort=cuda, ov=cpu), has_cuda_gpu=True, inline="off")
    on_gpu = plan_version(ground, {"": tmp_path / "m.onnx"}, Wishes()).plan
    assert (on_gpu.engine, on_gpu.device, on_gpu.inline) == ("onnxruntime", "cuda:0", False)
    refused = plan_version(replace(ground, cuda_refusal="no permission"), {"": tmp_path / "m.onnx"}, Wishes()).plan
    assert (refused.engine, refused.device) == ("openvino", "cpu")
    assert (refused.vetoes[0].candidate, refused.vetoes[0].reason) == ("onnxruntime cuda:0", "no permission")
    without = replace(told(ort=FakeEngine("onnxruntime", ("cpu",), session), ov=cpu), has_cuda_gpu=True, inline="off")
    assert "has only cpu" in plan_version(without, {"": tmp_path / "m.onnx"}, Wishes()).plan.vetoes[0].reason


def test_a_device_that_is_not_there_fails_with_what_is(ground: Ground, tmp_path: Path) -> None:
    """Asking for a device that no engine has names the devices there are."""
    path = onnx_models.identity(tmp_path / "m.onnx")
    with pytest.raises(LoadFailed, match=r"openvino npu: the installed openvino .* has only cpu"):
        plan(ground, path, device="npu")


def test_missing_engines_are_told(tmp_path: Path) -> None:
    """Without any engine the failure says how to get one."""
    ground = Ground({}, 2, {"openvino": "openvino is not installed", "onnxruntime": "onnxruntime is not installed"})
    with pytest.raises(LoadFailed, match="openvino is not installed; onnxruntime cpu: onnxruntime is not installed"):
        plan(ground, tmp_path / "m.onnx")


def test_a_failing_warm_up_of_floats_is_a_veto(tmp_path: Path) -> None:
    """Where only float values were made up, a failing run is the engine's, and the next one serves."""
    bad = FakeSession([floats(1, 2)], [floats(1, 1)], "broken kernel")
    good = FakeSession([floats(1, 2)], [floats(1, 1)])
    ground = told(ov=FakeEngine("openvino", ("cpu",), bad), ort=FakeEngine("onnxruntime", ("cpu",), good))
    planned = plan(ground, tmp_path / "m.onnx", inline="off")
    assert planned.plan.engine == "onnxruntime"
    assert "broken kernel" in planned.plan.vetoes[0].reason
    assert bad.is_closed
    bad.is_closed = False
    with pytest.raises(LoadFailed, match="broken kernel"):
        plan(told(ov=FakeEngine("openvino", ("cpu",), bad)), tmp_path / "m.onnx")
    assert bad.is_closed


@pytest.mark.parametrize(
    ("most_rows", "width", "why"), [(4, 2, "no room for so many rows"), (1000, 6 << 20, "would be too large")]
)
def test_many_rows_that_fail_are_not_gathered(tmp_path: Path, most_rows: int, width: int, why: str) -> None:
    """A model that a full batch is too much for, or too much to try, is served row by row, and the reason says why."""
    session = FakeSession([floats(-1, width)], [floats(-1, 1)])
    session.most_rows = most_rows
    planned = plan(told(ort=FakeEngine("onnxruntime", ("cpu",), session)), tmp_path / "m.onnx")
    assert planned.plan.batch == 1
    assert "16 rows in one run failed (" in planned.plan.reason
    assert why in planned.plan.reason


def test_a_failing_warm_up_of_guesses_is_only_noted(tmp_path: Path) -> None:
    """Guessed sizes that fail everywhere are told; the first engine serves, the others are closed."""
    one, two = (FakeSession([floats(-1, 3, -1)], [floats(-1, 1)], "bad size") for _ in range(2))
    ground = told(ov=FakeEngine("openvino", ("cpu",), one), ort=FakeEngine("onnxruntime", ("cpu",), two))
    planned = plan_version(ground, {"": tmp_path / "m.onnx"}, Wishes())
    assert (planned.plan.engine, planned.plan.inline) == ("openvino", False)
    assert "made-up inputs" in planned.plan.reason
    assert [veto.candidate for veto in planned.plan.vetoes] == ["onnxruntime cpu"]
    assert (one.is_closed, two.is_closed) == (False, True)


def test_an_engine_that_warms_wins_over_one_that_does_not(tmp_path: Path) -> None:
    """A guess that fails on one engine and works on another decides for the other."""
    one = FakeSession([floats(-1, -1)], [floats(-1, 1)], "bad size")
    two = FakeSession([floats(-1, -1)], [floats(-1, 1)])
    ground = told(ov=FakeEngine("openvino", ("cpu",), one), ort=FakeEngine("onnxruntime", ("cpu",), two))
    planned = plan_version(ground, {"": tmp_path / "m.onnx"}, Wishes())
    assert planned.plan.engine == "onnxruntime"
    assert one.is_closed
    assert not two.is_closed


@pytest.mark.parametrize("datatype", ["FP16", "INT64", "BOOL", "BYTES", "UINT8"])
def test_every_datatype_warms(ground: Ground, tmp_path: Path, datatype: str) -> None:
    """Made-up inputs suit every datatype."""
    planned = plan(ground, onnx_models.identity(tmp_path / "m.onnx", datatype))
    assert "warm-up failed" not in planned.plan.reason
    assert planned.plan.run_us > 0


def test_values_that_a_model_refuses_are_no_veto(ground: Ground, tmp_path: Path) -> None:
    """A model that refuses every made-up value is served all the same, and says so."""
    planned = plan(ground, onnx_models.faulting_reshape(tmp_path / "m.onnx"))
    assert "made-up inputs" in planned.plan.reason
    assert not planned.plan.inline


def test_warm_up_is_bounded() -> None:
    """However large the fixed shapes, nothing enormous is made up, and slow runs are few."""
    huge = FakeSession([floats(-1, 1 << 20, 1 << 20)], [floats(-1, 1)])
    assert "too large" in warm(huge, is_batched=True, many_rows=lambda _: 16).fault
    now = [0]

    def clock_ns() -> int:
        now[0] += 40_000_000
        return now[0]

    session = FakeSession([floats(-1, 2)], [floats(-1, 1)])
    assert warm(session, is_batched=True, many_rows=lambda _: 16, clock_ns=clock_ns).run_us == 40_000
    assert session.shapes == [(1, 2), (2, 2), (1, 2), (1, 2)]


@pytest.mark.parametrize("longest_at", [0, 1, 2])
def test_one_interruption_changes_no_figure(longest_at: int) -> None:
    """A run that others kept waiting for far longer than the warm-up may take is not believed."""
    took_ns = itertools.chain([10_000] * longest_at, [500_000_000], itertools.repeat(10_000))
    moments = itertools.accumulate(itertools.chain.from_iterable((took, 0) for took in took_ns), initial=0)
    session = FakeSession([floats(-1, 2)], [floats(-1, 1)])
    assert warm(session, is_batched=False, many_rows=lambda _: 0, clock_ns=lambda: next(moments)).run_us == 10.0


def test_isolation_keeps_the_session_in_a_process(ground: Ground, tmp_path: Path) -> None:
    """isolation = "process": the same answers from a child, never on the submitting thread."""
    planned = plan_version(ground, {"": onnx_models.mlp(tmp_path / "m.onnx")}, Wishes(isolation="process", inline="on"))
    assert isinstance(planned.session, IsolatedSession)
    assert not planned.plan.inline
    assert 'isolation = "process" in model.toml' in planned.plan.reason
    row = np.ones((1, 64), np.float32)
    assert np.allclose(planned.session.run([row], [0])[0], onnx_models.mlp_reference(row), atol=0.02)
    planned.session.close()
