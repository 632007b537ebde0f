"""INT8 versions of the OCR models, made by inferd's own quantisation room from pages of text that are drawn here.

Every page that calibrates differs in words, sizes and colours from the page that the tests read. The layers named in
`KEEP_FLOAT` are few, small and early; a scan of one layer at a time showed that they cost the most accuracy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

from inferd_runtime.quantisation import Report, quantise
from tests import ocr

Array = np.ndarray[Any, Any]

DETECTOR, RECOGNISER, CLASSIFIER = "ppocr-detector", "ppocr-recogniser", "ppocr-classifier"
CLASSIFIER_WIDTH = 192
KEEP_FLOAT = {
    DETECTOR: ("depthwise_conv2d_0.tmp_0", "conv2d_451.tmp_0"),
    RECOGNISER: ("depthwise_conv2d_12.tmp_0", "conv2d_186.tmp_0", "batch_norm_2.tmp_2"),
    CLASSIFIER: (),
}
CALIBRATION_TEXTS = (
    (
        "A sentence with many different letters: quick brown foxes",
        "jump over 13 lazy dogs, and pack my box with five dozen",
        "liquor jugs; SPHINX OF BLACK QUARTZ, JUDGE MY VOW!",
    ),
    (
        "Weights are kept as signed bytes, one scale a channel.",
        "Total 24.90 (VAT 19 %) paid by card no. 5678-1234.",
        "Measured, not guessed: 3 rounds each, median taken.",
    ),
    (
        "The river was low that summer, and the boats lay on",
        "the mud like fish. We walked out to them at noon.",
        "Dear Mr. Knox, your parcel #88-Z/41 is ready.",
    ),
)
STYLES = ((18, "black", "white"), (24, "#333", "#eee"), (30, "navy", "ivory"), (36, "white", "#204020"))


def runner(path: Path) -> ocr.Run:
    """A model of one input and one output, run directly by ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (name,) = (value.name for value in session.get_inputs())
    return lambda array: session.run(None, {name: array})[0]


def characters(path: Path) -> list[str]:
    """The recogniser's classes, from the metadata in its file."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return ocr.characters_from(session.get_modelmeta().custom_metadata_map)


def calibration_pages() -> list[Image.Image]:
    """Every text in two of the styles."""
    turns = [
        (text, STYLES[(index + turn) % len(STYLES)]) for index, text in enumerate(CALIBRATION_TEXTS) for turn in (0, 2)
    ]
    return [ocr.draw_page(text, size, ink, paper) for text, (size, ink, paper) in turns]


def calibration_inputs(detector: Path) -> dict[str, list[Mapping[str, Array]]]:
    """Inputs for each model; lines are cut from the pages where the float detector finds them."""
    pages, run = calibration_pages(), runner(detector)
    lines = [ocr.crop(page, box) for page in pages for box in ocr.find_boxes(page, run)]
    turned = [line.transpose(Image.Transpose.ROTATE_180) if row % 2 else line for row, line in enumerate(lines)]
    return {
        DETECTOR: [{"x": ocr.page_input(page)} for page in pages],
        RECOGNISER: [{"x": ocr.line_input(line)} for line in lines],
        CLASSIFIER: [{"x": ocr.line_input(line, CLASSIFIER_WIDTH)} for line in turned],
    }


def make_int8(models: Path) -> dict[str, Report]:
    """Write `model.int8.onnx` beside the `model.onnx` of each OCR model."""
    files = {name: models / name / "1" / "model.onnx" for name in KEEP_FLOAT}
    inputs = calibration_inputs(files[DETECTOR])
    return {name: one(path, inputs[name], KEEP_FLOAT[name]) for name, path in files.items()}


def one(path: Path, samples: Iterable[Mapping[str, Array]], keep_float: tuple[str, ...]) -> Report:
    """One INT8 version."""
    return quantise(path, path.with_name("model.int8.onnx"), samples, keep_float=keep_float)
