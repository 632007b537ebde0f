"""What both engines promise about a session's runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from inferd_runtime.engines import Array, Engine, Session, SessionOptions
from inferd_runtime.engines.ort import OrtEngine
from inferd_runtime.engines.ov import OvEngine
from inferd_runtime.errors import EngineFault, EngineRefused, InvalidRequest
from inferd_runtime.tensor import BFLOAT16
from tests import onnx_models

ENGINES: dict[str, Engine] = {"onnxruntime": OrtEngine(), "openvino": OvEngine()}
NUMERIC = [name for name in onnx_models.DATATYPES if name != "BYTES"]


@pytest.fixture(params=sorted(ENGINES))
def engine(request: pytest.FixtureRequest) -> Engine:
    return ENGINES[request.param]


def options(**changes: object) -> SessionOptions:
    return SessionOptions(**({"precision": "f32"} | changes))  # type: ignore[arg-type]


def frozen(array: Array) -> Array:
    """The array as the wire gives it: a read-only view on bytes."""
    return np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape)


def rows(count: int, width: int = 64) -> Array:
    return frozen(np.random.default_rng(count).normal(size=(count, width)).astype(np.float32))


def test_mlp_agrees_with_numpy(engine: Engine, tmp_path: Path) -> None:
    """Each engine computes what numpy computes, for one row and for many."""
    session = engine.open(onnx_models.mlp(tmp_path / "m.onnx"), options())
    for count in (1, 16, 3):
        x = rows(count)
        (got,) = session.run([x], [0])
        np.testing.assert_allclose(got, onnx_models.mlp_reference(x), atol=1e-5)


def test_specs_say_names_types_and_free_dimensions(engine: Engine, tmp_path: Path) -> None:
    """Symbolic dimensions are -1, names are the file's, scalars have no dimensions."""
    session = engine.open(onnx_models.mlp(tmp_path / "m.onnx"), options())
    assert [(s.name, s.datatype, s.shape) for s in session.inputs] == [("x", "FP32", (-1, 64))]
    assert [(s.name, s.datatype, s.shape) for s in session.outputs] == [("probabilities", "FP32", (-1, 10))]
    session = engine.open(onnx_models.no_batch(tmp_path / "n.onnx"), options())
    assert [s.shape for s in (*session.inputs, *session.outputs)] == [(-1,), ()]


@pytest.mark.parametrize("datatype", NUMERIC)
def test_every_numeric_datatype_passes_through(engine: Engine, datatype: str, tmp_path: Path) -> None:
    """An identity model returns the very bytes, in the same dtype."""
    session = engine.open(onnx_models.identity(tmp_path / "m.onnx", datatype), options())
    assert session.inputs[0].datatype == session.outputs[0].datatype == datatype
    x = frozen((np.arange(8) % 2).reshape(2, 4).astype(onnx_models.DATATYPES[datatype]))
    (got,) = session.run([x], [0])
    assert got.dtype == x.dtype
    assert got.tobytes() == x.tobytes()


def test_bfloat16_beside_other_outputs(tmp_path: Path) -> None:
    """BF16 values that a float16 could not hold survive in both engines."""
    x = frozen(np.array([[3e38, -1e-38, 0.5, 65536.0]], BFLOAT16))
    path = onnx_models.identity(tmp_path / "m.onnx", "BF16")
    for engine in ENGINES.values():
        (got,) = engine.open(path, options()).run([x], [0])
        assert got.dtype == BFLOAT16
        assert got.tobytes() == x.tobytes()


def test_returned_arrays_belong_to_the_caller(engine: Engine, tmp_path: Path) -> None:
    """A later run never writes into an array returned before, and writing into one spoils nothing."""
    session = engine.open(onnx_models.two_inputs(tmp_path / "m.onnx"), options())
    a, b = rows(2, 4), rows(3, 4)[:2]
    first = session.run([a, b], [0, 1])
    kept = [array.copy() for array in first]
    for _ in range(20):
        session.run([frozen(a * 7), frozen(b * 3)], [0, 1])
    for array, copy in zip(first, kept, strict=True):
        np.testing.assert_array_equal(array, copy)
        array[...] = 99
    for array, copy in zip(session.run([a, b], [0, 1]), kept, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_returned_arrays_outlive_the_session(engine: Engine, tmp_path: Path) -> None:
    """Closing a session leaves earlier answers alone, and closing twice is fine."""
    session = engine.open(onnx_models.mlp(tmp_path / "m.onnx"), options())
    x = rows(4)
    (got,) = session.run([x], [0])
    session.close()
    session.close()
    del session
    np.testing.assert_allclose(got, onnx_models.mlp_reference(x), atol=1e-5)


def test_outputs_come_in_the_order_asked(engine: Engine, tmp_path: Path) -> None:
    """`outputs` picks and orders."""
    session = engine.open(onnx_models.two_inputs(tmp_path / "m.onnx"), options())
    a, b = rows(1, 4), rows(2, 4)[:1]
    difference, total = session.run([a, b], [1, 0])
    np.testing.assert_array_equal(difference, a - b)
    np.testing.assert_array_equal(total, a + b)
    (only,) = session.run([a, b], [1])
    np.testing.assert_array_equal(only, a - b)


@pytest.mark.parametrize(
    "build", [onnx_models.identity, onnx_models.fixed_batch, onnx_models.in_place, onnx_models.dynamic_width]
)
def test_inputs_are_never_written(engine: Engine, build: Callable[[Path], Path], tmp_path: Path) -> None:
    """The caller's bytes are the same after a run, even where the model could work in place or returns its input."""
    session = engine.open(build(tmp_path / "m.onnx"), options())
    shape = [dim if dim > 0 else 4 for dim in session.inputs[0].shape]
    x = np.linspace(-5, 5, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    kept = x.copy()
    for _ in range(3):
        (got,) = session.run([x], [0])
        assert not np.shares_memory(got, x)
        got[...] = -1
        np.testing.assert_array_equal(x, kept)


@pytest.mark.parametrize("offset", [0, 1, 2, 4, 7])
def test_unaligned_buffers(engine: Engine, offset: int, tmp_path: Path) -> None:
    """Tensors may start at any byte of a request body."""
    session = engine.open(onnx_models.mlp(tmp_path / "m.onnx"), options())
    x = rows(3)
    shifted = np.frombuffer(b"?" * offset + x.tobytes(), np.float32, offset=offset).reshape(x.shape)
    (got,) = session.run([shifted], [0])
    np.testing.assert_allclose(got, onnx_models.mlp_reference(x), atol=1e-5)


def test_wrong_dtype_never_reaches_native_memory(engine: Engine, tmp_path: Path) -> None:
    """An array of another dtype is refused by name before the library sees it."""
    session = engine.open(onnx_models.mlp(tmp_path / "m.onnx"), options())
    with pytest.raises(InvalidRequest, match="input 'x': expected FP32, got FP16"):
        session.run([np.zeros((1, 64), np.float16)], [0])


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (onnx_models.dynamic_width, (0, 5)),
        (onnx_models.dynamic_width, (1, 0)),
        (onnx_models.dynamic_width, (0, 0)),
        (onnx_models.mlp, (0, 64)),
        (onnx_models.no_batch, (0,)),
    ],
)
def test_zero_size_tensors(
    engine: Engine, build: Callable[[Path], Path], shape: tuple[int, ...], tmp_path: Path
) -> None:
    """A tensor without elements gives an answer, and the session still works."""
    session = engine.open(build(tmp_path / "m.onnx"), options())
    got = session.run([frozen(np.zeros(shape, np.float32))], [0])
    assert got[0].ndim == len(session.outputs[0].shape)
    full = tuple(dim or 3 for dim in shape)
    assert session.run([frozen(np.ones(full, np.float32))], [0])[0].ndim == got[0].ndim


def test_scalars(engine: Engine, tmp_path: Path) -> None:
    """A tensor of rank 0 goes in and comes out as one."""
    session = engine.open(onnx_models.scalar(tmp_path / "m.onnx"), options())
    (got,) = session.run([frozen(np.array(21, np.float32))], [0])
    assert got.shape == ()
    assert got == 42


def test_shapes_that_depend_on_values(engine: Engine, tmp_path: Path) -> None:
    """An output may have another shape on every run."""
    session = engine.open(onnx_models.dynamic_output(tmp_path / "m.onnx"), options())
    for values in ([0, 1, 1], [1, 1, 1, 1, 1, 0], [0, 0], [5]):
        (got,) = session.run([frozen(np.array(values, np.float32))], [0])
        np.testing.assert_array_equal(got[0], np.flatnonzero(values))


def test_widths_may_change_from_run_to_run(engine: Engine, tmp_path: Path) -> None:
    """Both dimensions free: growing and shrinking shapes give right answers."""
    session = engine.open(onnx_models.dynamic_width(tmp_path / "m.onnx"), options())
    for shape in ((1, 3), (8, 300), (2, 2), (1, 1), (5, 77)):
        x = frozen(np.random.default_rng(1).normal(size=shape).astype(np.float32))
        y, mean = session.run([x], [0, 1])
        np.testing.assert_allclose(y, x + 1, rtol=1e-6)
        np.testing.assert_allclose(mean, x.mean(axis=1, keepdims=True), atol=1e-6)


def test_fixed_batch(engine: Engine, tmp_path: Path) -> None:
    """A model of a fixed first dimension says so and takes just that."""
    session = engine.open(onnx_models.fixed_batch(tmp_path / "m.onnx"), options())
    assert session.inputs[0].shape == (4, 3)
    x = rows(4, 3)
    np.testing.assert_array_equal(session.run([x], [0])[0], x * 2)
    with pytest.raises(EngineFault):
        session.run([rows(2, 3)], [0])


def test_inputs_with_a_default_are_not_asked_for(engine: Engine, tmp_path: Path) -> None:
    """A graph input that has an initializer is no input of the model."""
    session = engine.open(onnx_models.optional_input(tmp_path / "m.onnx"), options())
    assert [spec.name for spec in session.inputs] == ["x"]
    x = rows(2, 4)
    np.testing.assert_allclose(session.run([x], [0])[0], x * 3, rtol=1e-6)


def test_a_fault_is_one_line_and_leaves_the_session_usable(engine: Engine, tmp_path: Path) -> None:
    """A failing run raises EngineFault with the library's reason; the next run works."""
    path = onnx_models.faulting_reshape(tmp_path / "m.onnx")
    session = engine.open(path, options())
    x = frozen(np.arange(4, dtype=np.float32))
    with pytest.raises(EngineFault) as fault:
        session.run([x, frozen(np.array([2, 3]))], [0])
    message = str(fault.value)
    assert "reshape" in message.lower()
    assert "\n" not in message
    assert "src/" not in message
    assert str(tmp_path) not in message
    assert session.run([x, frozen(np.array([2, 2]))], [0])[0].shape == (2, 2)


@pytest.mark.parametrize(("streams", "threads"), [(1, 1), (2, 1), (1, 2)])
def test_a_fault_never_answers_with_another_run(engine: Engine, streams: int, threads: int, tmp_path: Path) -> None:
    """Good and bad inputs in any order: the bad ones always fail, the good ones always get their own values."""
    path = onnx_models.faulting_reshape(tmp_path / "m.onnx")
    session = engine.open(path, options(streams=streams, threads=threads))
    rng = np.random.default_rng(0)
    shapes = [(2, 3), (2, 3), (2, 2), (3, 3), (1, 4), (4, 1), (-1, 3), (-1, 3), (2, 2)]
    for pick in rng.integers(len(shapes), size=60):
        x = frozen(rng.normal(size=4).astype(np.float32))
        feeds = [x, frozen(np.array(shapes[pick]))]
        if abs(np.prod(shapes[pick])) == 4:
            np.testing.assert_array_equal(session.run(feeds, [0])[0], x.reshape(shapes[pick]))
        else:
            with pytest.raises(EngineFault):
                session.run(feeds, [0])


@pytest.mark.parametrize("content", [b"", b"not a model at all", b"\x08\x07\x12" + b"\xff" * 100])
def test_garbage_is_refused(engine: Engine, content: bytes, tmp_path: Path) -> None:
    """A file that is no model is refused in one line without this machine's paths."""
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(EngineRefused) as refusal:
        engine.open(path, options())
    assert "\n" not in str(refusal.value)
    assert str(tmp_path) not in str(refusal.value)
    assert len(str(refusal.value)) < 500


def test_missing_file_is_refused(engine: Engine, tmp_path: Path) -> None:
    """A file that is gone is a refusal too."""
    with pytest.raises(EngineRefused):
        engine.open(tmp_path / "none.onnx", options())


def test_unknown_device_is_refused(engine: Engine, tmp_path: Path) -> None:
    """A device that the engine does not have is refused with those it has."""
    path = onnx_models.mlp(tmp_path / "m.onnx")
    with pytest.raises(EngineRefused, match=r"no device 'tpu:9' here, only .*cpu"):
        engine.open(path, options(device="tpu:9"))


def test_external_data_outside_the_folder_is_refused(engine: Engine, tmp_path: Path) -> None:
    """Weights said to lie outside the model's folder are never read."""
    (tmp_path / "secret.bin").write_bytes(bytes(64))
    path = onnx_models.external_data(tmp_path / "model" / "m.onnx", "../secret.bin")
    with pytest.raises(EngineRefused):
        engine.open(path, options())


def test_external_data_beside_the_model_is_read(engine: Engine, tmp_path: Path) -> None:
    """Weights in a file of the model's own folder work."""
    path = onnx_models.external_data(tmp_path / "m.onnx", "weights.bin")
    (tmp_path / "weights.bin").write_bytes(np.eye(4, dtype=np.float32).tobytes())
    x = rows(2, 4)
    np.testing.assert_allclose(engine.open(path, options()).run([x], [0])[0], x, atol=1e-6)


def test_concurrent_callers_get_their_own_answers(engine: Engine, tmp_path: Path) -> None:
    """Eight threads on two streams: every answer is the caller's."""
    session = engine.open(onnx_models.mlp(tmp_path / "m.onnx"), options(streams=2))
    wrong: list[int] = []

    def call(seed: int) -> None:
        x = rows(seed + 1)
        expected = onnx_models.mlp_reference(x)
        answers = [session.run([x], [0])[0] for _ in range(30)]
        wrong.extend(seed for answer in answers if not np.allclose(answer, expected, atol=1e-5))

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_engines_agree_on_int8(tmp_path: Path) -> None:
    """Both engines give the same numbers for a per-channel QDQ model, up to one step of the scale."""
    path = onnx_models.qdq_per_channel(tmp_path / "m.onnx")
    x = frozen(np.random.default_rng(0).uniform(-3, 3, (8, 16)).astype(np.float32))
    sessions: list[Session] = [engine.open(path, options()) for engine in ENGINES.values()]
    first, second = (session.run([x], [0])[0] for session in sessions)
    np.testing.assert_allclose(first, second, atol=0.06)
    assert np.abs(first).max() > 1
