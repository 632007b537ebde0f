"""Which candidates there are on a machine that is only told of, and in what order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inferd_runtime.engines import Engine
from inferd_runtime.errors import InvalidModel
from inferd_runtime.planning import Ground, Wishes
from inferd_runtime.planning.candidates import list_candidates
from inferd_runtime.planning.evidence import Candidate, Trial, build_of
from inferd_runtime.planning.kind import Kind
from inferd_runtime.spec import ModelSpec
from inferd_runtime.tensor import TensorSpec
from tests.runtime.planning.told import ToldEngine, told

ONE = {"": Path("m.onnx")}
TWO = {"": Path("m.onnx"), "int8": Path("m.int8.onnx")}
IMAGE = TensorSpec("x", np.dtype(np.float32), (-1, 3, 32, 32))
BATCHED = ModelSpec((IMAGE,), (IMAGE,), 64)
SINGLE = ModelSpec((replace(IMAGE, shape=(3, 32, 32)),), (IMAGE,), 0)
FREE = ModelSpec((replace(IMAGE, shape=(-1, 3, -1, -1)),), (IMAGE,), 64)


def join(
    ground: Ground, spec: ModelSpec = BATCHED, *, files: dict[str, Path] = ONE, kind: Kind = "conv", **wishes: object
) -> tuple[list[Candidate], list[Trial]]:
    """The candidates and the vetoes for one model of 10 MB."""
    return list_candidates(ground, files, Wishes(**wishes), spec=spec, kind=kind, file_bytes=10 << 20)  # type: ignore[arg-type]


def texts(ground: Ground, spec: ModelSpec = BATCHED, **wishes: object) -> list[str]:
    return [str(candidate) for candidate in join(ground, spec, **wishes)[0]]


def test_one_of_every_build_comes_first() -> None:
    """A search that ends early has seen every engine with every file, and special precisions last of them."""
    listed = texts(told(4), files=TWO)
    assert listed[:6] == [
        "openvino cpu int8 4x1",
        "openvino cpu 4x1",
        "onnxruntime cpu int8 4x1",
        "onnxruntime cpu 4x1",
        "openvino cpu int8 f32 4x1",
        "openvino cpu f32 4x1",
    ]
    assert len(set(listed)) == len(listed)


@pytest.mark.parametrize(("kind", "first"), [("rnn", "onnxruntime"), ("mlp", "onnxruntime"), ("conv", "openvino")])
def test_the_kind_says_which_engine_is_first(kind: Kind, first: str) -> None:
    """Recurrent and small models begin with ONNX Runtime."""
    assert join(told(2), kind=kind)[0][0].engine == first


@pytest.mark.parametrize(
    ("cores", "shapes"),
    [
        (1, {"1x1"}),
        (2, {"2x1", "1x2"}),
        (6, {"6x1", "3x2", "1x4", "1x6"}),
        (16, {"16x1", "8x2", "4x4", "2x8", "1x16"}),
    ],
)
def test_shapes_use_all_cores(cores: int, shapes: set[str]) -> None:
    """Streams times threads fill the cores and never exceed them, from one thread a stream to all in one."""
    found = [c for c in join(told(cores))[0] if not c.inline]
    assert {f"{c.streams}x{c.threads}" for c in found} == shapes
    assert all(c.streams * c.threads <= cores for c in found)


def test_latency_begins_with_all_cores_in_one_stream() -> None:
    """But for a small model, whose run is too short to share."""
    assert texts(told(8), objective="latency")[0] == "openvino cpu 1x8"
    assert texts(replace(told(8), objective="latency"))[0] == "openvino cpu 1x8"
    assert texts(told(8), objective="latency", kind="mlp")[0] == "onnxruntime cpu 8x1"


def test_fixed_rows() -> None:
    """Sizes are fixed up to the largest batch, and where there is a batch at all."""

    def rows(spec: ModelSpec = BATCHED, **wishes: object) -> set[int]:
        return {c.rows for c in join(told(2), spec, **wishes)[0]}

    assert rows() == {0, 1, 4, 16}
    assert rows(batch=6) == {0, 1, 4, 6}
    assert rows(replace(BATCHED, max_batch=2)) == {0, 1, 2}
    assert rows(SINGLE) == {0}


def test_inline() -> None:
    """One stream of one thread on the submitting thread, unless that is off, or nobody knows how long it would take."""
    assert "openvino cpu 1x1 inline" in texts(told(4))
    for never in (
        texts(replace(told(4), inline="off")),
        texts(replace(told(4), inline="off"), inline="on"),
        texts(told(4), inline="off"),
        texts(told(4), FREE),
        texts(told(4), streams=2),
        texts(told(4), isolation="process"),
    ):
        assert never
        assert not any("inline" in text for text in never)
    assert texts(told(4), inline="on", engine="onnxruntime") == [
        "onnxruntime cpu 1x1 inline", "onnxruntime cpu 1x4 inline", "onnxruntime cpu 1x2 inline",
    ]  # fmt: skip


def test_settings_leave_what_they_ask_for() -> None:
    """Variant, engine, precision, streams and threads bind; what is left is still tried."""
    assert {c.variant for c in join(told(4), files=TWO, variant="int8")[0]} == {"int8"}
    assert {c.engine for c in join(told(4), engine="onnxruntime")[0]} == {"onnxruntime"}
    assert {c.engine for c in join(replace(told(4), engine="openvino"))[0]} == {"openvino"}
    assert {c.precision for c in join(told(4), precision="bf16")[0]} == {"bf16"}
    assert {(c.streams, c.threads) for c in join(told(4), streams=2, inline="off")[0]} == {(2, 1), (2, 2)}
    assert {(c.streams, c.threads) for c in join(told(4), threads=2, inline="off")[0]} == {(2, 2)}
    assert {(c.streams, c.threads) for c in join(told(4), streams=3, threads=5)[0]} == {(3, 5)}
    with pytest.raises(InvalidModel, match="variant 'int4' is asked for, but there is only '' "):
        join(told(4), variant="int4")


def test_what_cannot_be_tried_is_vetoed_with_a_reason() -> None:
    """A missing engine, a format, a device that is not there; none of them is listed."""
    engines: dict[str, Engine] = {"onnxruntime": ToldEngine("onnxruntime")}
    listed, vetoed = join(Ground(engines, 2, {"openvino": "openvino is not installed"}))
    assert {c.engine for c in listed} == {"onnxruntime"}
    assert [(str(t.candidate), t.outcome, t.reason) for t in vetoed] == [
        ("openvino cpu 2x1", "vetoed", "openvino is not installed")
    ]
    listed, vetoed = join(told(2), device="npu")
    assert listed == []
    assert [t.reason for t in vetoed] == [
        "the installed openvino 1.0 has only cpu", "the installed onnxruntime 1.0 has only cpu",
    ]  # fmt: skip
    listed, vetoed = join(told(2), files={"": Path("m.xml")})
    assert {c.engine for c in listed} == {"openvino"}
    assert [t.reason for t in vetoed] == ["onnxruntime does not read .xml files"]


def test_gpus() -> None:
    """The first NVIDIA GPU leads, TensorRT is last of the builds; a GPU that may not be opened is a veto."""
    nvidia = ToldEngine("onnxruntime", ("cpu", "cuda:0", "cuda:1", "tensorrt:0", "tensorrt:1"))
    intel = ToldEngine("openvino", ("cpu", "gpu"), ("f32",))
    ground = Ground({"onnxruntime": nvidia, "openvino": intel}, 2, has_cuda_gpu=True)
    listed = join(ground)[0]
    builds = list(dict.fromkeys(map(build_of, listed)))
    assert [build[:2] for build in builds[:5]] == [
        ("onnxruntime", "cuda:0"), ("openvino", "gpu"), ("openvino", "cpu"), ("onnxruntime", "cpu"),
        ("onnxruntime", "tensorrt:0"),
    ]  # fmt: skip
    assert {(c.streams, c.threads) for c in listed if c.device == "cuda:0"} == {(2, 1), (1, 1), (4, 1)}
    assert not any(c.inline for c in listed if c.device != "cpu")
    listed, vetoed = join(replace(ground, cuda_refusal="/dev/nvidia0 may not be opened"))
    assert not any(c.device.startswith(("cuda", "tensorrt")) for c in listed)
    assert {t.reason for t in vetoed} == {"/dev/nvidia0 may not be opened"}
