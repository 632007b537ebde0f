"""The engines report to nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import onnx_models

SCRIPT = """
import sys
from pathlib import Path
from inferd_runtime.engines import SessionOptions
from inferd_runtime.engines.discover import open_engines

engines, _ = open_engines()
engines[sys.argv[1]].open(Path(sys.argv[2]), SessionOptions())
"""


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_opening_a_model_leaves_no_telemetry(tmp_path: Path, engine: str) -> None:
    """Neither ONNX Runtime's session file nor OpenVINO's client id appears, whatever the caller's environment says."""
    model = onnx_models.mlp(tmp_path / "model.onnx")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    env = {**os.environ, "TMPDIR": str(temporary), "HOME": str(temporary), "ORT_DISABLE_TELEMETRY": "0"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, engine, str(model)],
        capture_output=True,
        text=True,
        timeout=50,
        env=env,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(temporary.rglob("*")) == []
