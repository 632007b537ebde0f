"""The bundled demo holds what it promises: size, accuracy, INT8 that both engines compile, tidy drawings."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest

from inferd_agent import demo

VERSION = demo.MODELS / demo.MODEL / "1"
INT8, FP32 = VERSION / "model.int8.onnx", VERSION / "model.fp32.onnx"


def by_onnxruntime(path: Path, images: np.ndarray) -> np.ndarray:
    """Probabilities by ONNX Runtime."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run([demo.OUTPUT], {demo.INPUT: images})[0]


def by_openvino(path: Path, images: np.ndarray) -> np.ndarray:
    """Probabilities by OpenVINO."""
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_NUM_THREADS": 1})
    return compiled({demo.INPUT: images})[demo.OUTPUT]


@pytest.mark.parametrize("run", [by_onnxruntime, by_openvino])
def test_int8_is_accurate_in_both_engines(run) -> None:
    """INT8 names at least 97 % of the held-out digits, within half a point of its float parent."""
    digits = demo.held_out()
    int8 = demo.accuracy(run(INT8, digits.inputs()), digits.labels)
    fp32 = demo.accuracy(run(FP32, digits.inputs()), digits.labels)
    assert int8 >= 0.97
    assert abs(int8 - fp32) <= 0.005


def test_files_are_small() -> None:
    """The models together stay under 200 kB, and INT8 is less than half of its parent."""
    assert INT8.stat().st_size + FP32.stat().st_size < 200_000
    assert INT8.stat().st_size < FP32.stat().st_size / 2


def test_int8_weights_have_a_scale_per_channel() -> None:
    """Every weight is stored as INT8 with one scale a channel, at an opset where that is legal."""
    model = onnx.load(INT8)
    scales = {tensor.name: tensor for tensor in model.graph.initializer}
    weights = [
        scales[node.input[1]].dims
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and re.search(r"weight_quantized$", node.input[0])
    ]
    assert sorted(list(dims) for dims in weights) == [[10], [16], [32]]
    assert model.opset_import[0].version >= 13


def test_held_out_digits_are_what_the_readme_says() -> None:
    """360 digits of 8x8 with values 0..16, every class among them, and inputs of the model's shape."""
    digits = demo.held_out()
    assert digits.images.shape == (360, 8, 8)
    assert digits.images.max() == 16
    assert set(digits.labels.tolist()) == set(range(10))
    assert digits.inputs().shape == (len(digits), 1, 8, 8)
    assert digits.inputs().dtype == np.float32


def test_labels_name_the_ten_classes() -> None:
    """model.toml points at a file of ten labels."""
    folder = demo.MODELS / demo.MODEL
    settings = tomllib.loads((folder / "model.toml").read_text())
    labels = (folder / settings["labels"][demo.OUTPUT]).read_text().splitlines()
    assert labels == [str(digit) for digit in range(10)]


def test_drawings_line_up() -> None:
    """Digits drawn side by side have equal lines, darker where there is more ink, and captions below."""
    image = np.zeros((8, 8), np.uint8)
    image[0, :] = 16
    long = "a caption that is wider"
    lines = demo.side_by_side([image, image, image], ["7", long, "9"]).splitlines()
    assert len(lines) == 9
    assert lines[0].split() == ["█" * 16] * 3
    assert lines[1:8] == [""] * 7
    assert lines[8].index(long) == 16 + 2
    assert lines[0].rindex("█" * 16) == 16 + 2 + len(long) + 2
