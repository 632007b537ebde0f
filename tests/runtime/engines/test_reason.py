"""Library errors become one readable line; compiled models have bounded room on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inferd_runtime.engines import cache
from inferd_runtime.engines.cache import compiled_folder, content_key
from inferd_runtime.engines.reason import MAX_CHARS, reason


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Reshape node. Name:'' Status "
            "Message: /onnxruntime_src/onnxruntime/core/providers/cpu/tensor/reshape_helper.h:91 onnxruntime::"
            "ReshapeHelper::ReshapeHelper(const onnxruntime::TensorShape&, onnxruntime::TensorShapeVector&, bool) "
            "input_shape_size == requested_shape_size was false. Input shape:{4}, requested shape:{2,3}\n",
            "Non-zero status code returned while running Reshape node. Name:'' Status Message: input_shape_size == "
            "requested_shape_size was false. Input shape:{4}, requested shape:{2,3}",
        ),
        (
            "Exception from src/inference/src/cpp/core.cpp:132:\nException from src/inference/src/dev/plugin.cpp:59:\n"
            "Check 'false' failed at src/frontends/common/src/report.cpp:151:\nFrontEnd API failed with "
            "OpConversionFailure:\nModel wasn't fully converted.\nSummary:\n-- No conversion rule found for "
            "operations: com.microsoft.QGemm\n\n",
            "No conversion rule found for operations: com.microsoft.QGemm",
        ),
        ("\x1b[31mred\x1b[0m", "red"),
        ("", "ValueError"),
    ],
)
def test_reasons_are_readable(text: str, expected: str) -> None:
    """Traces, source paths and colours go, what happened stays."""
    assert reason(ValueError(text)) == expected


def test_reasons_are_bounded_and_hide_the_folder() -> None:
    """A line is cut at its bound, also one built to be slow; the model is called by its file name."""
    assert len(reason(ValueError("x" * 100_000))) <= MAX_CHARS
    assert len(reason(ValueError("/onnxruntime.h:1 " + "a(" * 50_000))) <= MAX_CHARS
    path = Path("/var/secret/place/m.onnx")
    assert reason(ValueError(f"Load model from {path} failed, see {path.parent}"), path) == (
        "Load model from m.onnx failed, see ."
    )


def test_the_key_follows_every_file(tmp_path: Path) -> None:
    """Another byte in the model or its .bin, or another file beside it, is another key."""
    model = tmp_path / "m.xml"
    seen = set()
    for name, content in (("m.xml", "a"), ("m.xml", "b"), ("m.bin", "a"), ("m.bin", "b"), ("weights", "a")):
        (tmp_path / name).write_text(content)
        os.utime(tmp_path / name, ns=(1, 1))
        seen.add(content_key(model))
    assert len(seen) == 5


def test_old_folders_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the folders used last are kept, and the one asked for is among them."""
    monkeypatch.setattr(cache, "MAX_FOLDERS", 2)
    (tmp_path / "model").mkdir()
    folders = []
    for content in "abc":
        (tmp_path / "model" / "m.onnx").write_text(content)
        folder = compiled_folder(tmp_path / "cache", "openvino", tmp_path / "model" / "m.onnx")
        assert folder is not None
        folders.append(folder)
    assert [folder.exists() for folder in folders] == [False, True, True]
