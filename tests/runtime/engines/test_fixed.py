"""Sessions that are compiled for exactly so many rows: what they answer, and what cannot be compiled so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from inferd_runtime.engines import Array, Engine, SessionOptions
from inferd_runtime.engines.fixed import FixedSession
from inferd_runtime.engines.ort import OrtEngine
from inferd_runtime.engines.ov import OvEngine
from inferd_runtime.errors import EngineFault, EngineRefused, InvalidRequest
from inferd_runtime.tensor import BFLOAT16, STRING, TensorSpec
from tests import onnx_models

ENGINES: dict[str, Engine] = {"onnxruntime": OrtEngine(), "openvino": OvEngine()}


@pytest.fixture(params=sorted(ENGINES))
def engine(request: pytest.FixtureRequest) -> Engine:
    return ENGINES[request.param]


def exactly(rows: int, **changes: object) -> SessionOptions:
    return SessionOptions(**({"precision": "f32", "rows": rows} | changes))  # type: ignore[arg-type]


def noise(count: int, width: int = 64) -> Array:
    array = np.random.default_rng(count).normal(size=(count, width)).astype(np.float32)
    array.flags.writeable = False
    return array


class Rows:
    """A session of exactly four rows of [4, 3] -> [4, 3], that counts them up and remembers what it was given."""

    inputs = outputs = (TensorSpec("x", np.dtype(np.float32), (4, 3)),)
    batch_symbols = ("", "")

    def __init__(self, given_rows: int = 4) -> None:
        self.seen: list[Array] = []
        self.is_closed = False
        self._given_rows = given_rows

    def run(self, inputs: Sequence[Array], outputs: Sequence[int]) -> list[Array]:
        self.seen.append(inputs[0])
        return [inputs[0][: self._given_rows] + 1]

    def close(self) -> None:
        self.is_closed = True


def fixed(session: Rows) -> FixedSession:
    free = (TensorSpec("x", np.dtype(np.float32), (-1, 3)),)
    return FixedSession(session, 4, free, free, ("N", "N"))


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 11])
def test_any_number_of_rows_is_answered(engine: Engine, count: int, tmp_path: Path) -> None:
    """Fewer, as many and more rows than were compiled for: the answer is the model's, row by row."""
    session = engine.open(onnx_models.mlp(tmp_path / "m.onnx"), exactly(4))
    [got] = session.run([noise(count)], [0])
    np.testing.assert_allclose(got, onnx_models.mlp_reference(noise(count)), atol=1e-5)
    session.close()
    session.close()


def test_callers_see_the_file_and_not_the_rows(engine: Engine, tmp_path: Path) -> None:
    """Shapes and names of first dimensions are those of a session without fixed rows."""
    path = onnx_models.two_inputs(tmp_path / "m.onnx")
    plain, static = engine.open(path, exactly(0)), engine.open(path, exactly(2))
    assert (static.inputs, static.outputs) == (plain.inputs, plain.outputs)
    assert static.batch_symbols == plain.batch_symbols
    a, b = noise(3, 4), noise(5, 4)[:3]
    for got, expected in zip(static.run([a, b], [1, 0]), [a - b, a + b], strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_the_engine_is_given_what_it_was_compiled_for() -> None:
    """Pieces have exactly the rows; the last is filled up by its last row, and nothing of that comes back."""
    session = Rows()
    x = noise(6, 3)
    [got] = fixed(session).run([x], [0])
    np.testing.assert_array_equal(got, x + 1)
    assert [piece.shape for piece in session.seen] == [(4, 3), (4, 3)]
    np.testing.assert_array_equal(session.seen[1], x[[4, 5, 5, 5]])
    assert all(piece.flags.c_contiguous for piece in session.seen)


def test_exactly_as_many_rows_are_not_copied() -> None:
    """The common case costs nothing: the engine reads the caller's array."""
    session, x = Rows(), noise(4, 3)
    fixed(session).run([x], [0])
    assert session.seen[0] is x


def test_an_output_of_other_rows_is_a_fault() -> None:
    """Rows that cannot be told apart are never handed out."""
    with pytest.raises(EngineFault, match=r"'x' has shape \[2, 3\] for exactly 4 rows"):
        fixed(Rows(given_rows=2)).run([noise(3, 3)], [0])


@pytest.mark.parametrize("counts", [(2, 3), (0, 0)])
def test_uneven_and_empty_inputs_are_refused(engine: Engine, counts: tuple[int, int], tmp_path: Path) -> None:
    """Inputs that do not have the same rows, or none, are the request's fault."""
    session = engine.open(onnx_models.two_inputs(tmp_path / "m.onnx"), exactly(2))
    with pytest.raises(InvalidRequest, match="equally many"):
        session.run([np.zeros((count, 4), np.float32) for count in counts], [0])


def test_closing_closes_what_is_inside() -> None:
    """The wrapper owns the engine's session."""
    session = Rows()
    fixed(session).close()
    assert session.is_closed


def test_other_free_dimensions_stay_free(engine: Engine, tmp_path: Path) -> None:
    """Only rows are fixed: widths may still differ from run to run."""
    session = engine.open(onnx_models.dynamic_width(tmp_path / "m.onnx"), exactly(2))
    assert session.inputs[0].shape == (-1, -1)
    for width in (3, 7):
        got, mean = session.run([noise(3, width)], [0, 1])
        np.testing.assert_allclose(got, noise(3, width) + 1, atol=1e-6)
        np.testing.assert_allclose(mean, noise(3, width).mean(axis=1, keepdims=True), atol=1e-6)


def test_texts_and_bfloat16_are_cut_and_joined(tmp_path: Path) -> None:
    """Datatypes that numpy does not know by itself pass through pieces."""
    words = np.array([b"a", b"b", b"c"], STRING)
    session = ENGINES["onnxruntime"].open(onnx_models.string_upper(tmp_path / "s.onnx"), exactly(2))
    assert session.run([words], [0])[0].tolist() == [b"A", b"B", b"C"]
    values = noise(3, 4).astype(BFLOAT16)
    for engine in ENGINES.values():
        [got] = engine.open(onnx_models.identity(tmp_path / "b.onnx", "BF16"), exactly(2)).run([values], [0])
        assert got.dtype == BFLOAT16
        assert got.tobytes() == values.tobytes()


def test_files_without_free_rows_are_refused(engine: Engine, tmp_path: Path) -> None:
    """Where a first dimension is fixed, or missing, there is nothing to compile for; the tensor is named."""
    with pytest.raises(EngineRefused, match=r"exactly 4 rows: input 'x' has shape \[4, 3\]"):
        engine.open(onnx_models.fixed_batch(tmp_path / "a.onnx"), exactly(4))
    with pytest.raises(EngineRefused, match=r"exactly 4 rows: output 'total' has shape \[\]"):
        engine.open(onnx_models.no_batch(tmp_path / "b.onnx"), exactly(4))


def similarity(path: Path) -> Path:
    """x FP32 [N, 4] -> y FP32 [N, N], every row against every row."""
    nodes = [helper.make_node("Transpose", ["x"], ["t"]), helper.make_node("MatMul", ["x", "t"], ["y"])]
    x = onnx_models.value("x", TensorProto.FLOAT, ["N", 4])
    return onnx_models.save(path, nodes, [x], [onnx_models.value("y", TensorProto.FLOAT, ["N", "N"])])


def test_rows_that_look_at_each_other_are_refused(engine: Engine, tmp_path: Path) -> None:
    """A model whose answer has rows in a second dimension must not be cut into pieces."""
    with pytest.raises(EngineRefused, match=r"exactly 2 rows: .*other dimensions"):
        engine.open(similarity(tmp_path / "m.onnx"), exactly(2))


def test_first_dimensions_without_a_name(tmp_path: Path) -> None:
    """ONNX Runtime fixes by name only, so it refuses them; OpenVINO needs no name."""
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 4]) for name in "xy")
    path = onnx_models.save(tmp_path / "m.onnx", nodes, [x], [y])
    with pytest.raises(EngineRefused, match="exactly 2 rows: the file gives a first dimension no name"):
        ENGINES["onnxruntime"].open(path, exactly(2))
    [got] = ENGINES["openvino"].open(path, exactly(2)).run([noise(3, 4)], [0])
    np.testing.assert_array_equal(got, noise(3, 4))


def folding(path: Path) -> Path:
    """x FP32 [N, 4], rows INT64 [N] -> y FP32: x in as many rows as the first of `rows` says."""
    nodes = [
        helper.make_node("Gather", ["rows", "zero"], ["first"]),
        helper.make_node("Concat", ["first", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["y"]),
    ]
    ins = [onnx_models.value("x", TensorProto.FLOAT, ["N", 4]), onnx_models.value("rows", TensorProto.INT64, ["N"])]
    numbers = {name: np.array([number], np.int64) for name, number in (("zero", 0), ("rest", -1))}
    return onnx_models.save(path, nodes, ins, [onnx_models.value("y", TensorProto.FLOAT, ["N", "W"])], numbers)


def test_after_a_fault_the_session_still_has_its_rows(engine: Engine, tmp_path: Path) -> None:
    """A run that fails is told, and the next one answers, in an engine that has to compile again too."""
    session = engine.open(folding(tmp_path / "m.onnx"), exactly(2))
    for _ in range(2):
        with pytest.raises(EngineFault):
            session.run([noise(2, 4), np.array([3, 3])], [0])
        [got] = session.run([noise(2, 4), np.array([2, 2])], [0])
        np.testing.assert_array_equal(got, noise(2, 4))


def test_compiled_models_of_fixed_rows_are_cached_apart(tmp_path: Path) -> None:
    """One cache holds the same file for no, two and three fixed rows, and never mixes them up."""
    path = onnx_models.mlp(tmp_path / "m.onnx")
    for _ in range(2):
        for rows in (0, 2, 3):
            session = ENGINES["openvino"].open(path, exactly(rows, cache_dir=tmp_path / "cache"))
            np.testing.assert_allclose(session.run([noise(5)], [0])[0], onnx_models.mlp_reference(noise(5)), atol=1e-5)
    assert len(list((tmp_path / "cache").rglob("*.blob"))) == 3
