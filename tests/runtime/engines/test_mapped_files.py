"""A model file that changes under a serving session must not take the daemon with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import openvino
import pytest
from onnx import TensorProto, helper

from tests import onnx_models

ROWS = 1 << 18
SCRIPT = f"""
import os, sys
import numpy as np
from pathlib import Path
from inferd_runtime.engines import SessionOptions
from inferd_runtime.engines.discover import open_engines

engines, _ = open_engines()
session = engines["openvino"].open(Path(sys.argv[1]), SessionOptions(rows=int(sys.argv[3])))
os.truncate(sys.argv[2], 0)
[rows] = session.run([np.array([0, {ROWS - 1}], np.int64)], [0])
assert rows.ravel().tolist() == [0, 1, {2 * ROWS - 2}, {2 * ROWS - 1}], rows
"""


@pytest.mark.parametrize("rows", [0, 2])
def test_weights_truncated_while_serving(rows: int, tmp_path: Path) -> None:
    """A look-up table whose file is cut to nothing still gives right answers: weights are read, not mapped."""
    table = np.arange(2 * ROWS, dtype=np.float32).reshape(ROWS, 2)
    look_up = helper.make_node("Gather", ["table", "index"], ["y"], axis=0)
    index, y = (
        onnx_models.value("index", TensorProto.INT64, ["N"]),
        onnx_models.value("y", TensorProto.FLOAT, ["N", 2]),
    )
    onnx = onnx_models.save(tmp_path / "model.onnx", [look_up], [index], [y], {"table": table})
    openvino.save_model(openvino.convert_model(onnx), tmp_path / "model.xml", compress_to_fp16=False)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "model.xml"), str(tmp_path / "model.bin"), str(rows)],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.returncode, done.stderr)
