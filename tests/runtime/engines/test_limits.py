"""Threads and imports: an engine takes what it was given, and nothing before it is needed.

Each check runs in a fresh interpreter, where the threads that count are the engine's alone.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from inferd_runtime.engines.discover import open_engines
from tests import onnx_models

COUNT = """
import os, sys, threading, time
from pathlib import Path
import numpy as np
from inferd_runtime.engines import SessionOptions
from inferd_runtime.engines.discover import open_engines

name, path, streams, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
engine = open_engines()[0][name]
session = engine.open(path, SessionOptions(streams=streams, threads=threads, precision="f32"))
x = np.ones((64, 512), np.float32)
session.run([x], [0])
callers = [threading.Thread(target=lambda: [session.run([x], [0]) for _ in range(8)]) for _ in range(streams)]
cpu, wall = time.process_time(), time.monotonic()
for caller in callers: caller.start()
for caller in callers: caller.join()
cores = (time.process_time() - cpu) / (time.monotonic() - wall)
idle = time.process_time()
threading.Event().wait(0.2)
print(cores, time.process_time() - idle)
"""


def fresh(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(("streams", "threads"), [(1, 1), (2, 1), (1, 2)])
def test_no_more_cores_than_given(name: str, streams: int, threads: int, tmp_path: Path) -> None:
    """A busy session uses at most streams x threads cores, and an idle one uses none: nothing spins."""
    path = onnx_models.slow(tmp_path / "m.onnx", layers=16)
    cores, idle_s = map(float, fresh(COUNT, name, str(path), str(streams), str(threads)).split())
    assert cores <= streams * threads + 0.25
    assert idle_s < 0.05


def test_finding_engines_imports_none() -> None:
    """Looking which engines exist loads no library; opening one loads that one only."""
    code = """
import sys
from inferd_runtime.engines.discover import open_engines
engines, missing = open_engines()
assert not {"onnxruntime", "openvino"} & sys.modules.keys()
versions = [engine.version for engine in engines.values()]
assert all(versions)
assert not {"onnxruntime", "openvino"} & sys.modules.keys()
engines["onnxruntime"].devices()
assert "openvino" not in sys.modules
print(sorted(engines), missing)
"""
    assert fresh(code).strip() == "['onnxruntime', 'openvino'] {}"


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_missing_engine_is_a_reason(name: str) -> None:
    """Without the library the other engine is found, and the reason says what to install."""
    code = f"""
import importlib.util, sys
sys.modules[{name!r}] = None
from inferd_runtime.engines.discover import open_engines
engines, missing = open_engines()
print(list(engines), missing)
"""
    out = fresh(code)
    other = {"onnxruntime": "openvino", "openvino": "onnxruntime"}[name]
    assert out.startswith(f"['{other}']")
    assert f"{name} is not installed (pip install 'inferd[cpu]')" in out


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_broken_engine_refuses_with_the_reason(name: str, tmp_path: Path) -> None:
    """A library that fails on import says "cpu" and refuses every model with its own words."""
    broken = tmp_path / name
    broken.mkdir()
    (broken / "__init__.py").write_text("raise OSError('libfoo.so.1: cannot open shared object file')")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from pathlib import Path
from inferd_runtime.engines import SessionOptions
from inferd_runtime.engines.discover import open_engines
from inferd_runtime.errors import EngineRefused
engine = open_engines()[0][{name!r}]
assert engine.devices() == ("cpu",)
try:
    engine.open(Path("m.onnx"), SessionOptions())
except EngineRefused as refusal:
    print(refusal)
"""
    assert fresh(code).strip() == f"{name} cannot be imported: libfoo.so.1: cannot open shared object file"


def test_engines_say_what_they_read() -> None:
    """ONNX for both, IR and TensorFlow Lite for OpenVINO."""
    engines, _ = open_engines()
    reads = {
        name: [s for s in (".onnx", ".xml", ".tflite", ".pt") if e.reads(Path("m" + s))] for name, e in engines.items()
    }
    assert reads == {"onnxruntime": [".onnx"], "openvino": [".onnx", ".xml", ".tflite"]}
